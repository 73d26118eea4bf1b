//! The order of initcalls, in the place of kbuild's Perl script, which has llvm-nm list every symbol of the
//! kernel.
//!
//! In: its call. Out: what it prints. The first time in an output tree the script runs, and what it wrote is
//! held against klto's own, unless that was done with the same objects in another one; from then on, as long as
//! it is the same script, klto answers, and the script is run again as often as `KLTO_VERIFY` says. Where
//! anything is unclear it runs.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use klto_core::{Digest, Failure, KeyBuilder};
use klto_formats::{bitcode, elf};
use klto_kbuild::{InitcallOrder, UnclearInitcalls};
use klto_wire::{Finished, Reply, Request, is_initcall_script};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use crate::agreement::Agreement;
use crate::inputs::{LinkInput, read_input};
use crate::recipe::Caller;
use crate::session::{Answer, Run, Session, as_called, ended, tool_environment};

impl Session {
    /// Answers a call of perl.
    pub(crate) fn perl(&self, request: Request, caller: Caller) -> anyhow::Result<Answer> {
        let (script, files) = match request.arguments.split_first() {
            Some((script, files)) if is_initcall_script(script) => (script, files),
            _ => return Ok(as_called(request)),
        };
        let start = Instant::now();
        let files: Vec<&Path> = files.iter().map(Path::new).collect();
        let digest = self.memo.digest(&request.directory.join(script));
        let (digest, order) = match (digest, linker_script(&request.directory, &files)) {
            (Ok(digest), Ok(order)) => (digest, order),
            (_, Err(error)) => {
                self.log
                    .line(&format!("initcalls by the script: {error:#}"));
                return Ok(as_called(request));
            }
            (Err(_), _) => return Ok(as_called(request)),
        };
        let agreement = self.agreement_of_orders(&request, digest, &order)?;
        let own = order.text;
        let content = Digest::of_bytes(own.as_bytes());
        if agreement.is_known() && !self.engine.is_chosen_for_verification(content) {
            self.timeline
                .ended(start, "tool", "ran", "klto for the order of initcalls");
            self.log.line("initcalls by klto");
            return Ok(Answer::Reply(Reply::prints(own.into_bytes())));
        }
        let run = Run::with_arguments(&request, request.arguments.clone());
        let next = move |session: &Session, finished: Finished| {
            let printed = standard_output_of(caller).filter(|_| finished.code == 0);
            match printed.map(|text| text == own.as_bytes()) {
                Some(true) => {
                    session.add_agreement(agreement)?;
                    session.log.line("initcalls by klto and the script agree");
                }
                Some(false) if agreement.is_known() => {
                    let what = "klto finds another order of initcalls than kbuild's script";
                    return Err(Failure::bug(what).into());
                }
                Some(false) => session
                    .log
                    .line("initcalls by the script: klto finds another order"),
                None => {}
            }
            Ok(ended(finished.code))
        };
        Ok(Answer::Then {
            run,
            next: Box::new(next),
        })
    }

    /// The rule is the script, by digest, with the tool that it runs.
    fn agreement_of_orders(
        &self,
        request: &Request,
        script: Digest,
        order: &OrderOfInitcalls,
    ) -> anyhow::Result<Agreement> {
        let mut key = KeyBuilder::new("initcall-script", 1);
        key.field("klto", env!("CARGO_PKG_VERSION").as_bytes())
            .digest("script", script);
        if let Some(lister) = &self.additions.symbol_lister {
            let environment = tool_environment(&request.environment);
            key.digest("lister", self.identity(lister, &environment)?.digest);
        }
        let rule = key.finish();
        self.agreement(rule, || {
            let mut key = KeyBuilder::new("initcall-script-case", 1);
            key.digest("rule", rule)
                .field("order", order.text.as_bytes());
            for object in &order.objects {
                key.digest("object", self.memo.digest(object)?);
            }
            Ok(key.finish())
        })
    }
}

struct OrderOfInitcalls {
    /// As the script prints it.
    text: String,
    /// All that have a say in it, in order.
    objects: Vec<PathBuf>,
}

/// What the script prints for those files, which are named from `directory`.
fn linker_script(directory: &Path, files: &[&Path]) -> anyhow::Result<OrderOfInitcalls> {
    let mut objects = Vec::new();
    for file in files {
        match read_input(file, directory)? {
            LinkInput::Archive(members) => {
                objects.extend(
                    members
                        .into_iter()
                        .map(|member| directory.join(member.path)),
                );
            }
            LinkInput::Bitcode | LinkInput::Plain => objects.push(directory.join(file)),
        }
    }
    let names: Vec<_> = objects.par_iter().map(|path| local_names(path)).collect();
    let mut order = InitcallOrder::default();
    for (object, names) in objects.iter().zip(names) {
        let names = names.with_context(|| format!("reading {}", object.display()))?;
        let added = order.add(names.iter().map(Vec::as_slice));
        if let Err(UnclearInitcalls) = added {
            bail!("{}: initcalls of an unknown kind", object.display());
        }
    }
    let text = order.linker_script().context("there are no initcalls")?;
    Ok(OrderOfInitcalls { text, objects })
}

/// The names of what an object defines for itself.
fn local_names(object: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = fs_err::read(object)?;
    if bitcode::is_bitcode(&bytes) {
        let mut symbols = bitcode::symbols(&bytes)?;
        symbols.retain(|symbol| !symbol.undefined && !symbol.global);
        return Ok(symbols.into_iter().map(|symbol| symbol.name).collect());
    }
    let mut symbols = elf::symbols(&bytes)?;
    symbols.retain(|symbol| {
        symbol.binding == elf::Binding::Local && symbol.place == elf::Place::Defined
    });
    Ok(symbols.into_iter().map(|symbol| symbol.name).collect())
}

/// What a caller that still lives has written to its standard output, if that is a file of its own.
fn standard_output_of(caller: Caller) -> Option<Vec<u8>> {
    let mut file = File::open(caller.standard_output()).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    Some(text)
}
