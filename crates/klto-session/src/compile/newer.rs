//! What make goes by when it asks for a compile again: the files that are newer than the object.
//!
//! In: an object before its compile, and kbuild's record beside it. Out: a text for the log; nothing depends on it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use klto_core::normalize;

use crate::archives::record_beside;
use crate::old_time::is_old;

/// Why make asks for `object` again, which is there and whose command is the same.
pub(super) fn why_again(object: &Path, directory: &Path, source: &Path) -> String {
    let modified = fs_err::metadata(object).and_then(|metadata| metadata.modified());
    if modified.is_ok_and(is_old) {
        return "it was made old".to_owned();
    }
    match newer_than(object, directory, source)
        .unwrap_or_default()
        .as_slice()
    {
        [] => "something that it reads has changed".to_owned(),
        [one] => format!("{} is newer", one.display()),
        [one, more @ ..] => format!("{} and {} more are newer", one.display(), more.len()),
    }
}

/// The files that were read for `object` and are newer, as its record names them from `directory`; what is below
/// `source` without that.
///
/// # Errors
///
/// The object or its record cannot be read.
fn newer_than(object: &Path, directory: &Path, source: &Path) -> io::Result<Vec<PathBuf>> {
    let made = fs_err::metadata(object)?.modified()?;
    let record = fs_err::read(record_beside(object))?;
    let is_newer = |path: &&[u8]| {
        let metadata = std::fs::metadata(directory.join(OsStr::from_bytes(path)));
        let modified = metadata.and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified > made)
    };
    let newer = record
        .split(|byte| *byte == b'\n')
        .filter_map(listed)
        .filter(is_newer);
    let shown = newer.map(|path| {
        let path = normalize(Path::new(OsStr::from_bytes(path)));
        match normalize(&directory.join(&path)).strip_prefix(source) {
            Ok(place) => place.to_owned(),
            Err(_) => path,
        }
    });
    Ok(shown.collect())
}

/// The file that a line of a record names: the source, or one of the list of dependencies
/// (scripts/basic/fixdep.c).
fn listed(line: &[u8]) -> Option<&[u8]> {
    let path = match line.strip_prefix(b"source_") {
        Some(rest) => rest.get(memchr::memmem::find(rest, b" := ")? + 4..)?,
        None => line.strip_prefix(b" ")?.trim_ascii().strip_suffix(b"\\")?,
    };
    let path = path.trim_ascii();
    let option = path.strip_prefix(b"$(wildcard ");
    let path = option.map_or(Some(path), |path| path.strip_suffix(b")"))?;
    (!path.is_empty() && !path.contains(&b' ')).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn newer_files_of_a_record_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let (source, output) = (
            directory.path().join("source"),
            directory.path().join("out"),
        );
        let record = format!(
            "savedcmd_a.o := clang -c -o a.o {0}/fs/a.c\n\nsource_a.o := {0}/fs/a.c\n\ndeps_a.o := \\\n  \
             $(wildcard include/config/SMP) \\\n  {0}/fs/old.h \\\n  include/made.h \\\n\na.o: $(deps_a.o)\n",
            source.display()
        );
        let now = SystemTime::now();
        let write = |path: PathBuf, text: &str, age: u64| {
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
            let opened = fs_err::File::options().write(true).open(&path).unwrap();
            let time = now - Duration::from_secs(age);
            opened.file().set_modified(time).unwrap();
        };
        write(output.join("a.o"), "", 10);
        write(output.join(".a.o.cmd"), &record, 10);
        write(source.join("fs/a.c"), "", 5);
        write(source.join("fs/old.h"), "", 20);
        write(output.join("include/config/SMP"), "", 5);
        write(output.join("include/made.h"), "", 20);
        let newer = newer_than(&output.join("a.o"), &output, &source).unwrap();
        assert_eq!(newer, ["fs/a.c", "include/config/SMP"].map(PathBuf::from));
        crate::old_time::make_old(&output.join("a.o")).unwrap();
        let why = why_again(&output.join("a.o"), &output, &source);
        assert_eq!(why, "it was made old");
    }
}
