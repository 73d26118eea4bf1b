//! make as klto's child: it lives no longer than klto, and nothing under it lives longer than it.
//!
//! klto is the reaper of orphans (prctl(2), PR_SET_CHILD_SUBREAPER): when make is killed, its recipes
//! fall to klto, which ends them. When klto is killed, make receives SIGTERM and ends its own.

use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context as _;
use klto_core::signal_with_parent;
use rustix::process::{Pid, Signal, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long after SIGINT make may go on. It takes it for granted that its children were told too, as a
/// terminal does, and waits for them; SIGTERM it passes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs make to its end; `cancel` is called when the user stops the build.
pub(crate) fn run_make(
    make: &mut Command,
    cancel: impl Fn() + Send + 'static,
) -> anyhow::Result<ExitStatus> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("becoming the reaper of make's children")?;
    let mut child = signal_with_parent(make, Signal::TERM)
        .spawn()
        .with_context(|| format!("starting {}", make.get_program().display()))?;
    let mut signals = Signals::new(watched_signals()).context("watching signals")?;
    let handle = signals.handle();
    let make_pid = pid_of(&child);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        for signal in signals.forever() {
            cancel();
            let forwarded = if signal == SIGINT {
                Signal::INT
            } else {
                Signal::TERM
            };
            // The terminal may have told make already; a second signal changes nothing.
            if let Some(pid) = make_pid {
                let _ = kill_process(pid, forwarded);
                if signal == SIGINT
                    && ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout)
                {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        }
    });
    let status = child.wait();
    drop(end);
    handle.close();
    let _ = watcher.join();
    let status = status.context("waiting for make")?;
    Ok(status)
}

/// The signals that stop a build. One that is ignored already stays so, in make too: `nohup klto
/// make` and a script's `klto make &` go on where plain make would.
fn watched_signals() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored_signals(&status);
    let is_watched = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(is_watched)
        .collect()
}

/// The mask of ignored signals, bit 0 for signal 1 (proc_pid_status(5)).
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Ends every child that klto still has, but `own`: first by SIGTERM, then by SIGKILL. These are the
/// recipes of a make that was killed.
pub(crate) fn end_orphans(own: &[u32]) {
    for attempt in 0..100 {
        let is_own = |pid: &Pid| own.contains(&pid.as_raw_pid().cast_unsigned());
        let mut orphans = children();
        orphans.retain(|pid| !is_own(pid));
        if orphans.is_empty() {
            return;
        }
        let signal = if attempt < 20 {
            Signal::TERM
        } else {
            Signal::KILL
        };
        for orphan in orphans {
            if attempt % 20 == 0 {
                let _ = kill_process(orphan, signal);
            }
            let _ = waitpid(Some(orphan), rustix::process::WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Children of any thread of this process (proc_pid_task_children(5)).
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000003\n";
        assert_eq!(ignored_signals(status), 3);
        assert_eq!(ignored_signals(""), 0);
    }
}
