//! Tools that read objects as ELF: each bitcode object that one of them names is made native first.
//!
//! There is no list of such objects. The first time, the object is compiled again without LTO, in
//! place and with its old times, so that make sees nothing new; from then on the journal knows it, and
//! it is compiled native at once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use klto_core::{Failure, die_with_parent};
use klto_formats::{bitcode, response};
use klto_kbuild::compile::{with_output, without_lto_or_depfile};
use klto_wire::{Reply, Request, ShimRole};

use crate::after_compile::{record_entry_calls, run_objtool};
use crate::inputs::{LinkInputs, bitcode_of, is_bitcode_file};
use crate::journal::CompileRecord;
use crate::log::pass_on;
use crate::session::{Answer, Session, as_called, lock};

impl Session {
    /// Answers a tool that reads objects.
    pub(crate) fn reader(&self, request: Request) -> anyhow::Result<Answer> {
        let listed = section_list_of_bitcode(&request).inspect_err(|error| {
            // kbuild takes an error for an object without exports.
            self.note_wrong_result(Failure::build(format!("{error:#}")).into());
        });
        if let Some(reply) = listed? {
            return Ok(Answer::Reply(reply));
        }
        let reader = reader_name(&request);
        for word in expand_responses(&request.arguments, &request.directory) {
            let path = Path::new(&word);
            let is_option = word.as_bytes().starts_with(b"-");
            if is_option || !request.directory.join(path).is_file() {
                continue;
            }
            for object in bitcode_of(path, &request.directory)? {
                self.make_native(&request.directory, &object, &reader)?;
            }
        }
        Ok(as_called(request))
    }

    /// Makes every bitcode input of a link native that has no native of a unit.
    pub(crate) fn make_inputs_native(
        &self,
        request: &Request,
        inputs: &LinkInputs,
        natives: &HashMap<PathBuf, Option<PathBuf>>,
    ) -> anyhow::Result<()> {
        let mut objects: Vec<&Path> = inputs
            .bitcode()
            .filter(|object| !natives.contains_key(*object))
            .collect();
        objects.sort();
        let reader = reader_name(request);
        objects
            .into_iter()
            .try_for_each(|object| self.make_native(&request.directory, object, &reader))
    }

    fn make_native(&self, directory: &Path, path: &Path, reader: &str) -> anyhow::Result<()> {
        let _one_at_a_time = lock(&self.making_native);
        let place = directory.join(path);
        if !is_bitcode_file(&place) {
            return Ok(());
        }
        let object = self.scratch.object_name(directory, path);
        let digest = self.memo.digest(&place)?;
        let (record, versions, steps) = {
            let journal = lock(&self.journal);
            (
                journal.compile(&object).cloned(),
                journal.versions(&object, digest).cloned(),
                journal.steps(&object),
            )
        };
        let record = record.ok_or_else(|| unknown_bitcode(&object))?;
        let modified = fs_err::metadata(&place)?.modified()?;
        let temporary = place.with_extension("o.klto-native");
        let made = compile_native(&record, &temporary)
            .and_then(|()| match &steps.objtool {
                Some(objtool) => run_objtool(objtool, directory, &temporary),
                None => Ok(()),
            })
            .and_then(|()| match &versions {
                Some(versions) => self.link_versions(versions, directory, &temporary),
                None => Ok(()),
            })
            .and_then(|()| match steps.records_entry_calls {
                true => record_entry_calls(&temporary),
                false => Ok(()),
            })
            .and_then(|()| {
                let file = fs_err::OpenOptions::new().write(true).open(&temporary)?;
                file.file().set_modified(modified)?;
                Ok(fs_err::rename(&temporary, &place)?)
            })
            .with_context(|| format!("making {} native for {reader}", object.display()));
        if made.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        made?;
        lock(&self.journal).set_native(&object, reader)?;
        let line = format!("native {}: read by {reader}", object.display());
        self.log.line(&line);
        Ok(())
    }
}

/// The failure for bitcode that no recorded compile made.
pub(crate) fn unknown_bitcode(object: &Path) -> anyhow::Error {
    Failure::bad_input(format!(
        "{} is bitcode, and klto did not see its compile",
        object.display()
    ))
    .hint(format!("remove {} and build again", object.display()))
    .into()
}

/// The compile of `record` once more, without LTO, to another output.
fn compile_native(record: &CompileRecord, output: &Path) -> anyhow::Result<()> {
    let arguments = with_output(&without_lto_or_depfile(&record.arguments), output);
    let arguments = arguments.ok_or_else(|| Failure::bug("a recorded compile has no -o"))?;
    let mut command = Command::new(&record.program);
    command.args(&arguments).current_dir(&record.directory);
    let started = die_with_parent(&mut command).output();
    let result = started.with_context(|| format!("starting {}", record.program.display()))?;
    pass_on(&result.stderr);
    match result.status.success() {
        true => Ok(()),
        false => Err(Failure::build("the compiler failed").into()),
    }
}

/// `objdump -h` on bitcode, as kbuild asks before 5.19 whether an object exports symbols
/// (scripts/Makefile.build, cmd_modversions_c): the sections that exports will be in.
fn section_list_of_bitcode(request: &Request) -> anyhow::Result<Option<Reply>> {
    let [option, file] = request.arguments.as_slice() else {
        return Ok(None);
    };
    let path = request.directory.join(file);
    if request.role != ShimRole::ObjectReader || option != "-h" || !is_bitcode_file(&path) {
        return Ok(None);
    }
    let symbols = bitcode::symbols(&fs_err::read(&path)?)
        .with_context(|| format!("reading {}", path.display()))?;
    let exports = symbols
        .iter()
        .any(|symbol| !symbol.undefined && symbol.name.starts_with(b"__ksymtab_"));
    let mut stdout = format!(
        "\n{}:\tfile format llvm-bitcode\n\nSections:\n",
        file.display()
    );
    if exports {
        stdout.push_str("  0 __ksymtab\n");
    }
    Ok(Some(Reply::prints(stdout.into_bytes())))
}

/// What the user is told: the tool and, where it has one, its output.
pub(crate) fn reader_name(request: &Request) -> String {
    let tool = request
        .program
        .file_name()
        .unwrap_or_default()
        .display()
        .to_string();
    let mut words = request.arguments.iter();
    let output = words.find(|word| *word == "-o").and_then(|_| words.next());
    match output.or(request.arguments.last()) {
        Some(output) => format!("{tool} for {}", output.display()),
        None => tool,
    }
}

/// Arguments with response files (`@file`) expanded, as every LLVM tool does.
pub(crate) fn expand_responses(arguments: &[OsString], directory: &Path) -> Vec<OsString> {
    let mut expanded = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let file = argument
            .as_bytes()
            .strip_prefix(b"@")
            .map(std::ffi::OsStr::from_bytes);
        match file.and_then(|file| fs_err::read(directory.join(PathBuf::from(file))).ok()) {
            Some(text) => {
                expanded.extend(response::parse(&text).into_iter().map(OsString::from_vec))
            }
            None => expanded.push(argument.clone()),
        }
    }
    expanded
}
