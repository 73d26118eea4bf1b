//! Failures as users see them: what happened, why, and what to do, with the exit code.
//!
//! Anything that is not a [`Failure`] in an `anyhow` chain is a klto bug or an environment fault
//! and is reported with [`ExitStatus::Environment`].

use std::fmt;

/// The exit codes of klto itself. A build that make failed keeps make's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// 1: a step of the build failed.
    BuildFailed,
    /// 2: the arguments, the tree or the configuration cannot be built as asked.
    BadInput,
    /// 3: the machine lacks something, or refuses it.
    Environment,
    /// 4: klto contradicts itself.
    Bug,
}

impl ExitStatus {
    /// The process exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::BuildFailed => 1,
            Self::BadInput => 2,
            Self::Environment => 3,
            Self::Bug => 4,
        }
    }
}

/// A failure that klto explains to its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which exit code it gives.
    pub status: ExitStatus,
    /// What could not be done; names the object.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            hint: None,
        }
    }

    /// The arguments, the tree or the configuration cannot be built as asked.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::BadInput, message)
    }

    /// The machine lacks something, or refuses it.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Environment, message)
    }

    /// A step of the build failed.
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::BuildFailed, message)
    }

    /// klto contradicts itself.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Bug, message)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The text that a user sees for `error`, and the exit code.
///
/// The text is `klto: error: …`, one `  caused by: …` line a cause, and `  hint: …`.
pub fn report(error: &anyhow::Error) -> (String, ExitStatus) {
    let mut text = String::from("klto: error: ");
    let mut status = None;
    let mut hint = None;
    for (depth, cause) in error.chain().enumerate() {
        if depth > 0 {
            text.push_str("\n  caused by: ");
        }
        text.push_str(&cause.to_string());
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            status = status.or(Some(failure.status));
            hint = hint.or(failure.hint.as_deref());
        }
    }
    if let Some(hint) = hint {
        text.push_str("\n  hint: ");
        text.push_str(hint);
    }
    text.push('\n');
    (text, status.unwrap_or(ExitStatus::Environment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn report_names_the_object_the_cause_and_the_remedy() {
        let failure = Failure::bad_input("this is no kernel tree").hint("run it in one");
        let error = Err::<(), _>(failure)
            .context("reading /x/Makefile")
            .unwrap_err();
        let (text, status) = report(&error);
        assert_eq!(
            text,
            "klto: error: reading /x/Makefile\n  caused by: this is no kernel tree\n  hint: run it in one\n"
        );
        assert_eq!(status, ExitStatus::BadInput);
    }
}
