//! What the user sees while backends run: on a terminal one line that is written anew, elsewhere a line now
//! and then. make is silent in that time, and the rest of a large kernel's backends takes minutes.
//!
//! In: a batch's progress. Out: text on standard output. With `-s` there is none, and with `V=1`, where each
//! command is a line, none that is written anew. There are no colours, so `NO_COLOR` has nothing to change.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use klto_exec::{Progress, Snapshot};
use rustix::termios::tcgetwinsize;

/// How often a terminal's line is written anew.
const REDRAWN: Duration = Duration::from_millis(250);
/// How often a line is added where there is no terminal.
const ADDED: Duration = Duration::from_secs(20);
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;
/// Goes to the first column and erases the line.
const ERASE: &str = "\r\x1b[K";

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Display {
    Nothing,
    /// A line now and then.
    Added,
    /// One line that is written anew.
    Redrawn,
}

impl Display {
    /// For standard output as it is.
    pub fn of_output(is_silent: bool, is_verbose: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match std::io::stdout().is_terminal() && !is_dumb {
            _ if is_silent => Self::Nothing,
            true if !is_verbose => Self::Redrawn,
            _ => Self::Added,
        }
    }

    /// Shows the progress of a unit's backends until `work` has ended.
    pub fn show_while<T>(self, unit: &str, progress: &Progress, work: impl FnOnce() -> T) -> T {
        let interval = match self {
            Self::Nothing => return work(),
            Self::Added => ADDED,
            Self::Redrawn => REDRAWN,
        };
        let (over, is_over) = bounded::<()>(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let draw = || self.draw(&line(unit, &progress.snapshot()));
                if self == Self::Redrawn {
                    draw();
                }
                while is_over.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    draw();
                }
                if self == Self::Redrawn {
                    write(ERASE);
                }
            });
            let result = work();
            drop(over);
            result
        })
    }

    fn draw(self, line: &str) {
        if self == Self::Added {
            return write(&format!("{line}\n"));
        }
        let columns = tcgetwinsize(std::io::stdout().as_fd()).map_or(0, |size| size.ws_col);
        let columns = match usize::from(columns) {
            0 => COLUMNS,
            columns => columns,
        };
        let shown: String = line.chars().take(columns - 1).collect();
        // Another recipe's line begins where this one does.
        write(&format!("{ERASE}{shown}\r"));
    }
}

/// Nobody may be there to read it.
fn write(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

fn line(unit: &str, now: &Snapshot) -> String {
    let left = now.total.saturating_sub(now.done + now.running);
    let mut line = format!(
        "  KLTO    {unit}: {} of {} backends done, {} reused, {} running, {left} left",
        now.done, now.total, now.reused, now.running
    );
    if let Some((label, time)) = &now.longest {
        line += &format!("; {label} {:.0} s", time.as_secs_f64());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_all_numbers() {
        let mut now = Snapshot {
            total: 520,
            done: 120,
            reused: 30,
            running: 2,
            longest: Some(("init/main.o".into(), Duration::from_millis(3600))),
        };
        let wanted = "  KLTO    vmlinux.o: 120 of 520 backends done, 30 reused, 2 running, 398 left; \
                      init/main.o 4 s";
        assert_eq!(line("vmlinux.o", &now), wanted);
        now.longest = None;
        assert!(line("vmlinux.o", &now).ends_with("398 left"));
    }

    #[test]
    fn silence_is_silent() {
        assert_eq!(Display::of_output(true, false), Display::Nothing);
    }
}
