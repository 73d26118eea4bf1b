//! `cargo xtask oracle`: long random sequences of edits, held against clean builds.
//!
//! In: parts to play, as `102:1-20`, and `--again`. Out: a table on standard output and in `docs/oracle.md`, with the seed, the
//! last result and its commit. A part that is known to be equal at this commit, here or in the document, is
//! not played again, so that an interrupted run goes on. What a sequence is stands in `tests/tests/oracle.rs`.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::product::{self, CHANGED};
use crate::verdict::Verdict;
use crate::{choice, command, packages};

/// How the document says that all was as it must be.
const EQUAL: &str = "equal";

/// What the toolchain changes to, and back.
const OTHER_LLVM: u32 = 19;

/// A sequence of edits, and in which parts it is played.
struct Sequence {
    /// What is built.
    what: &'static str,
    /// The test that plays it.
    test: &'static str,
    seed: u64,
    edits: usize,
    edits_in_part: usize,
}

const SEQUENCES: [Sequence; 2] = [
    Sequence {
        what: "three modules",
        test: "modules_after_edits",
        seed: 101,
        edits: 200,
        edits_in_part: 40,
    },
    Sequence {
        what: "a whole kernel",
        test: "a_kernel_after_edits",
        seed: 102,
        edits: 40,
        edits_in_part: 20,
    },
];

/// Edits of a sequence that are played together.
struct Part {
    sequence: &'static Sequence,
    first: usize,
    last: usize,
}

impl Part {
    fn all() -> Vec<Self> {
        let of_sequence = |sequence: &'static Sequence| {
            let firsts = (1..=sequence.edits).step_by(sequence.edits_in_part);
            firsts.map(move |first| Self {
                sequence,
                first,
                last: first + sequence.edits_in_part - 1,
            })
        };
        SEQUENCES.iter().flat_map(of_sequence).collect()
    }

    fn name(&self) -> String {
        format!("{}:{}-{}", self.sequence.seed, self.first, self.last)
    }

    /// As the test's environment names it.
    fn chosen(&self) -> String {
        format!("{}:{OTHER_LLVM}", self.name())
    }

    fn play(&self, commit: &str) -> Result<Verdict> {
        let begin = Instant::now();
        let test = self.sequence.test;
        let mut cargo = product::cargo(&["test", "--quiet", "--package", "klto-tests"]);
        cargo
            .args(["--test", "oracle", test, "--"])
            .args(["--nocapture", "--include-ignored"])
            .env("KLTO_ORACLE", self.chosen());
        let status = command::status(&mut cargo)?;
        Ok(Verdict {
            commit: commit.to_owned(),
            pass: status.success(),
            seconds: begin.elapsed().as_secs_f64(),
            why: match status.success() {
                true => format!("equal after every tenth edit, LLVM 22 and {OTHER_LLVM}"),
                false => format!("KLTO_ORACLE={} says where", self.chosen()),
            },
        })
    }

    fn start_of_row(&self) -> String {
        let Sequence { what, seed, .. } = self.sequence;
        format!("| {what} | {seed} | {} to {} |", self.first, self.last)
    }

    /// The result in a row that [`Part::row`] wrote.
    fn verdict(&self, row: &str) -> Option<Verdict> {
        let cells = row.strip_prefix(&self.start_of_row())?.split(" | ");
        let cells: Vec<&str> = cells.map(|cell| cell.trim_matches([' ', '|'])).collect();
        let [result, seconds, why, commit] = cells.as_slice() else {
            return None;
        };
        Some(Verdict {
            commit: (*commit).to_owned(),
            pass: *result == EQUAL,
            seconds: seconds.parse().ok()?,
            why: why.replace("\\|", "|"),
        })
    }

    fn row(&self, verdict: Option<&Verdict>) -> String {
        let start = self.start_of_row();
        let Some(verdict) = verdict else {
            return format!("{start} not played | | | |\n");
        };
        format!(
            "{start} {} | {:.0} | {} | {} |\n",
            if verdict.pass { EQUAL } else { "**differs**" },
            verdict.seconds,
            verdict.why.replace('|', "\\|"),
            verdict.commit
        )
    }
}

/// Plays the parts that the words name, or all, where they lack a result; with `--again` where they have one too.
pub fn run(words: &[&str]) -> Result<()> {
    let again = choice::has(words, "--again", &["--again"])?;
    let in_sequence = |name: &str, seed: &str| name.split(':').next() == Some(seed);
    let hint = "a part is named by its seed and edits in docs/oracle.md, as 102:1-20";
    let parts = choice::named(Part::all(), words, Part::name, in_sequence, hint)?;
    packages::install_missing()?;
    packages::install_llvm(&[OTHER_LLVM])?;
    let commit = product::commit()?;
    let path = product::repository().join("docs/oracle.md");
    let mut failed = Vec::new();
    for part in parts {
        let known = result_of(&fs::read_to_string(&path)?, &part);
        let is_of_commit = |known: &Verdict| known.commit == commit && !commit.ends_with(CHANGED);
        let known = known.filter(|known| known.pass && is_of_commit(known) && !again);
        let verdict = match known {
            Some(known) => known,
            None => part.play(&commit)?,
        };
        print!("{}", part.row(Some(&verdict)));
        if !verdict.pass {
            failed.push(part.name());
        }
        write_result(&path, &part, &verdict)?;
    }
    match failed.is_empty() {
        true => Ok(()),
        false => {
            let what = format!("sequences that fail: {}", failed.join(", "));
            Err(Failure::build(what).into())
        }
    }
}

/// The last result of a part, by the document.
fn result_of(document: &str, part: &Part) -> Option<Verdict> {
    document.lines().find_map(|line| part.verdict(line))
}

/// The document with one more result.
fn write_result(path: &Path, part: &Part, verdict: &Verdict) -> Result<()> {
    let before = fs::read_to_string(path)?;
    let rows = Part::all().into_iter().map(|other| {
        let is_new = other.start_of_row() == part.start_of_row();
        let known = result_of(&before, &other);
        other.row(is_new.then_some(verdict).or(known.as_ref()))
    });
    fs::write(path, document(&rows.collect::<String>()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn document(rows: &str) -> String {
    format!(
        "# Edit oracle\n\n\
         Written by `cargo xtask oracle`; do not edit. A sequence is a number of random edits of Linux 6.12 \
         and a build after each: functions, comments and inline functions in sources and headers, some of which \
         move lines or read theirs, touched and reverted files, files added and removed with their line of the Makefile, options (y, n, m and numbers), many \
         files at once, a file of `.incbin` with and without its reader, old and equal times, a clock set back, errors, two \
         edits in one tick, edits in place of the same size as soon as a build has ended, KCFLAGS, LOCALVERSION, and \
         another LLVM. After every tenth edit what was built is held bit for bit against a clean build by another klto with \
         an empty store: three modules, of which one has many objects; of the whole kernel vmlinux, System.map, \
         Module.symvers, bzImage and the modules. Each part begins with a build of what the edits before it left.\n\n\
         | what | seed | edits | result | seconds | how | commit |\n|---|---|---|---|---|---|---|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let parts = Part::all();
        let (part, other) = (&parts[0], &parts[1]);
        let verdict = Verdict {
            commit: "abc 2026-01-01".into(),
            pass: true,
            seconds: 381.0,
            why: "equal after every tenth edit, LLVM 22 and 19".into(),
        };
        let row = part.row(Some(&verdict));
        assert_eq!(result_of(&row, part), Some(verdict));
        assert_eq!(result_of(&row, other), None);
        assert_eq!(result_of(&part.row(None), part), None);
    }
}
