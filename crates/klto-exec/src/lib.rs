//! The engine: actions in, outcomes out, each by a run of its tool or from the store.
//!
//! It decides how many tools run at once, asks the store first, checks what a tool wrote, and stores
//! it. It knows nothing of kernels or link-time optimization: what makes an output right is a
//! function that the caller gives.

mod engine;
mod progress;
mod slots;
mod tool_identity;

pub use engine::{Completed, Engine, How, OutputCheck, ToolCall};
pub use progress::{Progress, Snapshot};
pub use slots::{Crew, Slot, Slots};
pub use tool_identity::{ToolIdentity, tool_identity};
