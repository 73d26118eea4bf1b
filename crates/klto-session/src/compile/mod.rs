//! Compiler calls: C objects become bitcode, unless something reads them as ELF.
//!
//! A compile is recorded before it runs, for the backend needs its flags. Its object comes out of the store,
//! or the session says with which arguments the shim has the compiler run.

mod ahead;
mod call;
mod kallsyms;
mod line_use;
mod newer;
mod passed_over;
mod previous;
mod sources;
mod stored;
mod versions;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use klto_core::Failure;
use klto_kbuild::compile::{
    CompileCall, changes_with_each_link, is_linked_after_lto, with_full_lto, with_output,
    with_thin_lto, without_lto,
};
use klto_kbuild::genksyms::preprocesses_for_genksyms;
use klto_kbuild::link::{LinkCall, distributed_backend};
use klto_kbuild::unhooked_reader;
use klto_wire::{Finished, Reply, Request};

use crate::inputs::LinkInputs;
use crate::journal::CompileRecord;
use crate::old_time::make_old;
use crate::recipe::Caller;
use crate::session::{Answer, Run, Session, ended, lock, tool_environment};
use crate::unit::UnitLink;

pub(crate) use ahead::Ahead;
use ahead::AheadResult;
pub(crate) use call::MODE_MARKER;
use call::is_mode_marker;
pub(crate) use line_use::{LineUse, can_tell, place_header, placed_header, with_header};
use newer::why_again;
use previous::Previous;
pub(crate) use sources::{Essence, Sources};
use stored::StoredCompile;
pub(crate) use stored::last_change;

/// Who reads an object that kbuild compiles with flags of its own, as those of the boot image on x86.
const WITHOUT_KCFLAGS: &str = "a link of what is compiled without KCFLAGS";
/// What the log calls a compile to machine code.
const NATIVE: &str = "native-compile";
const FAILS_OR_PRINTS: &str = ": not stored: it fails or prints something";

/// What follows a compile, if anything does.
type Then = Option<Box<dyn FnOnce(&Session) -> anyhow::Result<Answer> + Send>>;

/// Has the shim run a call, which says itself what there is to say.
fn run_then(run: Run, then: Then) -> Answer {
    let Some(then) = then else {
        return Answer::Reply(Reply::Exec {
            program: run.program,
            arguments: run.arguments,
        });
    };
    let next = move |session: &Session, finished: Finished| match finished.code {
        0 => then(session),
        code => Ok(ended(code)),
    };
    Answer::Then {
        run,
        next: Box::new(next),
    }
}

/// A note for the log, where the bitcode is the one that was there before.
const fn same_code(is_same_code: bool) -> &'static str {
    match is_same_code {
        true => ": the same code",
        false => "",
    }
}

impl Session {
    /// Answers a call of the compiler.
    pub(crate) fn compiler(&self, request: Request, caller: Caller) -> anyhow::Result<Answer> {
        if preprocesses_for_genksyms(&request.arguments) {
            return Ok(self.symbol_versions(request, caller));
        }
        if !request.arguments.iter().any(|argument| argument == "-c") {
            return self.reader(request);
        }
        if let Some(answer) = self.kallsyms(&request)? {
            return Ok(answer);
        }
        if let Some((object, output)) = distributed_backend(&request.arguments) {
            return self.distributed_native(&request, caller, &object, &output);
        }
        let Some(call) = CompileCall::parse(&request.arguments) else {
            self.forget_lines_read(&request)?;
            // What klto does not understand is native, which is always right.
            return Ok(Answer::Reply(Reply::Exec {
                arguments: without_lto(&request.arguments),
                program: request.program,
            }));
        };
        let object = self.scratch.object_name(&request.directory, &call.output);
        self.keep_recipe(&object, caller)?;
        let has_lto_flags = request.arguments.iter().any(|argument| {
            ["-flto=thin", "-flto", "-flto=full"]
                .iter()
                .any(|flag| argument == flag)
        });
        if !has_lto_flags && !self.additions.adds_flags {
            lock(&self.journal).set_assembler_files(&object, Vec::new())?;
            let arguments = request.arguments.clone();
            return self.compile_native(&request, &call, arguments);
        }
        if let Some(reader) = unhooked_reader(&object) {
            lock(&self.journal).set_native_once(&object, reader)?;
        }
        if self.additions.adds_flags && !request.arguments.iter().any(is_mode_marker) {
            // Without it make would take the bitcode for its own object when klto is not there.
            lock(&self.journal).set_native_once(&object, WITHOUT_KCFLAGS)?;
        }
        let is_native = is_linked_after_lto(&object)
            || self.full && self.additions.adds_flags && changes_with_each_link(&object)
            || lock(&self.journal).native_reader(&object).is_some();
        if is_native {
            lock(&self.journal).set_assembler_files(&object, Vec::new())?;
            let arguments = without_lto(&request.arguments);
            return self.compile_native(&request, &call, arguments);
        }
        let (to_bitcode, arguments) = self.to_bitcode(&request, &call, &object)?;
        if to_bitcode.output == call.output {
            return self.compile(request, &call, arguments, None);
        }
        let original = request.clone();
        let bitcode = to_bitcode.output.clone();
        let lower = move |session: &Session| {
            let reply = session.lower_single_object(&original, &call, &bitcode)?;
            Ok(Answer::Reply(reply))
        };
        self.compile(request, &to_bitcode, arguments, Some(Box::new(lower)))
    }

    /// A compile begins, and the journal knows it. The object becomes old before: kbuild would take it for
    /// made if this one came to no end and the next were called as the last, but what the journal says would
    /// not be of it. It stays, for a link that runs beside may name it.
    fn begin_compile(
        &self,
        request: &Request,
        call: &CompileCall,
        object: &Path,
    ) -> anyhow::Result<Previous> {
        let output = request.directory.join(&call.output);
        let previous = Previous::keep(self, &output, &object.display().to_string());
        let is_there = fs_err::symlink_metadata(&output).is_ok_and(|metadata| metadata.is_file());
        let record = CompileRecord {
            program: request.program.clone(),
            arguments: request.arguments.clone(),
            directory: request.directory.clone(),
        };
        let why = match lock(&self.journal).compile(object) {
            None => Some("no build before has compiled it"),
            Some(known) if *known != record => Some("its command has changed"),
            Some(_) if !is_there => Some("it was not there"),
            Some(_) => None,
        };
        let why = why.map_or_else(
            || why_again(&output, &request.directory, &self.source),
            str::to_owned,
        );
        if is_there {
            make_old(&output)?;
        }
        self.log
            .line(&format!("why compile {}: {why}", object.display()));
        lock(&self.journal).begin_compile(object, record)?;
        Ok(previous)
    }

    /// What makes bitcode of `object` where kbuild calls the compiler so: the call with the bitcode's place,
    /// which is another than kbuild's for a module of one object on a tree where nothing links it, and its
    /// arguments.
    fn to_bitcode(
        &self,
        request: &Request,
        call: &CompileCall,
        object: &Path,
    ) -> anyhow::Result<(CompileCall, Vec<OsString>)> {
        if !self.additions.adds_flags {
            return Ok((call.clone(), request.arguments.clone()));
        }
        let first = &self.additions.first_arguments;
        let arguments = match self.full {
            true => {
                let object = (!call.module_part).then_some(object);
                with_full_lto(&request.arguments, first, object)
            }
            false => with_thin_lto(&request.arguments, first),
        };
        if !call.single_object_module {
            return Ok((call.clone(), arguments));
        }
        let bitcode = self.scratch.single(&request.directory, object)?;
        let arguments = with_output(&arguments, &bitcode)
            .ok_or_else(|| Failure::bug("a compile without -o"))?;
        let to_bitcode = CompileCall {
            output: bitcode,
            ..call.clone()
        };
        Ok((to_bitcode, arguments))
    }

    /// Has a compile done with `arguments`, by the store or by the shim, and goes on with `then`.
    fn compile(
        &self,
        request: Request,
        call: &CompileCall,
        arguments: Vec<OsString>,
        then: Then,
    ) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let object = self.scratch.object_name(&request.directory, &call.output);
        let label = object.display().to_string();
        let as_written = Run::with_arguments(&request, arguments);
        let previous = self.begin_compile(&request, call, &object)?;
        let parts = (call, as_written.arguments.as_slice(), &[][..]);
        let mut stored = match StoredCompile::of(self, &request, parts, label.clone())? {
            Ok(stored) => stored,
            Err(reason) => {
                self.log_ran("compile", &label, &format!(": not stored: {reason}"));
                return Ok(run_then(as_written, then));
            }
        };
        let ahead = self.ahead.take(stored.call_key());
        if ahead == Some(AheadResult::HasMessages) {
            self.log_ran("compile", &label, FAILS_OR_PRINTS);
            return Ok(run_then(as_written, then));
        }
        if let Some(found) = stored.find(self) {
            lock(&self.journal).set_lines_read(&object, found.lines_read)?;
            let is_back = previous.put_back();
            if let Some(AheadResult::Stored { is_same_code }) = ahead {
                let note = same_code(is_back || is_same_code);
                self.log_ran("compile", &label, &format!(": before make asked{note}"));
            } else {
                let note = same_code(is_back);
                self.log.line(&format!("hit compile {label}{note}"));
                self.timeline.ended(start, "compile", "hit", &label);
            }
            return then.map_or(Ok(ended(0)), |then| then(self));
        }
        Ok(self.run_and_keep(start, stored, Some(previous), as_written, then))
    }

    /// Has an object compiled to machine code with `arguments`, by the store or by the shim. make takes what a
    /// killed compile left as it takes what kbuild's own left.
    fn compile_native(
        &self,
        request: &Request,
        call: &CompileCall,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let object = self.scratch.object_name(&request.directory, &call.output);
        let label = object.display().to_string();
        let as_written = Run::with_arguments(request, arguments);
        let parts = (call, as_written.arguments.as_slice(), &[][..]);
        let stored = StoredCompile::of(self, request, parts, label.clone())?;
        let stored = stored.map(StoredCompile::native);
        lock(&self.journal).set_lines_read(&object, None)?;
        let Some(mut stored) = stored.ok().filter(StoredCompile::is_storable) else {
            return Ok(run_then(as_written, None));
        };
        if let Some(found) = stored.find(self) {
            lock(&self.journal).set_lines_read(&object, found.lines_read)?;
            self.log.line(&format!("hit {NATIVE} {label}"));
            self.timeline.ended(start, NATIVE, "hit", &label);
            return Ok(ended(0));
        }
        Ok(self.run_and_keep(start, stored, None, as_written, None))
    }

    /// Has the shim run a compile that was not found, and stores it. `as_written` is what to run where that
    /// cannot be.
    fn run_and_keep(
        &self,
        start: Instant,
        mut stored: StoredCompile,
        previous: Option<Previous>,
        as_written: Run,
        then: Then,
    ) -> Answer {
        stored.wait_for_source();
        let run = stored.run();
        let next = move |session: &Session, finished: Finished| {
            let (kind, label) = (stored.kind(), stored.label());
            session.timeline.ended(start, kind, "ran", label);
            let uses = stored.line_use(&finished.printed);
            let Some(uses) = uses.filter(|_| finished.code == 0) else {
                // kbuild's own call says it in its own words. If it comes to no end, make calls again.
                let _ = make_old(stored.object());
                session.log_ran(kind, label, FAILS_OR_PRINTS);
                return Ok(run_then(as_written, then));
            };
            let note = match stored.keep(session, previous, &uses) {
                Ok(kept) => {
                    lock(&session.journal).set_lines_read(Path::new(label), kept.lines_read)?;
                    let note = same_code(kept.is_same_code);
                    let why = kept.not_stored;
                    why.map_or(note.to_owned(), |why| format!("{note}: not stored: {why}"))
                }
                // The store's result was wrong.
                Err(error) if error.is::<Failure>() => return Err(error),
                Err(error) => {
                    let _ = make_old(stored.object());
                    session.log_ran(kind, label, &format!(": not stored: {error:#}"));
                    return Ok(run_then(as_written, then));
                }
            };
            session.log_ran(kind, label, &note);
            then.map_or(Ok(ended(0)), |then| then(session))
        };
        Answer::Then {
            run,
            next: Box::new(next),
        }
    }

    /// Whatever a call with `-o` makes, nothing is known of its lines.
    fn forget_lines_read(&self, request: &Request) -> anyhow::Result<()> {
        let mut words = request.arguments.iter();
        words.find(|word| *word == "-o");
        let Some(output) = words.next() else {
            return Ok(());
        };
        let object = self
            .scratch
            .object_name(&request.directory, Path::new(output));
        Ok(lock(&self.journal).set_lines_read(&object, None)?)
    }

    fn log_ran(&self, kind: &str, label: &str, note: &str) {
        self.log.line(&format!("ran {kind} {label}{note}"));
    }

    /// A module of one object, on a tree where nothing links it before modpost: a unit of one.
    ///
    /// kbuild's object appears only as a native one. Were it bitcode for a moment, a build that is
    /// killed in that moment would leave bitcode where kbuild looks for a finished object.
    fn lower_single_object(
        &self,
        request: &Request,
        call: &CompileCall,
        bitcode: &Path,
    ) -> anyhow::Result<Reply> {
        let words = ["-r", "-o"].map(OsString::from).into_iter();
        let link: Vec<OsString> = words
            .chain([call.output.clone().into(), bitcode.into()])
            .collect();
        let link =
            LinkCall::parse(&link).ok_or_else(|| Failure::bug("a link of one object is none"))?;
        let inputs = LinkInputs::read(&link, &request.directory)?;
        let name = self.scratch.object_name(&request.directory, &call.output);
        let unit = inputs.unit(name.display().to_string(), &link);
        let environment = tool_environment(&request.environment);
        let natives = self.lower_unit(&UnitLink {
            unit: &unit,
            call: &link,
            linker: self.linker_program()?,
            directory: &request.directory,
            environment: &environment,
            reserved: &BTreeSet::new(),
        })?;
        let native = natives.into_iter().flatten().next();
        let native = native.ok_or_else(|| Failure::bug("a module of one object has no native"))?;
        let bytes = fs_err::read(request.directory.join(native))?;
        klto_core::publish(&request.directory.join(&call.output), &bytes)?;
        Ok(Reply::ended(0))
    }
}
