//! Directories for PATH: all programs of the machine without some, or with others in front.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{directory, write_program};

/// A directory with a link to each program in PATH except `missing`.
pub fn path_without(name: &str, missing: &[&str]) -> PathBuf {
    let place = directory(name);
    let mut programs: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            programs.entry(entry.file_name()).or_insert(entry.path());
        }
    }
    for (program, path) in programs {
        if !missing.iter().any(|name| *name == program) {
            fs_err::os::unix::fs::symlink(path, place.join(program)).unwrap();
        }
    }
    place
}

/// PATH with `directory` in front.
pub fn path_with(directory: &Path) -> OsString {
    let mut path = directory.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    path
}

/// A directory with a script of this name that prints `version` for `--version`, and is the
/// machine's program of that name for anything else.
pub fn stand_in(name: &str, program: &str, version: &str) -> PathBuf {
    let place = directory(name);
    let real = real_program(program);
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = --version ] && {{ echo '{version}'; exit; }}\nexec {} \"$@\"\n",
        real.display()
    );
    write_program(&place.join(program), &script);
    place
}

/// The file that a program's name in PATH leads to.
pub fn real_program(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("{program} is not in PATH"))
}

/// A directory with the tools of LLVM 22 under their names without a suffix, as `LLVM=1` calls them.
pub fn without_suffix(name: &str) -> PathBuf {
    let place = directory(name);
    for program in [
        "clang",
        "clang++",
        "ld.lld",
        "llvm-ar",
        "llvm-nm",
        "llvm-objcopy",
        "llvm-objdump",
        "llvm-readelf",
        "llvm-strip",
    ] {
        let real = real_program(&format!("{program}-22"));
        fs_err::os::unix::fs::symlink(real, place.join(program)).unwrap();
    }
    place
}
