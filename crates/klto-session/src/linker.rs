//! Linker calls: link units are lowered to natives, later links take those natives, and every other
//! link of bitcode is a reader of ELF.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klto_core::{Digest, Failure, normalize, publish};
use klto_formats::response;
use klto_kbuild::compile::CompileCall;
use klto_kbuild::link::LinkCall;
use klto_lower::{Substitution, SymbolVersions, is_symbol_versions_script, native_link_arguments};
use klto_wire::{Reply, Request};

use crate::inputs::{LinkInput, LinkInputs, is_bitcode_file};
use crate::journal::VersionsRecord;
use crate::reader::{expand_responses, reader_name};
use crate::recipe::Caller;
use crate::session::{Answer, Session, as_called, lock, tool_environment};
use crate::unit::UnitLink;

/// What a link takes for bitcode objects: another object, or nothing.
type Natives = HashMap<PathBuf, Option<PathBuf>>;

impl Session {
    /// Answers a call of the linker.
    pub(crate) fn linker(&self, request: Request, caller: Caller) -> anyhow::Result<Answer> {
        let arguments = expand_responses(&request.arguments, &request.directory);
        let Some(call) = LinkCall::parse(&arguments) else {
            return Ok(as_called(request));
        };
        let inputs = LinkInputs::read(&call, &request.directory)?;
        let output = self.scratch.object_name(&request.directory, &call.output);
        // With LTO_CLANG_THIN_DIST this link has natives alone.
        if call.relocatable && output == Path::new("vmlinux.o") {
            self.keep_recipe(&output, caller)?;
            self.makes.directories_are_made();
        }
        if inputs.bitcode().next().is_none() {
            return Ok(as_called(request));
        }
        // Trees with an option link the versions of a module into what is native already.
        if self.additions.adds_flags
            && let Some(reply) = self.keep_versions(&request, &call)?
        {
            return Ok(Answer::Reply(reply));
        }
        if let Some(list) = &call.index_list {
            let name = self.scratch.object_name(&request.directory, list);
            self.keep_recipe(&name, caller)?;
            return self.distributed_link(&request, (&call, &inputs), list);
        }
        if let Some(name) = self.unit_name(&request, &call, &inputs) {
            self.keep_recipe(Path::new(&name), caller)?;
            if self.full && !self.additions.adds_flags {
                return self.full_link(request, (&call, &inputs), &name);
            }
            return self.link_unit(request, &call, &inputs, name);
        }
        let natives = match call.relocatable {
            true => HashMap::new(),
            false => self.known_natives(&request, &inputs)?,
        };
        self.make_inputs_native(&request, &inputs, &natives)?;
        match natives.is_empty() {
            true => Ok(as_called(request)),
            false => self.exec_with_natives(request, &call, &inputs, &natives),
        }
    }

    /// `ld -r -o .tmp_foo.o foo.o -T .tmp_foo.ver`: the CRCs are kept for the native object, and the
    /// bitcode goes on as it is.
    fn keep_versions(&self, request: &Request, call: &LinkCall) -> anyhow::Result<Option<Reply>> {
        let (Some(object), [script]) = (single(call.files()), call.scripts.as_slice()) else {
            return Ok(None);
        };
        let input = request.directory.join(object);
        if !call.relocatable || !is_bitcode_file(&input) {
            return Ok(None);
        }
        let script = fs_err::read(request.directory.join(script))?;
        if !is_symbol_versions_script(&script) {
            return Ok(None);
        }
        let name = self.scratch.object_name(&request.directory, object);
        let record = VersionsRecord {
            script,
            options: call.options_for_thin_link(),
            bitcode: *self.memo.digest(&input)?.as_bytes(),
        };
        lock(&self.journal).set_versions(&name, record)?;
        fs_err::copy(&input, request.directory.join(&call.output))?;
        Ok(Some(Reply::ended(0)))
    }

    /// The name of the unit that this link makes; `None` for any other link.
    ///
    /// A unit is the `-r` link of `vmlinux.o`, or the first `-r` link of a module: every bitcode input
    /// was compiled as a part of a module. On trees with LTO of their own a module of one object goes
    /// through `.tmp_foo.o` (scripts/Makefile.build, cmd_ld_single).
    fn unit_name(&self, request: &Request, call: &LinkCall, inputs: &LinkInputs) -> Option<String> {
        let output = self.scratch.object_name(&request.directory, &call.output);
        if !call.relocatable || output.extension()? != "o" {
            return None;
        }
        if output.file_name()? == "vmlinux.o" {
            return Some(output.display().to_string());
        }
        let journal = lock(&self.journal);
        let is_module_part = |object: &Path| {
            let name = self.scratch.object_name(&request.directory, object);
            let record = journal.compile(&name);
            record
                .and_then(|record| CompileCall::parse(&record.arguments))
                .is_some_and(|call| call.module_part)
        };
        let all = inputs.bitcode().all(is_module_part);
        let name = output.file_name()?.to_str()?;
        let name = output.with_file_name(name.strip_prefix(".tmp_").unwrap_or(name));
        all.then(|| name.display().to_string())
    }

    fn link_unit(
        &self,
        request: Request,
        call: &LinkCall,
        inputs: &LinkInputs,
        name: String,
    ) -> anyhow::Result<Answer> {
        let unit = inputs.unit(name, call);
        let environment = tool_environment(&request.environment);
        let scripts = self.script_names(&request, call)?;
        let link = UnitLink {
            unit: &unit,
            call,
            linker: request.program.clone(),
            directory: &request.directory,
            environment: &environment,
            reserved: &scripts,
        };
        let natives = self.lower_unit(&link)?;
        let bitcode = unit.bitcode().map(|(_, member)| member.path.clone());
        let mut by_path = Natives::new();
        for (path, native) in bitcode.zip(natives) {
            // An object that is listed twice has its code where it stands first.
            by_path.entry(path).or_insert(native);
        }
        self.exec_with_natives(request, call, inputs, &by_path)
    }

    /// Symbol names that linker scripts of this link, and for vmlinux of the final one, mention.
    pub(crate) fn script_names(
        &self,
        request: &Request,
        call: &LinkCall,
    ) -> anyhow::Result<BTreeSet<Vec<u8>>> {
        let mut scripts = call.scripts.clone();
        if call.output.ends_with("vmlinux.o") || call.index_list.is_some() {
            let lds = request
                .environment
                .iter()
                .find(|(name, _)| name == "KBUILD_LDS");
            scripts.extend(lds.map(|(_, value)| PathBuf::from(value)));
        }
        let mut names = BTreeSet::new();
        for script in scripts {
            let text = fs_err::read(request.directory.join(script))?;
            names.extend(klto_formats::linker_script::identifiers(&text));
        }
        Ok(names)
    }

    /// The natives of those bitcode inputs that belong to units and are what they were at the unit's
    /// link.
    ///
    /// # Errors
    /// The link takes a part of what full LTO has made one.
    fn known_natives(&self, request: &Request, inputs: &LinkInputs) -> anyhow::Result<Natives> {
        let directory = &request.directory;
        let known = lock(&self.natives);
        let mut natives = HashMap::new();
        let mut taken = BTreeMap::new();
        let mut together = Vec::new();
        for object in inputs.bitcode() {
            let place = normalize(&directory.join(object));
            let digest = self.memo.digest(&place)?;
            if let Some(native) = known.get(&place)
                && digest == native.digest
            {
                natives.insert(object.to_owned(), native.path.clone());
                together.extend(native.together.clone());
            }
            taken.insert(place, digest);
        }
        // The same list for each of its objects.
        together.dedup_by(|one, other| Arc::ptr_eq(one, other));
        for (place, digest) in together.iter().flat_map(|list| list.iter()) {
            if taken.get(place) != Some(digest) {
                let message = format!(
                    "{} links a part of what full LTO has merged into one object: {} is not in the link, or \
                     has changed since",
                    reader_name(request),
                    place.display()
                );
                let hint = "use --lto=thin";
                return Err(Failure::build(message).hint(hint).into());
            }
        }
        Ok(natives)
    }

    fn exec_with_natives(
        &self,
        request: Request,
        call: &LinkCall,
        inputs: &LinkInputs,
        natives: &Natives,
    ) -> anyhow::Result<Answer> {
        let native = |object: &Path| match natives.get(object) {
            Some(native) => native.clone(),
            None => Some(object.to_owned()),
        };
        let substitute = |path: &Path| match inputs.get(path) {
            LinkInput::Plain => Substitution::Same,
            LinkInput::Bitcode => native(path).map_or(Substitution::Nothing, Substitution::Object),
            LinkInput::Archive(members) => {
                let natives = members.iter().filter_map(|member| native(&member.path));
                Substitution::Members(natives.collect())
            }
        };
        let arguments = native_link_arguments(call, &substitute);
        let output = self.scratch.object_name(&request.directory, &call.output);
        if call.relocatable
            && output == Path::new("vmlinux.o")
            && let Some(answer) = self.link_with_fewer_patterns(&request, call, &arguments)?
        {
            return Ok(answer);
        }
        let arguments = vec![self.response_file(&request, &call.output, arguments)?];
        Ok(Answer::Reply(Reply::Exec {
            program: request.program,
            arguments,
        }))
    }

    /// The one argument of a link that stands for all: the natives of a large kernel exceed what a command
    /// line may hold.
    pub(crate) fn response_file(
        &self,
        request: &Request,
        output: &Path,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<OsString> {
        let file = self.file_of_link(request, output, "rsp");
        let words = arguments.into_iter().map(OsString::into_vec);
        publish(&file, &response::quote(words))?;
        let mut argument = OsString::from("@");
        argument.push(file);
        Ok(argument)
    }

    /// A file of klto's for the link that makes `output`.
    pub(crate) fn file_of_link(&self, request: &Request, output: &Path, end: &str) -> PathBuf {
        let output = self.scratch.object_name(&request.directory, output);
        let digest = Digest::of_bytes(output.as_os_str().as_bytes()).to_hex();
        self.scratch.path(&format!("links/{digest}.{end}"))
    }
}

impl From<VersionsRecord> for SymbolVersions {
    fn from(record: VersionsRecord) -> Self {
        Self {
            script: record.script,
            options: record.options,
        }
    }
}

fn single<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    items.next().is_none().then_some(first).flatten()
}
