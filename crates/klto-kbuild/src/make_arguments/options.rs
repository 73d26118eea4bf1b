//! The options of GNU make 4.3 and 4.4 as data.
//!
//! In: a letter or a long name, which may be shortened as in getopt_long. Out: which option it is
//! and whether it takes a value. It does not know the command line around it.
//! Source: GNU make manual, "Summary of Options", and the behaviour of make 4.3.

/// An option of make, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MakeOption {
    /// `-B`
    AlwaysMake,
    /// `-L`
    CheckSymlinkTimes,
    /// `-d`, `--debug[=flags]`
    Debug,
    /// `-C dir`
    Directory,
    /// `-e`
    EnvironmentOverrides,
    /// `-E text`
    Eval,
    /// `-f file`
    File,
    /// `-h`
    Help,
    /// `-b` and `-m`, which make ignores.
    Ignored,
    /// `-i`
    IgnoreErrors,
    /// `-I dir`
    IncludeDirectory,
    /// `-j [number]`
    Jobs,
    /// `--jobserver-auth=…`, `--jobserver-fds=…`
    JobserverAuth,
    /// `--jobserver-style=…`
    JobserverStyle,
    /// `-n`
    JustPrint,
    /// `-k`
    KeepGoing,
    /// `-l [number]`
    LoadAverage,
    /// `-W file`
    NewFile,
    /// `-r`
    NoBuiltinRules,
    /// `-R`
    NoBuiltinVariables,
    /// `-S`
    NoKeepGoing,
    /// `--no-print-directory`
    NoPrintDirectory,
    /// `--no-silent`
    NoSilent,
    /// `-o file`
    OldFile,
    /// `-O[type]`
    OutputSync,
    /// `-p`
    PrintDataBase,
    /// `-w`
    PrintDirectory,
    /// `-q`
    Question,
    /// `--shuffle[=mode]`
    Shuffle,
    /// `-s`
    Silent,
    /// `--sync-mutex=…`
    SyncMutex,
    /// `-t`
    Touch,
    /// `--trace`
    Trace,
    /// `-v`
    Version,
    /// `--warn-undefined-variables`
    WarnUndefinedVariables,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// Attached, or the next word.
    Value,
    /// Attached only.
    Attached,
    /// Attached, or the next word if that consists of digits.
    Count,
    /// Attached, or the next word if that begins as a number.
    Load,
}

/// One spelling of an option: its letter, its long names, its value.
#[derive(Debug)]
pub(super) struct Spelling {
    pub(super) option: MakeOption,
    letter: Option<u8>,
    names: &'static [&'static str],
    pub(super) takes: Takes,
}

const fn spelling(
    option: MakeOption,
    letter: &str,
    names: &'static [&'static str],
    takes: Takes,
) -> Spelling {
    let letter = letter.as_bytes().first().copied();
    Spelling {
        option,
        letter,
        names,
        takes,
    }
}

// A flat table: one row an option.
#[rustfmt::skip]
const SPELLINGS: [Spelling; 37] = [
    spelling(MakeOption::AlwaysMake, "B", &["always-make"], Takes::Nothing),
    spelling(MakeOption::CheckSymlinkTimes, "L", &["check-symlink-times"], Takes::Nothing),
    spelling(MakeOption::Debug, "d", &[], Takes::Nothing),
    spelling(MakeOption::Debug, "", &["debug"], Takes::Attached),
    spelling(MakeOption::Directory, "C", &["directory"], Takes::Value),
    spelling(MakeOption::EnvironmentOverrides, "e", &["environment-overrides"], Takes::Nothing),
    spelling(MakeOption::Eval, "E", &["eval"], Takes::Value),
    spelling(MakeOption::File, "f", &["file", "makefile"], Takes::Value),
    spelling(MakeOption::Help, "h", &["help"], Takes::Nothing),
    spelling(MakeOption::Ignored, "b", &[], Takes::Nothing),
    spelling(MakeOption::Ignored, "m", &[], Takes::Nothing),
    spelling(MakeOption::IgnoreErrors, "i", &["ignore-errors"], Takes::Nothing),
    spelling(MakeOption::IncludeDirectory, "I", &["include-dir"], Takes::Value),
    spelling(MakeOption::Jobs, "j", &["jobs"], Takes::Count),
    spelling(MakeOption::JobserverAuth, "", &["jobserver-auth", "jobserver-fds"], Takes::Value),
    spelling(MakeOption::JobserverStyle, "", &["jobserver-style"], Takes::Value),
    spelling(MakeOption::JustPrint, "n", &["just-print", "dry-run", "recon"], Takes::Nothing),
    spelling(MakeOption::KeepGoing, "k", &["keep-going"], Takes::Nothing),
    spelling(MakeOption::LoadAverage, "l", &["load-average", "max-load"], Takes::Load),
    spelling(MakeOption::NewFile, "W", &["new-file", "what-if", "assume-new"], Takes::Value),
    spelling(MakeOption::NoBuiltinRules, "r", &["no-builtin-rules"], Takes::Nothing),
    spelling(MakeOption::NoBuiltinVariables, "R", &["no-builtin-variables"], Takes::Nothing),
    spelling(MakeOption::NoKeepGoing, "S", &["no-keep-going", "stop"], Takes::Nothing),
    spelling(MakeOption::NoPrintDirectory, "", &["no-print-directory"], Takes::Nothing),
    spelling(MakeOption::NoSilent, "", &["no-silent"], Takes::Nothing),
    spelling(MakeOption::OldFile, "o", &["old-file", "assume-old"], Takes::Value),
    spelling(MakeOption::OutputSync, "O", &["output-sync"], Takes::Attached),
    spelling(MakeOption::PrintDataBase, "p", &["print-data-base"], Takes::Nothing),
    spelling(MakeOption::PrintDirectory, "w", &["print-directory"], Takes::Nothing),
    spelling(MakeOption::Question, "q", &["question"], Takes::Nothing),
    spelling(MakeOption::Shuffle, "", &["shuffle"], Takes::Attached),
    spelling(MakeOption::Silent, "s", &["silent", "quiet"], Takes::Nothing),
    spelling(MakeOption::SyncMutex, "", &["sync-mutex"], Takes::Value),
    spelling(MakeOption::Touch, "t", &["touch"], Takes::Nothing),
    spelling(MakeOption::Trace, "", &["trace"], Takes::Nothing),
    spelling(MakeOption::Version, "v", &["version"], Takes::Nothing),
    spelling(MakeOption::WarnUndefinedVariables, "", &["warn-undefined-variables"], Takes::Nothing),
];

/// The option of a letter.
pub(super) fn by_letter(letter: u8) -> Option<&'static Spelling> {
    SPELLINGS.iter().find(|row| row.letter == Some(letter))
}

/// The option of a long name without its dashes, which may be a beginning that only one option has.
pub(super) fn by_name(name: &[u8]) -> Option<&'static Spelling> {
    let is = |row: &&Spelling| row.names.iter().any(|full| full.as_bytes() == name);
    if let Some(exact) = SPELLINGS.iter().find(is) {
        return Some(exact);
    }
    let begins = |row: &&Spelling| {
        row.names
            .iter()
            .any(|full| full.as_bytes().starts_with(name))
    };
    let mut candidates = SPELLINGS.iter().filter(begins);
    let first = candidates.next()?;
    candidates.next().is_none().then_some(first)
}
