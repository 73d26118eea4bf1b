//! What the end-to-end tests share: klto's program, builds of the trees, references and the log.
//!
//! The tests build and boot kernels. A program's tests share what they build, and run one at a time:
//! `cargo test -p klto-tests -- --test-threads=1`. Packages and sources come from
//! `cargo xtask setup`; a test without them fails and says so, none is skipped.

mod binary;
mod build;
mod comparison;
mod kept;
mod log;
mod outcome;
mod place;
mod promoted;
mod shared;
mod source;
mod strace;
mod units;

pub use binary::klto_binary;
pub use build::{Build, Running};
pub use comparison::assert_like_reference;
pub use kept::{clean_module, prepared, prepared_for, reference};
pub use log::{Action, Log};
pub use outcome::Outcome;
pub use place::{cache, fresh_directory, test_directory};
pub use promoted::{assert_ambiguous, promoted_names_of_vmlinux};
pub use shared::{Shared, step};
pub use source::PrivateSource;
pub use strace::Opened;
pub use units::{archives, is_bitcode, is_compiled, module_objects, natives_without_reason};
