//! What builds found in the store: a line for each build, in `v1/history`.
//!
//! In: counts by kind of action. Out: their sums. The file is appended to, a line at a time, by any number of
//! processes; the collector keeps it short.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use crate::error::StoreError;
use crate::store::Store;

/// Lines that are kept when the file is shortened.
const KEPT_BUILDS: usize = 1000;

/// Results of one kind of action: out of the store, and made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HitCount {
    /// Found in the store.
    pub found: u64,
    /// Made by a tool.
    pub made: u64,
}

/// Counts by kind of action.
pub type HitCounts = BTreeMap<String, HitCount>;

impl Store {
    /// Adds one build's counts.
    pub fn note_build(&self, counts: &HitCounts) -> Result<(), StoreError> {
        if counts.is_empty() {
            return Ok(());
        }
        let mut line = String::new();
        for (kind, count) in counts {
            line += &format!("{kind}={}/{} ", count.found, count.made);
        }
        let path = self.history_path();
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let written =
            file.and_then(|mut file| file.write_all(format!("{}\n", line.trim_end()).as_bytes()));
        written.map_err(StoreError::at(&path))
    }

    /// The sums over the builds that are remembered, and how many these are.
    pub fn history(&self) -> Result<(usize, HitCounts), StoreError> {
        let path = self.history_path();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(StoreError::at(&path))?,
        };
        let mut sums = HitCounts::new();
        let words = text.split_whitespace();
        for (kind, count) in words.filter_map(count) {
            let sum = sums.entry(kind.to_owned()).or_default();
            sum.found += count.found;
            sum.made += count.made;
        }
        Ok((text.lines().count(), sums))
    }

    /// Forgets all but the last builds.
    pub(crate) fn shorten_history(&self) -> Result<(), StoreError> {
        let path = self.history_path();
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() <= 2 * KEPT_BUILDS {
            return Ok(());
        }
        let kept = lines.get(lines.len() - KEPT_BUILDS..).unwrap_or_default();
        let kept = kept.join("\n") + "\n";
        klto_core::publish_private(&path, kept.as_bytes()).map_err(StoreError::at(&path))
    }

    fn history_path(&self) -> PathBuf {
        self.directory.join("history")
    }
}

fn count(word: &str) -> Option<(&str, HitCount)> {
    let (kind, counts) = word.split_once('=')?;
    let (found, made) = counts.split_once('/')?;
    let (found, made) = (found.parse().ok()?, made.parse().ok()?);
    Some((kind, HitCount { found, made }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_summed_and_old_ones_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("store"), 1 << 20).unwrap();
        assert_eq!(store.history().unwrap(), (0, HitCounts::new()));
        let one = HitCount { found: 2, made: 1 };
        let counts = HitCounts::from([("backend".to_owned(), one)]);
        for _ in 0..2 * KEPT_BUILDS {
            store.note_build(&counts).unwrap();
        }
        store.shorten_history().unwrap();
        let (builds, sums) = store.history().unwrap();
        assert_eq!(builds, 2 * KEPT_BUILDS);
        assert_eq!((sums["backend"].found, sums["backend"].made), (4000, 2000));
        store.note_build(&counts).unwrap();
        store.shorten_history().unwrap();
        assert_eq!(store.history().unwrap().0, KEPT_BUILDS);
    }
}
