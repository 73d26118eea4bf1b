//! How long the order of initcalls takes: kbuild's Perl script, and klto in its place.
//!
//! In: the large kernel as klto has built it. Out: seconds of the script, run by hand on the objects of an
//! edit's build, and of klto within that build, by its own trace.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use klto_core::Failure;

use super::builds::Builds;
use super::figures::{Figures, Value};
use super::rows::Side;
use crate::command;

/// The one series.
pub(super) const SERIES: &str = "initcalls";
/// The sides: kbuild's script, and klto.
pub(super) const SCRIPT: &str = "script";
pub(super) const KLTO: &str = "klto";
/// How often each is measured.
const ROUNDS: usize = 5;
/// How klto's trace names what takes the place of the script.
const EVENT: &str = "klto for the order of initcalls";

/// Whether klto's figures are all there.
pub(super) fn is_complete(figures: &Figures) -> bool {
    figures.of(SERIES, KLTO).count() >= ROUNDS
}

/// Adds what is missing: both after each of some edits.
pub(super) fn measure(builds: &Builds, klto: &Path, figures: &mut Figures) -> Result<()> {
    while !is_complete(figures) {
        builds.edit(Side::Klto)?;
        let (source, output) = (builds.source(Side::Klto)?, builds.output(Side::Klto));
        let mut trace = Command::new(klto);
        let trace = command::output(trace.arg("trace").arg("-O").arg(&output))?;
        let seconds = [
            (KLTO, of_trace(&trace)?),
            (SCRIPT, by_script(&source, &output)?),
        ];
        for (side, seconds) in seconds {
            println!("{SERIES} {side}: {seconds:.3} s");
            let value = Value {
                seconds,
                ..Value::default()
            };
            figures.add(SERIES, side, value)?;
        }
    }
    Ok(())
}

/// Seconds of the event in a trace of Chrome's form.
fn of_trace(trace: &str) -> Result<f64> {
    let events: serde_json::Value = serde_json::from_str(trace).context("reading klto's trace")?;
    let events = events.get("traceEvents").unwrap_or(&events).as_array();
    let mut events = events.into_iter().flatten();
    let event = events.find(|event| event["name"] == EVENT);
    let microseconds = event.and_then(|event| event["dur"].as_f64());
    let microseconds = microseconds.ok_or_else(|| {
        let failure = Failure::build("the build did not ask klto for the order of initcalls");
        failure.hint("the first build of an output tree leaves it to kbuild's script")
    })?;
    Ok(microseconds / 1e6)
}

fn by_script(source: &Path, output: &Path) -> Result<f64> {
    let mut perl = Command::new("perl");
    perl.arg(source.join("scripts/generate_initcall_order.pl"));
    perl.arg("vmlinux.a").current_dir(output);
    perl.envs([("objtree", "."), ("NM", "llvm-nm-22")]);
    let begin = Instant::now();
    command::output(&mut perl)?;
    Ok(begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_found_in_a_trace() {
        let trace = format!(
            r#"{{"traceEvents":[{{"name":"x","dur":7}},{{"name":"{EVENT}","dur":52000}}]}}"#
        );
        assert_eq!(of_trace(&trace).unwrap(), 0.052);
        assert!(of_trace(r#"{"traceEvents":[]}"#).is_err());
    }
}
