//! What kbuild does to an object after its compile, on trees before 5.12: objtool, recordmcount.
//!
//! The programs cannot read bitcode. For bitcode the call is noted, and the native object is treated
//! when it is made; a native object goes to the program at once.

use std::path::Path;

use anyhow::Context as _;
use klto_core::Failure;
use klto_formats::elf;
use klto_kbuild::Step;
use klto_wire::{Reply, Request};

use crate::inputs::is_bitcode_file;
use crate::journal::{ObjtoolRecord, StepsRecord};
use crate::log::pass_on;
use crate::session::{Answer, Session, as_called, lock};

impl Session {
    /// Answers a step; the last argument is the object.
    pub(crate) fn after_compile(&self, request: Request) -> anyhow::Result<Answer> {
        let Some((object, arguments)) = request.arguments.split_last() else {
            return Ok(as_called(request));
        };
        if !is_bitcode_file(&request.directory.join(object)) {
            return Ok(as_called(request));
        }
        let name = self
            .scratch
            .object_name(&request.directory, Path::new(object));
        let program = klto_core::normalize(&request.directory.join(&request.program));
        let step = program.file_name().and_then(|name| name.to_str());
        let add: Box<dyn FnOnce(&mut StepsRecord)> = if step == Step::Objtool.stand_in() {
            let arguments = arguments.to_vec();
            let record = ObjtoolRecord { program, arguments };
            Box::new(|steps| steps.objtool = Some(record))
        } else if step == Step::Recordmcount.stand_in() {
            Box::new(|steps| steps.records_entry_calls = true)
        } else {
            let what = format!("no step of kbuild runs {}", program.display());
            return Err(Failure::bug(what).into());
        };
        lock(&self.journal).add_step(&name, add)?;
        Ok(Answer::Reply(Reply::ended(0)))
    }
}

/// Does to the native at `path` what kbuild's objtool does, in place.
pub(crate) fn run_objtool(
    objtool: &ObjtoolRecord,
    directory: &Path,
    path: &Path,
) -> anyhow::Result<()> {
    let mut arguments = objtool.arguments.clone();
    arguments.push(path.into());
    let result = klto_core::run_captured(&objtool.program, arguments, directory)
        .with_context(|| format!("starting {}", objtool.program.display()))?;
    pass_on(&result.stderr);
    match result.status.success() {
        true => Ok(()),
        false => Err(Failure::build("objtool failed").into()),
    }
}

/// Adds the table of traced functions to the native at `path`, in place.
pub(crate) fn record_entry_calls(path: &Path) -> anyhow::Result<()> {
    let bytes = fs_err::read(path)?;
    let recorded = elf::record_entry_calls(&bytes).context("recording traced functions")?;
    Ok(klto_core::publish(path, &recorded)?)
}
