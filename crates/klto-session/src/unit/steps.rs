//! Tools that work on natives as kbuild has them work on objects: objtool, then the link of symbol
//! versions.
//!
//! In: the backends' natives. Out: for each member the native after these steps, and the key and the
//! digest of each result, by which the next build keeps it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Action, Digest, Failure, Input, Outcome, Storable, publish};
use klto_exec::{How, Progress, ToolIdentity};
use klto_formats::elf;
use klto_lower::objtool::{Objtool, missing_static_call_keys, objtool_action};
use klto_lower::{check_native, symbol_versions_action};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::Lowering;
use super::backends::Raw;
use crate::journal::ObjtoolRecord;
use crate::log::pass_on;

/// A native after the steps.
pub(super) struct Stepped {
    /// Where it is, as tools name it.
    pub path: PathBuf,
    digest: Digest,
    /// Key of each step's action and the digest of what it made, in order.
    pub results: Vec<(Digest, Digest)>,
}

impl Stepped {
    fn input(&self) -> Input {
        Input {
            role: "native",
            path: self.path.clone(),
            digest: self.digest,
        }
    }
}

/// objtool as kbuild ran it, for the key and the call of an action.
pub(super) fn as_recorded(record: &ObjtoolRecord, identity: &ToolIdentity) -> Objtool {
    Objtool {
        tool: (
            record.program.clone(),
            identity.digest,
            identity.storable.clone(),
        ),
        arguments: record.arguments.clone(),
    }
}

impl Lowering<'_> {
    /// Runs, finds or keeps every step of every member.
    pub(super) fn run_steps(&self, raws: &[Raw]) -> anyhow::Result<Vec<Stepped>> {
        let start = |raw: &Raw| Stepped {
            path: raw.path.clone(),
            digest: raw.digest,
            results: Vec::new(),
        };
        let mut natives: Vec<Stepped> = raws.iter().map(start).collect();
        self.add_static_call_keys(&mut natives)?;
        self.perform(self.objtool_actions(&natives)?, &mut natives)?;
        self.perform(self.versions_actions(&natives)?, &mut natives)?;
        Ok(natives)
    }

    /// Gives natives that objtool will read the keys of the static calls that they imported.
    fn add_static_call_keys(&self, natives: &mut [Stepped]) -> anyhow::Result<()> {
        if self
            .members
            .iter()
            .all(|member| member.steps.objtool.is_none())
        {
            return Ok(());
        }
        let paths: Vec<&Path> = natives.iter().map(|native| native.path.as_path()).collect();
        let names: Vec<Vec<Vec<u8>>> = paths
            .par_iter()
            .map(|path| {
                let symbols = self.symbols(path)?;
                Ok(symbols.into_iter().map(|symbol| symbol.name).collect())
            })
            .collect::<anyhow::Result<_>>()?;
        let all = names.iter().flatten();
        let keys: BTreeSet<&[u8]> = all
            .filter(|name| name.starts_with(b"__SCK__"))
            .map(Vec::as_slice)
            .collect();
        for ((member, native), names) in self.members.iter().zip(natives).zip(&names) {
            let missing = missing_static_call_keys(names, &|key| keys.contains(key));
            if member.steps.objtool.is_none() || missing.is_empty() {
                continue;
            }
            let bytes = fs_err::read(self.link.directory.join(&native.path))?;
            let missing: Vec<Vec<u8>> = missing.into_iter().collect();
            let complete = elf::add_undefined_symbols(&bytes, &missing)
                .with_context(|| format!("adding keys to {}", native.path.display()))?;
            native.path = self.place_of("static-calls", &member.path);
            native.digest = Digest::of_bytes(&complete);
            publish(&self.link.directory.join(&native.path), &complete)?;
        }
        Ok(())
    }

    /// The action of each member that has this step, by the member's place.
    fn objtool_actions(&self, natives: &[Stepped]) -> anyhow::Result<Vec<(usize, Action)>> {
        let mut actions = Vec::new();
        for (place, (member, native)) in self.members.iter().zip(natives).enumerate() {
            let (Some(record), Some(identity)) = (
                &member.steps.objtool,
                member.objtool(self.session, self.link.environment)?,
            ) else {
                continue;
            };
            let objtool = as_recorded(record, &identity);
            let action = objtool_action(
                self.label(&member.path),
                &objtool,
                native.input(),
                self.place_of("objtool", &member.path),
                (self.link.directory.to_owned(), self.action_environment()),
            );
            actions.push((place, action));
        }
        Ok(actions)
    }

    fn versions_actions(&self, natives: &[Stepped]) -> anyhow::Result<Vec<(usize, Action)>> {
        let linker = self
            .session
            .identity(&self.link.linker, self.link.environment)?;
        let mut actions = Vec::new();
        for (place, (member, native)) in self.members.iter().zip(natives).enumerate() {
            let Some(versions) = &member.versions else {
                continue;
            };
            let output = self.place_of("versions", &member.path);
            let script = output.with_extension("ver");
            publish(&self.link.directory.join(&script), &versions.script)?;
            let action = symbol_versions_action(
                self.label(&member.path),
                (
                    self.link.linker.clone(),
                    linker.digest,
                    linker.storable.clone(),
                ),
                &versions.clone().into(),
                (native.input(), script),
                output,
                (self.link.directory.to_owned(), self.action_environment()),
            );
            actions.push((place, action));
        }
        Ok(actions)
    }

    /// How logs and tools' warnings name a member.
    pub(super) fn label(&self, member: &Path) -> String {
        let scratch = &self.session.scratch;
        let object = scratch.object_name(self.link.directory, member);
        object.display().to_string()
    }

    /// Carries out one step's actions: kept where the manifest has the result and the file is whole.
    fn perform(
        &self,
        actions: Vec<(usize, Action)>,
        natives: &mut [Stepped],
    ) -> anyhow::Result<()> {
        let memo = &self.session.memo;
        let mut pending = Vec::new();
        for (place, action) in &actions {
            let (Some(member), Some(output)) = (self.members.get(*place), action.outputs.first())
            else {
                continue;
            };
            let file = self.link.directory.join(output);
            let is_kept = action.storable == Storable::Yes
                && self.old.has_step(&member.path, action.key(), &file, memo);
            if !is_kept {
                pending.push(action.clone());
            }
        }
        self.run_pending(&pending)?;
        for (place, action) in actions {
            if let (Some(native), Some(output)) = (natives.get_mut(place), action.outputs.first()) {
                native.path = output.clone();
                native.digest = memo.digest(&self.link.directory.join(output))?;
                native.results.push((action.key(), native.digest));
            }
        }
        Ok(())
    }

    fn run_pending(&self, actions: &[Action]) -> anyhow::Result<()> {
        let completed = self.session.engine.run(
            actions,
            &self.session.slots,
            &check_native,
            &Progress::default(),
        );
        for over in &completed {
            let Some(action) = actions.get(over.index) else {
                continue;
            };
            let (kind, label) = (action.kind.name(), &action.label);
            let timeline = &self.session.timeline;
            timeline.add(over.start, over.duration, kind, over.how.name(), label);
            let what = format!("{kind} of {label}");
            match &over.outcome {
                Outcome::Done { stderr } => pass_on(stderr),
                Outcome::Failed { stderr, reason } => {
                    pass_on(stderr);
                    return Err(Failure::build(format!("{what}: {reason}")).into());
                }
            }
            if over.how == How::Checked {
                self.session.log.line(&format!("checked {what}"));
            }
        }
        if completed.len() < actions.len() {
            let what = format!("{}: the build was stopped", self.link.unit.name);
            return Err(Failure::build(what).into());
        }
        Ok(())
    }
}
