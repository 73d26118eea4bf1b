//! The command line of GNU make, kept word by word.
//!
//! In: the words after `make`. Out: options with their values, assignments and goals, and the same
//! words with some taken out or added, all else byte for byte in order. It does not know what any
//! variable or goal means to kbuild, and it accepts everything: what make itself would refuse is
//! kept and listed by [`MakeArguments::unknown`].

mod assignment;
mod make_flags;
mod options;
mod parse;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub use assignment::{Assignment, Operator};
pub use make_flags::MakeFlags;
pub use options::MakeOption;

/// An option and its value, as given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedOption {
    /// Which.
    pub option: MakeOption,
    /// Its value, attached or from the next word.
    pub value: Option<OsString>,
}

/// How many jobs make may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jobs {
    /// `-jN`
    Number(NonZeroU32),
    /// `-j` without a number.
    Unlimited,
}

/// One or two words and what they mean together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    words: Vec<OsString>,
    meaning: Meaning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// A long option, or one or more short ones in one word.
    Options(Vec<UsedOption>),
    Assignment(Assignment),
    Goal,
    /// `--` or `-`.
    Nothing,
    Unknown,
}

/// The words after `make`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MakeArguments {
    items: Vec<Item>,
}

impl MakeArguments {
    /// Reads the words after `make`.
    pub fn parse(words: &[OsString]) -> Self {
        Self {
            items: parse::items(words),
        }
    }

    /// The words again.
    pub fn words(&self) -> Vec<OsString> {
        self.items
            .iter()
            .flat_map(|item| item.words.iter().cloned())
            .collect()
    }

    /// Options in order.
    pub fn options(&self) -> impl Iterator<Item = &UsedOption> {
        self.items.iter().flat_map(|item| match &item.meaning {
            Meaning::Options(options) => options.as_slice(),
            _ => &[],
        })
    }

    /// Whether `option` is given.
    pub fn has(&self, option: MakeOption) -> bool {
        self.options().any(|used| used.option == option)
    }

    /// The values of `option` in order.
    pub fn values(&self, option: MakeOption) -> impl Iterator<Item = &OsStr> {
        let of_option = move |used: &&UsedOption| used.option == option;
        self.options()
            .filter(of_option)
            .filter_map(|used| used.value.as_deref())
    }

    /// Assignments in order; a later one wins.
    pub fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.items.iter().filter_map(|item| match &item.meaning {
            Meaning::Assignment(assignment) => Some(assignment),
            _ => None,
        })
    }

    /// Goals in order.
    pub fn goals(&self) -> impl Iterator<Item = &OsStr> {
        self.words_that_mean(Meaning::Goal)
    }

    /// Words that are no option klto knows, or lack their value.
    pub fn unknown(&self) -> impl Iterator<Item = &OsStr> {
        self.words_that_mean(Meaning::Unknown)
    }

    fn words_that_mean(&self, meaning: Meaning) -> impl Iterator<Item = &OsStr> {
        let items = self
            .items
            .iter()
            .filter(move |item| item.meaning == meaning);
        items.flat_map(|item| item.words.iter().map(OsString::as_os_str))
    }

    /// The last `-j`; nothing for a value that make refuses.
    pub fn jobs(&self) -> Option<Jobs> {
        let used = self
            .options()
            .filter(|used| used.option == MakeOption::Jobs)
            .last()?;
        match &used.value {
            None => Some(Jobs::Unlimited),
            Some(value) => value.to_str()?.parse().ok().map(Jobs::Number),
        }
    }

    /// Without `-j` and without any word about a jobserver.
    #[must_use]
    pub fn without_jobs(&self) -> Self {
        let items = self.items.iter().filter_map(without_jobs).collect();
        Self { items }
    }

    /// With `name` set to exactly `value`, in place of all assignments to it so far.
    #[must_use]
    pub fn with_variable(&self, name: &str, value: &OsStr) -> Self {
        self.with_assignment(name, assignment::literal(name, value))
    }

    /// The same for a value with references, which make expands each time it uses the variable.
    #[must_use]
    pub fn with_expression(&self, name: &str, value: &OsStr) -> Self {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        self.with_assignment(name, word)
    }

    fn with_assignment(&self, name: &str, word: OsString) -> Self {
        let meaning = match Assignment::parse(&word) {
            Some(assignment) => Meaning::Assignment(assignment),
            None => Meaning::Unknown,
        };
        let added = Item {
            words: vec![word],
            meaning,
        };
        let assigns = |item: &Item| match &item.meaning {
            Meaning::Assignment(assignment) => assignment.name == *name,
            _ => false,
        };
        let place = self
            .items
            .iter()
            .position(assigns)
            .unwrap_or(self.items.len());
        let mut items: Vec<Item> = self
            .items
            .iter()
            .filter(|item| !assigns(item))
            .cloned()
            .collect();
        items.insert(place, added);
        Self { items }
    }

    /// With `goals` instead of the goals given, after everything else.
    #[must_use]
    pub fn with_goals<'a>(&self, goals: impl IntoIterator<Item = &'a OsStr>) -> Self {
        let others = self
            .items
            .iter()
            .filter(|item| item.meaning != Meaning::Goal);
        let added = goals.into_iter().map(|goal| Item {
            words: vec![goal.to_owned()],
            meaning: Meaning::Goal,
        });
        Self {
            items: others.cloned().chain(added).collect(),
        }
    }
}

/// In a cluster as `-kj4`, `-j` is last: whatever follows it in the word is its value.
fn without_jobs(item: &Item) -> Option<Item> {
    let about_jobs = |used: &UsedOption| {
        use MakeOption::{Jobs, JobserverAuth, JobserverStyle};
        matches!(used.option, Jobs | JobserverAuth | JobserverStyle)
    };
    let Meaning::Options(options) = &item.meaning else {
        return Some(item.clone());
    };
    let kept = options.iter().take_while(|used| !about_jobs(used)).count();
    if kept == options.len() {
        return Some(item.clone());
    }
    let letters = item.words.first()?.as_bytes().get(..=kept)?;
    (kept > 0).then(|| Item {
        words: vec![OsString::from_vec(letters.to_vec())],
        meaning: Meaning::Options(options.iter().take(kept).cloned().collect()),
    })
}
