//! `klto explain`: why an object is what it is, and how it was made.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context as _;
use klto_core::Failure;
use klto_session::{Journal, Recipe, SCRATCH_NAME};

use crate::cli::Question;

/// Answers from the journal of the output tree.
pub fn run(question: &Question, output: &Path) -> anyhow::Result<u8> {
    let journal = output.join(SCRATCH_NAME).join("journal");
    let not_built = |error: std::io::Error| {
        let text = format!("{} was not built by klto: {error}", output.display());
        Failure::bad_input(text).hint("name the output tree with -O")
    };
    let text = match question {
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
