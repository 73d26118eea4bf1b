//! A build that came to no end because the machine stopped: its objects may be on disk, and what the journal
//! says of them not.
//!
//! In: the scratch directory, before and after a build. Out: whether that was so. A klto that was killed is no
//! such case: the journal's pages are the system's.

use std::io;
use std::path::Path;

use klto_core::publish;

use crate::scratch::Scratch;

/// The file with the boot in which a build has begun that has not ended.
const BEGUN: &str = "begun";
/// Another one after each boot (proc_sys_kernel(5)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A build begins; whether the last one had no end when the machine stopped.
pub(crate) fn begin(scratch: &Scratch) -> io::Result<bool> {
    // Where the system does not say it, all boots are one.
    let boot = std::fs::read(BOOT).unwrap_or_default();
    let file = scratch.path(BEGUN);
    let before = match fs_err::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        before => Some(before?),
    };
    publish(&file, &boot)?;
    Ok(before.is_some_and(|before| before != boot))
}

/// Whether a build has begun in this scratch directory and not ended.
pub(crate) fn is_under_way(scratch: &Path) -> bool {
    scratch.join(BEGUN).exists()
}

/// The build has ended, and its journal is on disk.
pub(crate) fn end(scratch: &Scratch) -> io::Result<()> {
    fs_err::remove_file(scratch.path(BEGUN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_of_another_boot_without_an_end_is_seen() {
        let output = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(output.path()).unwrap();
        assert!(!begin(&scratch).unwrap());
        // klto was killed.
        assert!(!begin(&scratch).unwrap());
        fs_err::write(scratch.path(BEGUN), "another boot\n").unwrap();
        assert!(begin(&scratch).unwrap());
        end(&scratch).unwrap();
        assert!(!begin(&scratch).unwrap());
    }
}
