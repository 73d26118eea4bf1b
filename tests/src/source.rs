//! A source tree that a test may edit: a copy that is kept, and put back before the next test has it.
//!
//! Its files are files of their own: a copy of hard links would change the stats of all others, and builds
//! beside it would rightly find their source changed.

use std::fs::Metadata;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use xtask::kernel::Tree;
use xtask::{command, sources};

use crate::place::{cache, lock, remove, test_directory};

/// A copy of a tree's source, for one test at a time.
#[derive(Debug)]
pub struct PrivateSource {
    path: PathBuf,
    _lock: std::fs::File,
}

impl PrivateSource {
    /// The copy at the one path for which [`crate::prepared_for`] has an output tree.
    pub fn prepared(tree: &Tree) -> Result<Self> {
        Self::of(tree, &format!("prepared-{}", tree.name))
    }

    /// The source of `tree` in `builds/test-source-NAME` of the cache, as it was fetched, once nobody else
    /// has that copy.
    pub fn of(tree: &Tree, name: &str) -> Result<Self> {
        let source = sources::fetch(cache(), tree)?;
        let path = test_directory(&format!("source-{name}"))?;
        let lock = lock(&path)?;
        put_back(&source, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The copy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces `from` by `to` in `file`, a path in the tree. Returns the file's text before, for
    /// [`Self::write`]. Fails unless `from` stands there once.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<String> {
        let before = fs::read_to_string(self.path.join(file))?;
        let count = before.matches(from).count();
        ensure!(count == 1, "{from:?} stands {count} times in {file}");
        self.write(file, &before.replace(from, to))?;
        Ok(before)
    }

    /// Puts a file of this text in the place of `file`.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        let directory = path.parent().unwrap_or(&self.path);
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(text.as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temporary.as_file().set_permissions(mode)?;
        temporary.persist(&path)?;
        Ok(())
    }
}

/// Makes `copy` what `source` is: whole, or what has changed in it since that was done the last time.
fn put_back(source: &Path, copy: &Path) -> Result<()> {
    let stamp = PathBuf::from(format!("{}.complete", copy.display()));
    let of = source.to_string_lossy();
    let known = fs::read_to_string(&stamp).is_ok_and(|known| known == of);
    let begun = fs::metadata(&stamp).ok().filter(|_| known);
    // Whatever stops this leaves a copy of which nothing is known.
    let _ = fs::remove_file(&stamp);
    match begun {
        Some(begun) => put_back_below(source, copy, &begun)?,
        None => {
            remove(copy)?;
            copy_with_times(source, copy)?;
        }
    }
    Ok(fs::write(&stamp, of.as_bytes())?)
}

/// Puts back all below a directory that is another than in `source`, or was changed after `last` was.
fn put_back_below(source: &Path, copy: &Path, last: &Metadata) -> Result<()> {
    for entry in fs::read_dir(copy)? {
        let path = entry?.path();
        let name = path.file_name().context("an entry without a name")?;
        if fs::symlink_metadata(source.join(name)).is_err() {
            remove_any(&path)?;
        }
    }
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let path = copy.join(entry.file_name());
        let is_directory = entry.file_type()?.is_dir();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() && is_directory => {
                put_back_below(&entry.path(), &path, last)?;
            }
            Ok(metadata) if !is_directory && is_as_before(&metadata, &entry.metadata()?, last) => {}
            metadata => {
                if metadata.is_ok() {
                    remove_any(&path)?;
                }
                copy_with_times(&entry.path(), &path)?;
            }
        }
    }
    Ok(())
}

/// Whether a file is the one that was put there: by its stat, and by the time that nobody can set. In one
/// tick nobody knows.
fn is_as_before(copy: &Metadata, source: &Metadata, last: &Metadata) -> bool {
    let changed = |metadata: &Metadata| (metadata.ctime(), metadata.ctime_nsec());
    let stat = |metadata: &Metadata| {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        (metadata.mode(), metadata.len(), modified)
    };
    changed(copy) < changed(last) && stat(copy) == stat(source)
}

fn remove_any(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => Ok(fs::remove_dir_all(path)?),
        false => Ok(fs::remove_file(path)?),
    }
}

fn copy_with_times(from: &Path, to: &Path) -> Result<()> {
    command::run(Command::new("cp").arg("-a").arg(from).arg(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_has_changed_is_put_back() {
        let place = tempfile::tempdir().unwrap();
        let [source, copy] = ["source", "copy"].map(|name| place.path().join(name));
        for name in ["a", "d/b", "e/f/c", "g"] {
            let file = source.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        fs_err::os::unix::fs::symlink("a", source.join("link")).unwrap();
        put_back(&source, &copy).unwrap();
        let is_put_back = || {
            put_back(&source, &copy).unwrap();
            let differ = Command::new("diff")
                .arg("-r")
                .arg("--no-dereference")
                .args([&source, &copy])
                .output();
            let differ = differ.unwrap();
            assert!(
                differ.status.success(),
                "{}",
                String::from_utf8_lossy(&differ.stdout)
            );
        };
        is_put_back();
        // Same size, same time.
        let time = fs::metadata(copy.join("a")).unwrap().modified().unwrap();
        fs::write(copy.join("a"), "A").unwrap();
        fs::File::options()
            .append(true)
            .open(copy.join("a"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::remove_dir_all(copy.join("e")).unwrap();
        fs::remove_file(copy.join("link")).unwrap();
        fs_err::os::unix::fs::symlink("g", copy.join("link")).unwrap();
        fs::remove_file(copy.join("d/b")).unwrap();
        fs::create_dir_all(copy.join("d/b/new")).unwrap();
        fs::create_dir_all(copy.join(".git")).unwrap();
        is_put_back();
        assert_eq!(
            fs::metadata(copy.join("a")).unwrap().modified().unwrap(),
            time
        );
    }
}
