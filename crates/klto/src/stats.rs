//! `klto stats` and `klto trace`: where the time of the last build went.
//!
//! In: the timeline of an output tree. Out: a table, or the trace event format of Chrome ("Trace Event
//! Format", JSON object form), which Perfetto and about:tracing show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use klto_core::Failure;
use klto_session::{Event, SCRATCH_NAME, read_timeline};
use serde_json::json;

/// How many of the longest events the table names.
const LONGEST: usize = 10;

/// Prints the table.
pub fn run(output: &Path) -> anyhow::Result<u8> {
    crate::show(&table(&events(output)?))?;
    Ok(0)
}

/// Prints the trace.
pub fn trace(output: &Path) -> anyhow::Result<u8> {
    let trace = json!({ "traceEvents": trace_events(events(output)?), "displayTimeUnit": "ms" });
    // As text first: an error of the writer would be one of the format.
    let text = serde_json::to_string(&trace)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(0)
}

fn events(output: &Path) -> anyhow::Result<Vec<Event>> {
    let path = output.join(SCRATCH_NAME).join("timeline");
    let no_timeline = |error: std::io::Error| {
        let text = format!("{} has no timeline of a build: {error}", output.display());
        Failure::bad_input(text).hint("name the output tree with -O")
    };
    Ok(read_timeline(&path).map_err(no_timeline)?)
}

/// Counts and seconds of one kind.
#[derive(Debug, Default)]
struct Row {
    ran: usize,
    found: usize,
    kept: usize,
    time: Duration,
}

fn table(events: &[Event]) -> String {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for event in events {
        let row = rows.entry(&event.kind).or_default();
        match event.how.as_str() {
            "hit" | "checked" => row.found += 1,
            "kept" => row.kept += 1,
            _ => row.ran += 1,
        }
        row.time += event.duration;
    }
    let end = |event: &Event| event.start + event.duration;
    let total = events.iter().map(end).max().unwrap_or_default();
    let mut text = format!("last build: {:.1} s\n\n", total.as_secs_f64());
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<16} {:>7} {:>10} {:>9} {:>9}",
        "kind", "ran", "from store", "unchanged", "seconds"
    );
    for (kind, row) in &rows {
        let Row {
            ran, found, kept, ..
        } = row;
        let seconds = row.time.as_secs_f64();
        let _ = writeln!(
            text,
            "{kind:<16} {ran:>7} {found:>10} {kept:>9} {seconds:>9.1}"
        );
    }
    let mut longest: Vec<&Event> = events.iter().collect();
    longest.sort_by_key(|event| (std::cmp::Reverse(event.duration), &event.object));
    text += "\nlongest:\n";
    for event in longest.into_iter().take(LONGEST) {
        let (kind, object) = (&event.kind, &event.object);
        let seconds = event.duration.as_secs_f64();
        let _ = writeln!(text, "{seconds:>9.2} s  {kind} {object}");
    }
    text
}

/// Complete events ("X"), each in the first lane that is free at its start.
fn trace_events(mut events: Vec<Event>) -> Vec<serde_json::Value> {
    events.retain(|event| event.how != "kept");
    events.sort_by_key(|event| event.start);
    let mut free_at: Vec<Duration> = Vec::new();
    let mut traced = Vec::new();
    for event in events {
        let end = event.start + event.duration;
        let lane = match free_at.iter().position(|free| *free <= event.start) {
            Some(lane) => lane,
            None => {
                free_at.push(Duration::ZERO);
                free_at.len() - 1
            }
        };
        if let Some(free) = free_at.get_mut(lane) {
            *free = end;
        }
        traced.push(json!({
            "name": event.object,
            "cat": event.kind,
            "ph": "X",
            "ts": event.start.as_micros() as u64,
            "dur": event.duration.as_micros() as u64,
            "pid": 1,
            "tid": lane + 1,
            "args": { "how": event.how },
        }));
    }
    traced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(start: u64, duration: u64, kind: &str, how: &str, object: &str) -> Event {
        Event {
            start: Duration::from_millis(start),
            duration: Duration::from_millis(duration),
            kind: kind.into(),
            how: how.into(),
            object: object.into(),
        }
    }

    fn sample() -> Vec<Event> {
        vec![
            event(0, 300, "compile", "ran", "a.o"),
            event(100, 100, "compile", "hit", "b.o"),
            event(400, 1600, "backend", "ran", "a.o"),
            event(400, 0, "backend", "kept", "b.o"),
        ]
    }

    #[test]
    fn kinds_are_counted_and_the_longest_named() {
        let expected = "last build: 2.0 s\n\n\
            kind                 ran from store unchanged   seconds\n\
            backend                1          0         1       1.6\n\
            compile                1          1         0       0.4\n\
            \nlongest:\n     1.60 s  backend a.o\n     0.30 s  compile a.o\n     0.10 s  compile b.o\n     \
            0.00 s  backend b.o\n";
        assert_eq!(table(&sample()), expected);
    }

    #[test]
    fn events_that_overlap_lie_in_different_lanes() {
        let traced = trace_events(sample());
        let lanes: Vec<_> = traced
            .iter()
            .map(|event| event["tid"].as_u64().unwrap())
            .collect();
        assert_eq!(lanes, [1, 2, 1]);
        assert_eq!(traced[2]["ts"], 400_000);
        assert_eq!(traced[2]["args"]["how"], "ran");
    }
}
