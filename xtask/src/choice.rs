//! What the words of a command choose, and its options.
//!
//! In: the words after the command's name. Out: the named ones of what there is. It does not know what
//! is named.

use anyhow::Result;
use klto_core::Failure;

/// Whether the option is there.
///
/// # Errors
/// A word is an option that is not among `known`; one of those that ends in `=` has a value.
pub fn has(words: &[&str], option: &str, known: &[&str]) -> Result<bool> {
    let is_known = |word: &str| {
        known.iter().any(|known| match known.ends_with('=') {
            true => word.starts_with(known),
            false => word == *known,
        })
    };
    let mut options = words.iter().filter(|word| word.starts_with('-'));
    if let Some(unknown) = options.find(|word| !is_known(word)) {
        let hint = format!("there are {}", known.join(", "));
        return Err(Failure::bad_input(format!("no option {unknown}"))
            .hint(hint)
            .into());
    }
    Ok(words.contains(&option))
}

/// Those of `all` that the words name, or name a group of; all without words. A word that is a whole
/// name stands for that alone.
///
/// # Errors
/// A word names nothing, which the hint says how to list.
pub fn named<T>(
    all: Vec<T>,
    words: &[&str],
    name: impl Fn(&T) -> String,
    is_in_group: impl Fn(&str, &str) -> bool,
    hint: &str,
) -> Result<Vec<T>> {
    let words: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let names: Vec<String> = all.iter().map(&name).collect();
    let is_named = |name: &String, word: &str| match names.iter().any(|name| name == word) {
        true => name == word,
        false => is_in_group(name, word),
    };
    for word in &words {
        if !names.iter().any(|name| is_named(name, word)) {
            let failure = Failure::bad_input(format!("nothing is named {word}"));
            return Err(failure.hint(hint).into());
        }
    }
    let all = all.into_iter().zip(&names);
    let chosen =
        all.filter(|(_, name)| words.is_empty() || words.iter().any(|word| is_named(name, word)));
    Ok(chosen.map(|(one, _)| one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_stands_for_itself_and_another_for_its_group() {
        let chosen = |words: &[&str]| {
            let all = vec!["6.1-thin", "6.1-thin-trim", "6.12-thin"];
            let starts = |name: &str, word: &str| name.starts_with(word);
            named(all, words, |name| (*name).to_owned(), starts, "see --list")
        };
        assert_eq!(chosen(&["6.1-thin"]).unwrap(), ["6.1-thin"]);
        assert_eq!(chosen(&["6.1-", "--again"]).unwrap().len(), 2);
        assert_eq!(chosen(&[]).unwrap().len(), 3);
        assert!(chosen(&["6.1-thin", "7.2"]).is_err());
    }

    #[test]
    fn an_unknown_option_is_an_error() {
        let known = ["--again", "--side="];
        assert!(has(&["large", "--again"], "--again", &known).unwrap());
        assert!(!has(&["--side=klto"], "--again", &known).unwrap());
        assert!(has(&["--help"], "--again", &known).is_err());
    }
}
