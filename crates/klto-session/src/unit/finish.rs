//! Post-processing of natives: symbol versions, and promoted names that get their base name back.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Action, Failure, Input, Outcome, publish};
use klto_formats::{archive, elf};
use klto_lower::{MemberKind, PromotedNames, check_native, symbol_versions_action};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::Lowering;
use super::backends::Raw;
use crate::log::pass_on;

impl Lowering<'_> {
    /// The natives as links take them, in member order: the backend's own file where nothing changes.
    pub(super) fn finish(&self, raws: &[Raw]) -> anyhow::Result<Vec<PathBuf>> {
        let final_root = self.root.join("final");
        let versioned = self.link_symbol_versions(raws, &final_root)?;
        let names = self.promoted_names(&versioned)?;
        for kept in &names.kept {
            self.session.log.line(&format!(
                "promoted {} {}",
                self.link.unit.name,
                String::from_utf8_lossy(kept)
            ));
        }
        let finals: Vec<PathBuf> = raws
            .iter()
            .map(|raw| self.final_path(&final_root, &raw.path))
            .collect();
        let pairs: Vec<_> = versioned.iter().zip(&finals).collect();
        pairs
            .par_iter()
            .map(|(from, to)| self.restore_names(&names, from, to))
            .collect()
    }

    fn final_path(&self, final_root: &Path, raw: &Path) -> PathBuf {
        final_root.join(raw.strip_prefix(self.root.join("raw")).unwrap_or(raw))
    }

    /// Links CRCs into the natives of exporting objects; the path of each member's native after that.
    fn link_symbol_versions(
        &self,
        raws: &[Raw],
        final_root: &Path,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let linker = self
            .session
            .identity(&self.link.linker, self.link.environment)?;
        let mut actions: Vec<Action> = Vec::new();
        let mut natives = Vec::new();
        for (member, raw) in self.members.iter().zip(raws) {
            let Some(versions) = &member.versions else {
                natives.push(raw.path.clone());
                continue;
            };
            let output = self
                .final_path(final_root, &raw.path)
                .with_extension("versions.o");
            let script = output.with_extension("ver");
            publish(&self.link.directory.join(&script), &versions.script)?;
            natives.push(output.clone());
            actions.push(symbol_versions_action(
                member.path.display().to_string(),
                (
                    self.link.linker.clone(),
                    linker.digest,
                    linker.storable.clone(),
                ),
                &versions.clone().into(),
                (
                    Input {
                        role: "native",
                        path: raw.path.clone(),
                        digest: raw.digest,
                    },
                    script,
                ),
                output,
                (self.link.directory.to_owned(), self.action_environment()),
            ));
        }
        let completed = self
            .session
            .engine
            .run(&actions, &self.session.slots, &check_native);
        for over in &completed {
            if let (Outcome::Failed { stderr, reason }, Some(action)) =
                (&over.outcome, actions.get(over.index))
            {
                pass_on(stderr);
                let what = format!("symbol versions of {}: {reason}", action.label);
                return Err(Failure::build(what).into());
            }
        }
        if completed.len() < actions.len() {
            return Err(
                Failure::build(format!("{}: the build was stopped", self.link.unit.name)).into(),
            );
        }
        Ok(natives)
    }

    /// Decides over the symbols of every object of the unit, natives and others.
    fn promoted_names(&self, natives: &[PathBuf]) -> anyhow::Result<PromotedNames> {
        let others = self
            .link
            .unit
            .members
            .iter()
            .filter(|member| member.kind == MemberKind::Native);
        let objects: Vec<&Path> = natives
            .iter()
            .map(PathBuf::as_path)
            .chain(others.map(|member| member.path.as_path()))
            .collect();
        let symbols: Vec<Vec<Vec<u8>>> = objects
            .par_iter()
            .map(|path| self.symbol_names(path))
            .collect::<anyhow::Result<_>>()?;
        Ok(PromotedNames::decide(&symbols, &|name| {
            self.link.reserved.contains(name)
        }))
    }

    /// Names in an object, or in every member of a regular archive.
    fn symbol_names(&self, path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
        let bytes = fs_err::read(self.link.directory.join(path))?;
        let reading = || format!("reading {}", path.display());
        let mut objects = vec![bytes.as_slice()];
        if archive::is_archive(&bytes) {
            let members = archive::members(&bytes).with_context(reading)?;
            let data = |member: archive::Member| bytes.get(member.data?);
            objects = members.into_iter().filter_map(data).collect();
        }
        let mut names = Vec::new();
        for object in objects.into_iter().filter(|object| elf::is_elf(object)) {
            let symbols = elf::symbols(object).with_context(reading)?;
            names.extend(symbols.into_iter().map(|symbol| symbol.name));
        }
        Ok(names)
    }

    fn restore_names(
        &self,
        names: &PromotedNames,
        from: &Path,
        to: &Path,
    ) -> anyhow::Result<PathBuf> {
        let bytes = fs_err::read(self.link.directory.join(from))?;
        let renamed = elf::rename_symbols(&bytes, &|name| names.restored.get(name).cloned())
            .with_context(|| format!("putting names back in {}", from.display()))?;
        if renamed == bytes {
            return Ok(from.to_owned());
        }
        publish(&self.link.directory.join(to), &renamed)?;
        Ok(to.to_owned())
    }
}

impl crate::session::Session {
    /// Links symbol versions into the native object at `path`, in place.
    pub(crate) fn link_versions(
        &self,
        versions: &crate::journal::VersionsRecord,
        directory: &Path,
        path: &Path,
    ) -> anyhow::Result<()> {
        let script = path.with_extension("klto-ver");
        let output = path.with_extension("klto-versions");
        publish(&script, &versions.script)?;
        let mut arguments = versions.options.clone();
        arguments.extend(["-r".into(), "-o".into(), output.clone().into()]);
        arguments.extend([path.into(), "-T".into(), script.clone().into()]);
        let linker = self.linker_program()?;
        let result = klto_core::run_captured(&linker, arguments, directory);
        fs_err::remove_file(&script)?;
        let result = result.with_context(|| format!("starting {}", linker.display()))?;
        pass_on(&result.stderr);
        if !result.status.success() {
            let _ = fs_err::remove_file(&output);
            return Err(Failure::build("linking symbol versions failed").into());
        }
        Ok(fs_err::rename(output, path)?)
    }
}
