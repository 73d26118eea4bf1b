//! What kbuild does to each object right after its compile, on trees to which klto adds LTO, and how
//! klto comes between.
//!
//! In: the tree and its configuration. Out: the steps that are led to a stand-in, by make variables of
//! scripts/Makefile.build; or a failure where the step is one that klto cannot take over. The
//! stand-in is told the real program, so that objects that are native go to it.
//!
//! Who makes the table of traced functions: the compiler where it can (arm64 with
//! DYNAMIC_FTRACE_WITH_REGS is compiled with `-fpatchable-function-entry`, arch/arm64/Makefile, and
//! recordmcount finds nothing to do), else klto, in the place of recordmcount.

use std::ffi::OsString;
use std::path::Path;

use klto_core::Failure;

use crate::config::Config;
use crate::tree::Tree;
use crate::versions::Behaviour;

/// A step after a compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// objtool reads the object and writes tables into it.
    Objtool,
    /// recordmcount adds the table of calls of the function tracer's entry.
    Recordmcount,
    /// recordmcount would find nothing, but it cannot read bitcode: it is not run.
    NoRecordmcount,
}

/// Architectures on which kbuild runs the C program recordmcount (HAVE_C_RECORDMCOUNT), and whose
/// calls klto can read.
const RECORDED: [&str; 2] = ["x86", "arm64"];

impl Step {
    /// The file name of the stand-in, if there is one.
    pub const fn stand_in(self) -> Option<&'static str> {
        match self {
            Self::Objtool => Some("objtool"),
            Self::Recordmcount => Some("recordmcount"),
            Self::NoRecordmcount => None,
        }
    }

    /// The variable to add to make's command line when stand-ins are in `directory`, and its value
    /// with references.
    ///
    /// `__objtool_obj` is the program and also a prerequisite of every object. As two words it is the
    /// stand-in and what it stands for, so that another objtool still makes all objects anew.
    pub fn assignment(self, directory: &Path) -> (&'static str, OsString) {
        let stand_in = |name: &str| {
            let path = directory.join(name).display().to_string();
            path.replace('$', "$$")
        };
        match self {
            Self::Objtool => {
                let value = format!("{} $(objtree)/tools/objtool/objtool", stand_in("objtool"));
                ("__objtool_obj", value.into())
            }
            // scripts/mod/empty.o is made before recordmcount.
            Self::Recordmcount => {
                let value = format!(
                    "if [ $(@) != \"scripts/mod/empty.o\" ]; then {} $(objtree)/scripts/recordmcount \
                     $(RECORDMCOUNT_FLAGS) \"$(@)\"; fi;",
                    stand_in("recordmcount")
                );
                ("sub_cmd_record_mcount", value.into())
            }
            Self::NoRecordmcount => ("sub_cmd_record_mcount", ":".into()),
        }
    }
}

/// The steps of a build to which klto adds LTO.
pub(crate) fn steps(tree: &Tree, config: &Config) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    if tree.has(Behaviour::ObjtoolPerObject) && config.is_set("STACK_VALIDATION") {
        steps.push(Step::Objtool);
    }
    steps.extend(entry_table(tree, config)?);
    Ok(steps)
}

fn entry_table(tree: &Tree, config: &Config) -> Result<Option<Step>, Failure> {
    if !config.is_set("FTRACE_MCOUNT_RECORD") {
        return Ok(None);
    }
    let architecture = tree.source_architecture.as_str();
    if architecture == "arm64" && config.is_set("DYNAMIC_FTRACE_WITH_REGS") {
        return Ok(Some(Step::NoRecordmcount));
    }
    if RECORDED.contains(&architecture) && config.is_set("64BIT") {
        return Ok(Some(Step::Recordmcount));
    }
    let message = format!(
        "klto cannot build {} with LTO: CONFIG_FTRACE_MCOUNT_RECORD=y needs recordmcount for \
         {architecture}, which cannot read bitcode",
        config.path().display(),
    );
    Err(Failure::bad_input(message)
        .hint("turn CONFIG_FUNCTION_TRACER off, or build with --lto=none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_is_told_what_it_stands_for() {
        let (variable, value) = Step::Objtool.assignment(Path::new("/o$t/shims"));
        assert_eq!(variable, "__objtool_obj");
        assert_eq!(
            value,
            "/o$$t/shims/objtool $(objtree)/tools/objtool/objtool"
        );
        let (_, value) = Step::Recordmcount.assignment(Path::new("/s"));
        let value = value.to_string_lossy().into_owned();
        assert!(
            value.contains("/s/recordmcount $(objtree)/scripts/recordmcount "),
            "{value}"
        );
    }
}
