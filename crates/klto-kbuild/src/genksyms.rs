//! Symbol versions as kbuild has them computed (scripts/Makefile.build, `cmd_gensymtypes_c`): the source of
//! an object that exports symbols is preprocessed with `-D__GENKSYMS__`, and genksyms reads the text from a
//! pipe.
//!
//! In: a call of the compiler, and the line of the recipe that it is in. Out: the call of genksyms. It starts
//! no tool and reads no file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A call of genksyms that prints versions and does nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenksymsCall {
    /// The program, from the directory in which kbuild compiles.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Words between commands.
const SEPARATORS: [&str; 8] = ["|", ";", "&&", "||", "&", "then", "do", "{"];

/// Whether the compiler is called to preprocess a source for genksyms.
pub fn preprocesses_for_genksyms(arguments: &[OsString]) -> bool {
    ["-E", "-D__GENKSYMS__"]
        .iter()
        .all(|wanted| arguments.iter().any(|argument| argument == wanted))
}

impl GenksymsCall {
    /// The one call in a line of shell commands; `None` where there is another number of them, and where
    /// it writes the types of symbols or compares them with a reference.
    pub fn in_commands(text: &str) -> Option<Self> {
        let words: Vec<String> = shlex::Shlex::new(text).collect();
        let is_call = |pair: &[String]| matches!(pair, [pipe, program] if pipe == "|" && Path::new(program).ends_with("genksyms"));
        let mut places = words.windows(2).enumerate();
        let (place, _) = places.find(|(_, pair)| is_call(pair))?;
        if places.any(|(_, pair)| is_call(pair)) {
            return None;
        }
        // What feeds it is the preprocessor, and nothing else gets that text.
        let before = words.get(..place)?;
        let begin = before
            .iter()
            .rposition(|word| SEPARATORS.contains(&word.as_str()));
        let feeds = before.get(begin.map_or(0, |begin| begin + 1)..)?;
        if !feeds.iter().any(|word| word == "-D__GENKSYMS__")
            || feeds
                .iter()
                .any(|word| word.contains('>') || word.ends_with(';'))
        {
            return None;
        }
        let mut rest = words.iter().skip(place + 1);
        let program = rest.next()?;
        let mut arguments = Vec::new();
        for word in rest.take_while(|word| !word.starts_with('>')) {
            arguments.push(word.as_str());
        }
        match arguments.as_slice() {
            ["-r", "/dev/null"] | ["-R", "-r", "/dev/null"] => Some(Self {
                program: program.into(),
                arguments: arguments.into_iter().map(OsString::from).collect(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_6_12: &str = "set -e; trap 'rm -f init/main.o' HUP; \
        if llvm-nm init/main.o 2>/dev/null | grep -q ' __export_symbol_'; then clang -E -D__GENKSYMS__ \
        -DKBUILD_BASENAME='\"main\"' init/main.c | scripts/genksyms/genksyms    -r /dev/null >> \
        init/.main.o.cmd; fi";
    const OF_5_10: &str = "if llvm-objdump -h lib/a.o | grep -q __ksymtab; then clang -E -D__GENKSYMS__ \
        lib/a.c |     scripts/genksyms/genksyms  -R  -r /dev/null > lib/.tmp_a.ver; ld.lld -r; fi";

    fn call(text: &str) -> Option<Vec<OsString>> {
        let call = GenksymsCall::in_commands(text)?;
        assert_eq!(call.program, Path::new("scripts/genksyms/genksyms"));
        Some(call.arguments)
    }

    #[test]
    fn the_call_is_found_in_recipes() {
        let plain = ["-r", "/dev/null"].map(OsString::from);
        assert_eq!(call(OF_6_12).unwrap(), plain);
        assert_eq!(call(OF_5_10).unwrap()[0], "-R");
    }

    #[test]
    fn calls_that_do_more_are_none() {
        let more = [
            "-T fs/a.symtypes -r /dev/null",
            "-r fs/a.symref",
            "-d -r /dev/null",
        ];
        for arguments in more {
            assert_eq!(call(&OF_6_12.replace("-r /dev/null", arguments)), None);
        }
        assert_eq!(call(&format!("{OF_6_12}; {OF_6_12}")), None);
        assert_eq!(call("clang -E -D__GENKSYMS__ a.c"), None);
        let end = "| scripts/genksyms/genksyms -r /dev/null";
        for fed in ["> a.i; cat a.i", "| tee a.i", "> a.i && cat a.i"] {
            assert_eq!(
                call(&format!("clang -E -D__GENKSYMS__ a.c {fed} {end}")),
                None
            );
        }
    }

    #[test]
    fn the_preprocessor_is_known_by_its_macro() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(preprocesses_for_genksyms(&words(
            "-E -D__GENKSYMS__ -I. a.c"
        )));
        assert!(!preprocesses_for_genksyms(&words("-E -I. a.c")));
        assert!(!preprocesses_for_genksyms(&words("-c -D__GENKSYMS__ a.c")));
    }
}
