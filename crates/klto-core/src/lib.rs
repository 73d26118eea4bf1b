//! The words that every other crate uses: digests and keys, actions as values, failures with an
//! exit code, child processes that die with their parent.
//!
//! Knows nothing of kernels, of stores or of how an action is carried out.

mod action;
mod digest;
mod failure;
mod paths;
mod process;
mod processor;

pub use action::{Action, ActionKind, Argument, FileRef, Input, Outcome, Storable};
pub use digest::{Digest, KeyBuilder, ParseDigestError};
pub use failure::{ExitStatus, Failure, report, with_causes};
pub use paths::{normalize, publish, publish_private};
pub use process::{Captured, die_with_parent, run_captured, signal_with_parent};
pub use processor::processor;
