//! Symbol versions out of the store: the compiler preprocesses a source for genksyms, which takes longer than
//! everything else of a compile whose bitcode is found.
//!
//! In: the preprocessor's call. Out: a short text in place of its own, of which genksyms prints the same
//! versions. What is stored is that text, after genksyms itself has printed the same for both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use klto_core::{Failure, die_with_parent, publish};
use klto_formats::genksyms::{declarations, printed_versions};
use klto_kbuild::compile::CompileCall;
use klto_kbuild::front_end::FrontEnd;
use klto_kbuild::genksyms::GenksymsCall;
use klto_wire::{Finished, Reply, Request};

use super::line_use::LineUse;
use super::stored::StoredCompile;
use crate::recipe::Caller;
use crate::session::{Answer, Session, as_called, lock};

impl Session {
    /// Answers the preprocessor's call. kbuild does not look at how it ends, so the tool says what klto cannot.
    pub(super) fn symbol_versions(&self, request: Request, caller: Caller) -> Answer {
        let answer = self.stored_versions(request.clone(), caller);
        let answer = answer.unwrap_or_else(|error| {
            self.log.line(&format!("versions by the tool: {error:#}"));
            None
        });
        answer.unwrap_or_else(|| {
            let object = object_of(&request.arguments);
            let object = object.map(|object| self.scratch.object_name(&request.directory, &object));
            self.versions_as_called(object.as_deref(), request)
        })
    }

    /// The tool says the versions of an object, and nobody knows on which lines they depend.
    fn versions_as_called(&self, object: Option<&Path>, request: Request) -> Answer {
        let forgotten = object.map(|object| lock(&self.journal).set_lines_read(object, None));
        if let Some(Err(error)) = forgotten {
            self.log
                .line(&format!("the journal cannot be written: {error}"));
        }
        as_called(request)
    }

    /// `None` where the tool is to be called as it was.
    fn stored_versions(&self, request: Request, caller: Caller) -> anyhow::Result<Option<Answer>> {
        let commands = caller.commands();
        let Some(genksyms) = commands.and_then(|text| GenksymsCall::in_commands(&text)) else {
            return Ok(None);
        };
        let mut arguments = request.arguments.clone();
        arguments.extend(["-o".into(), OsString::new()]);
        let (Some(call), Some(object)) = (CompileCall::parse(&arguments), object_of(&arguments))
        else {
            return Ok(None);
        };
        let start = Instant::now();
        let name = self.scratch.object_name(&request.directory, &object);
        let below = name.strip_prefix("/").unwrap_or(&name);
        let text = self.scratch.path("versions").join(below);
        let call = CompileCall {
            output: text.clone(),
            ..call
        };
        arguments.pop();
        arguments.push(text.clone().into());
        // The shell says best that it is not there.
        let Ok(identity) = self.memo.digest(&request.directory.join(&genksyms.program)) else {
            return Ok(None);
        };
        let mut read_by = vec![identity.to_hex().into(), env!("CARGO_PKG_VERSION").into()];
        read_by.extend(genksyms.arguments.iter().cloned());
        let label = name.display().to_string();
        let parts = (&call, arguments.as_slice(), read_by.as_slice());
        let Ok(stored) = StoredCompile::of(self, &request, parts, label.clone())? else {
            return Ok(None);
        };
        // Where no output is named, the target of the dependency file has no directory.
        let mut stored = stored.with_target(object.file_name().unwrap_or_default());
        if let Some(found) = stored.find(self) {
            lock(&self.journal).add_lines_read(&name, found.lines_read)?;
            self.log.line(&format!("hit versions {label}"));
            self.timeline.ended(start, "versions", "hit", &label);
            return Ok(Some(Answer::Reply(Reply::prints(take(&text)?))));
        }
        fs_err::create_dir_all(text.parent().unwrap_or(&text))?;
        let run = stored.run();
        let next = move |session: &Session, finished: Finished| {
            session.timeline.ended(start, "versions", "ran", &label);
            let uses = stored.line_use(&finished.printed);
            let kept = uses.filter(|_| finished.code == 0).map(|uses| {
                let short = shorten(&genksyms, &request.directory, &text)?;
                session.keep_short_text(&stored, &uses, short)
            });
            let _ = std::fs::remove_file(&text);
            Ok(match kept {
                Some(Ok(short)) => Answer::Reply(Reply::prints(short)),
                Some(Err(error)) => {
                    session.log_ran("versions", &label, &format!(": not stored: {error:#}"));
                    session.versions_as_called(Some(&name), request)
                }
                // kbuild's own call says it in its own words.
                None => session.versions_as_called(Some(&name), request),
            })
        };
        let next = Box::new(next);
        Ok(Some(Answer::Then { run, next }))
    }

    /// Stores what was made of the text for genksyms; the text `short` again.
    fn keep_short_text(
        &self,
        stored: &StoredCompile,
        uses: &LineUse,
        short: Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        let note = match stored.keep(self, None, uses) {
            Ok(kept) => {
                let object = Path::new(stored.label());
                lock(&self.journal).add_lines_read(object, kept.lines_read)?;
                kept.not_stored
            }
            // kbuild takes a preprocessor that fails for a source without exports.
            Err(error) if error.is::<Failure>() => {
                self.note_wrong_result(error);
                None
            }
            Err(error) => return Err(error),
        };
        let note = note.map_or(String::new(), |why| format!(": not stored: {why}"));
        self.log_ran("versions", stored.label(), &note);
        Ok(short)
    }
}

/// The object whose versions are computed, by its dependency file: `init/.main.o.d`.
fn object_of(arguments: &[OsString]) -> Option<PathBuf> {
    let depfile = FrontEnd::of(arguments).depfile?;
    let name = depfile.file_name()?.to_str()?;
    let object = name.strip_prefix('.')?.strip_suffix(".d")?;
    Some(depfile.with_file_name(object))
}

fn take(path: &Path) -> std::io::Result<Vec<u8>> {
    let text = fs_err::read(path)?;
    fs_err::remove_file(path)?;
    Ok(text)
}

/// Replaces the file at `text` by a short one of which genksyms prints the same.
fn shorten(call: &GenksymsCall, directory: &Path, text: &Path) -> anyhow::Result<Vec<u8>> {
    let whole = run_genksyms(call, directory, text)?;
    let versions = printed_versions(&whole)?;
    let short = declarations(&versions).context("no declaration has that version")?;
    publish(text, &short)?;
    let again = run_genksyms(call, directory, text)?;
    anyhow::ensure!(
        whole == again,
        "genksyms prints other versions of the short text"
    );
    Ok(short)
}

fn run_genksyms(call: &GenksymsCall, directory: &Path, text: &Path) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(directory.join(&call.program));
    command
        .args(&call.arguments)
        .current_dir(directory)
        .stdin(fs_err::File::open(text)?.into_parts().0);
    let output = die_with_parent(&mut command)
        .output()
        .with_context(|| format!("starting {}", call.program.display()))?;
    let is_quiet = output.status.success() && output.stderr.is_empty();
    anyhow::ensure!(is_quiet, "{} has something to say", call.program.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_known_by_its_dependency_file() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let object = object_of(&words(
            "-E -Wp,-MMD,init/.main.o.d -nostdinc /src/init/main.c",
        ));
        assert_eq!(object, Some("init/main.o".into()));
        assert_eq!(object_of(&words("-E -nostdinc /src/init/main.c")), None);
    }
}
