//! What klto itself changes in natives: promoted names get their base name back, and traced functions
//! their table.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Failure, publish};
use klto_formats::{archive, elf};
use klto_lower::{MemberKind, PromotedNames, UnitObject};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::steps::Stepped;
use super::{BitcodeMember, Lowering};
use crate::log::pass_on;

impl Lowering<'_> {
    /// The natives as links take them, in member order: a step's own file where nothing changes.
    pub(super) fn finish(&self, stepped: &[Stepped]) -> anyhow::Result<Vec<PathBuf>> {
        let natives: Vec<PathBuf> = stepped.iter().map(|native| native.path.clone()).collect();
        let names = self.promoted_names(&natives)?;
        for kept in &names.kept {
            self.session.log.line(&format!(
                "promoted {} {}",
                self.link.unit.name,
                String::from_utf8_lossy(kept)
            ));
        }
        let pairs: Vec<_> = self.members.iter().zip(&natives).collect();
        pairs
            .par_iter()
            .map(|(member, native)| self.change(member, native, &names))
            .collect()
    }

    /// Decides over the symbols of every object of the unit, natives and others.
    fn promoted_names(&self, natives: &[PathBuf]) -> anyhow::Result<PromotedNames> {
        let others = self
            .link
            .unit
            .members
            .iter()
            .filter(|member| member.kind == MemberKind::Native);
        let members = self.members.iter().map(|member| member.path.as_path());
        let objects: Vec<(&Path, &Path)> = members
            .zip(natives.iter().map(PathBuf::as_path))
            .chain(others.map(|member| (member.path.as_path(), member.path.as_path())))
            .collect();
        let objects: Vec<UnitObject> = objects
            .par_iter()
            .map(|(member, native)| {
                Ok(UnitObject {
                    name: self.label(member),
                    symbols: self.symbols(native)?,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(PromotedNames::decide(&objects, &|name| {
            self.link.reserved.contains(name)
        }))
    }

    /// Symbols of an object, or of every member of a regular archive.
    pub(super) fn symbols(&self, path: &Path) -> anyhow::Result<Vec<elf::Symbol>> {
        let bytes = fs_err::read(self.link.directory.join(path))?;
        let reading = || format!("reading {}", path.display());
        let mut objects = vec![bytes.as_slice()];
        if archive::is_archive(&bytes) {
            let members = archive::members(&bytes).with_context(reading)?;
            let data = |member: archive::Member| bytes.get(member.data?);
            objects = members.into_iter().filter_map(data).collect();
        }
        let mut symbols = Vec::new();
        for object in objects.into_iter().filter(|object| elf::is_elf(object)) {
            symbols.extend(elf::symbols(object).with_context(reading)?);
        }
        Ok(symbols)
    }

    /// What klto itself changes in a native; where the result is.
    fn change(
        &self,
        member: &BitcodeMember,
        from: &Path,
        names: &PromotedNames,
    ) -> anyhow::Result<PathBuf> {
        let old = fs_err::read(self.link.directory.join(from))?;
        let mut new = elf::rename_symbols(&old, &|name| names.renamed.get(name).cloned())
            .with_context(|| format!("putting names back in {}", from.display()))?;
        if member.steps.records_entry_calls {
            new = elf::record_entry_calls(&new)
                .with_context(|| format!("recording traced functions of {}", from.display()))?;
        }
        if new == old {
            return Ok(from.to_owned());
        }
        let to = self.place_of("final", &member.path);
        publish(&self.link.directory.join(&to), &new)?;
        Ok(to)
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
