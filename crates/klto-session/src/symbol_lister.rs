//! llvm-nm: on a linked kernel, whose symbols kbuild has listed four times for each link of vmlinux; and on the
//! bitcode of each object, of which kbuild asks whether it exports symbols (scripts/Makefile.build,
//! cmd_gen_symversions_c).
//!
//! In: a call. Out: what the tool would print, where klto knows that; else the tool says.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use klto_core::{Digest, Failure, KeyBuilder, Storable};
use klto_exec::ToolCall;
use klto_formats::elf::{Listing, listing};
use klto_wire::{Reply, Request};

use crate::inputs::is_bitcode_file;
use crate::session::{Answer, Session, as_called, printed_by_tool, tool_environment};

/// The longest text, in bytes: a frame holds 64 MiB (`klto-wire/src/frame.rs`), and the rest is room.
const LONGEST: usize = 48 << 20;

impl Session {
    /// Answers a call of the lister of symbols.
    pub(crate) fn symbol_lister(&self, request: Request) -> anyhow::Result<Answer> {
        if let [file] = request.arguments.as_slice()
            && is_bitcode_file(&request.directory.join(file))
        {
            // kbuild takes a failure for a list without exports.
            let list = self.list_of_bitcode(&request, file);
            let list = list.unwrap_or_else(|error| {
                let file = file.display();
                self.log
                    .line(&format!("symbols of {file} by the tool: {error:#}"));
                None
            });
            return Ok(match list {
                Some(list) => Answer::Reply(Reply::prints(list)),
                None => as_called(request),
            });
        }
        let Some(stdout) = listed(&request.arguments, &request.directory) else {
            return Ok(as_called(request));
        };
        if self
            .engine
            .is_chosen_for_verification(Digest::of_bytes(&stdout))
        {
            if printed_by_tool(&request)? != stdout {
                let what = format!(
                    "klto lists other symbols than {}",
                    request.program.display()
                );
                self.note_wrong_result(Failure::bug(what).into());
                return Ok(as_called(request));
            }
            let kernel = request.arguments.last().map(Path::new);
            let kernel = kernel.unwrap_or(Path::new("")).display();
            self.log.line(&format!("checked symbols {kernel}"));
        }
        Ok(Answer::Reply(Reply::prints(stdout)))
    }

    /// The list of an object's symbols, out of the store or into it; `None` where the tool is to say. klto does
    /// not make it: the tool sorts by name, and lines of one name stand as its sort happens to leave them.
    fn list_of_bitcode(&self, request: &Request, file: &OsStr) -> anyhow::Result<Option<Vec<u8>>> {
        let start = Instant::now();
        let path = request.directory.join(file);
        let environment = tool_environment(&request.environment);
        let tool = self.identity(&request.program, &environment)?;
        if tool.storable != Storable::Yes || self.engine.store().is_none() {
            return Ok(None);
        }
        let bitcode = self.memo.digest(&path)?;
        let mut key = KeyBuilder::new("symbols-of-bitcode", 1);
        key.digest("tool", tool.digest).digest("bitcode", bitcode);
        let key = key.finish();
        let name = self.scratch.object_name(&request.directory, file.as_ref());
        let name = name.display().to_string();
        let found = self.engine.find_bytes(key);
        let is_checked = self.engine.is_chosen_for_verification(key);
        if let Some(list) = found.as_ref().filter(|_| !is_checked) {
            self.timeline.ended(start, "symbols", "hit", &name);
            return Ok(Some(list.clone()));
        }
        let (status, printed) = self.engine.call(&ToolCall {
            program: &request.program,
            arguments: request.arguments.clone(),
            directory: &request.directory,
            environment: &environment,
        })?;
        if !status.success() || !is_list_of_bitcode(&printed) || printed.len() > LONGEST {
            return Ok(None);
        }
        match found {
            Some(list) if list == printed => {
                self.log.line(&format!("checked symbols {name}"));
                self.timeline.ended(start, "symbols", "checked", &name);
            }
            Some(_) => {
                self.timeline.ended(start, "symbols", "ran", &name);
                let what = format!(
                    "symbols of {name}: the store's list differs from a fresh one; run `klto cache clear`, and \
                     report this with the file .klto/log"
                );
                self.note_wrong_result(Failure::build(what).into());
            }
            None => {
                self.timeline.ended(start, "symbols", "ran", &name);
                // The tool reads what the assembler would for it.
                let is_alone = self.contents.names_no_files(&path, bitcode)?;
                let is_same = self.memo.digest(&path)? == bitcode;
                if is_alone && is_same && self.engine.is_as_identified(tool.digest) {
                    self.engine.keep_bytes(key, &printed);
                }
            }
        }
        Ok(Some(printed))
    }
}

/// Whether all that the tool printed is a list, without a message: lines of no address, a letter and a name.
fn is_list_of_bitcode(printed: &[u8]) -> bool {
    let lines = printed.split_inclusive(|byte| *byte == b'\n');
    lines.into_iter().all(|line| {
        let address = line.strip_prefix(b"----------------");
        let rest = address.or(line.strip_prefix(b"                "));
        matches!(rest, Some([b' ', _, b' ', .., b'\n']))
    })
}

fn listed(arguments: &[OsString], directory: &Path) -> Option<Vec<u8>> {
    let (how, file) = match arguments {
        [file] => (Listing::ByName, file),
        [option, file] if option == "-n" => (Listing::ByAddress, file),
        [option, file] if option == "-S" => (Listing::WithSizes, file),
        _ => return None,
    };
    if file.as_bytes().starts_with(b"-") {
        return None;
    }
    let text = listing(&fs_err::read(directory.join(file)).ok()?, how)?;
    (text.len() <= LONGEST).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_told_from_a_message() {
        let list =
            b"---------------- T start_kernel\n                 U memcpy\n---------------- t \n";
        assert!(is_list_of_bitcode(list));
        for other in [
            "init/main.o: no symbols\n",
            "---------------- T start_kernel\nllvm-nm: error: truncated\n",
            "0000000000000000 T start_kernel\n",
            "---------------- T start_ker",
        ] {
            assert!(!is_list_of_bitcode(other.as_bytes()), "{other}");
        }
    }
}
