//! Garbage collection: keeps the store under its limit, oldest use first.
//!
//! In: the store's files, their sizes and times of use. Out: fewer files. It removes nothing whose
//! name is not a digest, and does not know which entry names which blob: an entry that lost a blob
//! is a miss, and its turn comes at about the same time.

use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klto_core::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::StoreError;
use crate::store::Store;

/// An insertion that still runs is younger than this.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// What a file takes of the disk is a multiple of this, on most file systems.
const BLOCK: u64 = 4096;

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// Another process collects at this moment; nothing was done.
    Busy,
    /// The store is within its limit.
    Done {
        /// Blobs and entries removed.
        removed_files: u64,
        /// Their size in bytes.
        removed_bytes: u64,
        /// The size of the store now, in bytes.
        size: u64,
    },
}

pub(crate) struct StoreFile {
    used: SystemTime,
    pub path: PathBuf,
    pub size: u64,
}

impl Store {
    /// When the store is over its limit, removes the least recently used blobs and entries until
    /// it is at 90 % of the limit or less. Also removes what killed processes left behind.
    ///
    /// Readers are safe at any time; a blob that goes before it is fetched is
    /// [`StoreError::Missing`].
    pub fn collect_garbage(&self) -> Result<Collected, StoreError> {
        let Some(_lock) = self.collector_lock()? else {
            return Ok(Collected::Busy);
        };
        self.remove_stale_temporaries()?;
        self.shorten_history()?;
        let mut files = self.files()?;
        let mut size = total(&files);
        let (mut removed_files, mut removed_bytes) = (0, 0);
        if size > self.limit {
            let goal = self.limit - self.limit / 10;
            files.sort_unstable_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
            for file in files {
                if size <= goal {
                    break;
                }
                remove(&file.path)?;
                size -= file.size;
                removed_bytes += file.size;
                removed_files += 1;
            }
        }
        Ok(Collected::Done {
            removed_files,
            removed_bytes,
            size,
        })
    }

    /// The lock goes with the file; the file stays.
    fn collector_lock(&self) -> Result<Option<File>, StoreError> {
        let path = self.directory.join("collector.lock");
        let file = File::create(&path).map_err(StoreError::at(&path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(StoreError::at(&path)(error.into())),
        }
    }

    fn remove_stale_temporaries(&self) -> Result<(), StoreError> {
        let now = (self.now)();
        for found in directory_entries(&self.temporary_directory())? {
            let modified = found.metadata().and_then(|metadata| metadata.modified());
            let age = modified.map(|modified| now.duration_since(modified));
            if matches!(age, Ok(Ok(age)) if age > STALE) {
                remove(&found.path())?;
            }
        }
        Ok(())
    }

    /// Every blob and entry.
    pub(crate) fn files(&self) -> Result<Vec<StoreFile>, StoreError> {
        let mut files = Vec::new();
        for kind in ["actions", "blobs"] {
            for shard in directory_entries(&self.directory.join(kind))? {
                for found in directory_entries(&shard.path())? {
                    files.extend(store_file(&found)?);
                }
            }
        }
        Ok(files)
    }
}

/// None for what is no file of the store, or just went away.
fn store_file(found: &DirEntry) -> Result<Option<StoreFile>, StoreError> {
    let name = found.file_name();
    let is_digest = name.to_str().is_some_and(|n| Digest::from_hex(n).is_ok());
    if !is_digest {
        return Ok(None);
    }
    let path = found.path();
    let metadata = match found.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(StoreError::at(&path))?,
    };
    let used = metadata.modified().map_err(StoreError::at(&path))?;
    let size = metadata.len().next_multiple_of(BLOCK);
    Ok(Some(StoreFile { used, path, size }))
}

/// Nothing for a directory that does not exist or is none.
fn directory_entries(path: &Path) -> Result<Vec<DirEntry>, StoreError> {
    match fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        entries => entries.map_err(StoreError::at(path)),
    }
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::at(path)),
    }
}

fn total(files: &[StoreFile]) -> u64 {
    files.iter().map(|file| file.size).sum()
}
