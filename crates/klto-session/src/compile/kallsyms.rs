//! The assembly of the table of kernel symbols (scripts/link-vmlinux.sh, `kallsyms`): megabytes of numbers as
//! text, twice after every change. Their bytes are handed to the assembler instead, and the object is the
//! same.
//!
//! In: a call of the compiler. Out: the same call with another source, if it is one of these. A part of them
//! is checked: the tool assembles the whole source too.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context as _;
use klto_core::{Digest, Failure, publish, run_captured};
use klto_formats::assembler_data::fold;
use klto_kbuild::compile::with_output;
use klto_wire::{Finished, Reply, Request, is_kallsyms_source};

use crate::session::{Answer, Run, Session, ended};

/// Arguments after which the object, or something beside it, shows the source.
const SHOWS_SOURCE: [&str; 6] = ["-g", "-Wa,-g", "-Wp,-M", "-M", "-save-temps", "-EB"];

impl Session {
    /// The call with a folded source; `None` where the call is something else or cannot be changed.
    pub(super) fn kallsyms(&self, request: &Request) -> anyhow::Result<Option<Answer>> {
        let is_source = |argument: &&OsString| is_kallsyms_source(argument);
        let mut sources = request.arguments.iter().filter(is_source);
        let (Some(source), None) = (sources.next(), sources.next()) else {
            return Ok(None);
        };
        let shows = |argument: &OsString| {
            let argument = argument.as_bytes();
            SHOWS_SOURCE
                .iter()
                .any(|start| argument.starts_with(start.as_bytes()))
        };
        if request.arguments.iter().any(shows) {
            return Ok(None);
        }
        let name = Path::new(source)
            .file_name()
            .unwrap_or(OsStr::new("kallsyms.S"));
        let place = self.scratch.path("kallsyms").join(name);
        let data = place.with_extension("data");
        let text = fs_err::read(request.directory.join(source))?;
        let Some(folded) = fold(&text, &data) else {
            return Ok(None);
        };
        publish(&data, &folded.data)?;
        publish(&place, &folded.source)?;
        let arguments = request
            .arguments
            .iter()
            .map(|argument| match argument == source {
                true => place.clone().into_os_string(),
                false => argument.clone(),
            });
        let (program, arguments) = (request.program.clone(), arguments.collect());
        if !self
            .engine
            .is_chosen_for_verification(Digest::of_bytes(&text))
        {
            let reply = Reply::Exec { program, arguments };
            return Ok(Some(Answer::Reply(reply)));
        }
        let (request, whole) = (request.clone(), place.with_extension("whole.o"));
        let run = Run {
            program,
            arguments,
            directory: request.directory.clone(),
            quiet: false,
        };
        let next = move |session: &Session, finished: Finished| {
            if finished.code == 0 {
                session.check_kallsyms(&request, &whole)?;
            }
            Ok(ended(finished.code))
        };
        Ok(Some(Answer::Then {
            run,
            next: Box::new(next),
        }))
    }

    /// Fails where the object is not what the call of `request` gives, which writes it to `whole`.
    fn check_kallsyms(&self, request: &Request, whole: &Path) -> anyhow::Result<()> {
        let arguments = &request.arguments;
        let place = arguments.iter().position(|argument| argument == "-o");
        let object = place.and_then(|place| arguments.get(place + 1));
        let object = object.ok_or_else(|| Failure::bug("a call of the assembler without -o"))?;
        let arguments = with_output(arguments, whole)
            .ok_or_else(|| Failure::bug("a call of the assembler without -o"))?;
        let _ = std::fs::remove_file(whole);
        let tool = run_captured(&request.program, &arguments, &request.directory);
        let tool = tool.with_context(|| format!("starting {}", request.program.display()))?;
        let label = Path::new(object).display();
        if !tool.status.success() {
            let said = String::from_utf8_lossy(&tool.stderr);
            return Err(Failure::build(format!("{label} could not be checked: {said}")).into());
        }
        if fs_err::read(request.directory.join(object))? != fs_err::read(whole)? {
            let what = format!("klto makes another {label} than the assembler");
            return Err(Failure::bug(what).into());
        }
        self.log.line(&format!("checked assembly {label}"));
        Ok(())
    }
}
