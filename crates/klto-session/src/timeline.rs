//! When each call of a tool and each action of a build ran: `.klto/timeline`, a line each.
//!
//! In: what ended, and when it began. Out: the same, read back by `klto stats` and `klto trace`. A line is
//! `start duration kind how object`, separated by tabs, times in microseconds from the build's start.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use klto_store::{HitCount, HitCounts};

use crate::session::lock;

/// Kinds of which nothing is in the store.
const NEVER_STORED: [&str; 2] = ["tool", "thin-link"];
const HEAD: &str = "klto timeline 1";

/// One call or action that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// From the start of the build.
    pub start: Duration,
    /// Wall time; zero for what was kept.
    pub duration: Duration,
    /// `compile`, `native-compile`, `versions`, `symbols`, `thin-link`, a name of [`klto_core::ActionKind`], or
    /// `tool`.
    pub kind: String,
    /// `ran`, `hit`, `kept` or `checked`.
    pub how: String,
    /// The object or unit; for a tool its name and its output.
    pub object: String,
}

/// The timeline of the build that runs.
#[derive(Debug)]
pub(crate) struct Timeline {
    begin: Instant,
    file: Mutex<BufWriter<fs_err::File>>,
    counts: Mutex<HitCounts>,
}

impl Timeline {
    /// Begins the timeline of a build.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(fs_err::File::create(path)?);
        writeln!(file, "{HEAD}")?;
        Ok(Self {
            begin: Instant::now(),
            file: Mutex::new(file),
            counts: Mutex::default(),
        })
    }

    /// Notes what began at `start` and is over now.
    pub fn ended(&self, start: Instant, kind: &str, how: &str, object: &str) {
        self.add(start, start.elapsed(), kind, how, object);
    }

    /// Notes what ran from `start` on.
    pub fn add(&self, start: Instant, duration: Duration, kind: &str, how: &str, object: &str) {
        if !NEVER_STORED.contains(&kind) {
            let mut counts = lock(&self.counts);
            let HitCount { found, made } = counts.entry(kind.to_owned()).or_default();
            *found += u64::from(how == "hit" || how == "checked");
            *made += u64::from(how == "ran");
        }
        let start = start.saturating_duration_since(self.begin).as_micros();
        let duration = duration.as_micros();
        // Without it only the statistics are poorer.
        let _ = writeln!(
            lock(&self.file),
            "{start}\t{duration}\t{kind}\t{how}\t{object}"
        );
    }

    /// Counts of what can be found in the store, so far.
    pub fn counts(&self) -> HitCounts {
        lock(&self.counts).clone()
    }

    /// Writes out what is buffered.
    pub fn flush(&self) -> io::Result<()> {
        lock(&self.file).flush()
    }
}

/// The events of the last build, as they ended. Lines that cannot be read are left out: the build may have
/// been killed.
pub fn read_timeline(path: &Path) -> io::Result<Vec<Event>> {
    let text = String::from_utf8_lossy(&fs_err::read(path)?).into_owned();
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(io::Error::other("it is no timeline of this klto"));
    }
    Ok(lines.filter_map(event).collect())
}

fn event(line: &str) -> Option<Event> {
    let mut fields = line.splitn(5, '\t');
    let mut time = || Some(Duration::from_micros(fields.next()?.parse().ok()?));
    let (start, duration) = (time()?, time()?);
    let mut text = || fields.next().map(str::to_owned);
    Some(Event {
        start,
        duration,
        kind: text()?,
        how: text()?,
        object: text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("timeline");
        let timeline = Timeline::create(&path).unwrap();
        let start = timeline.begin + Duration::from_millis(5);
        timeline.add(
            start,
            Duration::from_millis(7),
            "backend",
            "hit",
            "init/main.o",
        );
        timeline.add(start, Duration::ZERO, "backend", "ran", "a b.o");
        timeline.flush().unwrap();
        let events = read_timeline(&path).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].start, Duration::from_millis(5));
        assert_eq!(events[0].duration, Duration::from_millis(7));
        assert_eq!(
            (events[0].how.as_str(), events[1].object.as_str()),
            ("hit", "a b.o")
        );
        let counts = timeline.counts();
        assert_eq!(counts["backend"], HitCount { found: 1, made: 1 });
    }
}
