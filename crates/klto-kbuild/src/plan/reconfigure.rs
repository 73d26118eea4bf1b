//! How the LTO choice of a `.config` is changed: `klto config`.
//!
//! In: an invocation of make and the wanted choice. Out: the commands, all of the tree's own: its
//! `scripts/config` and `make olddefconfig`. They are not run here.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::Result;
use klto_core::Failure;

use super::Invocation;
use crate::config::{Config, UpstreamLto};
use crate::make_arguments::MakeArguments;
use crate::mode::{self, LtoRequest, unconfigured};
use crate::toolchain::Additions;

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconfiguration {
    /// Nothing; the text says why.
    Nothing(String),
    /// The tree has no option: this file, in the output tree, is to hold the choice, or, for none, not to be
    /// there.
    Remember(PathBuf),
    /// These, one after the other.
    Change(ConfigChange),
}

/// The commands that change a `.config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The `.config`.
    pub config: PathBuf,
    /// The output tree.
    pub output: PathBuf,
    /// The option that must be set afterwards, without `CONFIG_`.
    pub wanted: &'static str,
    /// The tree's script and its arguments.
    pub script: Vec<OsString>,
    /// The words after `make`: the user's own with the goal `olddefconfig`.
    pub make: MakeArguments,
}

impl Reconfiguration {
    /// What makes the `.config` of this invocation choose `request`.
    pub fn of(invocation: &Invocation, request: LtoRequest) -> Result<Self> {
        let make_flags = invocation.make_flags();
        if make_flags.is_dry(&invocation.arguments) {
            let failure = Failure::bad_input("klto config cannot only say what it would do");
            return Err(failure.hint("leave -n, -q and -t out").into());
        }
        let variables = invocation.variables(&make_flags);
        let tree = invocation.tree(&variables)?;
        let Some(config) = Config::read(&tree.config)? else {
            return Err(unconfigured(Some(request), &tree, &invocation.arguments).into());
        };
        let found = mode::upstream_lto(&tree, Some(&config));
        if found == UpstreamLto::Absent {
            return Ok(Self::Remember(mode::choice_file(&tree)));
        }
        let wanted = match request {
            LtoRequest::None => UpstreamLto::None,
            LtoRequest::Thin => UpstreamLto::Thin,
            LtoRequest::Full => UpstreamLto::Full,
        };
        let (Some(old), Some(new)) = (found.option(), wanted.option()) else {
            return Err(Failure::bug("an LTO mode has no option").into());
        };
        if config.is_set(new) {
            let text = format!("{} has CONFIG_{new}=y already", tree.config.display());
            return Ok(Self::Nothing(text));
        }
        let script = tree.source.join("scripts/config").into_os_string();
        let options = ["-d", old, "-e", new].map(OsString::from);
        let file = [script, "--file".into(), tree.config.clone().into()];
        let with_goal = invocation
            .arguments
            .with_goals([OsStr::new("olddefconfig")]);
        Ok(Self::Change(ConfigChange {
            config: tree.config.clone(),
            output: tree.output.clone(),
            wanted: new,
            script: file.into_iter().chain(options).collect(),
            make: Additions::of(&tree, &variables, false)?.apply(&with_goal),
        }))
    }
}

impl ConfigChange {
    /// Whether the `.config` has become what was wanted.
    pub fn is_done(&self) -> Result<bool> {
        let config = Config::read(&self.config)?;
        Ok(config.is_some_and(|config| config.is_set(self.wanted)))
    }
}
