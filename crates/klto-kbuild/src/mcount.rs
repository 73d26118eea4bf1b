//! Who makes the table of traced functions on a tree to which klto adds LTO.
//!
//! In: the tree and its configuration. Out: the make variable that keeps recordmcount, which reads
//! ELF only, away from bitcode; or a failure where the table needs recordmcount.
//!
//! arm64 with DYNAMIC_FTRACE_WITH_REGS is compiled with `-fpatchable-function-entry`: the compiler
//! itself writes the table's section (arch/arm64/Makefile), and recordmcount finds nothing to do.

use klto_core::Failure;

use crate::config::Config;
use crate::tree::Tree;

/// The variable to set on make's command line, and its value; `None` if nothing is traced.
pub(crate) fn without_recordmcount(
    config: &Config,
    tree: &Tree,
) -> Result<Option<(&'static str, &'static str)>, Failure> {
    if !config.is_set("FTRACE_MCOUNT_RECORD") {
        return Ok(None);
    }
    if tree.source_architecture == "arm64" && config.is_set("DYNAMIC_FTRACE_WITH_REGS") {
        return Ok(Some(("sub_cmd_record_mcount", ":")));
    }
    let message = format!(
        "klto cannot build {} with LTO: CONFIG_FTRACE_MCOUNT_RECORD=y needs recordmcount for {}, \
         which cannot read bitcode",
        config.path().display(),
        tree.source_architecture
    );
    Err(Failure::bad_input(message)
        .hint("turn CONFIG_FUNCTION_TRACER off, or build with --lto=none"))
}
