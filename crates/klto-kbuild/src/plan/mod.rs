//! What to run for one `klto make`: plain make, several makes in turn, or a build with LTO.
//!
//! In: an [`Invocation`], the files of the tree, the tools in PATH. Out: a [`Plan`] that has passed
//! every check. Nothing is written, and nothing but `--version` of the tools is run.

mod doctor;
mod lto;
mod reconfigure;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use doctor::Diagnosis;
pub use lto::{LtoBuild, Parallelism};
pub use reconfigure::{ConfigChange, Reconfiguration};

use crate::config::{Config, UpstreamLto};
use crate::environment::Environment;
use crate::goals::{self, GoalClass};
use crate::make_arguments::{MakeArguments, MakeFlags, MakeOption};
use crate::mode::{self, LtoRequest, Mode};
use crate::toolchain::Additions;
use crate::tree::Tree;
use crate::variables::Variables;

/// What the user asked for, and where.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// `--lto=`
    pub request: Option<LtoRequest>,
    /// The words after `make`.
    pub arguments: MakeArguments,
    /// What make would inherit.
    pub environment: Environment,
    /// Where klto was started.
    pub directory: PathBuf,
    /// What `uname -m` prints.
    pub machine: String,
}

impl Invocation {
    /// An invocation in this process.
    pub fn of_process(request: Option<LtoRequest>, words: &[OsString]) -> Result<Self> {
        Ok(Self {
            request,
            arguments: MakeArguments::parse(words),
            environment: Environment::of_process(),
            directory: std::env::current_dir().context("asking for the working directory")?,
            machine: rustix::system::uname()
                .machine()
                .to_string_lossy()
                .into_owned(),
        })
    }

    fn make_flags(&self) -> MakeFlags {
        MakeFlags::of_environment(&self.environment)
    }

    fn variables<'a>(&'a self, make_flags: &'a MakeFlags) -> Variables<'a> {
        Variables {
            arguments: &self.arguments,
            make_flags,
            environment: &self.environment,
        }
    }

    fn tree(&self, variables: &Variables) -> Result<Tree> {
        Tree::probe(&self.directory, variables, &self.machine)
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Each of these after the one before succeeded, each resolved anew: the goals before a build
    /// change what the build reads.
    Stages(Vec<MakeArguments>),
    /// make without klto.
    PlainMake(PlainMake),
    /// make within a session that does LTO.
    Lto(Box<LtoBuild>),
}

/// make without klto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMake {
    /// The words after `make`; the user's own, except for tools that the tree would not find.
    pub arguments: MakeArguments,
    /// Why klto does nothing.
    pub why: PlainReason,
    /// The directory whose klto files go with everything else that was built in it.
    pub remove_scratch: Option<PathBuf>,
    /// The remembered choice of LTO, which goes with the configuration.
    pub remove_choice: Option<PathBuf>,
    /// What the user is told.
    pub notes: Vec<String>,
}

/// Why make runs without klto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainReason {
    /// No goal compiles or links.
    NothingIsBuilt,
    /// `-h` or `-v`; or `-n`, `-q` or `-t` where there is no one build to speak of.
    NothingIsRun,
    /// An option that klto does not know.
    UnknownArgument(OsString),
    /// LTO is off.
    NoLto,
}

impl PlainReason {
    /// Whether the user expected something else and must be told.
    pub fn is_surprising(&self) -> bool {
        matches!(self, Self::UnknownArgument(_))
    }
}

impl fmt::Display for PlainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingIsBuilt => f.write_str("no goal compiles or links"),
            Self::NothingIsRun => f.write_str("make is asked to run no recipe"),
            Self::UnknownArgument(word) => {
                write!(f, "klto does not know make's option {}", word.display())
            }
            Self::NoLto => f.write_str("LTO is off"),
        }
    }
}

impl Plan {
    /// Decides what to run.
    pub fn resolve(invocation: &Invocation) -> Result<Self> {
        let arguments = &invocation.arguments;
        let make_flags = invocation.make_flags();
        if let Some(why) = not_for_klto(arguments, &make_flags) {
            return Ok(Self::PlainMake(PlainMake::verbatim(arguments, why)));
        }
        let dry = make_flags.is_dry(arguments);
        let untouched = || {
            let why = PlainReason::NothingIsRun;
            Ok(Self::PlainMake(PlainMake::verbatim(arguments, why)))
        };
        let stages = goals::stages(arguments);
        match stages.len() {
            0 | 1 => {}
            _ if dry => return untouched(),
            _ => return Ok(Self::Stages(stages)),
        }
        let variables = invocation.variables(&make_flags);
        if arguments.goals().next().is_some()
            && arguments
                .goals()
                .all(|goal| goals::classify(goal) != GoalClass::Build)
        {
            if dry {
                return untouched();
            }
            return Ok(Self::PlainMake(without_build(invocation, &variables)));
        }
        let tree = match invocation.tree(&variables) {
            Err(_) if dry => return untouched(),
            probed => probed?,
        };
        let config = Config::read(&tree.config)?;
        let request = invocation.request;
        let mode = mode::decide(request, &tree, config.as_ref(), arguments)?;
        if let (Mode::Thin | Mode::Full, Some(config)) = (mode, config) {
            let full = mode == Mode::Full;
            let build = lto::resolve((tree, config), full, &variables)?;
            return Ok(Self::Lto(Box::new(build)));
        }
        let additions = Additions::of(&tree, &variables, false)?;
        let plain = PlainMake::with(arguments, PlainReason::NoLto, additions);
        Ok(Self::PlainMake(plain))
    }
}

impl PlainMake {
    fn verbatim(arguments: &MakeArguments, why: PlainReason) -> Self {
        Self::with(arguments, why, Additions::default())
    }

    fn with(arguments: &MakeArguments, why: PlainReason, additions: Additions) -> Self {
        Self {
            arguments: additions.apply(arguments),
            why,
            remove_scratch: None,
            remove_choice: None,
            notes: additions.notes,
        }
    }
}

/// Why klto leaves these arguments to make, whatever the tree.
fn not_for_klto(arguments: &MakeArguments, make_flags: &MakeFlags) -> Option<PlainReason> {
    let both = [arguments, make_flags.arguments()];
    let prints_only = |arguments: &MakeArguments| {
        arguments.has(MakeOption::Help) || arguments.has(MakeOption::Version)
    };
    if both.into_iter().any(prints_only) {
        return Some(PlainReason::NothingIsRun);
    }
    let unknown = both.into_iter().flat_map(MakeArguments::unknown).next();
    unknown.map(|word: &OsStr| PlainReason::UnknownArgument(word.to_owned()))
}

/// Configuring must see the tools that the build will have. What is wrong with the tree is left for
/// make to say.
fn without_build(invocation: &Invocation, variables: &Variables) -> PlainMake {
    let arguments = variables.arguments;
    let why = PlainReason::NothingIsBuilt;
    let Ok(tree) = invocation.tree(variables) else {
        return PlainMake::verbatim(arguments, why);
    };
    let configures = arguments
        .goals()
        .any(|goal| goals::classify(goal) == GoalClass::Configure);
    // A choice that cannot be read is named by the build.
    let remembered = || mode::remembered(&tree).ok().flatten();
    let request = invocation.request.or_else(remembered);
    let adds_lto = matches!(request, Some(LtoRequest::Thin | LtoRequest::Full))
        && mode::upstream_lto(&tree, None) == UpstreamLto::Absent;
    let additions = match configures {
        true => Additions::of(&tree, variables, adds_lto).unwrap_or_default(),
        false => Additions::default(),
    };
    let mut plain = PlainMake::with(arguments, why, additions);
    let removes = arguments.goals().any(goals::removes_objects);
    plain.remove_scratch = removes.then(|| tree.written().to_owned());
    let unconfigures = arguments.goals().any(goals::removes_configuration);
    plain.remove_choice = unconfigures.then(|| mode::choice_file(&tree));
    plain
}
