//! Full LTO of a unit in a tree to which klto adds it: one native object stands for all bitcode.
//!
//! 1. Merge: the linker makes one module of all bitcode and optimizes it.
//! 2. Backend: that module becomes a native object, with the flags that most of the objects were compiled with.
//!    Those in which objects differ, as the stack protector, are attributes of functions.
//! 3. The steps that kbuild has for each object: objtool, symbol versions, the table of traced functions. The
//!    native has them once.
//!
//! The native takes the place of the first bitcode object; the others vanish from links. Tables whose entries
//! are assembler texts, as of initcalls, keep the order of the unit, for the linker joins these texts in its
//! order.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Action, ActionKind, Digest, Failure, Input, Outcome, Storable, publish};
use klto_exec::{How, OutputCheck};
use klto_formats::{bitcode, elf};
use klto_kbuild::compile::BackendFlags;
use klto_lower::objtool::objtool_action;
use klto_lower::{
    BackendParts, Before, MemberKind, MergeParts, SymbolVersions, ambiguous_static, backend_action,
    check_merged, check_native, merge_action, symbol_versions_action,
};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::backends::overridden;
use super::steps::as_recorded;
use super::{BitcodeMember, Lowering, assembler};
use crate::log::{pass_on, tell};

/// A file that an action has made.
struct Made {
    path: PathBuf,
    digest: Digest,
}

impl Made {
    fn input(&self, role: &'static str) -> Input {
        Input {
            role,
            path: self.path.clone(),
            digest: self.digest,
        }
    }
}

impl Lowering<'_> {
    /// The native object for the first member, none for the others.
    pub(super) fn lower_as_one(&self) -> anyhow::Result<Vec<Option<PathBuf>>> {
        self.warn_of_other_tables()?;
        let native = self.run_steps_on_one(self.merge()?)?;
        let is_lazy: Vec<bool> = self
            .link
            .unit
            .bitcode()
            .map(|(_, member)| member.lazy)
            .collect();
        // Where a lazy object stood the linker might leave it out.
        let first = is_lazy.iter().position(|lazy| !lazy).unwrap_or(0);
        let mut natives = vec![None; is_lazy.len()];
        if let Some(place) = natives.get_mut(first) {
            *place = Some(native);
        }
        Ok(natives)
    }

    /// The native object of all bitcode, as the backend wrote it.
    fn merge(&self) -> anyhow::Result<Made> {
        let session = self.session;
        let unit = self.link.unit;
        for (_, member) in unit.bitcode() {
            let line = format!("input {} {}", unit.name, self.label(&member.path));
            session.log.line(&line);
        }
        let flags = self.usual_flags()?;
        let linker = session.identity(&self.link.linker, self.link.environment)?;
        let digest = |path: &Path| session.memo.digest(&self.link.directory.join(path));
        let members = unit.members.iter();
        let storable = match self.members.iter().find_map(unstorable) {
            Some(reason) => Storable::No(reason),
            None => overridden(self.link.environment).unwrap_or(Storable::Yes),
        };
        let merge = merge_action(MergeParts {
            unit,
            digests: members
                .map(|member| digest(&member.path))
                .collect::<Result<_, _>>()?,
            call: self.link.call,
            program: self.link.linker.clone(),
            tool_identity: linker.digest,
            assembler_files: self.assembler_files(),
            merged: self.root.join("merged.bc"),
            directory: self.link.directory.to_owned(),
            environment: self.action_environment(),
            storable: match &linker.storable {
                Storable::Yes => storable.clone(),
                no => no.clone(),
            },
        });
        if session.engine.find(merge.key()).is_none() {
            self.check_statics()?;
        }
        let begin = std::time::Instant::now();
        let (merged, how) = self.carry_out(merge, &check_merged)?;
        let program = self.usual(|member| Some(&member.record.program))?;
        let compiler = session.identity(program, self.link.environment)?;
        let backend = backend_action(BackendParts {
            label: unit.name.clone(),
            program: program.clone(),
            tool_identity: compiler.digest,
            flags: &flags,
            link_options: &self.link_options,
            bitcode: merged.input("merged"),
            before: Before::Optimized,
            imports: Vec::new(),
            assembler_files: self.assembler_files(),
            native: self.root.join("raw.o"),
            directory: self.link.directory.to_owned(),
            environment: self.action_environment(),
            storable: match &compiler.storable {
                Storable::Yes => storable,
                no => no.clone(),
            },
        });
        let (native, _) = self.carry_out(backend, &check_native)?;
        session.show_full_link(&unit.name, self.members.len(), how, begin.elapsed());
        Ok(native)
    }

    fn run_steps_on_one(&self, raw: Made) -> anyhow::Result<PathBuf> {
        let session = self.session;
        let place = || (self.link.directory.to_owned(), self.action_environment());
        let label = || self.link.unit.name.clone();
        let mut native = raw;
        if let Ok(record) = self.usual(|member| member.steps.objtool.as_ref()) {
            let identity = session.identity(&record.program, self.link.environment)?;
            let objtool = as_recorded(record, &identity);
            let output = self.root.join("objtool.o");
            let action = objtool_action(label(), &objtool, native.input("native"), output, place());
            native = self.carry_out(action, &check_native)?.0;
        }
        let versions: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| member.versions.as_ref())
            .collect();
        if let Some(first) = versions.first() {
            let all = SymbolVersions {
                script: versions
                    .iter()
                    .flat_map(|versions| versions.script.clone())
                    .collect(),
                options: first.options.clone(),
            };
            let script = self.root.join("versions.ver");
            publish(&self.link.directory.join(&script), &all.script)?;
            let linker = session.identity(&self.link.linker, self.link.environment)?;
            let linker = (
                self.link.linker.clone(),
                linker.digest,
                linker.storable.clone(),
            );
            let output = self.root.join("versions.o");
            let native_and_script = (native.input("native"), script);
            let action =
                symbol_versions_action(label(), linker, &all, native_and_script, output, place());
            native = self.carry_out(action, &check_native)?.0;
        }
        if self
            .members
            .iter()
            .any(|member| member.steps.records_entry_calls)
        {
            let bytes = fs_err::read(self.link.directory.join(&native.path))?;
            let recorded = elf::record_entry_calls(&bytes)
                .with_context(|| format!("recording traced functions of {}", label()))?;
            native.path = self.root.join("final.o");
            publish(&self.link.directory.join(&native.path), &recorded)?;
        }
        Ok(native.path)
    }

    /// Runs or finds an action; what it made, and how.
    fn carry_out(&self, action: Action, check: &OutputCheck<'_>) -> anyhow::Result<(Made, How)> {
        let session = self.session;
        let (kind, name) = (action.kind.name(), &self.link.unit.name);
        let output = action.outputs.first().cloned().unwrap_or_default();
        let objects = self.members.iter().map(|member| member.path.as_path());
        let objects: Vec<&Path> = objects.collect();
        let is_link = matches!(action.kind, ActionKind::Merge | ActionKind::Backend);
        let linked = is_link.then_some(objects.as_slice());
        let over = session.run_alone(action, name, linked, self.link.directory, check)?;
        match over.outcome {
            Outcome::Done { stderr } => pass_on(&stderr),
            Outcome::Failed { stderr, reason } => {
                pass_on(&stderr);
                return Err(Failure::build(format!("{kind} of {name}: {reason}")).into());
            }
        }
        let digest = session.memo.digest(&self.link.directory.join(&output))?;
        let made = Made {
            path: output,
            digest,
        };
        Ok((made, over.how))
    }

    /// The flags that most members were compiled with, and where any of them has the assembler search.
    fn usual_flags(&self) -> anyhow::Result<BackendFlags> {
        let arguments = self.usual(|member| Some(&member.flags.arguments))?.clone();
        let mut include_directories: Vec<PathBuf> = Vec::new();
        for directory in self
            .members
            .iter()
            .flat_map(|member| &member.flags.include_directories)
        {
            if !include_directories.contains(directory) {
                include_directories.push(directory.clone());
            }
        }
        for member in &self.members {
            let names = &member.content.assembler_names;
            let (directory, memo) = (self.link.directory, &self.session.memo);
            let found = assembler::find(names, &include_directories, directory, memo)?;
            if found.files != member.assembler.files {
                let message = format!(
                    "the assembler would find another file for {} among the include directories of all of {}",
                    self.label(&member.path),
                    self.link.unit.name
                );
                let hint = "use --lto=thin, or give the included file another name";
                return Err(Failure::bad_input(message).hint(hint).into());
            }
        }
        Ok(BackendFlags {
            arguments,
            include_directories,
            split_dwarf: None,
            not_storable: None,
        })
    }

    /// Names natives between bitcode objects that have initcalls or PCI fixups of their own: all entries from
    /// bitcode stand together.
    fn warn_of_other_tables(&self) -> anyhow::Result<()> {
        const TABLES: [&[u8]; 3] = [b".initcall", b".con_initcall", b".pci_fixup"];
        let after_first = self.link.unit.members.iter();
        let after_first = after_first.skip_while(|member| member.kind == MemberKind::Native);
        for member in after_first.filter(|member| member.kind == MemberKind::Native) {
            let bytes = fs_err::read(self.link.directory.join(&member.path))?;
            let names = match elf::is_elf(&bytes) {
                true => elf::section_names(&bytes),
                // A regular archive, as of a compiler's runtime.
                false => continue,
            };
            let names = names.with_context(|| format!("reading {}", member.path.display()))?;
            let is_table = |name: &Vec<u8>| TABLES.iter().any(|table| name.starts_with(table));
            if let Some(table) = names.iter().find(|name| is_table(name)) {
                tell(&format!(
                    "klto: warning: {} is native, and its entries of {} come after those of all objects under full LTO",
                    self.label(&member.path),
                    String::from_utf8_lossy(table)
                ));
            }
        }
        Ok(())
    }

    /// Refuses a unit in which a merge would confuse two static functions or variables of one name.
    fn check_statics(&self) -> anyhow::Result<()> {
        let members = self.members.par_iter().map(|member| {
            let bitcode = fs_err::read(self.link.directory.join(&member.path))?;
            let reading = || format!("reading {}", member.path.display());
            bitcode::symbols(&bitcode).with_context(reading)
        });
        let symbols: Vec<_> = members.collect::<anyhow::Result<_>>()?;
        let Some(found) = ambiguous_static(&symbols) else {
            return Ok(());
        };
        let [named, other] = found.objects.map(|place| match self.members.get(place) {
            Some(member) => self.label(&member.path),
            None => String::new(),
        });
        let message = format!(
            "an assembler text of {named} names its own {name}, and {other} has another {name}: full LTO makes one \
             module of both, in which the text may mean the wrong one",
            name = String::from_utf8_lossy(&found.name)
        );
        let hint = "use --lto=thin, or give one of the two another name";
        Err(Failure::bad_input(message).hint(hint).into())
    }

    /// What most members have, of those that have one; the first of them where several are as frequent.
    fn usual<'a, T: PartialEq>(
        &'a self,
        of: impl Fn(&'a BitcodeMember) -> Option<&'a T>,
    ) -> anyhow::Result<&'a T> {
        let mut counted: Vec<(&T, usize)> = Vec::new();
        for value in self.members.iter().filter_map(of) {
            match counted.iter_mut().find(|(known, _)| *known == value) {
                Some((_, count)) => *count += 1,
                None => counted.push((value, 1)),
            }
        }
        let most = counted.into_iter().rev().max_by_key(|(_, count)| *count);
        most.map(|(value, _)| value)
            .ok_or_else(|| Failure::bug("a unit without bitcode is merged").into())
    }

    /// What the assembler reads for all members.
    fn assembler_files(&self) -> Vec<Input> {
        let files = self
            .members
            .iter()
            .flat_map(|member| &member.assembler.files);
        files.cloned().collect()
    }
}

/// Why what is made of this member may not be stored, if so.
fn unstorable(member: &BitcodeMember) -> Option<String> {
    match &member.assembler.storable {
        Storable::No(reason) => Some(reason.clone()),
        Storable::Yes => member.flags.not_storable.clone(),
    }
}
