//! Garbage collection: keeps the store under its limit, oldest use first.
//!
//! In: the store's files, their sizes and times of use. Out: fewer files. It removes nothing whose
//! name is not a digest, and does not know which entry names which blob: an entry that lost a blob
//! is a miss, and its turn comes at about the same time.

use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
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
/// After this time a store is looked at whatever is known to have been added.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

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

/// What is known of a store's size without looking at its files.
struct Growth {
    collected: SystemTime,
    /// In bytes, with all that was added; removed and replaced files count too.
    size: u64,
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
        self.write_growth(size)?;
        Ok(Collected::Done {
            removed_files,
            removed_bytes,
            size,
        })
    }

    /// [`Store::collect_garbage`], unless the store is known to be under its limit: by its size after the last
    /// collection and what was added since. Of what a killed process has added only a collection knows; there
    /// is one each day. `None` where none was due.
    ///
    /// # Errors
    ///
    /// As [`Store::collect_garbage`].
    pub fn collect_when_due(&self) -> Result<Option<Collected>, StoreError> {
        if self.note_growth().is_err() {
            // For want of room, it may be.
            return self.collect_garbage().map(Some);
        }
        let now = (self.now)();
        let is_known = |growth: &Growth| {
            let age = now.duration_since(growth.collected);
            growth.size <= self.limit && age.is_ok_and(|age| age < LOOK_AGAIN)
        };
        match self.growth().filter(is_known) {
            Some(_) => Ok(None),
            None => self.collect_garbage().map(Some),
        }
    }

    /// Adds what this process has placed since it noted that last.
    fn note_growth(&self) -> Result<(), StoreError> {
        let added = self.added.swap(0, Relaxed);
        let path = self.growth_path();
        let file = match File::options().append(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file,
        };
        let written = file.and_then(|mut file| file.write_all(format!("{added}\n").as_bytes()));
        written.map_err(StoreError::at(&path))
    }

    /// `None` where nothing is known.
    fn growth(&self) -> Option<Growth> {
        let text = fs::read_to_string(self.growth_path()).ok()?;
        let mut lines = text.lines().map(str::parse::<u64>);
        let seconds = Duration::from_secs(lines.next()?.ok()?);
        Some(Growth {
            collected: SystemTime::UNIX_EPOCH.checked_add(seconds)?,
            size: lines.try_fold(0u64, |size, line| size.checked_add(line.ok()?))?,
        })
    }

    /// The store has this size now.
    fn write_growth(&self, size: u64) -> Result<(), StoreError> {
        self.added.store(0, Relaxed);
        let now = (self.now)().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs());
        let path = self.growth_path();
        let text = format!("{seconds}\n{size}\n");
        klto_core::publish_private(&path, text.as_bytes()).map_err(StoreError::at(&path))
    }

    /// When there was a collection, in seconds since 1970; the size after it; what each process has added
    /// since.
    fn growth_path(&self) -> PathBuf {
        self.directory.join("growth")
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
    let size = of_disk(metadata.len());
    Ok(Some(StoreFile { used, path, size }))
}

/// What a file of this length takes of the disk.
pub(crate) const fn of_disk(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
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
