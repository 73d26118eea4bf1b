//! The last result of a test that takes long, in a file of the development cache.
//!
//! In: a file. Out: what came of the test, and the commit that was tested.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

/// What came of the test.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The commit that was tested.
    pub commit: String,
    /// Whether everything was as it must be.
    pub pass: bool,
    /// How long it took.
    pub seconds: f64,
    /// What was seen; or why it does not pass, in one line.
    pub why: String,
}

impl Verdict {
    /// The one that [`Verdict::write`] left in a file, if it did.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match path.exists() {
            true => Ok(Self::parse(&fs::read_to_string(path)?)),
            false => Ok(None),
        }
    }

    /// Keeps it in a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, self.to_text())?)
    }

    fn to_text(&self) -> String {
        let pass = if self.pass { "pass" } else { "fail" };
        format!(
            "{}\n{pass}\n{:.0}\n{}\n",
            self.commit, self.seconds, self.why
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        Some(Self {
            commit: lines.next()?.to_owned(),
            pass: lines.next()? == "pass",
            seconds: lines.next()?.parse().ok()?,
            why: lines.next()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_kept() {
        let verdict = Verdict {
            commit: "abc 2026-01-01".into(),
            pass: true,
            seconds: 61.0,
            why: "488 objects".into(),
        };
        assert_eq!(Verdict::parse(&verdict.to_text()), Some(verdict));
        assert_eq!(Verdict::parse("abc\npass\n"), None);
    }
}
