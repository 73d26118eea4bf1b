//! A running make seen through its tools.
//!
//! In: a resolved plan. Out: make's exit code, and a kernel whose bitcode became native by link unit.
//! The session serves the shims while make runs; it decides for each tool call whether the tool runs
//! as it is, with other arguments, or not at all. What a unit's actions are is klto-lower's, how they
//! are carried out is klto-exec's.

mod after_compile;
mod agreement;
mod archiver;
mod archives;
mod begun;
mod build;
mod compile;
mod distributed;
mod fewer_patterns;
mod initcalls;
mod inputs;
mod jobs;
mod journal;
mod linker;
mod log;
mod make;
mod memory;
mod old_time;
mod progress;
mod reader;
mod recipe;
mod scratch;
mod server;
mod session;
mod sub_makes;
mod symbol_lister;
mod timeline;
mod tools;
mod unchanged;
mod unit;

pub use build::{Settings, StoreChoice, forecast, run};
pub use journal::Journal;
pub use memory::needed_by_full_link;
pub use recipe::Recipe;
pub use scratch::{SCRATCH_NAME, hold_output, remove_scratch};
pub use timeline::{Event, read_timeline};
