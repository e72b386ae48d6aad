//! The state file that lies beside a library, so that each copy of it can have a machine of its own.

use std::fs;
use std::path::PathBuf;

/// `LIBRARY.gpu`, if there is such a file, where LIBRARY is the file that the code at this address was loaded from.
pub fn state_file_beside(code: usize) -> Option<PathBuf> {
    let mut name = file_of(code)?.into_os_string();
    name.push(".gpu");
    Some(PathBuf::from(name)).filter(|path| path.is_file())
}

/// The file of the mapping that an address lies in (proc_pid_maps(5)).
pub fn file_of(code: usize) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps
        .lines()
        .find(|line| range(line).is_some_and(|range| range.contains(&code)))?;
    // Five fields, then the path, which may contain spaces.
    let path = line.get(line.find('/')?..)?;
    Some(PathBuf::from(path))
}

fn range(line: &str) -> Option<std::ops::Range<usize>> {
    let (from, to) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_code_lies_in_the_file_of_this_test() {
        let here = file_of as fn(usize) -> Option<PathBuf> as usize;
        assert_eq!(file_of(here), std::env::current_exe().ok());
        assert_eq!(state_file_beside(here), None);
        assert_eq!(file_of(1), None);
    }
}
