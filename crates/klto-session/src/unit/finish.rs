//! Post-processing of natives: symbol versions, and promoted names that get their base name back.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Action, Failure, Input, Outcome, publish};
use klto_formats::elf;
use klto_lower::{MemberKind, PromotedNames, check_native, symbol_versions_action};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::Lowering;
use super::backends::Raw;

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
        let restored = pairs
            .par_iter()
            .map(|(from, to)| self.restore_names(&names, from, to))
            .collect();
        restored
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
                (
                    self.link.directory.to_owned(),
                    self.link.environment.to_vec(),
                ),
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
                let text = String::from_utf8_lossy(stderr).into_owned();
                return Err(Failure::build(format!(
                    "symbol versions of {}: {reason}: {text}",
                    action.label
                ))
                .into());
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

    /// Names in an object; none for what is no ELF object, as a regular archive.
    fn symbol_names(&self, path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
        let bytes = fs_err::read(self.link.directory.join(path))?;
        if !elf::is_elf(&bytes) {
            return Ok(Vec::new());
        }
        let symbols =
            elf::symbols(&bytes).with_context(|| format!("reading {}", path.display()))?;
        Ok(symbols.into_iter().map(|symbol| symbol.name).collect())
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
        let result = klto_core::run_captured(&self.linker_program()?, arguments, directory)?;
        fs_err::remove_file(&script)?;
        if !result.status.success() {
            let text = String::from_utf8_lossy(&result.stderr).into_owned();
            return Err(Failure::build(format!("linking symbol versions: {text}")).into());
        }
        Ok(fs_err::rename(output, path)?)
    }
}
