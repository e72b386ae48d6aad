//! Where a CUPTI library may lie.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The names under which releases are found, the newest first.
pub(crate) const NAMES: [&str; 4] = [
    "libcupti.so.13",
    "libcupti.so.12",
    "libcupti.so.11.8",
    "libcupti.so",
];

/// Why a place is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The process has it already. Never a second copy: two of them disturb each other.
    Loaded,
    /// The user named it.
    Named,
    /// Beside the CUDA runtime that the process has.
    BesideRuntime,
    /// In the toolkit that the environment names, or in its usual folder.
    Toolkit,
    /// In a pip package beside those that the process has loaded libraries of.
    Wheel,
    /// Wherever the dynamic linker looks.
    Linker,
}

/// A file that may be a CUPTI library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Why here.
    pub place: Place,
    /// What to hand to the linker.
    pub path: PathBuf,
}

/// All candidates, the best first. `named` is the user's choice: nothing but a copy that is loaded already comes before
/// it, and nothing after it. `maps` is the text of `/proc/self/maps`, `variable` reads the environment, `exists` tells
/// whether there is such a file.
#[must_use]
pub fn candidates(
    named: Option<&Path>,
    maps: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<Candidate> {
    let files = mapped_files(maps);
    let mut found = Vec::new();
    let loaded = files.iter().filter(|file| is_named(file, "libcupti.so"));
    found.extend(loaded.map(|file| candidate(Place::Loaded, file)));
    if let Some(named) = named {
        found.push(candidate(Place::Named, named));
        return found;
    }
    let mut folder = |place, folder: &Path| {
        let files = NAMES.iter().map(|name| folder.join(name));
        found.extend(
            files
                .filter(|file| exists(file))
                .map(|path| Candidate { place, path }),
        );
    };
    for runtime in files.iter().filter(|file| is_named(file, "libcudart.so")) {
        let beside = runtime.parent().unwrap_or(Path::new("/"));
        folder(Place::BesideRuntime, beside);
        folder(Place::BesideRuntime, &beside.join("../extras/CUPTI/lib64"));
    }
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = variable(name).filter(|home| !home.is_empty()) {
            folder(Place::Toolkit, &Path::new(&home).join("extras/CUPTI/lib64"));
        }
    }
    folder(Place::Toolkit, Path::new("/usr/local/cuda/extras/CUPTI/lib64"));
    for packages in package_folders(&files) {
        folder(Place::Wheel, &packages.join("nvidia/cu13/lib"));
        folder(Place::Wheel, &packages.join("nvidia/cuda_cupti/lib"));
    }
    found.extend(NAMES.iter().map(|name| candidate(Place::Linker, Path::new(name))));
    let mut seen = Vec::new();
    found.retain(|candidate| {
        let new = !seen.contains(&candidate.path);
        seen.push(candidate.path.clone());
        new
    });
    found
}

fn candidate(place: Place, path: &Path) -> Candidate {
    Candidate {
        place,
        path: path.to_owned(),
    }
}

/// The files that are mapped, each once, in order. A file that is deleted cannot be opened by its name.
fn mapped_files(maps: &str) -> Vec<&Path> {
    let mut files: Vec<&Path> = Vec::new();
    for line in maps.lines() {
        let Some(path) = line.find('/').map(|at| &line[at..]) else {
            continue;
        };
        // A file's segments follow each other.
        if !path.ends_with(" (deleted)") && files.last() != Some(&Path::new(path)) {
            files.push(Path::new(path));
        }
    }
    files
}

fn is_named(file: &Path, beginning: &str) -> bool {
    file.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(beginning.as_bytes()))
}

/// The folders of Python packages that the process has loaded libraries of.
fn package_folders(files: &[&Path]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for file in files {
        let packages = file.ancestors().find(|folder| {
            folder
                .file_name()
                .is_some_and(|name| name == "site-packages" || name == "dist-packages")
        });
        if let Some(packages) = packages
            && !folders.iter().any(|folder| folder == packages)
        {
            folders.push(packages.to_owned());
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0-55d1 r-xp 00000000 08:01 1 /usr/bin/python3.12
7f00-7f01 r--p 00000000 08:01 2 /venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so
7f01-7f02 r-xp 00001000 08:01 2 /venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so
7f02-7f03 r--p 00000000 08:01 3 /venv/lib/python3.12/site-packages/nvidia/cuda_runtime/lib/libcudart.so.12
7f03-7f04 r--p 00000000 08:01 4 /opt/old/libcupti.so.12 (deleted)
7f04-7f05 rw-p 00000000 00:00 0
";

    fn listed(named: Option<&str>, maps: &str, home: Option<&str>, files: &[&str]) -> Vec<(Place, String)> {
        let variable = |name: &str| home.filter(|_| name == "CUDA_HOME").map(OsString::from);
        candidates(named.map(Path::new), maps, variable, |file| {
            files.iter().any(|known| Path::new(known) == file)
        })
        .into_iter()
        .map(|candidate| (candidate.place, candidate.path.display().to_string()))
        .collect()
    }

    #[test]
    fn a_loaded_copy_comes_first_and_nothing_comes_after_a_named_one() {
        let loaded = "7f-80 r-xp 0 08:01 9 /opt/my cuda/libcupti.so.2025.3.1\n";
        assert_eq!(
            listed(Some("/x/libcupti.so"), loaded, Some("/cuda"), &[]),
            [
                (Place::Loaded, "/opt/my cuda/libcupti.so.2025.3.1".to_owned()),
                (Place::Named, "/x/libcupti.so".to_owned()),
            ]
        );
    }

    #[test]
    fn then_the_runtimes_folder_the_toolkit_the_wheels_and_the_linker() {
        let wheel = "/venv/lib/python3.12/site-packages/nvidia/cuda_cupti/lib/libcupti.so.12";
        let beside = "/venv/lib/python3.12/site-packages/nvidia/cuda_runtime/lib/libcupti.so.12";
        let toolkit = "/cuda/extras/CUPTI/lib64/libcupti.so";
        let found = listed(None, MAPS, Some("/cuda"), &[wheel, beside, toolkit]);
        assert_eq!(
            found[..3],
            [
                (Place::BesideRuntime, beside.to_owned()),
                (Place::Toolkit, toolkit.to_owned()),
                (Place::Wheel, wheel.to_owned()),
            ]
        );
        assert!(found[3..].iter().all(|(place, _)| *place == Place::Linker));
        assert_eq!(found.len(), 3 + NAMES.len());
    }

    #[test]
    fn an_empty_process_leaves_the_linker() {
        assert!(
            listed(None, "", None, &[])
                .iter()
                .all(|(place, _)| *place == Place::Linker)
        );
    }
}
