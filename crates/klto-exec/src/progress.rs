//! How far a batch of actions is.
//!
//! In: the engine's beginnings and ends. Out: numbers for whoever shows them, at any time and from any
//! thread.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::How;

/// Numbers of one batch, kept by the engine while it runs.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    total: usize,
    done: usize,
    reused: usize,
    running: Vec<(usize, String, Instant)>,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Actions of the batch.
    pub total: usize,
    /// Those that are over.
    pub done: usize,
    /// Those of them whose result the store had.
    pub reused: usize,
    /// Those that run.
    pub running: usize,
    /// The label of the one that has run longest, and since when.
    pub longest: Option<(String, Duration)>,
}

impl Progress {
    /// A batch begins.
    pub(crate) fn start(&self, total: usize) {
        *self.lock() = State {
            total,
            ..State::default()
        };
    }

    /// The action at a place of the batch begins.
    pub(crate) fn begin(&self, place: usize, label: &str) {
        let running = (place, label.to_owned(), Instant::now());
        self.lock().running.push(running);
    }

    /// It is over.
    pub(crate) fn end(&self, place: usize, how: How) {
        let mut state = self.lock();
        state.running.retain(|(other, ..)| *other != place);
        state.done += 1;
        state.reused += usize::from(how == How::Hit);
    }

    /// The numbers now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let longest = state.running.first();
        Snapshot {
            total: state.total,
            done: state.done,
            reused: state.reused,
            running: state.running.len(),
            longest: longest.map(|(_, label, start)| (label.clone(), start.elapsed())),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_begin_has_run_longest() {
        let progress = Progress::default();
        progress.start(4);
        for (place, label) in [(0, "a.o"), (1, "b.o"), (2, "c.o")] {
            progress.begin(place, label);
        }
        progress.end(0, How::Hit);
        let now = progress.snapshot();
        assert_eq!((now.total, now.done, now.reused, now.running), (4, 1, 1, 2));
        assert_eq!(now.longest.unwrap().0, "b.o");
        progress.end(1, How::Ran);
        progress.end(2, How::Ran);
        assert_eq!(progress.snapshot().longest, None);
        assert_eq!(progress.snapshot().reused, 1);
    }
}
