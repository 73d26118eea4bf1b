//! A source tree that a test may edit: a copy made of hard links, so that it costs seconds.
//!
//! A file is edited by writing another one in its place. Builds in such a tree use `O=`: a build
//! that wrote into an existing file would write into the shared source.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use fs_err as fs;
use xtask::kernel::Tree;
use xtask::{command, sources};

use crate::place::{cache, lock, remove, test_directory};

/// A copy of a tree's source, removed when dropped.
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

    /// Copies the source of `tree` to `builds/test-source-NAME` of the cache, once nobody else has
    /// a copy there.
    pub fn of(tree: &Tree, name: &str) -> Result<Self> {
        let source = sources::fetch(cache(), tree)?;
        let path = test_directory(&format!("source-{name}"))?;
        let lock = lock(&path)?;
        remove(&path)?;
        command::run(Command::new("cp").arg("-al").arg(&source).arg(&path))?;
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

    /// Puts a file of this text in the place of `file`; the shared source keeps its own.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        let directory = path.parent().unwrap_or(&self.path);
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut temporary, text.as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temporary.as_file().set_permissions(mode)?;
        temporary.persist(&path)?;
        Ok(())
    }
}

impl Drop for PrivateSource {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
