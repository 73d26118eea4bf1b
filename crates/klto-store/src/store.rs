//! The store: blobs by content digest and action entries by key, under one directory.
//!
//! In: keys and files. Out: results whose bytes are verified. It does not know what a key covers.
//!
//! Layout: `v1/actions/ab/<key>`, `v1/blobs/ab/<digest>`, `v1/tmp/`, and `v1/history` and `v1/growth`
//! (`history.rs`, `collect.rs`). Several processes use it at once without a lock: a file appears whole by
//! rename, never changes, and may be removed at any time. Nothing is flushed to disk: what a power cut tears
//! is found by its digest and made again. A modification time says when a file was last of use; the collector
//! goes by it.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klto_core::Digest;
use rustix::fs::{Access, AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use tempfile::NamedTempFile;

use crate::clone::clone_or_copy;
use crate::collect::of_disk;
use crate::entry::{self, StoredResult};
use crate::error::StoreError;

/// The directory of this layout; another layout has another directory beside it.
const LAYOUT: &str = "v1";
/// Content of the file `version`, for people and other programs.
const VERSION: &[u8] = b"klto store 1\n";
/// A time of use is not written again within this time.
const TIME_OF_USE_PRECISION: Duration = Duration::from_secs(3600);

/// A user's store of action results on local disk.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) directory: PathBuf,
    pub(crate) limit: u64,
    pub(crate) now: fn() -> SystemTime,
    /// Bytes that were placed in it and that no [`Store::collect_when_due`] has noted.
    pub(crate) added: Arc<AtomicU64>,
}

/// The answer to [`Store::lookup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing is stored for the key.
    Miss,
    /// What the action gave. A blob may still disappear before it is fetched.
    Hit(StoredResult),
    /// The entry was damaged and is removed; the text names the file and the fault.
    Damaged(String),
}

impl Store {
    /// Opens the store at `root`, creating it with mode 0700.
    ///
    /// `limit` is in bytes; only [`Store::collect_garbage`] and [`Store::collect_when_due`] enforce it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsafe`] when another user owns or may write `root`;
    /// [`StoreError::NotWritable`] when this user may not.
    pub fn open(root: &Path, limit: u64) -> Result<Self, StoreError> {
        let store = Self {
            directory: root.join(LAYOUT),
            limit,
            now: SystemTime::now,
            added: Arc::default(),
        };
        let not_writable = |source| StoreError::NotWritable {
            root: root.to_owned(),
            source,
        };
        make_private_directory(root).map_err(not_writable)?;
        refuse_shared(root)?;
        store.make_layout().map_err(not_writable)?;
        Ok(store)
    }

    /// The same store with another clock.
    #[must_use]
    pub fn with_clock(self, now: fn() -> SystemTime) -> Self {
        Self { now, ..self }
    }

    /// Finds what is stored for `key` and notes its use.
    pub fn lookup(&self, key: Digest) -> Result<Lookup, StoreError> {
        let path = self.action_path(key);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lookup::Miss),
            read => read.map_err(StoreError::at(&path))?,
        };
        let result = match entry::decode(key, &bytes) {
            Ok(result) => result,
            Err(fault) => {
                discard(&path);
                return Ok(Lookup::Damaged(format!("{}: {fault}", path.display())));
            }
        };
        for blob in &result.outputs {
            let blob_path = self.blob_path(*blob);
            match self.note_use(&blob_path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    discard(&path);
                    return Ok(Lookup::Miss);
                }
                noted => noted.map_err(StoreError::at(&blob_path))?,
            }
        }
        // A collector may just have removed the entry; what was read is whole all the same.
        let _ = self.note_use(&path);
        Ok(Lookup::Hit(result))
    }

    /// Publishes a copy of `blob` at `to`, a new file with the mode that the umask gives.
    ///
    /// Directories above `to` are made. On an error `to` is as it was.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] and [`StoreError::Damaged`] (the blob is removed) mean that the
    /// action has to run. [`StoreError::Full`] and [`StoreError::Io`] may concern `to` itself.
    pub fn fetch(&self, blob: Digest, to: &Path) -> Result<(), StoreError> {
        let path = self.blob_path(blob);
        let source = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Missing { blob });
            }
            opened => opened.map_err(StoreError::at(&path))?,
        };
        let copy = temporary_beside(to).map_err(StoreError::at(to))?;
        clone_or_copy(&source, copy.as_file()).map_err(StoreError::at(to))?;
        let found = Digest::of_file(copy.path()).map_err(StoreError::at(to))?;
        if found != blob {
            discard(&path);
            let reason = format!("its content has the digest {found}");
            return Err(StoreError::Damaged { path, reason });
        }
        publish(copy, to)
    }

    /// The content of `blob`, verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] and [`StoreError::Damaged`] (the blob is removed), or
    /// [`StoreError::Io`].
    pub fn read(&self, blob: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(blob);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Missing { blob });
            }
            read => read.map_err(StoreError::at(&path))?,
        };
        let found = Digest::of_bytes(&bytes);
        if found != blob {
            discard(&path);
            let reason = format!("its content has the digest {found}");
            return Err(StoreError::Damaged { path, reason });
        }
        Ok(bytes)
    }

    /// Stores `bytes` as the one output of the action of `key`.
    ///
    /// # Errors
    ///
    /// As [`Store::insert`].
    pub fn insert_bytes(&self, key: Digest, bytes: &[u8]) -> Result<StoredResult, StoreError> {
        let mut file = self.temporary()?;
        let path = file.path().to_owned();
        file.write_all(bytes).map_err(StoreError::at(&path))?;
        self.insert(key, &[&path], &[])
    }

    /// Stores what the action of `key` gave.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] or [`StoreError::Io`]; the caller can go on without the store.
    pub fn insert(
        &self,
        key: Digest,
        outputs: &[&Path],
        stderr: &[u8],
    ) -> Result<StoredResult, StoreError> {
        self.insert_under(&[key], outputs, stderr)
    }

    /// [`Store::insert`] for an action that has several keys.
    ///
    /// # Errors
    ///
    /// As [`Store::insert`].
    pub fn insert_under(
        &self,
        keys: &[Digest],
        outputs: &[&Path],
        stderr: &[u8],
    ) -> Result<StoredResult, StoreError> {
        let outputs = outputs.iter().map(|output| self.insert_blob(output));
        let result = StoredResult {
            outputs: outputs.collect::<Result<_, _>>()?,
            stderr: stderr.to_vec(),
        };
        for key in keys {
            let path = self.action_path(*key);
            let bytes = entry::encode(*key, &result)
                .map_err(io::Error::other)
                .map_err(StoreError::at(&path))?;
            let mut file = self.temporary()?;
            file.write_all(&bytes).map_err(StoreError::at(&path))?;
            self.place(file, &path)?;
        }
        Ok(result)
    }

    fn insert_blob(&self, output: &Path) -> Result<Digest, StoreError> {
        let digest = Digest::of_file(output).map_err(StoreError::at(output))?;
        let source = File::open(output).map_err(StoreError::at(output))?;
        let path = self.blob_path(digest);
        // One that is damaged is replaced.
        let present = Digest::of_file(&path).is_ok_and(|found| found == digest);
        if present && self.note_use(&path).is_ok() {
            return Ok(digest);
        }
        let copy = self.temporary()?;
        clone_or_copy(&source, copy.as_file()).map_err(StoreError::at(&path))?;
        let copied = Digest::of_file(copy.path()).map_err(StoreError::at(&path))?;
        if copied != digest {
            let error = io::Error::other("it changed while it was stored");
            return Err(StoreError::at(output)(error));
        }
        self.place(copy, &path)?;
        Ok(digest)
    }

    fn make_layout(&self) -> io::Result<()> {
        for name in ["actions", "blobs", "tmp"] {
            make_private_directory(&self.directory.join(name))?;
        }
        let version = self.directory.join("version");
        if !fs::read(&version).is_ok_and(|found| found == VERSION) {
            let mut file = tempfile::Builder::new().tempfile_in(self.temporary_directory())?;
            file.write_all(VERSION)?;
            file.persist(version)?;
        }
        let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        Ok(rustix::fs::access(self.temporary_directory(), access)?)
    }

    /// Notes that the file is of use now. The time only guides the collector, so a failure to
    /// write it is no failure; a file that cannot be seen is.
    fn note_use(&self, path: &Path) -> io::Result<()> {
        let modified = fs::symlink_metadata(path)?.modified()?;
        let now = (self.now)();
        let age = now.duration_since(modified);
        if !age.is_ok_and(|age| age < TIME_OF_USE_PRECISION) {
            let _ = set_modified(path, now);
        }
        Ok(())
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let directory = self.temporary_directory();
        tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o400))
            .tempfile_in(&directory)
            .map_err(StoreError::at(&directory))
    }

    fn place(&self, file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
        if let Some(parent) = path.parent() {
            make_private_directory(parent).map_err(StoreError::at(parent))?;
        }
        let size = file.as_file().metadata().map_or(0, |file| file.len());
        self.added.fetch_add(of_disk(size), Relaxed);
        publish(file, path)
    }

    pub(crate) fn temporary_directory(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    fn action_path(&self, key: Digest) -> PathBuf {
        self.digest_path("actions", key)
    }

    fn blob_path(&self, blob: Digest) -> PathBuf {
        self.digest_path("blobs", blob)
    }

    fn digest_path(&self, kind: &str, digest: Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.directory.join(kind).join(&hex[..2]).join(hex)
    }
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Whoever can write the root can put wrong objects into a kernel.
fn refuse_shared(root: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(root).map_err(StoreError::at(root))?;
    let user = rustix::process::geteuid().as_raw();
    let reason = if metadata.uid() != user {
        let owner = metadata.uid();
        format!("it belongs to user {owner}, not to user {user}")
    } else if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        format!("others may write it (mode {mode:04o})")
    } else {
        return Ok(());
    };
    Err(StoreError::Unsafe {
        root: root.to_owned(),
        reason,
    })
}

/// Removes a file that is of no use. One that cannot be removed is found again next time.
fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

fn set_modified(path: &Path, time: SystemTime) -> io::Result<()> {
    let since = time
        .duration_since(UNIX_EPOCH)
        .map_err(|_| ErrorKind::InvalidInput)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(since.as_secs()).map_err(|_| ErrorKind::InvalidInput)?,
            tv_nsec: since.subsec_nanos().into(),
        },
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(CWD, path, &times, flags)?)
}

fn temporary_beside(to: &Path) -> io::Result<NamedTempFile> {
    let parent = match to.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    tempfile::Builder::new()
        .prefix(".klto-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
}

fn publish(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    match file.persist(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::at(path)(error.error)),
    }
}
