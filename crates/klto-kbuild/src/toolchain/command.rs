//! A tool's command as given: launchers, the program, and flags.
//!
//! In: words. Out: the same words in three parts. It does not look at the file system.

/// Programs that run the compiler for someone else; they hash or send the compiler's name and
/// command line, so that flags which a stand-in adds would be lost to them.
const LAUNCHERS: [&str; 5] = ["ccache", "sccache", "distcc", "icecc", "gomacc"];

/// Whether `path` names a launcher.
pub(super) fn is_launcher(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    LAUNCHERS.contains(&name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommandParts<'a> {
    pub(super) launchers: &'a [String],
    pub(super) program: &'a str,
    pub(super) flags: &'a [String],
}

/// The parts; without a program all words are launchers.
pub(super) fn split(words: &[String]) -> CommandParts<'_> {
    let place = words.iter().take_while(|word| is_launcher(word)).count();
    let (launchers, rest) = words.split_at(place);
    let (program, flags) = match rest.split_first() {
        Some((program, flags)) => (program.as_str(), flags),
        None => ("", rest),
    };
    CommandParts {
        launchers,
        program,
        flags,
    }
}
