//! `klto explain`: what the last build did and why, why an object is what it is, and how it was made.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context as _;
use klto_core::Failure;
use klto_session::{Journal, Recipe, SCRATCH_NAME};

use crate::cli::Question;

/// Answers from the log and the journal of the output tree.
pub fn run(question: &Question, output: &Path) -> anyhow::Result<u8> {
    let journal = output.join(SCRATCH_NAME).join("journal");
    let not_built = |error: std::io::Error| {
        let text = format!("{} was not built by klto: {error}", output.display());
        Failure::bad_input(text).hint("name the output tree with -O")
    };
    let log = || fs_err::read_to_string(output.join(SCRATCH_NAME).join("log"));
    let text = match question {
        Question::Build => told(&log().map_err(not_built)?, None).into_bytes(),
        Question::Object(object) => {
            let text = told(&log().map_err(not_built)?, Some(object));
            if text.lines().all(|line| line.starts_with("make")) {
                let text = format!("the last build did nothing to {}", object.display());
                let hint = "name an object as in the output tree: init/main.o";
                return Err(Failure::bad_input(text).hint(hint).into());
            }
            text.into_bytes()
        }
        Question::Native => natives(&Journal::read_natives(&journal).map_err(not_built)?),
        Question::Recipe(object) => {
            let recipe = Journal::read_recipe(&journal, object).map_err(not_built)?;
            let unknown = || {
                let text = format!("klto saw no recipe for {}", object.display());
                Failure::bad_input(text).hint("name an object as in the output tree: init/main.o")
            };
            script(&recipe.ok_or_else(unknown)?)?
        }
    };
    std::io::stdout().write_all(&text)?;
    Ok(0)
}

/// Why make ran, each action that did not keep what was there, with the reason, and why make did not run
/// since; of actions all that concern `object`, if one is named.
fn told(log: &str, object: Option<&Path>) -> String {
    let mut text = String::new();
    let mut reasons = HashMap::new();
    for line in log.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (what, note) = rest.split_once(": ").unwrap_or((rest, ""));
        let (_, named) = what.split_once(' ').unwrap_or((what, ""));
        let concerns = object.is_none_or(|object| Path::new(named) == object);
        match first {
            "make" => text += &format!("make ran: {note}\n"),
            "no" => text += &format!("make did not run after that: {note}\n"),
            "makes:" => text += &format!("makes under it: {rest}\n"),
            "why" => drop(reasons.insert(what, note)),
            "ran" | "hit" | "checked" if concerns => {
                let reason = reasons.get(what).copied();
                let notes = [note, reason.unwrap_or_default()];
                let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
                let colon = if notes.is_empty() { "" } else { ": " };
                text += &format!("{first:<8}{what}{colon}{}\n", notes.join("; "));
            }
            "removed" if object.is_none_or(|object| Path::new(what) == object) => {
                text += &format!("removed {what}: {note}\n");
            }
            "kept" if object.is_some() && concerns => text += &format!("{first:<8}{what}\n"),
            "native" if object.is_some_and(|object| Path::new(what) == object) => {
                text += &format!("native  {note}\n");
            }
            _ => {}
        }
    }
    text
}

/// Each object and what reads it.
fn natives(natives: &[(std::path::PathBuf, String)]) -> Vec<u8> {
    let mut text = String::new();
    for (object, reader) in natives {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{reader}", object.display());
    }
    text.into_bytes()
}

/// A shell script that runs the recipe again as make did.
fn script(recipe: &Recipe) -> anyhow::Result<Vec<u8>> {
    let quoted = |word: &OsStr| {
        let quoted = shlex::bytes::try_quote(word.as_bytes());
        let quoted = quoted.context("a recipe holds a zero byte")?;
        anyhow::Ok(quoted.into_owned())
    };
    let mut text = b"cd ".to_vec();
    text.extend(quoted(recipe.directory.as_os_str())?);
    text.extend(b" && env -i");
    for (name, value) in &recipe.environment {
        text.extend(b" \\\n    ");
        text.extend(quoted(&[name.as_os_str(), value].join(OsStr::new("=")))?);
    }
    text.extend(b" \\\n   ");
    for word in &recipe.arguments {
        text.push(b' ');
        text.extend(quoted(word)?);
    }
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "make runs: source fs/a.c has changed\nmakes: 3 ran, 9 were left out\nremoved fs/a.o: blob, which the assembler reads for it, has changed\nran compile fs/a.o\nran thin-link vmlinux.o: 3 objects\n\
        input vmlinux.o fs/a.o\nkept backend fs/c.o\nwhy backend fs/a.o: its bitcode has changed\n\
        why backend fs/b.o: it imports from fs/a.o, which has changed\nran backend fs/a.o\n\
        hit backend fs/b.o\nsummary vmlinux.o (x)\nno make: nothing has changed since the last build\n";

    const AFTER: &str = "make did not run after that: nothing has changed since the last build\n";

    #[test]
    fn a_build_is_told_with_reasons() {
        let expected = "make ran: source fs/a.c has changed\nmakes under it: 3 ran, 9 were left out\n\
            removed fs/a.o: blob, which the assembler reads for it, has changed\nran     compile fs/a.o\n\
            ran     thin-link vmlinux.o: 3 objects\nran     backend fs/a.o: its bitcode has changed\n\
            hit     backend fs/b.o: it imports from fs/a.o, which has changed\n";
        assert_eq!(told(LOG, None), format!("{expected}{AFTER}"));
    }

    #[test]
    fn one_object_is_told_alone() {
        let first = "make ran: source fs/a.c has changed\nmakes under it: 3 ran, 9 were left out\n";
        let expected = format!("{first}kept    backend fs/c.o\n{AFTER}");
        assert_eq!(told(LOG, Some(Path::new("fs/c.o"))), expected);
        assert_eq!(
            told(LOG, Some(Path::new("fs/d.o"))),
            format!("{first}{AFTER}")
        );
    }
}
