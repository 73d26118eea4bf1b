//! Copies of a file's content that share no inode with it, and no data blocks that a write changes.

use std::fs::File;
use std::io;

/// Gives the empty `target` the content of `source`.
///
/// Where the file system can, the copy shares its blocks until one side is written (`FICLONE`).
/// Every failure to do so means a plain copy, which then meets any real fault itself.
pub(crate) fn clone_or_copy(mut source: &File, mut target: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    io::copy(&mut source, &mut target).map(drop)
}
