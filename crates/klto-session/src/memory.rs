//! Room for links that need much memory: those that do not fit beside each other run one after the other.
//!
//! In: what a link will need, in bytes. Out: when it may run, and whether there is less than that. Under full
//! LTO the linker holds the code of the whole unit, so the need goes by the size of its bitcode.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};

use crate::session::lock;

/// Bytes that a full link needs beside what its bitcode takes: the linker itself. Measured with LLVM 22: 79
/// MB for a module, 441 MB for a kernel of 15.2 MB of bitcode and 2382 MB for one of 96.5 MB, thus 24 bytes
/// for each of it; with a fourth more.
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
    /// The most that full links may take together, as the user says.
    limit: Option<u64>,
    running: Mutex<Running>,
    changed: Condvar,
    /// The most bytes that the user was told are not there.
    told: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    links: usize,
    /// What they were to need together.
    needed: u64,
    /// Bytes that there were when the first of them began; `None` where nothing says it.
    available: Option<u64>,
}

/// A link that runs; its room is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    memory: &'a Memory,
    needed: u64,
    available: Option<u64>,
}

impl Memory {
    /// What the machine has, and no more than `limit`.
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            running: Mutex::default(),
            changed: Condvar::new(),
            told: AtomicU64::new(0),
        }
    }

    /// Waits until so much is free, or no other link runs.
    pub fn take(&self, needed: u64) -> Room<'_> {
        let mut running = lock(&self.running);
        loop {
            if running.links == 0 {
                let found = [self.limit, of_machine(), of_control_groups()];
                running.available = found.into_iter().flatten().min();
                break;
            }
            if running.fits(needed) {
                break;
            }
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
            available: running.available,
        }
    }
}

impl Running {
    fn fits(&self, needed: u64) -> bool {
        let together = self.needed.saturating_add(needed);
        self.available.is_none_or(|available| together <= available)
    }
}

impl Room<'_> {
    /// The bytes that there are, where the link needs more: it runs alone then. Nothing for a link that needs
    /// no more than one before it that had too little.
    pub fn lacks(&self) -> Option<u64> {
        let available = self
            .available
            .filter(|available| self.needed > *available)?;
        let told = self.memory.told.fetch_max(self.needed, Relaxed);
        (self.needed > told).then_some(available)
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

/// Bytes that the machine can give now.
fn of_machine() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemAvailable` of /proc/meminfo, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Bytes that the control groups of this process, of version 2, leave it, where they limit it.
fn of_control_groups() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    // That of version 2 is the one with an empty list of controllers (cgroups(7)).
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    below(Path::new("/sys/fs/cgroup"), group)
}

/// The least that `group`, a path below `root`, or a group above it leaves to its processes, in bytes.
fn below(root: &Path, group: &str) -> Option<u64> {
    let directory = root.join(group);
    let groups = directory.ancestors();
    let groups = groups.take_while(|group| group.starts_with(root));
    groups.filter_map(left_by).min()
}

/// The lines of `memory.stat` for what a group gives back when it needs more.
const RECLAIMABLE: [&str; 3] = ["active_file", "inactive_file", "slab_reclaimable"];

/// What one group leaves: `memory.max` less what is in use and cannot be had back, as the pages of files can
/// (Documentation/admin-guide/cgroup-v2.rst).
fn left_by(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // `max` is no number: no limit.
    let limit = number("memory.max")?;
    let statistics = read("memory.stat").unwrap_or_default();
    let lines = statistics.lines().filter_map(|line| line.split_once(' '));
    let reclaimable = lines.filter(|(name, _)| RECLAIMABLE.contains(name));
    let reclaimable: u64 = reclaimable
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum();
    let used = number("memory.current")?.saturating_sub(reclaimable);
    Some(limit.saturating_sub(used))
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
    fn a_control_group_leaves_what_those_above_it_leave() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("user/build");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |path: &str, text: &str| std::fs::write(root.path().join(path), text).unwrap();
        assert_eq!(below(root.path(), "user/build"), None);
        write("user/build/memory.max", "max\n");
        write("user/build/memory.current", "10\n");
        assert_eq!(below(root.path(), "user/build"), None);
        write("user/memory.max", "1000\n");
        write("user/memory.current", "700\n");
        assert_eq!(below(root.path(), "user/build"), Some(300));
        let statistics = "anon 100\ninactive_file 120\nactive_file 50\nslab_reclaimable 30\n";
        write("user/memory.stat", statistics);
        assert_eq!(below(root.path(), "user/build"), Some(500));
        write("user/build/memory.max", "90\n");
        assert_eq!(below(root.path(), "user/build"), Some(80));
        assert_eq!(below(root.path(), ""), None);
    }

    #[test]
    fn links_that_do_not_fit_wait_for_each_other() {
        let memory = Memory::new(Some(100));
        let first = memory.take(60);
        assert!(lock(&memory.running).fits(40));
        assert!(!lock(&memory.running).fits(41));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| memory.take(50).lacks());
            drop(first);
            assert_eq!(second.join().unwrap(), None);
        });
        assert_eq!(lock(&memory.running).links, 0);
    }

    #[test]
    fn one_alone_always_runs() {
        let memory = Memory::new(Some(100));
        assert_eq!(memory.take(200).lacks(), Some(100));
        assert_eq!(memory.take(200).lacks(), None, "it was told");
        assert_eq!(memory.take(201).lacks(), Some(100));
        assert_eq!(memory.take(100).lacks(), None);
    }
}
