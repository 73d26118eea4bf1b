//! Stock of the two trees: for each directory one digest over the names and stats in it.
//!
//! In: the roots. Out: facts by name, as `source fs/ext4`. It does not know what a build is.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use klto_core::{Digest, KeyBuilder};
use rayon::Scope;

use crate::scratch::SCRATCH_NAME;
use crate::session::lock;

/// Facts by name, as digests: `the environment`, `source fs/ext4`.
pub(super) type Facts = BTreeMap<String, [u8; 32]>;

const CONFIGURATION: &str = "the configuration";

/// Whether a fact of this name comes from [`Roots::facts`].
pub(super) fn is_of_tree(name: &str) -> bool {
    name.starts_with("output ") || is_input(name)
}

/// Whether it is of what the user writes, not of what a build makes.
pub(super) fn is_input(name: &str) -> bool {
    name.starts_with("source ") || name == CONFIGURATION
}

/// The two trees, and the configuration.
pub(super) struct Roots {
    pub source: PathBuf,
    pub output: PathBuf,
    /// The `.config`, wherever it is.
    pub config: PathBuf,
}

impl Roots {
    /// Every directory of both trees, and the content of `.config`.
    pub fn facts(&self) -> io::Result<Facts> {
        let facts = Mutex::default();
        let failure = Mutex::new(None);
        let walk = |name: &'static str, root: &Path| -> io::Result<()> {
            let tree = Walk {
                name,
                root: root.to_owned(),
                device: fs_err::metadata(root)?.dev(),
                roots: self,
                facts: &facts,
                failure: &failure,
            };
            rayon::scope(|scope| tree.enter(scope, root.to_owned()));
            Ok(())
        };
        walk("output", &self.output)?;
        walk("source", &self.source)?;
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(error);
        }
        let mut facts = facts.into_inner().unwrap_or_default();
        let config = fs_err::read(&self.config)?;
        facts.insert(CONFIGURATION.into(), digest(&config));
        Ok(facts)
    }
}

impl Roots {
    /// Fails for a link to a directory of which nobody here takes stock.
    fn expect_inside(&self, link: &Path) -> io::Result<()> {
        let target = fs_err::canonicalize(link)?;
        match target.starts_with(&self.source) || target.starts_with(&self.output) {
            true => Ok(()),
            false => {
                let text = format!("{} leads out of the tree", link.display());
                Err(io::Error::other(text))
            }
        }
    }
}

/// A walk over one tree.
struct Walk<'a> {
    name: &'static str,
    root: PathBuf,
    /// The file system whose stamps are trusted.
    device: u64,
    roots: &'a Roots,
    facts: &'a Mutex<Facts>,
    failure: &'a Mutex<Option<io::Error>>,
}

impl Walk<'_> {
    fn enter<'s>(&'s self, scope: &Scope<'s>, directory: PathBuf) {
        match self.look(scope, &directory) {
            Ok(found) => {
                let place = directory.strip_prefix(&self.root).unwrap_or(&directory);
                let name = format!("{} {}", self.name, place.display());
                lock(self.facts).insert(name, found);
            }
            Err(error) => *lock(self.failure) = Some(error),
        }
    }

    /// The digest of a directory's names and stats; its directories are walks of their own.
    fn look<'s>(&'s self, scope: &Scope<'s>, directory: &Path) -> io::Result<[u8; 32]> {
        if std::fs::metadata(directory)?.dev() != self.device {
            let text = format!("{} is on another file system", directory.display());
            return Err(io::Error::other(text));
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            let name = entry.file_name().as_bytes().to_vec();
            if kind.is_dir() {
                if self.is_left_out(&path) {
                    continue;
                }
                entries.push((name, [0; 32]));
                scope.spawn(move |scope| self.enter(scope, path));
            } else {
                let mut stat = of_metadata(&entry.metadata()?);
                if kind.is_symlink()
                    && let Ok(target) = std::fs::metadata(&path)
                {
                    match target.is_dir() {
                        true => self.roots.expect_inside(&path)?,
                        false => stat.extend(of_metadata(&target)),
                    }
                }
                entries.push((name, digest(&stat)));
            }
        }
        entries.sort();
        let mut key = KeyBuilder::new("directory", 1);
        for (name, stat) in entries {
            key.field("name", &name).field("stat", &stat);
        }
        Ok(*key.finish().as_bytes())
    }

    /// klto's own files; an output tree inside the source tree; and what git stores without naming
    /// a version (kbuild asks git for the version only).
    fn is_left_out(&self, directory: &Path) -> bool {
        let is_output = *directory == *self.roots.output;
        let name = directory.file_name().unwrap_or_default();
        let in_git = directory
            .parent()
            .is_some_and(|parent| parent.ends_with(".git"));
        is_output || name == SCRATCH_NAME || in_git && (name == "objects" || name == "logs")
    }
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    *Digest::of_bytes(bytes).as_bytes()
}

/// The digest of a stat; that of nothing for a file that is not there.
pub(super) fn of_file(path: &Path) -> [u8; 32] {
    let stat = std::fs::metadata(path).map(|metadata| of_metadata(&metadata));
    digest(&stat.unwrap_or_default())
}

fn of_metadata(metadata: &std::fs::Metadata) -> Vec<u8> {
    let numbers = [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        i64::from(metadata.mode()),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}
