//! Words to items, as getopt_long and make's own rules read them.
//!
//! In: the words after `make`, or those of MAKEFLAGS. Out: items that hold every word. It does not
//! judge values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::options::{self, Spelling, Takes};
use super::{Assignment, Item, Meaning, UsedOption};

pub(super) fn items(words: &[OsString]) -> Vec<Item> {
    let mut rest = words.iter();
    let mut items = Vec::new();
    let mut only_operands = false;
    while let Some(word) = rest.next() {
        let item = match word.as_bytes() {
            b"-" => one(word, Meaning::Nothing),
            b"--" if !only_operands => {
                only_operands = true;
                one(word, Meaning::Nothing)
            }
            [b'-', b'-', name @ ..] if !only_operands => long_option(word, name, &mut rest),
            [b'-', letters @ ..] if !only_operands => short_options(word, letters, &mut rest),
            _ => operand(word),
        };
        items.push(item);
    }
    items
}

fn one(word: &OsStr, meaning: Meaning) -> Item {
    let words = vec![word.to_owned()];
    Item { words, meaning }
}

fn operand(word: &OsStr) -> Item {
    match Assignment::parse(word) {
        Some(assignment) => one(word, Meaning::Assignment(assignment)),
        None => one(word, Meaning::Goal),
    }
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

fn long_option(word: &OsStr, name_and_value: &[u8], rest: &mut Rest) -> Item {
    let mut parts = name_and_value.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let attached = parts.next();
    let Some(spelling) = options::by_name(name) else {
        return one(word, Meaning::Unknown);
    };
    if spelling.takes == Takes::Nothing && attached.is_some() {
        return one(word, Meaning::Unknown);
    }
    let mut item = one(word, Meaning::Unknown);
    if let Some(used) = with_value(spelling, attached, rest, &mut item.words) {
        item.meaning = Meaning::Options(vec![used]);
    }
    item
}

fn short_options(word: &OsStr, mut letters: &[u8], rest: &mut Rest) -> Item {
    let mut item = one(word, Meaning::Unknown);
    let mut found = Vec::new();
    while let [letter, after @ ..] = letters {
        let Some(spelling) = options::by_letter(*letter) else {
            return one(word, Meaning::Unknown);
        };
        let attached = match spelling.takes {
            Takes::Nothing => None,
            _ => (!after.is_empty()).then_some(after),
        };
        let Some(used) = with_value(spelling, attached, rest, &mut item.words) else {
            return item;
        };
        found.push(used);
        letters = if attached.is_some() { &[] } else { after };
    }
    item.meaning = Meaning::Options(found);
    item
}

/// The option with its value; a word that is taken from `rest` is added to `words`.
fn with_value(
    spelling: &Spelling,
    attached: Option<&[u8]>,
    rest: &mut Rest,
    words: &mut Vec<OsString>,
) -> Option<UsedOption> {
    let mut value = attached.map(|bytes| OsString::from_vec(bytes.to_vec()));
    let next_is_value = |next: &OsStr| match (spelling.takes, next.as_bytes()) {
        (Takes::Value, _) => true,
        (Takes::Count, digits) => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        (Takes::Load, [first, ..]) => first.is_ascii_digit() || *first == b'.',
        _ => false,
    };
    let next = rest.as_slice().first();
    if value.is_none() && next.is_some_and(|next| next_is_value(next)) {
        value = rest.next().cloned();
        words.extend(value.clone());
    }
    if spelling.takes == Takes::Value && value.is_none() {
        return None;
    }
    let option = spelling.option;
    Some(UsedOption { option, value })
}
