//! One command, watched: its lines go on to the user, and the moments of some are kept.
//!
//! In: a command that says what it does line by line, and which lines count. Out: when each was
//! seen first, and when the command ended. It does not know what the lines mean.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use klto_core::{Failure, die_with_parent};

use crate::command;

/// A command that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// For each wanted line start: when the first such line came.
    pub seen: Vec<Option<Duration>>,
    /// From start to end.
    pub elapsed: Duration,
}

/// Runs `command`; `wanted` are starts of lines of its standard output.
pub fn run(command: &mut Command, wanted: &[&str]) -> Result<Observed> {
    let begin = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = die_with_parent(command)
        .spawn()
        .with_context(|| format!("starting {}", command::words(command)))?;
    let output = child.stdout.take().context("a pipe was asked for")?;
    let mut seen = vec![None; wanted.len()];
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        for (start, moment) in wanted.iter().zip(&mut seen) {
            if moment.is_none() && line.starts_with(start.as_bytes()) {
                *moment = Some(begin.elapsed());
            }
        }
        let mut shown = std::io::stdout().lock();
        shown.write_all(&line)?;
        shown.write_all(b"\n")?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(Failure::build(format!("{}: {status}", command::words(command))).into());
    }
    Ok(Observed {
        seen,
        elapsed: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_each_start_is_seen() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo '  CC a'; echo '  LD b'"]);
        let observed = run(&mut shell, &["  LD", "  AR"]).unwrap();
        assert!(observed.seen[0].is_some_and(|moment| moment <= observed.elapsed));
        assert_eq!(observed.seen[1], None);
    }

    #[test]
    fn a_failure_names_the_command() {
        let mut shell = Command::new("sh");
        let error = run(shell.args(["-c", "exit 3"]), &[]).unwrap_err();
        assert_eq!(error.to_string(), "sh -c exit 3: exit status: 3");
    }
}
