//! One build under a watch: what make need not look at is left out, and what the build has left behind is
//! written down for the next.
//!
//! In: how to run make. Out: how it ended. A failure to look at the trees costs time, not rightness; where it
//! is not known what has to be made again, the build fails.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;
use klto_core::Failure;
use klto_kbuild::link::is_of_distributed_link;

use super::remake::Remake;
use super::trees::CONFIGURATION;
use super::{Difference, State, Stock, Watch};
use crate::archives::record_beside;
use crate::session::Session;
use crate::sub_makes::LeaveOut;

const UNDECIDED: &str = "what has to be made again could not be found out";

/// Runs make, a second time where the first one changed what others that were left out may read.
pub(crate) fn run_watched(
    session: &Session,
    watch: Watch,
    difference: &Difference,
    run_make: &mut dyn FnMut() -> anyhow::Result<ExitStatus>,
) -> anyhow::Result<ExitStatus> {
    if let Some(why) = watch.comments_count.get() {
        session.log.line(&format!("comments count: {why}"));
    }
    or_warning(session, watch.have_configuration_read(session));
    or_warning(session, watch.make_targets_ahead_old(session));
    let (remake, mut status) = match difference {
        Difference::Sources(sources) => run_beside(session, &watch, sources, run_make)?,
        _ => {
            let old = or_warning(session, watch.sources_with_old_times()).unwrap_or_default();
            if !old.is_empty() || watch.is_unfinished() {
                have_made_again(session, &watch, &watch.remake(&old, &session.journal)?)?;
            }
            watch.forget()?;
            (None, run_make()?)
        }
    };
    let mut leave_out = remake
        .as_ref()
        .and_then(|remake| remake.leave_out.as_ref().ok());
    let mut stock = or_warning(session, watch.stock(session));
    if let (Some(remake), Some(_)) = (&remake, leave_out) {
        let why = why_all(session, &watch, (stock.as_ref(), status), remake);
        let is_interrupted = status.code().is_none() || session.engine.is_cancelled();
        if let Some(why) = why.filter(|_| !is_interrupted) {
            session
                .log
                .line(&format!("makes: all run after all: {why}"));
            session.makes.decide_later().decide(None);
            leave_out = None;
            status = run_make()?;
            stock = or_warning(session, watch.stock(session));
        }
    }
    if leave_out.is_some() {
        let (ran, left_out) = session.makes.counts();
        session
            .log
            .line(&format!("makes: {ran} ran, {left_out} were left out"));
    }
    let leave_out = leave_out.cloned();
    if let Some(stock) = stock {
        let kept = end(session, watch, stock, (remake, leave_out), status);
        or_warning(session, kept);
    }
    Ok(status)
}

impl Watch {
    /// The clock was set back: what was made before would be newer than all that is made from now on, and
    /// make would take it for made. It becomes older than every source. Only targets do, and only after a
    /// build that was complete: what a user has written, and what a build has left to do, is known by its
    /// time.
    fn make_targets_ahead_old(&self, session: &Session) -> io::Result<()> {
        if self.state.is_none() || self.is_unfinished() {
            return Ok(());
        }
        let mut count = 0;
        for path in self.ahead.iter().filter(|path| is_target(path)) {
            self.make_old(path)?;
            count += 1;
        }
        if count > 0 {
            session.log.line(&format!(
                "made old {count} files: their time was still to come"
            ));
        }
        Ok(())
    }

    /// The `.config` has another content than after the last build, and a time that is not after what was made of
    /// it: for make nothing has changed. What was made becomes older, so that Kconfig is asked. A `.config` whose
    /// time is still to come would have make begin anew until then: it gets the time of this build. Neither happens
    /// where objects are ahead that stay so, for they would be taken for made, nor where a Kconfig file is ahead.
    fn have_configuration_read(&self, session: &Session) -> io::Result<()> {
        let known = self.last_known();
        let is_same = |state: &State| {
            let before = state.facts.get(CONFIGURATION);
            before == self.facts.get(CONFIGURATION)
        };
        let written = |path: &Path| fs_err::metadata(path)?.modified();
        let place = |name: &str| self.roots.output.join("include/config").join(name);
        let made = place("auto.conf");
        let configured = written(&self.roots.config)?;
        let is_newer = written(&made).is_ok_and(|made| configured > made);
        let is_hidden = !is_newer && made.exists() && !known.is_none_or(is_same);
        let is_ahead = configured > self.begun;
        if !is_hidden && !is_ahead {
            return Ok(());
        }
        let keeps_targets = self.state.is_none() || self.is_unfinished();
        let has_targets_ahead = self.ahead.iter().any(|path| is_target(path));
        let record = std::fs::read_to_string(place("auto.conf.cmd")).unwrap_or_default();
        let read = record.split_ascii_whitespace();
        let mut read = read.map(|word| self.roots.source.join(word));
        let is_file_ahead = |path: PathBuf| written(&path).is_ok_and(|time| time > self.begun);
        if keeps_targets && has_targets_ahead || read.any(is_file_ahead) {
            return Ok(());
        }
        if is_hidden || is_ahead && is_newer {
            session
                .log
                .line("made old include/config/auto.conf: the configuration has changed");
            self.make_old(&made)?;
        }
        if is_ahead {
            let opened = fs_err::File::open(&self.roots.config)?;
            opened.file().set_modified(self.begun)?;
        }
        Ok(())
    }
}

/// Whether the build has made a file: kbuild has a record of that, or the link of indexes wrote it.
fn is_target(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    record_beside(path).exists() || is_of_distributed_link(name.as_encoded_bytes())
}

/// Why the build was not whole without the makes that were left out.
fn why_all(
    session: &Session,
    watch: &Watch,
    (stock, status): (Option<&Stock>, ExitStatus),
    remake: &Remake,
) -> Option<String> {
    // Other makes were above it than when it was made last.
    if let Some(target) = session
        .makes
        .not_made(&remake.targets)
        .filter(|_| status.success())
    {
        return Some(format!("{} was not made again", target.display()));
    }
    let Some(stock) = stock else {
        return Some("the trees could not be looked at".to_owned());
    };
    let place = watch.unexpected(stock, &remake.targets)?;
    Some(format!("{place} has changed"))
}

/// Runs make, and beside its start finds out what is to be made again, and begins to compile that. No make
/// under it goes on before it is known, and before what it would take for made is old. Where that fails, so
/// do they.
fn run_beside(
    session: &Session,
    watch: &Watch,
    sources: &[PathBuf],
    run_make: &mut dyn FnMut() -> anyhow::Result<ExitStatus>,
) -> anyhow::Result<(Option<Remake>, ExitStatus)> {
    let undecided = session.makes.decide_later();
    std::thread::scope(|scope| {
        scope.spawn(|| session.compile_ahead(&watch.compiled_from(sources, &session.journal)));
        let decision = scope.spawn(move || {
            let remake = watch.remake(sources, &session.journal)?;
            let leave_out = begin(session, watch, &remake)?;
            undecided.decide(leave_out);
            anyhow::Ok(remake)
        });
        let status = run_make();
        // Where it did not even begin.
        session.ahead.stop();
        let remake = decision.join().map_err(|_| Failure::bug(UNDECIDED))?;
        for label in session.ahead.left() {
            let line = format!("ran compile {label}: make did not ask for it");
            session.log.line(&line);
        }
        Ok((Some(remake.context(UNDECIDED)?), status?))
    })
}

/// Makes old what make would take for made.
fn have_made_again(session: &Session, watch: &Watch, remake: &Remake) -> io::Result<()> {
    for target in &remake.taken_for_made {
        session.log.line(&format!(
            "made old {}: its source is not newer",
            target.display()
        ));
        watch.make_old(target)?;
    }
    Ok(())
}

/// Has make make what it would take for made; the makes to leave out.
fn begin(session: &Session, watch: &Watch, remake: &Remake) -> io::Result<Option<LeaveOut>> {
    have_made_again(session, watch, remake)?;
    // Not before: when klto is killed here, the next build knows that they were made old.
    watch.forget()?;
    Ok(match &remake.leave_out {
        Ok(leave_out) => Some(leave_out.clone()),
        Err(why) => {
            session.log.line(&format!("makes: all run: {why}"));
            None
        }
    })
}

fn end(
    session: &Session,
    watch: Watch,
    stock: Stock,
    (remake, leave_out): (Option<Remake>, Option<LeaveOut>),
    status: ExitStatus,
) -> anyhow::Result<()> {
    match (status.success(), remake, &leave_out) {
        (true, _, _) => watch.keep(session, stock, leave_out),
        (false, Some(remake), Some(_)) => watch.keep_unfinished(stock, remake.targets),
        (false, _, _) => watch.keep_failed(stock),
    }
}

fn or_warning<T, E: std::fmt::Display>(session: &Session, result: Result<T, E>) -> Option<T> {
    let warn = |error: E| {
        session.log.line(&format!(
            "warning the state of the trees is not known: {error}"
        ))
    };
    result.map_err(warn).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_has_written_is_no_target() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in [".config", "vmlinux", ".vmlinux.cmd"] {
            fs_err::write(path(name), "").unwrap();
        }
        assert!(is_target(&path("vmlinux")));
        assert!(!is_target(&path(".config")));
    }
}
