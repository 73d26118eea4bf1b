//! Compiler calls: C objects become bitcode, unless something reads them as ELF.
//!
//! A compile is recorded before it runs, for the backend needs its flags. The compiler itself runs in
//! the shim's process; the session only says with which arguments.

use klto_kbuild::compile::{CompileCall, is_linked_after_lto, with_thin_lto, without_lto};
use klto_kbuild::link::LinkCall;
use klto_kbuild::unhooked_reader;
use klto_wire::{Reply, Request};

use crate::inputs::{LinkInputs, is_bitcode_file};
use crate::journal::CompileRecord;
use crate::session::{Answer, Session, as_called, lock, tool_environment};
use crate::unit::UnitLink;

impl Session {
    /// Answers a call of the compiler.
    pub(crate) fn compiler(&self, request: Request) -> anyhow::Result<Answer> {
        if !request.arguments.iter().any(|argument| argument == "-c") {
            return self.reader(request);
        }
        let Some(call) = CompileCall::parse(&request.arguments) else {
            return Ok(as_called(request));
        };
        let asked = request
            .arguments
            .iter()
            .any(|argument| argument == "-flto=thin");
        if !asked && !self.additions.adds_flags {
            return Ok(as_called(request));
        }
        let object = self.scratch.object_name(&request.directory, &call.output);
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
        if call.single_object_module {
            let next = move |session: &Session| session.lower_single_object(&request, &call);
            return Ok(Answer::Then {
                program,
                arguments,
                next: Box::new(next),
            });
        }
        Ok(Answer::Reply(Reply::Exec { program, arguments }))
    }

    /// A module of one object, on a tree where nothing links it before modpost: a unit of one.
    fn lower_single_object(&self, request: &Request, call: &CompileCall) -> anyhow::Result<Reply> {
        let done = Reply::Done {
            code: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        let path = request.directory.join(&call.output);
        if !is_bitcode_file(&path) {
            return Ok(done);
        }
        let link = [
            "-r".into(),
            "-o".into(),
            call.output.clone().into(),
            call.output.clone().into(),
        ];
        let Some(link) = LinkCall::parse(&link) else {
            return Ok(done);
        };
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
            reserved: &std::collections::BTreeSet::new(),
        })?;
        if let Some(native) = natives.first() {
            klto_core::publish(&path, &fs_err::read(request.directory.join(native))?)?;
        }
        Ok(done)
    }
}
