//! Failures as users see them: what happened, why, and what to do, with the exit code.
//!
//! What has no [`Failure`] in its `anyhow` chain is a fault of the environment, and is reported with
//! [`ExitStatus::Environment`]; where klto contradicts itself it is a [`Failure::bug`].

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

/// What a user can do about a bug.
const REPORT_BUG: &str =
    "this is a bug in klto; report it with the file .klto/log of the output tree";

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

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
    let of_bug = || (status == Some(ExitStatus::Bug)).then_some(REPORT_BUG);
    if let Some(hint) = hint.or_else(of_bug) {
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
        let (text, status) = report(&Failure::bug("two and two are five").into());
        assert!(text.ends_with(&format!("hint: {REPORT_BUG}\n")), "{text}");
        assert_eq!(status, ExitStatus::Bug);
    }

    #[test]
    fn causes_stand_behind_what_they_cause() {
        let error = std::io::Error::other(Failure::bug("no room"));
        assert_eq!(with_causes(&error), "no room");
        assert_eq!(with_causes(&Chain(Some(Box::new(Chain(None))))), "up: up");
    }

    #[derive(Debug)]
    struct Chain(Option<Box<Self>>);

    impl fmt::Display for Chain {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("up")
        }
    }

    impl std::error::Error for Chain {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.0.as_deref().map(|cause| cause as _)
        }
    }
}
