//! `cargo xtask oracle`: long random sequences of edits, held against clean builds.
//!
//! In: nothing, or `--again`. Out: a table on standard output and in `docs/oracle.md`, with the seed, the
//! last result and its commit. A part that has a result of this commit is not played again, so that an
//! interrupted run goes on. What a sequence is stands in `tests/tests/oracle.rs`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::verdict::Verdict;
use crate::{choice, command, packages, product};

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

    /// Where its result is kept.
    fn place(&self, cache: &Cache) -> Result<PathBuf> {
        let directory = cache.builds()?.join("oracle");
        fs::create_dir_all(&directory)?;
        Ok(directory.join(format!("{}-{}", self.sequence.seed, self.first)))
    }

    /// As the test's environment names it.
    fn name(&self) -> String {
        let (seed, first, last) = (self.sequence.seed, self.first, self.last);
        format!("{seed}:{first}-{last}:{OTHER_LLVM}")
    }

    fn play(&self, commit: &str) -> Result<Verdict> {
        let begin = Instant::now();
        let test = self.sequence.test;
        let mut cargo = product::cargo(&["test", "--quiet", "--package", "klto-tests"]);
        cargo
            .args(["--test", "oracle", test, "--"])
            .args(["--nocapture", "--include-ignored"])
            .env("KLTO_ORACLE", self.name());
        let status = command::status(&mut cargo)?;
        Ok(Verdict {
            commit: commit.to_owned(),
            pass: status.success(),
            seconds: begin.elapsed().as_secs_f64(),
            why: match status.success() {
                true => format!("equal after every tenth edit, LLVM 22 and {OTHER_LLVM}"),
                false => format!("KLTO_ORACLE={} says where", self.name()),
            },
        })
    }

    fn start_of_row(&self) -> String {
        let Sequence { what, seed, .. } = self.sequence;
        format!("| {what} | {seed} | {} to {} |", self.first, self.last)
    }

    fn row(&self, verdict: Option<&Verdict>) -> String {
        let start = self.start_of_row();
        let Some(verdict) = verdict else {
            return format!("{start} not played | | | |\n");
        };
        format!(
            "{start} {} | {:.0} | {} | {} |\n",
            if verdict.pass { "equal" } else { "**differs**" },
            verdict.seconds,
            verdict.why.replace('|', "\\|"),
            verdict.commit
        )
    }
}

/// Plays the parts that lack a result; all of them with `--again`.
pub fn run(words: &[&str]) -> Result<()> {
    let again = choice::has(words, "--again", &["--again"])?;
    packages::install_missing()?;
    packages::install_llvm(&[OTHER_LLVM])?;
    let cache = Cache::open()?;
    let commit = product::commit()?;
    let mut failed = Vec::new();
    for part in Part::all() {
        let place = part.place(&cache)?;
        let known = Verdict::read(&place)?;
        let known = known.filter(|known| known.commit == commit && !again);
        let verdict = match known {
            Some(known) => known,
            None => part.play(&commit)?,
        };
        verdict.write(&place)?;
        print!("{}", part.row(Some(&verdict)));
        if !verdict.pass {
            failed.push(part.name());
        }
        write_document(&cache)?;
    }
    match failed.is_empty() {
        true => Ok(()),
        false => {
            let what = format!("sequences that fail: {}", failed.join(", "));
            Err(Failure::build(what).into())
        }
    }
}

/// The last result of each part; one that this machine has no result of keeps its row.
fn write_document(cache: &Cache) -> Result<()> {
    let path = product::repository().join("docs/oracle.md");
    let before = fs::read_to_string(&path)?;
    let mut rows = String::new();
    for part in Part::all() {
        let start = part.start_of_row();
        let known = before.lines().find(|line| line.starts_with(&start));
        rows += &match (Verdict::read(&part.place(cache)?)?, known) {
            (None, Some(known)) => format!("{known}\n"),
            (verdict, _) => part.row(verdict.as_ref()),
        };
    }
    fs::write(&path, document(&rows))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn document(rows: &str) -> String {
    format!(
        "# Edit oracle\n\n\
         Written by `cargo xtask oracle`; do not edit. A sequence is a number of random edits of Linux 6.12 \
         and a build after each: functions, comments and inline functions in sources and headers, touched and \
         reverted files, files added and removed with their line of the Makefile, options (y, n, m and numbers), many \
         files at once, a file of `.incbin` with and without its reader, old and equal times, a clock set back, errors, two \
         edits in one tick, edits in place of the same size as soon as a build has ended, KCFLAGS, LOCALVERSION, and \
         another LLVM. After every tenth edit what was built is held bit for bit against a clean build by another klto with \
         an empty store: three modules, of which one has many objects; of the whole kernel vmlinux, System.map, \
         Module.symvers, bzImage and the modules. Each part begins with a build of what the edits before it left.\n\n\
         | what | seed | edits | result | seconds | how | commit |\n|---|---|---|---|---|---|---|\n{rows}"
    )
}
