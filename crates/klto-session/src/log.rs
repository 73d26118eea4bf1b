//! The build log: one line for each action, in `.klto/log`, and short lines for the user.
//!
//! A line is `<how> <what> <object>[: <note>]`, as `hit backend init/main.o`, `ran thin-link vmlinux.o: 350
//! objects, 0.31 s`; a line `why <what> <object>: <reason>` stands before what is not kept. `removed
//! <object>: <why>` and `made old <target>: <why>` say what make is to make again, and `no make: <why>` that
//! a build since did without. Tests, users and `klto explain` read it.

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::progress::Display;

/// The file in the scratch directory.
pub(crate) const LOG: &str = "log";

/// Tells the user on standard error; nobody may be there to read it.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Passes on what a tool printed, byte for byte.
pub(crate) fn pass_on(bytes: &[u8]) {
    let _ = std::io::stderr().write_all(bytes);
}

/// Adds to the log of the last build in which make ran, and which it goes on telling of, that one after it
/// did without. Once is enough; that it cannot be written concerns nobody.
pub(crate) fn note_without_make(path: &Path, why: &str) {
    let line = format!("no make: {why}");
    let log = fs_err::read_to_string(path);
    if log.is_ok_and(|log| log.lines().last() != Some(&line)) {
        let file = fs_err::OpenOptions::new().append(true).open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

/// Where actions are named.
#[derive(Debug)]
pub(crate) struct Log {
    file: Mutex<fs_err::File>,
    display: Display,
}

impl Log {
    /// Begins the log of a build.
    pub fn create(path: &Path, display: Display) -> std::io::Result<Self> {
        Ok(Self {
            file: Mutex::new(fs_err::File::create(path)?),
            display,
        })
    }

    /// What the user sees.
    pub fn display(&self) -> Display {
        self.display
    }

    /// Adds one line to the file.
    pub fn line(&self, text: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not fail the build.
        let _ = writeln!(file, "{text}");
    }

    /// Adds one line to the file and shows it in kbuild's own layout: `  KLTO    vmlinux.o: …`.
    pub fn show(&self, text: &str) {
        self.line(&format!("summary {text}"));
        if self.display != Display::Nothing {
            let _ = writeln!(std::io::stdout(), "  KLTO    {text}");
        }
    }
}
