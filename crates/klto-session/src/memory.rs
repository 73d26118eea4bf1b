//! Room for links that need much memory: those that do not fit beside each other run one after the other.
//!
//! In: what a link will need, in bytes. Out: when it may run, and whether the machine has less than that. Under full LTO
//! the linker holds the code of the whole unit, so the need goes by the size of its bitcode.

use std::sync::{Condvar, Mutex};

use crate::session::lock;

/// Bytes that a full link needs beside what its bitcode takes: the linker itself. Measured with LLVM 22: 79 MB for
/// a module, and 441 MB for a kernel of 15.2 MB of bitcode, thus 24 bytes for each of it; with a fourth more.
const LINKER: u64 = 100 << 20;
/// Bytes for each byte of bitcode, at the peak of a full link.
const FOR_EACH_BYTE: u64 = 30;

/// Bytes of memory that a full link of so many bytes of bitcode is taken to need.
#[must_use]
pub const fn needed_by_full_link(bitcode: u64) -> u64 {
    LINKER + bitcode.saturating_mul(FOR_EACH_BYTE)
}

/// The memory of a build.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Bytes that were available when the build began; `None` where the kernel does not say it.
    available: Option<u64>,
    running: Mutex<Running>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    links: usize,
    /// What they were to need together.
    needed: u64,
}

/// A link that runs; its room is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    memory: &'a Memory,
    needed: u64,
}

impl Memory {
    /// What the machine has now.
    pub fn of_machine() -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::of(available(&text))
    }

    fn of(available: Option<u64>) -> Self {
        Self {
            available,
            running: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Whether so much is more than there is; the bytes that there are.
    pub fn lacks(&self, needed: u64) -> Option<u64> {
        self.available.filter(|available| needed > *available)
    }

    /// Waits until so much is free, or nothing else runs.
    pub fn take(&self, needed: u64) -> Room<'_> {
        let mut running = lock(&self.running);
        while !self.fits(&running, needed) {
            running = self
                .changed
                .wait(running)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        running.links += 1;
        running.needed += needed;
        Room {
            memory: self,
            needed,
        }
    }

    fn fits(&self, running: &Running, needed: u64) -> bool {
        let together = running.needed.saturating_add(needed);
        running.links == 0 || self.available.is_none_or(|available| together <= available)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.memory.running);
        running.links -= 1;
        running.needed -= self.needed;
        self.memory.changed.notify_all();
    }
}

/// `MemAvailable` of /proc/meminfo, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_available() {
        let text = "MemTotal:       24540000 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(available(text), Some(23_000_000 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn links_that_do_not_fit_wait_for_each_other() {
        let memory = Memory::of(Some(100));
        let first = memory.take(60);
        assert!(memory.fits(&lock(&memory.running), 40));
        assert!(!memory.fits(&lock(&memory.running), 41));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(memory.take(50)));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
        assert_eq!(lock(&memory.running).links, 0);
    }

    #[test]
    fn one_alone_always_runs() {
        let memory = Memory::of(Some(100));
        assert_eq!(memory.lacks(200), Some(100));
        drop(memory.take(200));
        assert_eq!(Memory::of(None).lacks(200), None);
    }
}
