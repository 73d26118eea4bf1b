//! The assembly of the table of kernel symbols (scripts/link-vmlinux.sh, `kallsyms`): megabytes of numbers as
//! text, twice after every change. Their bytes are handed to the assembler instead, and the object is the same.
//!
//! In: a call of the compiler. Out: the same call with another source, if it is one of these.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use klto_core::publish;
use klto_formats::assembler_data::fold;
use klto_wire::{Reply, Request, is_kallsyms_source};

use crate::session::Session;

/// Arguments after which the object, or something beside it, shows the source.
const SHOWS_SOURCE: [&str; 6] = ["-g", "-Wa,-g", "-Wp,-M", "-M", "-save-temps", "-EB"];

impl Session {
    /// The call with a folded source; `None` where the call is something else or cannot be changed.
    pub(super) fn kallsyms(&self, request: &Request) -> std::io::Result<Option<Reply>> {
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
        Ok(Some(Reply::Exec {
            program: request.program.clone(),
            arguments: arguments.collect(),
        }))
    }
}
