//! `cargo xtask oracle`: long random sequences of edits, each held against clean builds.
//!
//! In: nothing, or `--again`. Out: a table on standard output and in `docs/oracle.md`, with the seed, the last
//! result and its commit. A sequence that has a result of this commit is not played again, so that an
//! interrupted run goes on. What a sequence is stands in `tests/tests/oracle.rs`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::verdict::Verdict;
use crate::{choice, command, packages, product};

/// Sequences, by their seeds, and edits in each.
const SEEDS: std::ops::RangeInclusive<u64> = 101..=105;
const EDITS: usize = 40;
/// What the toolchain changes to, and back.
const OTHER_LLVM: u32 = 19;

/// Plays the sequences that lack a result; all of them with `--again`.
pub fn run(words: &[&str]) -> Result<()> {
    let again = choice::has(words, "--again", &["--again"])?;
    packages::install_missing()?;
    packages::install_llvm(&[OTHER_LLVM])?;
    let cache = Cache::open()?;
    let commit = product::commit()?;
    let mut failed = Vec::new();
    for seed in SEEDS {
        let place = place(&cache, seed)?;
        let known = Verdict::read(&place)?;
        let known = known.filter(|known| known.commit == commit && !again);
        let verdict = match known {
            Some(known) => known,
            None => play(seed, &commit)?,
        };
        verdict.write(&place)?;
        print!("{}", row(seed, Some(&verdict)));
        if !verdict.pass {
            failed.push(seed.to_string());
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

fn place(cache: &Cache, seed: u64) -> Result<PathBuf> {
    let directory = cache.builds()?.join("oracle");
    fs::create_dir_all(&directory)?;
    Ok(directory.join(seed.to_string()))
}

fn play(seed: u64, commit: &str) -> Result<Verdict> {
    let begin = Instant::now();
    let mut test = product::cargo(&["test", "--quiet", "--package", "klto-tests"]);
    test.args([
        "--test",
        "oracle",
        "builds_after_edits",
        "--",
        "--nocapture",
    ])
    .env("KLTO_ORACLE", format!("{seed}:{EDITS}:{OTHER_LLVM}"));
    let status = command::status(&mut test)?;
    Ok(Verdict {
        commit: commit.to_owned(),
        pass: status.success(),
        seconds: begin.elapsed().as_secs_f64(),
        why: match status.success() {
            true => {
                format!("equal to a clean build after every tenth edit, LLVM 22 and {OTHER_LLVM}")
            }
            false => format!("KLTO_ORACLE={seed}:{EDITS}:{OTHER_LLVM} says where"),
        },
    })
}

fn row(seed: u64, verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else {
        return format!("| {seed} | {EDITS} | not played | | | |\n");
    };
    format!(
        "| {seed} | {EDITS} | {} | {:.0} | {} | {} |\n",
        if verdict.pass { "equal" } else { "**differs**" },
        verdict.seconds,
        verdict.why.replace('|', "\\|"),
        verdict.commit
    )
}

/// The last result of each sequence; one that this machine has no result of keeps its row.
fn write_document(cache: &Cache) -> Result<()> {
    let path = product::repository().join("docs/oracle.md");
    let before = fs::read_to_string(&path)?;
    let mut rows = String::new();
    for seed in SEEDS {
        let known = before
            .lines()
            .find(|line| line.starts_with(&format!("| {seed} |")));
        rows += &match (Verdict::read(&place(cache, seed)?)?, known) {
            (None, Some(known)) => format!("{known}\n"),
            (verdict, _) => row(seed, verdict.as_ref()),
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
         reverted files, files added and removed with their line of the Makefile, options, many files at once, a \
         file of `.incbin`, old and equal times, a clock set back, errors, two edits in one tick, KCFLAGS, and \
         another LLVM. After \
         every tenth edit three modules, of which one has many objects, are held bit for bit against those of a clean \
         build by another klto with an empty store.\n\n\
         | seed | edits | result | seconds | what | commit |\n|---|---|---|---|---|---|\n{rows}"
    )
}
