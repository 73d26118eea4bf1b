//! Results of actions, kept on local disk and found again by key; and stats that stand for content.
//!
//! In: keys, files, bytes of standard error. Out: the same, whole and verified, or the reason why
//! not. It does not know what an action does, nor who builds a key. No failure of the store needs
//! to stop a build: without it, the action runs.
//!
//! A process that uses the store must ignore or handle SIGXFSZ. Otherwise the kernel kills it at
//! its file size limit, where the store gives [`StoreError::Full`].

mod clone;
mod collect;
mod entry;
mod error;
mod examine;
mod history;
mod memo;
mod sealed;
mod store;

pub use collect::Collected;
pub use entry::StoredResult;
pub use error::StoreError;
pub use examine::{Examined, Usage};
pub use history::{HitCount, HitCounts};
pub use memo::{DirectoryMemo, Moment, StatMemo, has_trusted_stamps};
pub use store::{Lookup, Store};
