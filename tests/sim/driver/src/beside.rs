//! The state file that lies beside this library, so that each copy of it can have a machine of its own.

use std::fs;
use std::path::PathBuf;

/// `<this library's file>.gpu`, if there is such a file.
pub(crate) fn state_file() -> Option<PathBuf> {
    let mut name = own_file()?.into_os_string();
    name.push(".gpu");
    Some(PathBuf::from(name)).filter(|path| path.is_file())
}

/// The file that this code was loaded from: the mapping that this very function lies in (proc_pid_maps(5)).
fn own_file() -> Option<PathBuf> {
    let here = state_file as fn() -> Option<PathBuf> as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps
        .lines()
        .find(|line| range(line).is_some_and(|range| range.contains(&here)))?;
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
        assert_eq!(own_file(), std::env::current_exe().ok());
        assert_eq!(state_file(), None);
    }
}
