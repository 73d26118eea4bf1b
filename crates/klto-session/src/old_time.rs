//! A time before that of any source: make makes again what has it.
//!
//! In: a path. Out: the file there, with another time; a link itself, not what it leads to.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

/// 1980, in seconds.
const OLD: i64 = 315_532_800;

/// Makes a file old. It is not opened: it may be a program that runs, or may not be written.
pub(crate) fn make_old(path: &Path) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: OLD,
            tv_nsec: 0,
        },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a time is the one that [`make_old`] gives.
pub(crate) fn is_old(time: SystemTime) -> bool {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() == OLD.unsigned_abs()
}
