//! Steps that several tests of one file need: done once in a process, timed, failures kept.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;

/// Something that is made on first use. A failure is kept too: a build of minutes that fails is
/// not repeated by each test that needs it.
#[derive(Debug)]
pub struct Shared<T>(OnceLock<Result<T, String>>);

impl<T> Shared<T> {
    /// Nothing is made yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What `make` made in the first call.
    ///
    /// # Panics
    /// `make` failed or panicked, in this call or in an earlier one.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> &T {
        let mut panic = None;
        let made = self
            .0
            .get_or_init(|| match catch_unwind(AssertUnwindSafe(make)) {
                Ok(made) => made.map_err(|error| format!("{error:#}")),
                Err(payload) => {
                    panic = Some(payload);
                    Err("an earlier test has failed here".to_owned())
                }
            });
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
        match made {
            Ok(made) => made,
            Err(message) => panic!("{message}"),
        }
    }
}

/// Runs a step that takes long, and prints its name and seconds.
pub fn step<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = run();
    eprintln!("    {:7.1} s  {name}", begin.elapsed().as_secs_f64());
    result
}
