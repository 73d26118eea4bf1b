//! A link unit from bitcode to natives.
//!
//! Under full LTO one native object is made of the whole unit: by the linker as kbuild calls it where the
//! tree has the option, see `full.rs`, and of all bitcode elsewhere, see `merged.rs`. Under ThinLTO:
//!
//! # The steps
//!
//! 1. Digest every member. If nothing differs from the unit's manifest and the natives are whole, all
//!    of them are kept.
//! 2. Thin-link: one index and one import list for each bitcode object.
//! 3. One backend action for each object. An action whose key the manifest has, and whose native is
//!    as it was, is kept; the engine finds or makes the others.
//! 4. Post-processing, in kbuild's own order: objtool where kbuild runs it on each object, symbol
//!    versions for the natives of exporting objects, the table of traced functions; and promoted
//!    names that are unique get their base name back.
//! 5. The manifest is written last: a unit that was interrupted has the old one, and every native in
//!    it is checked by digest before it is kept.
//!
//! Natives lie under `.klto/units/<unit>/raw` as the backend wrote them, under `objtool` and `versions` as
//! these steps left them, and under `final` where klto itself changes them. The objects that kbuild made stay
//! bitcode.

mod assembler;
mod backends;
mod content;
mod finish;
mod full;
mod manifest;
mod merged;
mod steps;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use klto_core::{Digest, Failure, KeyBuilder, Storable, die_with_parent, normalize};
use klto_exec::ToolIdentity;
use klto_kbuild::compile::{BackendFlags, CompileCall, backend_flags, may_name_file};
use klto_kbuild::link::LinkCall;
use klto_lower::objtool::BACKEND_FLAGS;
use klto_lower::{
    LinkUnit, ThinLinkPlace, linked_members, split_dwarf_beside, thin_link_arguments,
};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::journal::{CompileRecord, ObjtoolRecord, StepsRecord, VersionsRecord};
use crate::log::pass_on;
use crate::reader::unknown_bitcode;
use crate::session::{Session, lock};
use assembler::AssemblerFiles;
use content::Content;
pub(crate) use content::Contents;
use manifest::Manifest;

/// What a unit is lowered from.
pub(crate) struct UnitLink<'a> {
    pub unit: &'a LinkUnit,
    pub call: &'a LinkCall,
    pub linker: PathBuf,
    pub directory: &'a Path,
    pub environment: &'a [(OsString, OsString)],
    /// Names that no promoted symbol may take.
    pub reserved: &'a BTreeSet<Vec<u8>>,
}

/// What stands for a bitcode object of a finished unit.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    /// The bitcode of which it was made.
    pub digest: Digest,
    /// What a link takes; nothing where the code is in another member's native.
    pub path: Option<PathBuf>,
    /// Under full LTO all bitcode of the unit, with its digests: a link takes all of it or none.
    pub together: Option<Arc<[(PathBuf, Digest)]>>,
}

/// A bitcode member with all that its backend needs to know of its compile.
struct BitcodeMember {
    path: PathBuf,
    digest: Digest,
    record: CompileRecord,
    flags: BackendFlags,
    steps: StepsRecord,
    versions: Option<VersionsRecord>,
    content: Content,
    assembler: AssemblerFiles,
    /// Whether the thin-link took it; a lazy member may be left out.
    linked: bool,
}

/// Everything about one lowering that its steps share.
struct Lowering<'a> {
    session: &'a Session,
    link: &'a UnitLink<'a>,
    members: Vec<BitcodeMember>,
    place: ThinLinkPlace,
    /// The unit's directory as tools name it.
    root: PathBuf,
    link_options: Vec<OsString>,
    old: Manifest,
}

impl Session {
    /// What links take for each of the unit's bitcode members, in member order, as tools in the link's
    /// directory name it: its native, or nothing where the code is in another member's.
    pub(crate) fn lower_unit(&self, link: &UnitLink<'_>) -> anyhow::Result<Vec<Option<PathBuf>>> {
        let lowering = Lowering::prepare(self, link)?;
        let members = lowering.members.iter().map(|member| {
            let place = normalize(&link.directory.join(&member.path));
            (place, member.digest)
        });
        let members: Arc<[(PathBuf, Digest)]> = members.collect();
        for member in &lowering.members {
            self.note_assembler_files(link.directory, &member.path, &member.assembler)?;
        }
        let natives = match self.full {
            true => lowering.lower_as_one()?,
            false => lowering.lower_each()?.into_iter().map(Some).collect(),
        };
        let mut known = lock(&self.natives);
        for ((place, digest), path) in members.iter().zip(&natives) {
            let native = Native {
                digest: *digest,
                path: path.clone(),
                together: self.full.then(|| Arc::clone(&members)),
            };
            known.insert(place.clone(), native);
        }
        Ok(natives)
    }

    /// Adds all of a bitcode member of vmlinux that decides its native, imports apart; `false` where that
    /// is not known.
    pub(crate) fn add_bitcode_member(
        &self,
        key: &mut KeyBuilder,
        directory: &Path,
        path: &Path,
        environment: &[(OsString, OsString)],
    ) -> anyhow::Result<bool> {
        let object = self.scratch.object_name(directory, path);
        if lock(&self.journal).compile(&object).is_none() {
            return Ok(false);
        }
        let known = |digest| self.contents.of_vmlinux(self, path, digest);
        let member = BitcodeMember::read(self, directory, path, known)?;
        let compiler = self.identity(&member.record.program, environment)?;
        let objtool = member.objtool(self, environment)?;
        let tools = [Some(&compiler), objtool.as_ref()];
        let mut tools = tools.into_iter().flatten();
        if member.is_unnamed() || tools.any(|tool| tool.storable != Storable::Yes) {
            return Ok(false);
        }
        let objtool = objtool.as_ref().map(|tool| tool.digest);
        member.add_to(key, compiler.digest, objtool);
        Ok(true)
    }

    /// The linker, for a unit that no linker call asked for.
    pub(crate) fn linker_program(&self) -> anyhow::Result<PathBuf> {
        let linker = self.additions.linker.clone();
        linker.ok_or_else(|| Failure::bug("no linker is known").into())
    }

    /// Learns of the natives of a unit that an earlier build lowered.
    pub(crate) fn know_unit(&self, unit: &str, directory: &Path) {
        let root = directory.join(self.unit_root(unit, directory));
        let manifest = Manifest::read(&root.join("manifest"));
        let mut known = lock(&self.natives);
        for (object, digest, native) in manifest.natives(directory, &self.memo) {
            let native = Native {
                digest,
                path: Some(native.to_owned()),
                together: None,
            };
            let place = normalize(&directory.join(object));
            known.entry(place).or_insert(native);
        }
    }

    /// The index of a member, as the unit's last thin-link wrote it.
    pub(crate) fn index_of(&self, unit: &str, directory: &Path, member: &Path) -> PathBuf {
        let root = directory.join(self.unit_root(unit, directory));
        ThinLinkPlace::below(&root).index(member)
    }

    /// Where a unit's files are in the scratch directory.
    fn unit_root(&self, unit: &str, directory: &Path) -> PathBuf {
        let name = format!("units/{}", unit.trim_start_matches('/'));
        match directory == self.scratch.output() {
            true => self.scratch.relative(&name),
            false => self.scratch.path(&name),
        }
    }
}

impl BitcodeMember {
    fn read(
        session: &Session,
        directory: &Path,
        path: &Path,
        known: impl FnOnce(Digest) -> Option<Content>,
    ) -> anyhow::Result<Self> {
        let object = session.scratch.object_name(directory, path);
        let digest = session.memo.digest(&directory.join(path))?;
        let (record, versions, steps) = {
            let journal = lock(&session.journal);
            (
                journal.compile(&object).cloned(),
                journal.versions(&object, digest).cloned(),
                journal.steps(&object),
            )
        };
        let record = record.ok_or_else(|| unknown_bitcode(&object))?;
        let mut flags = backend_flags(&record.arguments);
        if steps.objtool.is_some() {
            flags.arguments.extend(BACKEND_FLAGS.map(OsString::from));
        }
        let content = match known(digest) {
            Some(content) => content,
            None => session.contents.read(&directory.join(path), digest)?,
        };
        let (names, memo) = (&content.assembler_names, &session.memo);
        let assembler = assembler::find(names, &flags.include_directories, directory, memo)?;
        Ok(Self {
            path: path.to_owned(),
            digest,
            record,
            flags,
            steps,
            versions,
            content,
            assembler,
            linked: true,
        })
    }

    /// What the objtool is that kbuild runs on the object, if it does.
    fn objtool(
        &self,
        session: &Session,
        environment: &[(OsString, OsString)],
    ) -> anyhow::Result<Option<Arc<ToolIdentity>>> {
        let record = self.steps.objtool.as_ref();
        let identify = |record: &ObjtoolRecord| session.identity(&record.program, environment);
        record.map(identify).transpose()
    }

    /// The source, as the compile names it.
    fn source(&self) -> PathBuf {
        CompileCall::parse(&self.record.arguments)
            .map_or_else(|| self.path.clone(), |call| call.source)
    }

    /// Whether its backend reads what klto cannot name.
    fn is_unnamed(&self) -> bool {
        self.assembler.storable != Storable::Yes || self.flags.not_storable.is_some()
    }

    /// Adds all that decides its native; `objtool` identifies that tool where it runs.
    fn add_to(&self, key: &mut KeyBuilder, compiler: Digest, objtool: Option<Digest>) {
        key.digest("compiler", compiler);
        if let (Some(record), Some(objtool)) = (&self.steps.objtool, objtool) {
            key.digest("objtool", objtool);
            for argument in &record.arguments {
                key.field("objtool-argument", argument.as_encoded_bytes());
            }
        }
        if let Some(file) = &self.flags.split_dwarf {
            key.field("split-dwarf", file.as_os_str().as_encoded_bytes());
        }
        let recorded = [u8::from(self.steps.records_entry_calls)];
        key.field("records-entry-calls", &recorded);
        for flag in &self.flags.arguments {
            key.argument("flag", flag.as_encoded_bytes());
        }
        if let Some(versions) = &self.versions {
            key.field("versions", &versions.script);
            for option in &versions.options {
                key.field("versions-option", option.as_encoded_bytes());
            }
        }
        for file in &self.assembler.files {
            key.digest("asm-file", file.digest);
        }
    }
}

impl<'a> Lowering<'a> {
    fn prepare(session: &'a Session, link: &'a UnitLink<'a>) -> anyhow::Result<Self> {
        let link_options = link.call.backend_options().map_err(|option| {
            Failure::bad_input(format!(
                "klto cannot pass the linker option {option} on to LTO backends"
            ))
            .hint("build with --lto=none, or without that option")
        })?;
        let root = session.unit_root(&link.unit.name, link.directory);
        let place = ThinLinkPlace::below(&root);
        let old = Manifest::read(&link.directory.join(root.join("manifest")));
        let paths: Vec<&Path> = link
            .unit
            .bitcode()
            .map(|(_, member)| member.path.as_path())
            .collect();
        let members = paths
            .par_iter()
            .map(|path| {
                let known = |digest| old.content(path, digest).cloned();
                BitcodeMember::read(session, link.directory, path, known)
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            session,
            link,
            members,
            place,
            root,
            link_options,
            old,
        })
    }

    /// Puts split debug information beside the objects, where debuggers look for it.
    fn place_split_dwarf(&self) -> anyhow::Result<()> {
        for member in &self.members {
            let Some(file) = &member.flags.split_dwarf else {
                continue;
            };
            let made = split_dwarf_beside(&self.place_of("raw", &member.path));
            let bytes = fs_err::read(self.link.directory.join(made))?;
            let place = self.link.directory.join(file);
            if fs_err::read(&place).ok().as_deref() != Some(bytes.as_slice()) {
                klto_core::publish(&place, &bytes)?;
            }
        }
        Ok(())
    }

    /// ThinLTO: the native of each member.
    fn lower_each(mut self) -> anyhow::Result<Vec<PathBuf>> {
        let unit_key = self.unit_key()?;
        let directory = self.link.directory;
        let raw = |member: &Path| directory.join(self.place_of("raw", member));
        let whole = |key| {
            self.old
                .whole_unit(key, directory, &raw, &self.session.memo)
        };
        // kbuild reads the indexes of such a link too; a manifest does not speak of them.
        let needs_indexes = self.link.call.index_list.is_some();
        let has_index = |member: &BitcodeMember| {
            let index = self.place.index(&member.path);
            directory.join(index).exists()
        };
        let has_all_indexes = !needs_indexes || self.members.iter().all(has_index);
        let natives = match unit_key.filter(|_| has_all_indexes).and_then(whole) {
            Some(natives) => {
                let line = format!("kept unit {}", self.link.unit.name);
                self.session.log.line(&line);
                natives
            }
            None => {
                self.thin_link()?;
                let raws = self.run_backends()?;
                let stepped = self.run_steps(&raws)?;
                let natives = self.finish(&stepped)?;
                self.new_manifest(unit_key, &raws, &stepped, &natives)?
                    .write(&self.manifest_path())?;
                natives
            }
        };
        self.place_split_dwarf()?;
        Ok(natives)
    }

    fn manifest_path(&self) -> PathBuf {
        self.link.directory.join(self.root.join("manifest"))
    }

    /// Digest over everything that decides what the unit's natives are; `None` when a backend reads
    /// what klto cannot name, so that it must run each time.
    fn unit_key(&self) -> anyhow::Result<Option<Digest>> {
        let environment = self.link.environment;
        let mut key = KeyBuilder::new("unit", 4);
        key.field("klto", env!("CARGO_PKG_VERSION").as_bytes());
        let linker = self.session.identity(&self.link.linker, environment)?;
        let unnamed = self.link_options.iter().any(|option| may_name_file(option));
        if linker.storable != Storable::Yes
            || unnamed
            || backends::overridden(environment).is_some()
        {
            return Ok(None);
        }
        key.digest("linker", linker.digest);
        for argument in self.thin_link_arguments() {
            key.argument("thin-link", argument.as_encoded_bytes());
        }
        for (name, value) in environment {
            key.field("variable", name.as_encoded_bytes())
                .field("value", value.as_encoded_bytes());
        }
        for name in self.link.reserved {
            key.field("reserved", name);
        }
        for member in &self.link.unit.members {
            let path = self.link.directory.join(&member.path);
            key.digest("content", self.session.memo.digest(&path)?);
        }
        for member in &self.members {
            let compiler = self.session.identity(&member.record.program, environment)?;
            let objtool = member.objtool(self.session, environment)?;
            let tools = [Some(&compiler), objtool.as_ref()];
            let mut tools = tools.into_iter().flatten();
            if member.is_unnamed() || tools.any(|tool| tool.storable != Storable::Yes) {
                return Ok(None);
            }
            member.add_to(
                &mut key,
                compiler.digest,
                objtool.as_ref().map(|tool| tool.digest),
            );
        }
        Ok(Some(key.finish()))
    }

    fn thin_link_arguments(&self) -> Vec<OsString> {
        let limit = self.session.additions.import_limit;
        thin_link_arguments(self.link.unit, self.link.call, &self.place, limit)
    }

    /// Runs the thin-link and learns which members it took.
    fn thin_link(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let former = self.put_former_indexes_aside()?;
        let arguments = self.thin_link_arguments();
        let words: Vec<Vec<u8>> = arguments.into_iter().map(OsString::into_vec).collect();
        let file = self.link.directory.join(self.root.join("thin-link.rsp"));
        klto_core::publish(&file, &klto_formats::response::quote(&words))?;
        let mut argument = OsString::from("@");
        argument.push(&file);
        let mut command = Command::new(&self.link.linker);
        command
            .arg(argument)
            .current_dir(self.link.directory)
            .env_clear();
        command.envs(
            self.link
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        let (started, removed) = std::thread::scope(|scope| {
            let removed = scope.spawn(|| former.map_or(Ok(()), fs_err::remove_dir_all));
            (die_with_parent(&mut command).output(), removed.join())
        });
        let output = started.with_context(|| format!("starting {}", self.link.linker.display()))?;
        if let Ok(removed) = removed {
            removed?;
        }
        pass_on(&output.stderr);
        if !output.status.success() {
            let what = format!("the thin-link of {} failed", self.link.unit.name);
            return Err(Failure::build(what).into());
        }
        let list = fs_err::read(self.link.directory.join(&self.place.list))?;
        let linked = linked_members(&list, self.link.unit, &self.place);
        let mut count = 0;
        for (member, (place, _)) in self.members.iter_mut().zip(self.link.unit.bitcode()) {
            member.linked = linked.get(place).copied().unwrap_or(false);
            count += usize::from(member.linked);
            let object = self
                .session
                .scratch
                .object_name(self.link.directory, &member.path);
            let verb = if member.linked { "input" } else { "left-out" };
            self.session.log.line(&format!(
                "{verb} {} {}",
                self.link.unit.name,
                object.display()
            ));
        }
        let unit = &self.link.unit.name;
        self.session.timeline.ended(begin, "thin-link", "ran", unit);
        self.session.log.line(&format!(
            "ran thin-link {}: {count} objects, {:.2} s",
            self.link.unit.name,
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Makes an empty place for indexes. What was there gets another name, by which it is removed while the
    /// linker runs: thousands of files take as long as much of the link.
    fn put_former_indexes_aside(&self) -> anyhow::Result<Option<PathBuf>> {
        let index = self.link.directory.join(&self.place.prefix);
        let former = self.link.directory.join(self.root.join("former-index"));
        if former.exists() {
            // A build was killed.
            fs_err::remove_dir_all(&former)?;
        }
        let there_was = index.exists();
        if there_was {
            fs_err::rename(&index, &former)?;
        }
        fs_err::create_dir_all(&index)?;
        Ok(there_was.then_some(former))
    }

    fn digests(&self) -> HashMap<&Path, Digest> {
        self.members
            .iter()
            .map(|member| (member.path.as_path(), member.digest))
            .collect()
    }
}
