//! The MAKEFLAGS environment variable: options and variables that a parent make hands down.
//!
//! In: the text, where a backslash quotes a space and `$$` means `$`. Out: the same model as of a
//! command line, and the text again with another jobserver or none. Goals in it mean nothing to
//! make and are dropped. Source: GNU make manual, "Communicating Options to a Sub-make".

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Item, Jobs, MakeArguments, MakeOption, Meaning};

/// What MAKEFLAGS says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MakeFlags {
    arguments: MakeArguments,
}

impl MakeFlags {
    /// Reads the text of MAKEFLAGS.
    pub fn parse(text: &OsStr) -> Self {
        let mut words = split(text.as_bytes());
        if let Some(first) = words.first_mut() {
            let bytes = first.as_bytes();
            if !bytes.starts_with(b"-") && !bytes.contains(&b'=') {
                *first = OsString::from_vec([b"-", bytes].concat());
            }
        }
        let mut arguments = MakeArguments::parse(&words);
        arguments.items.retain(|item| item.meaning != Meaning::Goal);
        Self { arguments }
    }

    /// GNUMAKEFLAGS and then MAKEFLAGS, as make reads them.
    pub fn of_environment(environment: &crate::Environment) -> Self {
        let parse = |name| environment.get(name).map(Self::parse).unwrap_or_default();
        let mut all = parse("GNUMAKEFLAGS");
        let later = parse("MAKEFLAGS").arguments.items;
        // An earlier `--` would make operands of the options that follow.
        if !later.is_empty() {
            all.arguments
                .items
                .retain(|item| item.meaning != Meaning::Nothing);
        }
        all.arguments.items.extend(later);
        all
    }

    /// The same as arguments.
    pub fn arguments(&self) -> &MakeArguments {
        &self.arguments
    }

    /// Whether make, called with these `arguments` too, runs no recipe: `-n`, `-q` or `-t`.
    pub fn is_dry(&self, arguments: &MakeArguments) -> bool {
        const DRY: [MakeOption; 3] = [
            MakeOption::JustPrint,
            MakeOption::Question,
            MakeOption::Touch,
        ];
        let both = [arguments, &self.arguments];
        both.into_iter()
            .any(|arguments| DRY.into_iter().any(|option| arguments.has(option)))
    }

    /// The jobserver of a parent make: `3,4` or `fifo:path`.
    pub fn jobserver(&self) -> Option<&OsStr> {
        self.arguments.values(MakeOption::JobserverAuth).last()
    }

    /// The text without `-j` and without a jobserver.
    pub fn without_jobserver(&self) -> OsString {
        print(&self.arguments.without_jobs().items)
    }

    /// The text with this jobserver in place of any other: `auth` is `3,4` or `fifo:path`.
    pub fn with_jobserver(&self, jobs: NonZeroU32, auth: &str) -> OsString {
        let mut items = self.arguments.without_jobs().items;
        let is_end = |item: &Item| item.words.first().is_some_and(|word| word == "--");
        let is_operand =
            |item: &Item| is_end(item) || matches!(item.meaning, Meaning::Assignment(_));
        let place = items.iter().position(is_operand).unwrap_or(items.len());
        let words = [format!("-j{jobs}"), format!("--jobserver-auth={auth}")].map(OsString::from);
        items.splice(place..place, MakeArguments::parse(&words).items);
        print(&items)
    }

    /// The number of jobs that the text asks for.
    pub fn jobs(&self) -> Option<Jobs> {
        self.arguments.jobs()
    }
}

fn split(text: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            b' ' | b'\t' | b'\n' => {
                words.extend(word.take());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(byte),
            b'$' => bytes.next_if_eq(&b'$').unwrap_or(byte),
            other => other,
        };
        word.get_or_insert_default().push(literal);
    }
    words.extend(word);
    words.into_iter().map(OsString::from_vec).collect()
}

/// As make prints it: single letters come first and without a dash.
fn print(items: &[Item]) -> OsString {
    let mut text = Vec::new();
    for (index, word) in items.iter().flat_map(|item| &item.words).enumerate() {
        let mut bytes = word.as_bytes();
        if index > 0 {
            text.push(b' ');
        } else if bytes.len() > 1 && bytes.iter().skip(1).all(u8::is_ascii_alphabetic) {
            bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
        }
        for byte in bytes {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => text.push(b'\\'),
                b'$' => text.push(b'$'),
                _ => {}
            }
            text.push(*byte);
        }
    }
    OsString::from_vec(text)
}
