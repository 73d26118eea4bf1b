//! From a link unit to actions: how bitcode becomes native code.
//!
//! In: the ordered objects of a link, what each compile was, what the thin-link decided. Out: the arguments
//! of the thin-link, actions for the backends and for what kbuild does to an object after its compile, the
//! names to put back, and the link of the natives. Everything here is pure: it reads no file and starts no
//! tool.

mod backend;
mod compile;
mod full_link;
mod merge;
mod native_link;
pub mod objtool;
mod promoted;
mod symbol_versions;
mod thin_link;
mod unit;

pub use backend::{BackendParts, Before, backend_action, check_native, split_dwarf_beside};
pub use compile::{CompileCallParts, Grain, Place, Reads, call_key, result_key};
pub use full_link::{FullLinkParts, full_link_action};
pub use merge::{Ambiguous, MergeParts, ambiguous_static, check_merged, merge_action};
pub use native_link::{Substitution, native_link_arguments};
pub use promoted::{PromotedNames, UnitObject};
pub use symbol_versions::{SymbolVersions, is_symbol_versions_script, symbol_versions_action};
pub use thin_link::{ThinLinkPlace, imports_of, linked_members, thin_link_arguments};
pub use unit::{LinkUnit, MemberKind, UnitMember};
