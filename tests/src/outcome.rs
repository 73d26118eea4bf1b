//! What a run of make left behind: its status, what it printed, and klto's log.

use std::process::ExitStatus;
use std::time::Duration;

use crate::log::Log;

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// klto's log; empty for a run without a session.
    pub log: Log,
    /// From start to end.
    pub elapsed: Duration,
    /// The command, as a message shows it.
    pub command: String,
}

impl Outcome {
    /// The same, if the run ended with success.
    ///
    /// # Panics
    /// It did not.
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}", self.describe());
        self
    }

    /// The command, how it ended, and the end of what it printed.
    pub fn describe(&self) -> String {
        let tail = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!(
            "{}\n{}\nstdout:\n{}\nstderr:\n{}",
            self.command,
            self.status,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }

    /// Objects that kbuild compiled, assembled, linked or wrote, by the lines that it prints:
    /// (`CC`, `init/main.o`).
    pub fn kbuild_lines(&self) -> Vec<(String, String)> {
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let short = line.starts_with("  ") && !words.is_empty();
            let object = words.last()?;
            (short && words.len() > 1).then(|| (words[0].to_owned(), (*object).to_owned()))
        };
        self.stdout.lines().filter_map(line).collect()
    }
}
