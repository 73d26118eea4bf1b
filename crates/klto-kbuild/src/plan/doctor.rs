//! Everything that stands between a tree and LTO, at once: `klto doctor`.
//!
//! In: an invocation of make. Out: what was found, and each conflict with its remedy. On a tree to
//! which klto adds LTO a build stops at the first of these, pahole's apart. On others Kconfig has
//! hidden the choice, and only the doctor says why.

use std::path::Path;

use anyhow::Result;
use klto_core::{Failure, run_captured};

use super::{Invocation, lto};
use crate::config::{Config, UpstreamLto};
use crate::mode::{self, LtoRequest, unconfigured};
use crate::refusals::refusals;
use crate::toolchain::{Additions, LlvmVersion, Toolchain};
use crate::tree::Tree;
use crate::variables::Variables;

/// The oldest pahole that merges the units of an LTO kernel, whose types refer to each other: the
/// announcement of 1.21, "Permit merging all DWARF CU's for clang LTO built binary".
const OLDEST_PAHOLE: (u32, u32) = (1, 21);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Tree, configuration, tools: a line each.
    pub facts: Vec<String>,
    /// What prevents LTO; nothing if it can work.
    pub conflicts: Vec<Failure>,
}

impl Diagnosis {
    /// Examines what a `klto make` with this invocation would build.
    pub fn of(invocation: &Invocation) -> Result<Self> {
        let make_flags = invocation.make_flags();
        let variables = invocation.variables(&make_flags);
        let tree = invocation.tree(&variables)?;
        let config = Config::read(&tree.config)?;
        let upstream = mode::upstream_lto(&tree, config.as_ref());
        let klto_adds_lto = upstream == UpstreamLto::Absent;
        let mut conflicts = lto::what_hides_klto(&tree, &variables)?;
        let additions = Additions::of(&tree, &variables, klto_adds_lto)?;
        let arguments = additions.apply(variables.arguments);
        let variables = Variables {
            arguments: &arguments,
            ..variables
        };
        let toolchain = Toolchain::resolve(&tree, &variables)?;
        let (llvm, of_tools) = toolchain.examine();
        conflicts.extend(of_tools);
        // Where the tools are wrong already, no row that depends on their version is added.
        let major = llvm.map_or(u32::MAX, |version| version.major);
        match &config {
            None => {
                let wanted = invocation.request;
                // There is nothing else to ask of klto on such a tree.
                let wanted = wanted.or(klto_adds_lto.then_some(LtoRequest::Thin));
                conflicts.push(unconfigured(wanted, &tree, &invocation.arguments));
            }
            Some(config) if klto_adds_lto => {
                let request = match invocation.request {
                    None => mode::remembered(&tree)?,
                    request => request,
                };
                let full = request == Some(LtoRequest::Full);
                conflicts.extend(lto::without_option(&tree, config, major, full));
            }
            Some(config) => {
                conflicts.extend(refusals(config, false, major));
                if conflicts.is_empty() {
                    conflicts.extend(hidden_option(config, upstream));
                }
                let decided = mode::decide(
                    invocation.request,
                    &tree,
                    Some(config),
                    &invocation.arguments,
                );
                if let Err(other_choice) = decided {
                    conflicts.push(other_choice.downcast::<Failure>()?);
                }
            }
        }
        if config
            .as_ref()
            .is_some_and(|config| config.is_set("DEBUG_INFO_BTF"))
        {
            conflicts.extend(old_pahole(&variables)?);
        }
        Ok(Self {
            facts: facts(&tree, config.as_ref().map(|_| upstream), llvm, &toolchain),
            conflicts,
        })
    }
}

fn facts(
    tree: &Tree,
    upstream: Option<UpstreamLto>,
    llvm: Option<LlvmVersion>,
    toolchain: &Toolchain,
) -> Vec<String> {
    let lto = match upstream {
        Some(UpstreamLto::Absent) => {
            "the tree has no option for it; klto adds LTO with --lto=thin or --lto=full".to_owned()
        }
        Some(other) => format!(
            "the tree has options for it, and the .config chooses CONFIG_{}",
            other.option().unwrap_or_default()
        ),
        None => "there is no .config that chooses it".to_owned(),
    };
    let llvm = llvm.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let tools = toolchain.tools().iter();
    let tools: Vec<String> = tools
        .map(|tool| format!("{}={}", tool.role.variable(), tool.words.join(" ")))
        .collect();
    vec![
        format!(
            "tree     Linux {} in {}",
            tree.version,
            tree.source.display()
        ),
        format!("target   {}", tree.source_architecture),
        format!("config   {}", tree.config.display()),
        format!("LTO      {lto}"),
        format!("LLVM     {llvm}"),
        format!("tools    {}", tools.join(", ")),
    ]
}

/// The tree has the option, nothing that klto knows excludes it, and Kconfig does not offer it.
fn hidden_option(config: &Config, upstream: UpstreamLto) -> Option<Failure> {
    if upstream != UpstreamLto::None || config.is_set("HAS_LTO_CLANG") {
        return None;
    }
    let message = format!(
        "CONFIG_HAS_LTO_CLANG is not set in {}: it was configured with other tools, or an option \
         excludes LTO",
        config.path().display()
    );
    let hint = "run olddefconfig with the same arguments as the build; if that changes nothing, \
                look at `config HAS_LTO_CLANG` in arch/Kconfig";
    Some(Failure::bad_input(message).hint(hint))
}

/// kbuild runs `$(PAHOLE)`; scripts/pahole-version.sh takes the number after its `v`.
fn old_pahole(variables: &Variables) -> Result<Option<Failure>> {
    let program = variables.get_filled("PAHOLE")?;
    let program = program.unwrap_or_else(|| "pahole".into());
    let hint = "install pahole 1.21 or newer (the package dwarves), or turn \
                CONFIG_DEBUG_INFO_BTF off";
    let conflict = |what: String| {
        let message = format!("CONFIG_DEBUG_INFO_BTF=y needs pahole, but {what}");
        Ok(Some(Failure::environment(message).hint(hint)))
    };
    let ran = run_captured(Path::new(&program), ["--version"], Path::new("/"));
    let text = match ran {
        Ok(captured) => String::from_utf8_lossy(&captured.stdout).into_owned(),
        Err(error) => return conflict(format!("{} cannot be run: {error}", program.display())),
    };
    let version = text.trim().trim_start_matches('v');
    let numbers: Vec<u32> = version
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect();
    match numbers.as_slice() {
        [major, minor, ..] if (*major, *minor) >= OLDEST_PAHOLE => Ok(None),
        [] | [_] => conflict(format!("{} --version prints no version", program.display())),
        [..] => conflict(format!(
            "{version} does not merge the units of an LTO kernel"
        )),
    }
}
