//! What klto knows of kernel trees, configurations and toolchains.
//!
//! In: klto's command line, the environment and the tree on disk. Out: a checked [`Plan`] for
//! running make, a [`Diagnosis`], or a [`Reconfiguration`]. Nothing here writes a file or starts a build.
//!
//! [`MakeArguments`] and [`MakeFlags`] model make's words; [`Tree`] and [`Config`] are what is on
//! disk; [`Toolchain`] is what kbuild would run; [`Behaviour`] is all that differs between trees;
//! [`compile`], [`front_end`], [`genksyms`] and [`link`] read the arguments of tools, [`record`] what kbuild notes
//! of a target.

mod compat;
pub mod compile;
mod config;
mod environment;
pub mod front_end;
pub mod genksyms;
mod goals;
mod initcalls;
pub mod link;
mod make_arguments;
mod mode;
mod plan;
pub mod record;
mod refusals;
mod steps;
mod sub_make;
#[cfg(test)]
mod testing;
mod toolchain;
mod tree;
mod variables;
mod versions;

pub use compat::compat_headers;
pub use config::{Config, UpstreamLto};
pub use environment::Environment;
pub use initcalls::{InitcallOrder, UnclearInitcalls, shorter_linker_script};
pub use make_arguments::{
    Assignment, Jobs, MakeArguments, MakeFlags, MakeOption, Operator, UsedOption,
};
pub use mode::{LtoRequest, Mode};
pub use plan::{
    ConfigChange, Diagnosis, Invocation, LtoBuild, Parallelism, PlainMake, PlainReason, Plan,
    Reconfiguration,
};
pub use steps::Step;
pub use sub_make::{
    directory_of_make, is_made_with_vmlinux, makes_a_directory, makes_boot_image, makes_the_tree,
    makes_tools,
};
pub use toolchain::{Checked, LlvmVersion, Role, Tool, ToolHook, Toolchain};
pub use tree::{ExternalModule, Tree};
pub use variables::Variables;
pub use versions::{Behaviour, KernelVersion, OLDEST_LLVM_WITH_DEPRECATED_MACROS, unhooked_reader};
