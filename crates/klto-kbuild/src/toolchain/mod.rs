//! The tools that kbuild runs, by the tree's own rules, and how klto comes between.
//!
//! In: the tree and the variables that make gets. Out: for each role the words as given, the
//! program, and the executable that PATH leads to; the hooks that lead kbuild to klto instead; and
//! after [`Toolchain::check`] the certainty that they are one LLVM. It does not know what a tool's
//! arguments mean.

mod check;
mod command;
mod hooks;
mod role;
mod search;
mod selection;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;
use klto_core::Failure;

pub use check::{Checked, LlvmVersion};
pub use hooks::ToolHook;
pub use role::Role;
pub use selection::Additions;

use crate::tree::Tree;
use crate::variables::Variables;
use search::SearchPath;

/// One tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// What it is to kbuild.
    pub role: Role,
    /// The variable's value in words, as given.
    pub words: Vec<String>,
    /// Programs before the tool itself, as `ccache`.
    pub launchers: Vec<String>,
    /// The tool's own name or path, as given.
    pub program: String,
    /// Words after the program.
    pub flags: Vec<String>,
    /// The absolute path of the executable, through links if PATH leads through them; nothing if
    /// there is none.
    pub resolved: Option<PathBuf>,
    /// A launcher that poses as the tool and stands before it in PATH.
    pub passed_over: Option<PathBuf>,
}

/// The tools of a build.
#[derive(Debug, Clone)]
pub struct Toolchain {
    tools: Vec<Tool>,
    search: SearchPath,
}

impl Toolchain {
    /// The tools that kbuild would run. A missing one is no failure here.
    pub fn resolve(tree: &Tree, variables: &Variables) -> Result<Self> {
        let search = SearchPath {
            path: variables.get("PATH")?.unwrap_or_default(),
            directory: tree.output.clone(),
        };
        let mut tools = Vec::new();
        for role in Role::ALL {
            let words = selection::words_of(role, tree, variables)?;
            let parts = command::split(&words);
            let found = search.find(parts.program);
            tools.push(Tool {
                role,
                launchers: parts.launchers.to_vec(),
                program: parts.program.to_owned(),
                flags: parts.flags.to_vec(),
                resolved: found.as_ref().map(|found| found.path.clone()),
                passed_over: found.and_then(|found| found.passed_over),
                words,
            });
        }
        Ok(Self { tools, search })
    }

    /// All tools, one of each role.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The tool of a role.
    pub fn tool(&self, role: Role) -> &Tool {
        let found = self.tools.iter().find(|tool| tool.role == role);
        found.expect("resolve makes a tool of every role")
    }
}

/// A variable's value in words, as the shell that runs the recipe splits it.
fn split_words(variable: &str, value: &OsStr) -> Result<Vec<String>> {
    let words = value.to_str().and_then(shlex::split);
    words.ok_or_else(|| {
        let text = format!("{variable}={} cannot be read as a command", value.display());
        Failure::bad_input(text).into()
    })
}
