//! One build under a watch: what make need not look at is left out, and what the build has left behind is
//! written down for the next.
//!
//! In: how to run make. Out: how it ended. A failure to look at the trees costs time, not rightness.

use std::io;
use std::process::ExitStatus;

use super::remake::Remake;
use super::{Difference, Stock, Watch};
use crate::session::{Session, lock};
use crate::sub_makes::LeaveOut;

/// Runs make, a second time where the first one changed what others that were left out may read.
pub(crate) fn run_watched(
    session: &Session,
    watch: Watch,
    difference: &Difference,
    run_make: &mut dyn FnMut() -> anyhow::Result<ExitStatus>,
) -> anyhow::Result<ExitStatus> {
    let remake = match difference {
        Difference::Sources(sources) => {
            let remake = watch.remake(sources, &lock(&session.journal));
            or_warning(session, remake)
        }
        _ => None,
    };
    if let Some(remake) = &remake {
        begin(session, &watch, remake)?;
    }
    let mut leave_out = remake
        .as_ref()
        .and_then(|remake| remake.leave_out.as_ref().ok());
    let mut status = run_make()?;
    let mut stock = or_warning(session, watch.stock(session));
    if let (Some(remake), Some(_), true) = (&remake, leave_out, status.success()) {
        let all_changed = "the trees could not be looked at".to_owned();
        let unexpected = match &stock {
            Some(stock) => watch.unexpected(stock, &remake.targets),
            None => Some(all_changed),
        };
        if let Some(place) = unexpected {
            session.log.line(&format!(
                "make runs again, for all directories: {place} has changed"
            ));
            session.makes.leave_out(None);
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

fn begin(session: &Session, watch: &Watch, remake: &Remake) -> io::Result<()> {
    for target in &remake.taken_for_made {
        session.log.line(&format!(
            "removed {}: its source is not newer",
            target.display()
        ));
        watch.remove(target)?;
    }
    match &remake.leave_out {
        Ok(leave_out) => session.makes.leave_out(Some(leave_out.clone())),
        Err(why) => session.log.line(&format!("makes: all run: {why}")),
    }
    Ok(())
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
        (false, Some(remake), Some(_)) => watch.keep_unfinished(session, stock, remake.targets),
        (false, _, _) => Ok(()),
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
