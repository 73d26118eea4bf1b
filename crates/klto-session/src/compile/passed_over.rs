//! Headers that a compile passes over: where it looked before it found one, or asked for one.
//!
//! In: what a compile read, and where headers are searched. Out: what there is in other places. A compile reads
//! another file once something is there that was not, or is not that was.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use klto_core::normalize;
use klto_store::DirectoryMemo;

use super::stored::InputFile;

/// Files that exist where a header of `files` was looked for before it was found, or for which one of them
/// asks; without `files` themselves. `searched` are absolute, in the order of the search.
pub(super) fn passed_over(
    files: &[InputFile],
    searched: &[PathBuf],
    directories: &DirectoryMemo,
) -> BTreeSet<PathBuf> {
    let read: HashSet<&OsStr> = files.iter().map(|file| file.path.as_os_str()).collect();
    let mut moment = directories.moment();
    let mut found = BTreeSet::new();
    let mut look = |directory: &Path, below: &Path| {
        if moment.exists(directory, below) {
            let path = directory.join(below);
            if !read.contains(path.as_os_str()) {
                found.insert(path);
            }
        }
    };
    for file in files {
        for (place, found_in) in searched.iter().enumerate() {
            let Some(name) = below(&file.path, found_in) else {
                continue;
            };
            for directory in searched.iter().take(place) {
                look(directory, name);
            }
        }
        let beside = file.path.parent().unwrap_or(&file.path);
        let (quoted, asked) = (&file.source.quoted_includes, &file.source.asked_headers);
        for name in quoted.iter().chain(asked) {
            let path = normalize(&beside.join(name));
            if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
                look(directory, Path::new(name));
            }
        }
        for directory in searched {
            for name in asked {
                let path = normalize(&directory.join(name));
                if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
                    look(directory, Path::new(name));
                }
            }
        }
        if file.source.computes_includes {
            for path in ends_found_in(beside, &read) {
                look(beside, &path);
            }
        }
    }
    found
}

/// What of a path, which has no `.` or `..`, is below a directory.
fn below<'a>(path: &'a Path, directory: &Path) -> Option<&'a Path> {
    let rest = path.as_os_str().as_bytes();
    let rest = rest.strip_prefix(directory.as_os_str().as_bytes())?;
    let rest = match directory == Path::new("/") {
        true => rest,
        false => rest.strip_prefix(b"/")?,
    };
    (!rest.is_empty()).then(|| Path::new(OsStr::from_bytes(rest)))
}

/// What an include with a computed name could find in `directory` first: every end of a path that was read,
/// where it begins with a name in `directory`.
fn ends_found_in(directory: &Path, read: &HashSet<&OsStr>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names: BTreeSet<OsString> = entries.map(|entry| entry.file_name()).collect();
    let mut found = Vec::new();
    for path in read {
        let parts: Vec<Component<'_>> = Path::new(path).components().collect();
        for (place, part) in parts.iter().enumerate() {
            if names.contains(part.as_os_str()) {
                found.push(parts.iter().skip(place).collect());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_below_the_directory_in_which_it_was_found() {
        let of = |path, directory| below(Path::new(path), Path::new(directory));
        assert_eq!(
            of("/s/include/a/b.h", "/s/include"),
            Some(Path::new("a/b.h"))
        );
        assert_eq!(of("/s/include2/b.h", "/s/include"), None);
        assert_eq!(of("/s/include", "/s/include"), None);
        assert_eq!(of("/s/b.h", "/"), Some(Path::new("s/b.h")));
    }

    #[test]
    fn ends_of_paths_are_looked_for_beside_a_computed_include() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        fs_err::create_dir(place.join("events")).unwrap();
        fs_err::write(place.join("trace.h"), "").unwrap();
        let read = ["/s/drv/trace.h", "/s/x/events/y.h", "/s/z.h"].map(OsStr::new);
        let found = ends_found_in(place, &HashSet::from(read));
        let wanted = ["trace.h", "events/y.h"].map(PathBuf::from);
        assert_eq!(BTreeSet::from_iter(found), BTreeSet::from(wanted));
    }
}
