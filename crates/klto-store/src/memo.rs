//! Stats that stand for content: a file whose stat is certain is not read again.
//!
//! In: paths. Out: content digests, remembered in one file between builds. It does not know what
//! the files are. The argument why a stat may stand for content is at [`StatMemo`].

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use klto_core::Digest;
use serde::{Deserialize, Serialize};

use crate::sealed::Format;

mod directories;

pub use directories::{DirectoryMemo, Moment};

const FORMAT: Format = Format {
    magic: *b"KLTOSTAT",
    version: 1,
};
/// Twice the longest tick of Linux (HZ=100), in nanoseconds; see [`StatMemo`].
const GRANULARITY: i128 = 20_000_000;
/// A change time that is a multiple of this, in nanoseconds, comes from a coarse file system.
const COARSE: i128 = 1_000_000;
const UNUSED_DAYS: u32 = 30;
const MOST_RECORDS: usize = 500_000;

/// Digests of files by device, inode, size, modification time and change time.
///
/// # When a stat is certain
///
/// Linux stamps a change with the time of the last tick (`current_time` in `fs/inode.c`), so two
/// writes within one tick leave the same stat. A tick is 10 ms at most. Say that the clock shows
/// *t*, and after that a file is hashed whose stamps are both more than 20 ms before *t*. Any
/// write after *t* is stamped later than *t* − 10 ms, hence not with the stamps that were seen.
/// Any write before *t* is in the content that was hashed. So that stat stands for that content.
/// A program can set the modification time, but then the kernel sets the change time.
///
/// A file is hashed every time when the argument does not hold for it:
/// - it was written within the last 20 ms, has a stamp in the future, or changed while it was
///   read;
/// - its change time has no part below a millisecond, which means a file system that stores
///   seconds only, or a read-only image with made-up times;
/// - its file system is not a known local one: elsewhere another machine's clock makes the stamps,
///   and a stat may be served from a cache;
/// - it is no regular file.
///
/// The memo is void after a reboot. Device numbers may then mean other disks, and after a power cut
/// a file may have its new stamps and its old content, since the kernel writes them separately.
///
/// What is not seen: writes through a shared mapping that was writable and dirty before the file
/// was hashed. The tools of a build have ended before their outputs are digested.
#[derive(Debug)]
pub struct StatMemo {
    file: PathBuf,
    /// Empty when the system does not tell; then nothing that was saved counts.
    boot: String,
    now: fn() -> SystemTime,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    records: HashMap<Inode, Record>,
    changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Inode {
    device: u64,
    inode: u64,
}

/// Times are nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    modified: i128,
    changed: i128,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    stamp: Stamp,
    digest: [u8; 32],
    /// Days since the epoch; whole days, so that most uses change nothing.
    used_day: u32,
}

impl StatMemo {
    /// Reads the memo. One that is missing, damaged, of another version or of another boot of the
    /// machine starts empty.
    pub fn open(file: &Path) -> Self {
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let bytes = fs_err::read(file).unwrap_or_default();
        let records = decode(&bytes, &boot).unwrap_or_default();
        Self {
            file: file.to_owned(),
            boot,
            now: SystemTime::now,
            table: Mutex::new(Table {
                records,
                changed: false,
            }),
        }
    }

    /// The same memo with another clock.
    #[must_use]
    pub fn with_clock(self, now: fn() -> SystemTime) -> Self {
        Self { now, ..self }
    }

    /// The digest of the content of `path`; reads the file unless its stat is known.
    ///
    /// Links are followed. Threads that ask for one file at once may each read it.
    pub fn digest(&self, path: &Path) -> io::Result<Digest> {
        let metadata = fs_err::metadata(path)?;
        match self.remembered(&metadata) {
            Some(digest) => Ok(digest),
            None => self.hash(path),
        }
    }

    /// Writes the memo, if it changed, without what was not used for 30 days.
    ///
    /// Replaces the file whole: of two processes that save, the later one wins, and the other's
    /// files are hashed again.
    pub fn save(&self) -> io::Result<()> {
        let mut table = self.table();
        let today = day((self.now)());
        let before = table.records.len();
        drop_unused(&mut table.records, today, MOST_RECORDS);
        if table.changed || table.records.len() != before {
            let bytes = encode(&table.records, &self.boot).map_err(io::Error::other)?;
            klto_core::publish(&self.file, &bytes)?;
            table.changed = false;
        }
        Ok(())
    }

    /// The digest of the file with this stat, if it is known without reading the file.
    pub fn remembered(&self, metadata: &Metadata) -> Option<Digest> {
        let today = day((self.now)());
        let mut table = self.table();
        let record = table.records.get_mut(&Inode::of(metadata))?;
        if record.stamp != Stamp::of(metadata) || !metadata.is_file() {
            return None;
        }
        let digest = Digest::from_bytes(record.digest);
        if record.used_day != today {
            record.used_day = today;
            table.changed = true;
        }
        Some(digest)
    }

    /// The clock is read first and the stat is that of the open file: the argument at
    /// [`StatMemo`] needs both.
    fn hash(&self, path: &Path) -> io::Result<Digest> {
        let now = (self.now)();
        let file = fs_err::File::open(path)?;
        let before = file.metadata()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        let digest = *hasher.finalize().as_bytes();
        let stamp = Stamp::of(&before);
        let certain = before.is_file()
            && stamp.is_certain(now)
            && stamp == Stamp::of(&file.metadata()?)
            && has_trusted_stamps(file.file());
        let mut table = self.table();
        let record = Record {
            stamp,
            digest,
            used_day: day(now),
        };
        let replaced = if certain {
            table.records.insert(Inode::of(&before), record)
        } else {
            table.records.remove(&Inode::of(&before))
        };
        table.changed |= certain || replaced.is_some();
        Ok(Digest::from_bytes(digest))
    }

    /// A thread that panicked left the table whole: each change is one call.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| {
            i128::from(seconds) * 1_000_000_000 + i128::from(rest) // Cannot overflow 128 bits.
        };
        Self {
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_certain(&self, now: SystemTime) -> bool {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i128::from(since.as_secs()) * 1_000_000_000 + i128::from(since.subsec_nanos());
        self.changed % COARSE != 0 && self.modified.max(self.changed) < now - GRANULARITY
    }
}

/// Whether this machine's kernel stamps every change of the file. The numbers are those that
/// `statfs(2)` lists.
pub fn has_trusted_stamps(file: &File) -> bool {
    const LOCAL: [u32; 9] = [
        0x0000_ef53, // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0xf2f5_2010, // f2fs
        0xca45_1a4e, // bcachefs
        0x2fc1_2fc1, // zfs
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0x794c_7630, // overlayfs: the stamps of the layer; coarse ones are refused
    ];
    rustix::fs::fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32)))
}

fn day(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 86_400).unwrap_or(u32::MAX)
}

fn drop_unused(records: &mut HashMap<Inode, Record>, today: u32, most: usize) {
    records.retain(|_, record| today.saturating_sub(record.used_day) <= UNUSED_DAYS);
    if records.len() > most {
        let mut order: Vec<_> = records
            .iter()
            .map(|(inode, record)| (record.used_day, *inode))
            .collect();
        order.sort_unstable();
        for (_, inode) in &order[..order.len() - most] {
            records.remove(inode);
        }
    }
}

fn encode(records: &HashMap<Inode, Record>, boot: &str) -> Result<Vec<u8>, postcard::Error> {
    let mut order: Vec<_> = records.iter().collect();
    order.sort_unstable_by_key(|(inode, _)| **inode);
    Ok(FORMAT.seal(&postcard::to_stdvec(&(boot, order))?))
}

fn decode(bytes: &[u8], boot: &str) -> Option<HashMap<Inode, Record>> {
    let body = FORMAT.open(bytes).ok()?;
    let (saved_boot, rest) = postcard::take_from_bytes::<&str>(body).ok()?;
    if saved_boot != boot || boot.is_empty() {
        return None;
    }
    let records: Vec<(Inode, Record)> = postcard::from_bytes(rest).ok()?;
    Some(records.into_iter().collect())
}

#[cfg(test)]
mod tests;
