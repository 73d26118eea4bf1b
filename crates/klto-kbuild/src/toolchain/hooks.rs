//! How kbuild is led to klto's stand-in for a tool.
//!
//! In: the tools. Out: for each role that needs it, a name to put at the front of PATH, or a make
//! variable for a tool that is run by path; and notes on launchers, which are left out. It does
//! not know what a stand-in does.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Role, Tool, Toolchain};

/// How one role is hooked; `name` is the stand-in's file name, which no other role has unless both
/// are the same program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolHook {
    /// kbuild runs it by this name, so a file of the name at the front of PATH is found first.
    Path {
        /// The name.
        name: String,
    },
    /// kbuild runs it by path, so the variable must name the stand-in.
    Variable {
        /// The make variable.
        variable: &'static str,
        /// The name.
        name: String,
        /// Words that follow the tool in the variable's value.
        flags: Vec<String>,
    },
}

impl ToolHook {
    /// The file name of the stand-in.
    pub fn name(&self) -> &str {
        match self {
            Self::Path { name } | Self::Variable { name, .. } => name,
        }
    }

    /// The variable and value to add to make's command line when stand-ins are in `directory`.
    pub fn assignment(&self, directory: &Path) -> Option<(&'static str, OsString)> {
        match self {
            Self::Path { .. } => None,
            Self::Variable {
                variable,
                name,
                flags,
            } => Some((variable, command(directory.join(name).as_os_str(), flags))),
        }
    }
}

impl Toolchain {
    /// The hook of every hooked role whose tool exists.
    pub fn hooks(&self) -> Vec<(Role, ToolHook)> {
        let mut hooks: Vec<(&Tool, ToolHook)> = Vec::new();
        let exists = |tool: &&Tool| tool.role.is_hooked() && tool.resolved.is_some();
        for tool in self.tools().iter().filter(exists) {
            let taken = |name: &str| {
                let other = |(other, hook): &(&Tool, ToolHook)| {
                    hook.name() == name && other.resolved != tool.resolved
                };
                hooks.iter().any(other)
            };
            let hook = hook_of(tool, taken);
            hooks.push((tool, hook));
        }
        hooks
            .into_iter()
            .map(|(tool, hook)| (tool.role, hook))
            .collect()
    }

    /// Variables that leave launchers out of hooked tools.
    pub(crate) fn without_launchers(&self) -> Vec<(&'static str, OsString)> {
        let launched = |tool: &&Tool| tool.role.is_hooked() && !tool.launchers.is_empty();
        let plain = |tool: &Tool| {
            (
                tool.role.variable(),
                command(OsStr::new(&tool.program), &tool.flags),
            )
        };
        self.tools().iter().filter(launched).map(plain).collect()
    }

    /// What the user is told about launchers.
    pub(crate) fn launcher_notes(&self) -> Vec<String> {
        let note = |tool: &Tool| {
            let variable = tool.role.variable();
            let (launcher, from) = match (tool.launchers.first(), &tool.passed_over) {
                (Some(launcher), _) => (
                    launcher.clone(),
                    format!("{variable}=\"{}\"", tool.words.join(" ")),
                ),
                (None, Some(path)) => (path.display().to_string(), "PATH".to_owned()),
                (None, None) => return None,
            };
            Some(format!(
                "{launcher} is left out of {from}: it would not see the flags that klto adds; \
                 klto runs {} itself",
                tool.program
            ))
        };
        self.tools()
            .iter()
            .filter(|tool| tool.role.is_hooked())
            .filter_map(note)
            .collect()
    }
}

fn hook_of(tool: &Tool, taken: impl Fn(&str) -> bool) -> ToolHook {
    let program = tool.program.as_str();
    let Some((_, name)) = program.rsplit_once('/') else {
        return ToolHook::Path {
            name: program.to_owned(),
        };
    };
    let variable = tool.role.variable();
    let name = match taken(name) {
        true => format!("{}-{name}", variable.to_lowercase()),
        false => name.to_owned(),
    };
    ToolHook::Variable {
        variable,
        name,
        flags: tool.flags.clone(),
    }
}

fn command(program: &OsStr, flags: &[String]) -> OsString {
    let mut value = program.to_owned();
    for flag in flags {
        value.push(" ");
        // A flag came out of shell words, so it holds no NUL and can be quoted.
        value.push(
            shlex::try_quote(flag).map_or_else(|_| flag.clone(), |quoted| quoted.into_owned()),
        );
    }
    value
}
