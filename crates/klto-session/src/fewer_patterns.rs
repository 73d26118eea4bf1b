//! The link of vmlinux.o with fewer patterns. kbuild's script for the order of initcalls names the section of
//! each, and lld tries each name on each section of all objects: with 700 initcalls and 100,000 sections that
//! is most of the link.
//!
//! In: the link of natives. Out: one with a script that gives the same ([`shorter_linker_script`]). The first
//! time in an output tree both links run, and what they made is held against each other, unless the same was
//! done with the same natives in another one; from then on, as long as it is the same linker, klto's script is
//! taken, and both run again as often as `KLTO_VERIFY` says.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use klto_core::{Digest, Failure, KeyBuilder, publish, run_captured};
use klto_formats::elf;
use klto_kbuild::link::{LinkCall, LinkItem};
use klto_kbuild::shorter_linker_script;
use klto_wire::{Finished, Reply, Request};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use crate::agreement::Agreement;
use crate::session::{Answer, Run, Session, ended, tool_environment};

impl Session {
    /// Answers the link of vmlinux.o, whose words are `arguments`; `None` where kbuild's script has to do.
    pub(crate) fn link_with_fewer_patterns(
        &self,
        request: &Request,
        call: &LinkCall,
        arguments: &[OsString],
    ) -> anyhow::Result<Option<Answer>> {
        let [script] = call.scripts.as_slice() else {
            return Ok(None);
        };
        let Some(shorter) = shorter_script(&request.directory, script, arguments) else {
            return Ok(None);
        };
        let script_file = self.file_of_link(request, &call.output, "lds");
        publish(&script_file, shorter.as_bytes())?;
        let Some(shortened) = with_word(arguments, script.as_os_str(), script_file.as_os_str())
        else {
            return Ok(None);
        };
        let agreement = self.agreement_of_links(request, call, arguments, &shorter)?;
        let content = Digest::of_bytes(shorter.as_bytes());
        if agreement.is_known() && !self.engine.is_chosen_for_verification(content) {
            self.log.line("vmlinux.o is linked with fewer patterns");
            return Ok(Some(Answer::Reply(Reply::Exec {
                program: request.program.clone(),
                arguments: vec![self.response_file(request, &call.output, shortened)?],
            })));
        }
        let other = self.file_of_link(request, &call.output, "o");
        let Some(shortened) = with_word(&shortened, call.output.as_os_str(), other.as_os_str())
        else {
            return Ok(None);
        };
        let shortened = self.response_file(request, &other, shortened)?;
        let plain = self.response_file(request, &call.output, arguments.to_vec())?;
        let (program, directory) = (request.program.clone(), request.directory.clone());
        let output = directory.join(&call.output);
        let next = move |session: &Session, finished: Finished| {
            if finished.code == 0 {
                let linked = run_captured(&program, [&shortened], &directory);
                // A full disk says nothing about the script.
                let is_linked = linked.is_ok_and(|linked| linked.status.success());
                let is_same = match is_linked {
                    true => Some(session.memo.digest(&other)? == session.memo.digest(&output)?),
                    false => None,
                };
                let _ = fs_err::remove_file(&other);
                session.note_links(agreement, is_same)?;
            }
            Ok(ended(finished.code))
        };
        Ok(Some(Answer::Then {
            run: Run::with_arguments(request, vec![plain]),
            next: Box::new(next),
        }))
    }

    /// The rule is what decides how the linker takes patterns.
    fn agreement_of_links(
        &self,
        request: &Request,
        call: &LinkCall,
        arguments: &[OsString],
        shorter: &str,
    ) -> anyhow::Result<Agreement> {
        let linker = self.identity(&request.program, &tool_environment(&request.environment))?;
        let mut key = KeyBuilder::new("fewer-patterns", 1);
        key.field("klto", env!("CARGO_PKG_VERSION").as_bytes())
            .digest("linker", linker.digest);
        // As `--sort-section`, by which lld orders what one pattern matches.
        let options = call.items.iter().filter_map(|item| match item {
            LinkItem::Option(words) => Some(words),
            LinkItem::State(_) | LinkItem::File { .. } => None,
        });
        for word in options.flatten() {
            key.argument("option", word.as_encoded_bytes());
        }
        let rule = key.finish();
        self.agreement(rule, || {
            let mut key = KeyBuilder::new("fewer-patterns-case", 1);
            key.digest("rule", rule)
                .field("shorter", shorter.as_bytes());
            for script in &call.scripts {
                key.digest("script", self.memo.digest(&request.directory.join(script))?);
            }
            for word in arguments {
                key.argument("word", word.as_encoded_bytes());
            }
            let natives = LinkCall::parse(arguments);
            for item in natives.iter().flat_map(|call| &call.items) {
                if let LinkItem::File { path, .. } = item {
                    key.digest("file", self.memo.digest(&request.directory.join(path))?);
                }
            }
            Ok(key.finish())
        })
    }

    /// Both links have run; `is_same` is what they say of each other, if both succeeded.
    fn note_links(&self, agreement: Agreement, is_same: Option<bool>) -> anyhow::Result<()> {
        let line = match (is_same, agreement.is_known()) {
            (Some(true), _) => {
                self.add_agreement(agreement)?;
                "vmlinux.o with fewer patterns is the same"
            }
            (Some(false), true) => {
                let what = "klto's linker script gives another vmlinux.o than kbuild's";
                return Err(Failure::bug(what).into());
            }
            (Some(false), false) => {
                "vmlinux.o with fewer patterns is another: it is linked as kbuild says"
            }
            (None, _) => "vmlinux.o could not be linked with fewer patterns",
        };
        self.log.line(line);
        Ok(())
    }
}

/// The shorter script for a link of objects, if there is one.
fn shorter_script(directory: &Path, script: &Path, arguments: &[OsString]) -> Option<String> {
    let text = fs_err::read_to_string(directory.join(script)).ok()?;
    let call = LinkCall::parse(arguments)?;
    let files = call.items.iter().filter_map(|item| match item {
        LinkItem::File { path, in_lib, .. } => Some((directory.join(path), *in_lib)),
        LinkItem::Option(_) | LinkItem::State(_) => None,
    });
    let files: Vec<(PathBuf, bool)> = files.collect();
    let names = |(path, in_lib): &(PathBuf, bool)| {
        let mut names = elf::section_names(&fs_err::read(path).ok()?).ok()?;
        names.retain(|name| name.starts_with(b".initcall") || name.starts_with(b".con_initcall"));
        // Where such an object comes in, if it does, lld alone knows.
        (!in_lib || names.is_empty()).then_some(names)
    };
    let sections: Option<Vec<Vec<Vec<u8>>>> = files.par_iter().map(names).collect();
    shorter_linker_script(&text, &sections?.concat())
}

/// The words with another in the place of the one that is `from`; `None` unless it stands there once.
fn with_word(words: &[OsString], from: &OsStr, to: &OsStr) -> Option<Vec<OsString>> {
    let mut places = words.iter().enumerate().filter(|(_, word)| *word == from);
    let (place, _) = places.next()?;
    if places.next().is_some() {
        return None;
    }
    let mut words = words.to_vec();
    *words.get_mut(place)? = to.to_owned();
    Some(words)
}
