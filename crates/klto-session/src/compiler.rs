//! Compiler calls: C objects become bitcode, unless something reads them as ELF.
//!
//! A compile is recorded before it runs, for the backend needs its flags. The session only says with
//! which arguments; the shim has the compiler run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use klto_kbuild::compile::{
    CompileCall, is_linked_after_lto, with_output, with_thin_lto, without_lto,
};
use klto_kbuild::link::LinkCall;
use klto_kbuild::unhooked_reader;
use klto_wire::{Reply, Request};

use crate::inputs::LinkInputs;
use crate::journal::CompileRecord;
use crate::recipe::Caller;
use crate::session::{Answer, Session, as_called, lock, tool_environment};
use crate::unit::UnitLink;

impl Session {
    /// Answers a call of the compiler.
    pub(crate) fn compiler(&self, request: Request, caller: Caller) -> anyhow::Result<Answer> {
        if !request.arguments.iter().any(|argument| argument == "-c") {
            return self.reader(request);
        }
        let Some(call) = CompileCall::parse(&request.arguments) else {
            return Ok(as_called(request));
        };
        let object = self.scratch.object_name(&request.directory, &call.output);
        self.keep_recipe(&object, caller)?;
        let asked = request
            .arguments
            .iter()
            .any(|argument| argument == "-flto=thin");
        if !asked && !self.additions.adds_flags {
            return Ok(as_called(request));
        }
        if let Some(reader) = unhooked_reader(&object) {
            lock(&self.journal).set_native_once(&object, reader)?;
        }
        if is_linked_after_lto(&object) || lock(&self.journal).native_reader(&object).is_some() {
            let arguments = without_lto(&request.arguments);
            return Ok(Answer::Reply(Reply::Exec {
                program: request.program,
                arguments,
            }));
        }
        let record = CompileRecord {
            program: request.program.clone(),
            arguments: request.arguments.clone(),
            directory: request.directory.clone(),
        };
        lock(&self.journal).begin_compile(&object, record)?;
        if !self.additions.adds_flags {
            return Ok(as_called(request));
        }
        let arguments = with_thin_lto(&request.arguments, &self.additions.first_arguments);
        let program = request.program.clone();
        if !call.single_object_module {
            return Ok(Answer::Reply(Reply::Exec { program, arguments }));
        }
        let bitcode = self.scratch.single(&request.directory, &object)?;
        let arguments = with_output(&arguments, &bitcode).context("a compile without -o")?;
        let next = move |session: &Session| session.lower_single_object(&request, &call, &bitcode);
        Ok(Answer::Then {
            program,
            arguments,
            next: Box::new(next),
        })
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
        let link = LinkCall::parse(&link).context("a link of one object")?;
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
        let native = natives.first().map_or(bitcode, |native| native.as_path());
        let bytes = fs_err::read(request.directory.join(native))?;
        klto_core::publish(&request.directory.join(&call.output), &bytes)?;
        Ok(Reply::Done {
            code: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }
}
