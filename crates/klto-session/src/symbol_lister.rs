//! llvm-nm on a linked kernel: kbuild has its symbols listed four times for each link of vmlinux.
//!
//! In: a call. Out: what the tool would print, where klto knows that; else the tool says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use klto_core::{Digest, Failure};
use klto_formats::elf::{Listing, listing};
use klto_wire::{Reply, Request};

use crate::session::{Answer, Session, as_called, printed_by_tool};

/// The longest text, in bytes: a frame holds 64 MiB (`klto-wire/src/frame.rs`), and the rest is room.
const LONGEST: usize = 48 << 20;

impl Session {
    /// Answers a call of the lister of symbols.
    pub(crate) fn symbol_lister(&self, request: Request) -> anyhow::Result<Answer> {
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
                return Err(Failure::bug(what).into());
            }
            let kernel = request.arguments.last().map(Path::new);
            let kernel = kernel.unwrap_or(Path::new("")).display();
            self.log.line(&format!("checked symbols {kernel}"));
        }
        Ok(Answer::Reply(Reply::prints(stdout)))
    }
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
