//! Names in directories: whether a file exists, without asking the system for each.
//!
//! In: paths. Out: whether something is there. A compile looks for thousands of headers where they are not,
//! in a hundred directories.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::{Inode, Stamp, has_trusted_stamps};

/// Names by directory, as long as its stat is the same.
///
/// A name that comes or goes changes the stamps of its directory, so the argument at [`super::StatMemo`] holds:
/// a directory that was listed 20 ms after its stamps has these names until its stat is another. One for which
/// it does not hold is not remembered.
#[derive(Debug, Default)]
pub struct DirectoryMemo {
    listed: Mutex<HashMap<Inode, (Stamp, Names)>>,
}

type Names = Arc<HashSet<OsString>>;

/// What is known of directories for a moment, in which each is asked for once.
#[derive(Debug)]
pub struct Moment<'a> {
    memo: &'a DirectoryMemo,
    /// By path as it is written. `None` where no listing can be trusted.
    seen: HashMap<Vec<u8>, Option<Names>>,
}

impl DirectoryMemo {
    /// Directories as they are from now on.
    pub fn moment(&self) -> Moment<'_> {
        Moment {
            memo: self,
            seen: HashMap::new(),
        }
    }

    /// The names in a directory: none in one that is not there; `None` if they cannot be remembered.
    fn names(&self, directory: &Path) -> Option<Names> {
        let metadata = match std::fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return None,
            _ => return Some(Names::default()),
        };
        let (inode, stamp) = (Inode::of(&metadata), Stamp::of(&metadata));
        let known = |(known, names): &(Stamp, Names)| (*known == stamp).then(|| Arc::clone(names));
        if let Some(names) = self.listed().get(&inode).and_then(known) {
            return Some(names);
        }
        let now = SystemTime::now();
        let names = std::fs::read_dir(directory).ok()?;
        let names = names.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Names = Arc::new(names.collect::<io::Result<_>>().ok()?);
        let is_certain = stamp.is_certain(now)
            && has_trusted_stamps(&File::open(directory).ok()?)
            && Stamp::of(&std::fs::metadata(directory).ok()?) == stamp;
        is_certain.then(|| {
            self.listed().insert(inode, (stamp, Arc::clone(&names)));
            names
        })
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, HashMap<Inode, (Stamp, Names)>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moment<'_> {
    /// Whether something is at `below` a directory. Links on the way are followed.
    pub fn exists(&mut self, directory: &Path, below: &Path) -> bool {
        let (directory, below) = (directory.as_os_str().as_bytes(), below.as_os_str());
        let cut = below.as_bytes().iter().rposition(|byte| *byte == b'/');
        let (parents, name) = below.as_bytes().split_at(cut.map_or(0, |cut| cut + 1));
        let directory = [directory, b"/", parents].concat();
        let path = || Path::new(OsStr::from_bytes(&directory)).join(OsStr::from_bytes(name));
        let names = match self.seen.get(&directory) {
            Some(names) => names.clone(),
            None => {
                let names = self.memo.names(Path::new(OsStr::from_bytes(&directory)));
                self.seen.insert(directory.clone(), names.clone());
                names
            }
        };
        let may_be_there = names.is_none_or(|names| names.contains(OsStr::from_bytes(name)));
        // A link may lead nowhere.
        may_be_there && path().exists()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_that_comes_is_seen_by_the_next_moment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let memo = DirectoryMemo::default();
        let exists = |below: &str| memo.moment().exists(path, Path::new(below));
        fs_err::create_dir(path.join("linux")).unwrap();
        assert!(!exists("linux/sched.h"));
        for name in ["linux/sched.h", "linux/mm/slab.h", "top.h"] {
            assert!(!exists(name));
            std::thread::sleep(Duration::from_millis(25));
            assert!(!exists(name));
            let file = path.join(name);
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(&file, "").unwrap();
            assert!(exists(name), "{name}");
            fs_err::remove_file(&file).unwrap();
            assert!(!exists(name), "{name}");
        }
        assert!(exists("linux/mm"));
        assert!(!exists("linux/mm/none/at.h"));
    }

    #[test]
    fn names_are_remembered_while_the_stat_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("a.h"), "").unwrap();
        std::thread::sleep(Duration::from_millis(25));
        let memo = DirectoryMemo::default();
        let one = memo.names(directory.path()).unwrap();
        assert!(Arc::ptr_eq(&one, &memo.names(directory.path()).unwrap()));
        fs_err::write(directory.path().join("b.h"), "").unwrap();
        // Its stamps are too young to be trusted.
        assert_eq!(memo.names(directory.path()), None);
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(memo.names(directory.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("a.h")).unwrap();
        std::thread::sleep(Duration::from_millis(25));
        let memo = DirectoryMemo::default();
        assert!(!memo.moment().exists(directory.path(), Path::new("a.h")));
    }
}
