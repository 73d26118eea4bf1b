//! A build with LTO: everything that a session needs to know before it starts make.
//!
//! In: the tree, its configuration and the variables. Out: the build, or the first reason against
//! it. It knows nothing of sockets, stores or shims.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::Result;
use klto_core::Failure;

use crate::config::{Config, UpstreamLto};
use crate::environment::Environment;
use crate::make_arguments::{Jobs, MakeArguments, MakeFlags};
use crate::mode;
use crate::refusals::{refusals, refusals_of_full};
use crate::steps::{Step, steps};
use crate::toolchain::{Additions, Checked, LlvmVersion, Role, ToolHook, Toolchain};
use crate::tree::Tree;
use crate::variables::Variables;
use crate::versions::OLDEST_TREE;

/// A build with LTO.
#[derive(Debug, Clone)]
pub struct LtoBuild {
    /// What is built.
    pub tree: Tree,
    /// Its configuration.
    pub config: Config,
    /// Whether kbuild itself adds LTO flags.
    pub upstream: UpstreamLto,
    /// Whether each unit is optimized as a whole.
    pub full: bool,
    /// The tools.
    pub toolchain: Toolchain,
    /// Their version.
    pub llvm: LlvmVersion,
    /// See [`Checked::first_lines`].
    pub first_lines_of_tools: Vec<String>,
    /// How klto comes between kbuild and the tools.
    pub hooks: Vec<(Role, ToolHook)>,
    /// What kbuild does to each object after its compile and klto does to its native.
    pub steps: Vec<Step>,
    /// The words after `make`, without `-j`.
    pub arguments: MakeArguments,
    /// What the environment's MAKEFLAGS and GNUMAKEFLAGS say; the session writes MAKEFLAGS anew
    /// with its jobserver and removes GNUMAKEFLAGS.
    pub make_flags: MakeFlags,
    /// How many jobs at once.
    pub parallelism: Parallelism,
    /// What the user is told.
    pub notes: Vec<String>,
    environment: Environment,
}

/// How many jobs a build may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parallelism {
    /// From `-j`; one without it, as make does.
    Jobs(Jobs),
    /// The jobserver of a parent make: `3,4` or `fifo:path`.
    Inherited(OsString),
}

impl LtoBuild {
    /// Whether make only says what it would do (`-n`, `-q`) or touches files (`-t`).
    pub fn is_dry(&self) -> bool {
        self.make_flags.is_dry(&self.arguments)
    }

    /// Adds words to a variable that kbuild appends to its own, as KCFLAGS, whatever its origin.
    pub fn append_variable(&mut self, name: &str, words: &str) -> Result<()> {
        let variables = Variables {
            arguments: &self.arguments,
            make_flags: &self.make_flags,
            environment: &self.environment,
        };
        let mut value = variables.get_filled(name)?.unwrap_or_default();
        if !value.is_empty() {
            value.push(" ");
        }
        value.push(words);
        self.arguments = self.arguments.with_variable(name, &value);
        Ok(())
    }

    /// Sets a variable on make's command line.
    pub fn set_variable(&mut self, name: &str, value: &OsStr) {
        self.arguments = self.arguments.with_variable(name, value);
    }

    /// Leads the tools that kbuild runs by path, and the steps after a compile, to stand-ins in
    /// `directory`. Tools that it runs by name are found when `directory` is first in PATH.
    pub fn hook_by_path(&mut self, directory: &Path) {
        let assignments = self
            .hooks
            .iter()
            .filter_map(|(_, hook)| hook.assignment(directory));
        for (variable, value) in assignments.collect::<Vec<_>>() {
            self.set_variable(variable, &value);
        }
        for step in &self.steps {
            let (variable, value) = step.assignment(directory);
            self.arguments = self.arguments.with_expression(variable, &value);
        }
    }
}

pub(super) fn resolve(
    (tree, config): (Tree, Config),
    full: bool,
    variables: &Variables,
) -> Result<LtoBuild> {
    if let Some(hidden) = what_hides_klto(&tree, variables)?.into_iter().next() {
        return Err(hidden.into());
    }
    let upstream = mode::upstream_lto(&tree, Some(&config));
    let klto_adds_lto = upstream == UpstreamLto::Absent;
    let additions = Additions::of(&tree, variables, klto_adds_lto)?;
    let with_tools = additions.apply(variables.arguments);
    let variables = Variables {
        arguments: &with_tools,
        ..*variables
    };
    let toolchain = Toolchain::resolve(&tree, &variables)?;
    let Checked {
        version: llvm,
        first_lines: first_lines_of_tools,
    } = toolchain.check()?;
    if klto_adds_lto
        && let Some(refusal) = without_option(&tree, &config, llvm.major, full)
            .into_iter()
            .next()
    {
        return Err(refusal.into());
    }
    let mut arguments = with_tools.without_jobs();
    let steps = match klto_adds_lto {
        true => steps(&tree, &config)?,
        false => Vec::new(),
    };
    for (variable, value) in toolchain.without_launchers() {
        arguments = arguments.with_variable(variable, &value);
    }
    let mut notes = additions.notes;
    notes.extend(toolchain.launcher_notes());
    Ok(LtoBuild {
        hooks: toolchain.hooks(),
        steps,
        parallelism: parallelism(&with_tools, variables.make_flags),
        make_flags: variables.make_flags.clone(),
        environment: variables.environment.clone(),
        tree,
        config,
        upstream,
        full,
        toolchain,
        llvm,
        first_lines_of_tools,
        arguments,
        notes,
    })
}

/// make's own rule: `-j` on the command line breaks off from a parent's jobserver.
fn parallelism(arguments: &MakeArguments, make_flags: &MakeFlags) -> Parallelism {
    let one = Jobs::Number(std::num::NonZeroU32::MIN);
    match (arguments.jobs(), make_flags.jobserver()) {
        (Some(jobs), _) => Parallelism::Jobs(jobs),
        (None, Some(jobserver)) => Parallelism::Inherited(jobserver.to_owned()),
        (None, None) => Parallelism::Jobs(make_flags.jobs().unwrap_or(one)),
    }
}

/// What would run tools past klto.
pub(super) fn what_hides_klto(tree: &Tree, variables: &Variables) -> Result<Vec<Failure>> {
    let mut found = Vec::new();
    if variables.on_command_line("PATH")?.is_some() {
        let failure = Failure::bad_input("PATH= among make's arguments hides klto from kbuild");
        found.push(failure.hint("set PATH in the environment: PATH=… klto make …"));
    }
    let local = tree.output.join(".kernelvariables");
    if local.is_file() {
        let message = format!("{} may name tools that klto cannot see", local.display());
        let hint = "use --lto=none, or move its settings to make's command line";
        found.push(Failure::bad_input(message).hint(hint));
    }
    if variables.get("LLVM_IAS")?.is_some_and(|value| value == "0") {
        let failure = Failure::bad_input("LTO needs clang's own assembler, but LLVM_IAS=0 is set");
        found.push(failure.hint("leave LLVM_IAS out"));
    }
    Ok(found)
}

/// Why klto cannot add LTO to this tree with this configuration; nothing if it can.
pub(super) fn without_option(
    tree: &Tree,
    config: &Config,
    llvm_major: u32,
    full: bool,
) -> Vec<Failure> {
    let mut found: Vec<Failure> = old_tree(tree).into_iter().collect();
    found.extend(refusals(config, true, llvm_major));
    if full {
        found.extend(refusals_of_full(config, llvm_major));
    }
    found.extend(steps(tree, config).err());
    found
}

fn old_tree(tree: &Tree) -> Option<Failure> {
    let (version, patchlevel) = OLDEST_TREE;
    if tree.version.is_at_least(version, patchlevel) {
        return None;
    }
    let message = format!(
        "{} is Linux {}; klto adds LTO to {version}.{patchlevel} and newer",
        tree.source.display(),
        tree.version
    );
    Some(Failure::bad_input(message).hint("build it with --lto=none"))
}
