//! A unit under full LTO: its link is one action, which is stored and found like every other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klto_core::{Action, Failure, Input, Outcome, Storable, report};
use klto_exec::{Completed, How, OutputCheck, Progress};
use klto_formats::linker_script;
use klto_kbuild::link::{LinkCall, LinkItem};
use klto_lower::{FullLinkParts, check_native, full_link_action};
use klto_wire::{Reply, Request};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::assembler;
use crate::inputs::{LinkInput, LinkInputs};
use crate::log::tell;
use crate::memory::{Room, needed_by_full_link};
use crate::session::{Answer, Session, as_called, tool_environment};

impl Session {
    /// Makes the native object of a unit.
    pub(crate) fn full_link(
        &self,
        request: Request,
        (call, inputs): (&LinkCall, &LinkInputs),
        name: &str,
    ) -> anyhow::Result<Answer> {
        let mut read = call
            .files()
            .chain(call.scripts.iter().map(PathBuf::as_path));
        if !read.all(|path| request.directory.join(path).is_file()) {
            // The linker looks for it elsewhere, or says it better.
            return Ok(as_called(request));
        }
        let unit = inputs.unit(name.to_owned(), call);
        let objects: Vec<&Path> = unit
            .bitcode()
            .map(|(_, member)| member.path.as_path())
            .collect();
        for object in &objects {
            let object = self.scratch.object_name(&request.directory, object);
            self.log.line(&format!("input {name} {}", object.display()));
        }
        let mut environment = tool_environment(&request.environment);
        let identity = self.identity(&request.program, &environment)?;
        // The shims are in it; see `action_environment`.
        environment.retain(|(name, _)| name != "PATH");
        let (assembler_files, assembler) = self.assembler_files(&objects, &request.directory)?;
        let mut files = self.files_of_link(call, inputs, &request.directory)?;
        files.extend(assembler_files);
        let scripts = self.are_whole(&call.scripts, &request.directory)?;
        let reasons = [identity.storable.clone(), assembler, scripts];
        let reason = reasons.into_iter().find(|reason| *reason != Storable::Yes);
        let action = full_link_action(FullLinkParts {
            label: name.to_owned(),
            program: request.program.clone(),
            tool_identity: identity.digest,
            call,
            inputs: files,
            directory: request.directory.clone(),
            environment,
            storable: reason.unwrap_or(Storable::Yes),
        });
        if let Storable::No(reason) = &action.storable {
            // With all that the recipe gives the linker: its environment, and where it prints.
            let line = format!("ran full-link {name}: not stored: {reason}");
            self.log.line(&line);
            // The shim becomes the linker: nothing tells when it has ended, so it keeps no room.
            drop(self.room_for(name, &objects, &request.directory)?);
            return Ok(as_called(request));
        }
        let over = self.run_alone(
            action,
            name,
            Some(&objects),
            &request.directory,
            &check_native,
        )?;
        let stderr = match over.outcome {
            Outcome::Done { stderr } => stderr,
            Outcome::Failed { mut stderr, reason } => {
                let failure = Failure::build(format!("full link of {name}: {reason}"));
                let (text, status) = report(&failure.into());
                stderr.extend(text.into_bytes());
                return Ok(Answer::Reply(Reply::said(status.code(), stderr)));
            }
        };
        self.show_full_link(name, objects.len(), over.how, over.duration);
        Ok(Answer::Reply(Reply::said(0, stderr)))
    }

    /// Runs or finds one action of the unit `name`. It waits for the memory of a full link where `linked` names
    /// the bitcode of one.
    ///
    /// # Errors
    /// The build was stopped.
    pub(super) fn run_alone(
        &self,
        action: Action,
        name: &str,
        linked: Option<&[&Path]>,
        directory: &Path,
        check: &OutputCheck<'_>,
    ) -> anyhow::Result<Completed> {
        let room = match linked {
            Some(objects) if self.engine.will_run(&action) => {
                Some(self.room_for(name, objects, directory)?)
            }
            _ => None,
        };
        let kind = action.kind.name();
        let note = match &action.storable {
            Storable::Yes => String::new(),
            Storable::No(reason) => format!(": not stored: {reason}"),
        };
        let progress = Progress::default();
        let actions = [action];
        let check = |action: &Action, bytes: &[u8]| {
            check(action, bytes)?;
            self.check_inputs(action)
        };
        let run = || self.engine.run(&actions, &self.slots, &check, &progress);
        let mut completed = self.log.display().show_while(name, &progress, run);
        drop(room);
        let stopped = || Failure::build(format!("{name}: the build was stopped"));
        let over = completed.pop().ok_or_else(stopped)?;
        let how = over.how.name();
        self.timeline
            .add(over.start, over.duration, kind, how, name);
        self.log.line(&format!("{how} {kind} {name}{note}"));
        Ok(over)
    }

    /// Says how the full link of a unit with so many bitcode objects went.
    pub(super) fn show_full_link(&self, name: &str, objects: usize, how: How, took: Duration) {
        let from = match how {
            How::Hit => "from the store",
            How::Ran | How::Checked => "linked",
        };
        let seconds = took.as_secs_f64();
        self.log.show(&format!(
            "{name} ({objects} bitcode objects, full LTO: {from}) {seconds:.1} s"
        ));
    }

    /// Waits for the memory that the full link of a unit with these objects needs; says so where there is
    /// less.
    pub(super) fn room_for(
        &self,
        unit: &str,
        objects: &[&Path],
        directory: &Path,
    ) -> anyhow::Result<Room<'_>> {
        let mut bitcode = 0;
        for object in objects {
            bitcode += fs_err::metadata(directory.join(object))?.len();
        }
        let needed = needed_by_full_link(bitcode);
        let room = self.memory.take(needed);
        if let Some(available) = room.lacks() {
            tell(&format!(
                "klto: warning: the full link of {unit} needs about {} MB of memory, and {} MB are available; \
                 thin needs less: klto config --lto=thin",
                needed >> 20,
                available >> 20
            ));
        }
        Ok(room)
    }

    /// Whether linker scripts name no further file.
    fn are_whole(&self, scripts: &[PathBuf], directory: &Path) -> anyhow::Result<Storable> {
        const NAMES_FILES: [&[u8]; 5] = [b"INCLUDE", b"INPUT", b"GROUP", b"SEARCH_DIR", b"OUTPUT"];
        for script in scripts {
            let names = linker_script::identifiers(&fs_err::read(directory.join(script))?);
            if NAMES_FILES.iter().any(|word| names.contains(*word)) {
                return Ok(Storable::No(format!("{} names a file", script.display())));
            }
        }
        Ok(Storable::Yes)
    }

    /// Every file that the linker itself reads, in the order of the call.
    fn files_of_link(
        &self,
        call: &LinkCall,
        inputs: &LinkInputs,
        directory: &Path,
    ) -> anyhow::Result<Vec<Input>> {
        let mut files: Vec<(&'static str, PathBuf)> = Vec::new();
        for item in &call.items {
            let LinkItem::File { path, .. } = item else {
                continue;
            };
            match inputs.get(path) {
                LinkInput::Archive(members) => {
                    files.push(("archive", path.clone()));
                    let members = members.iter().map(|member| member.path.clone());
                    files.extend(members.map(|path| ("member", path)));
                }
                LinkInput::Bitcode | LinkInput::Plain => files.push(("object", path.clone())),
            }
        }
        let scripts = call.scripts.iter().cloned();
        files.extend(scripts.map(|path| ("script", path)));
        let input = |(role, path): (&'static str, PathBuf)| {
            let digest = self.memo.digest(&directory.join(&path))?;
            Ok(Input { role, path, digest })
        };
        files.into_iter().map(input).collect()
    }

    /// What the assembler reads for all bitcode of a link. It has no include directories there.
    fn assembler_files(
        &self,
        objects: &[&Path],
        directory: &Path,
    ) -> anyhow::Result<(Vec<Input>, Storable)> {
        let found: Vec<_> = objects
            .par_iter()
            .map(|path| {
                let names = assembler::names(&fs_err::read(directory.join(path))?)?;
                assembler::find(&names, &[], directory, &self.memo)
            })
            .collect::<anyhow::Result<_>>()?;
        let mut files = Vec::new();
        let mut storable = Storable::Yes;
        for (path, of_object) in objects.iter().zip(found) {
            self.note_assembler_files(directory, path, &of_object)?;
            files.extend(of_object.files);
            if storable == Storable::Yes {
                storable = of_object.storable;
            }
        }
        Ok((files, storable))
    }
}
