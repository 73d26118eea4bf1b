//! The engine's store: what is found there and what is kept. One that fails, or that takes longer than the
//! tools would, is given up for the rest of the build.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klto_core::{Action, Digest, with_causes};
use klto_store::{Lookup, Store, StoreError, StoredResult};

use super::{Engine, Stamp, stamp};
use crate::tool_identity::ToolIdentity;

/// The mean time of a call from which on a store is too slow: most compiles take no longer.
const SLOW: Duration = Duration::from_secs(1);
/// The most that one call counts: klto may have been stopped for a while.
const MOST: Duration = Duration::from_secs(5);
/// Calls that are looked at before that is said.
const ENOUGH: u64 = 10;

/// Tools by their identity: their files, as they were when they were identified.
#[derive(Debug, Default)]
pub(super) struct Tools(Mutex<HashMap<Digest, Vec<(PathBuf, Stamp)>>>);

impl Tools {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Vec<(PathBuf, Stamp)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long calls of the store take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    calls: AtomicU64,
    milliseconds: AtomicU64,
}

impl Pace {
    /// A call took so long; the mean of all, if that is too slow.
    fn note(&self, took: Duration) -> Option<Duration> {
        let took = u64::try_from(took.min(MOST).as_millis()).unwrap_or(u64::MAX);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.milliseconds.fetch_add(took, Ordering::Relaxed) + took;
        let mean = Duration::from_millis(all / calls);
        (calls >= ENOUGH && mean >= SLOW).then_some(mean)
    }
}

impl Engine {
    /// The store, while it works.
    pub fn store(&self) -> Option<&Store> {
        self.store
            .as_ref()
            .filter(|_| !self.store_failed.load(Ordering::Relaxed))
    }

    fn give_up_store(&self, what: &str) {
        if !self.store_failed.swap(true, Ordering::Relaxed) {
            self.notice(&format!(
                "klto: warning: the build goes on without the store: {what}"
            ));
        }
    }

    /// Calls the store, while it works.
    fn ask<T>(&self, call: impl FnOnce(&Store) -> T) -> Option<T> {
        let begin = Instant::now();
        let answer = call(self.store()?);
        if let Some(mean) = self.pace.note(begin.elapsed()) {
            let mean = mean.as_secs_f64();
            self.give_up_store(&format!("it is slow: {mean:.1} s for each call"));
        }
        Some(answer)
    }

    /// A tool has been identified: what it makes is stored as long as its files stay what they are.
    pub fn know_tool(&self, identity: &ToolIdentity) {
        let mut tools = self.tools.lock();
        let known = tools.entry(identity.digest).or_default();
        known.extend(identity.stamps.iter().cloned());
    }

    /// Whether the files of a tool are those by which it was identified, as far as that is known.
    pub fn is_as_identified(&self, tool: Digest) -> bool {
        let tools = self.tools.lock();
        let mut files = tools.get(&tool).into_iter().flatten();
        files.all(|(file, known)| stamp(file) == *known)
    }

    /// What the store has for `key`.
    pub fn find(&self, key: Digest) -> Option<StoredResult> {
        match self.ask(|store| store.lookup(key))? {
            Ok(Lookup::Hit(result)) => Some(result),
            Ok(Lookup::Miss) => None,
            Ok(Lookup::Damaged(what)) => {
                self.notice(&format!(
                    "klto: warning: damaged store entry removed: {what}"
                ));
                None
            }
            Err(error) => {
                self.give_up_store(&with_causes(&error));
                None
            }
        }
    }

    /// The bytes that [`Engine::keep_bytes`] stored for `key`.
    pub fn find_bytes(&self, key: Digest) -> Option<Vec<u8>> {
        let result = self.find(key)?;
        let blob = *result.outputs.first()?;
        let read = self.ask(|store| store.read(blob))?;
        if let Err(error @ StoreError::Damaged { .. }) = &read {
            self.notice(&format!("klto: warning: {}", with_causes(error)));
        }
        read.ok()
    }

    /// Stores bytes that are no action's output, as what is known of a kind of call.
    pub fn keep_bytes(&self, key: Digest, bytes: &[u8]) {
        if let Some(Err(error)) = self.ask(|store| store.insert_bytes(key, bytes)) {
            self.give_up_store(&with_causes(&error));
        }
    }

    /// Stores, under each of `keys`, the one output of something that ran without the engine and printed
    /// nothing.
    pub fn keep_output(&self, keys: &[Digest], output: &Path) {
        self.keep(keys, &[output], &[]);
    }

    /// Stores outputs and standard error under each of `keys`.
    pub(super) fn keep(&self, keys: &[Digest], outputs: &[&Path], stderr: &[u8]) {
        let kept = self.ask(|store| store.insert_under(keys, outputs, stderr));
        if let Some(Err(error)) = kept {
            self.give_up_store(&with_causes(&error));
        }
    }

    /// Puts the one output of `result` at `path`; whether that was possible.
    pub fn fetch_output(&self, result: &StoredResult, path: &Path, label: &str) -> bool {
        let [blob] = result.outputs.as_slice() else {
            return false;
        };
        self.fetch_blob(*blob, path, label)
    }

    fn fetch_blob(&self, blob: Digest, to: &Path, label: &str) -> bool {
        match self.ask(|store| store.fetch(blob, to)) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                let why = with_causes(&error);
                self.notice(&format!("klto: warning: {label}: remade: {why}"));
                false
            }
            None => false,
        }
    }

    /// Whether every output could be put in place; if not, the tool runs.
    pub(super) fn fetch(&self, action: &Action, result: &StoredResult) -> bool {
        let places = action.output_places();
        let mut blobs = result.outputs.iter().zip(&places);
        result.outputs.len() == places.len()
            && blobs.all(|(blob, place)| self.fetch_blob(*blob, place, &action.label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_was_replaced_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clang");
        fs_err::write(&file, "one").unwrap();
        let identity = ToolIdentity {
            digest: Digest::of_bytes(b"clang"),
            files: vec![file.clone()],
            stamps: vec![(file.clone(), stamp(&file))],
            storable: klto_core::Storable::Yes,
        };
        let engine = Engine::new(None, 0, |_| {});
        assert!(engine.is_as_identified(identity.digest));
        engine.know_tool(&identity);
        assert!(engine.is_as_identified(identity.digest));
        fs_err::write(&file, "another").unwrap();
        assert!(!engine.is_as_identified(identity.digest));
    }

    #[test]
    fn a_store_is_slow_by_the_mean_of_its_calls() {
        let pace = Pace::default();
        for _ in 0..9 {
            assert_eq!(pace.note(Duration::from_secs(3)), None);
        }
        assert_eq!(
            pace.note(Duration::from_secs(3)),
            Some(Duration::from_secs(3))
        );
        let pace = Pace::default();
        for _ in 0..100 {
            assert_eq!(pace.note(Duration::from_millis(3)), None);
        }
        assert_eq!(pace.note(Duration::from_secs(30)), None);
    }
}
