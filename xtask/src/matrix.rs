//! `cargo xtask matrix`: every tree, architecture, mode and LLVM, each built and booted.
//!
//! In: names of cells. Out: a table of results on standard output, and in `docs/matrix.md` the last
//! result of each cell with its commit. Cells that have a result of this commit are not run again.

mod build;
mod cell;
mod checks;
mod reuse;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::releases::LLVM_VERSIONS;
use crate::verdict::Verdict;
use crate::{choice, packages, product};
use cell::Cell;

/// Runs the cells that `words` name or begin the names of, all without words; `--again` runs also those
/// that have a result, `--list` only names them.
pub fn run(words: &[&str]) -> Result<()> {
    let options = ["--again", "--list"];
    let again = choice::has(words, "--again", &options)?;
    let hint = "cargo xtask matrix --list names them";
    let starts = |name: &str, word: &str| name.starts_with(word);
    let chosen = choice::named(Cell::all(), words, |cell| cell.name(), starts, hint)?;
    if words.contains(&"--list") {
        chosen.iter().for_each(|cell| println!("{}", cell.name()));
        return Ok(());
    }
    packages::install_missing()?;
    packages::install_llvm(&LLVM_VERSIONS)?;
    let cache = Cache::open()?;
    let klto = product::build_klto()?;
    let commit = product::commit()?;
    let mut failed = Vec::new();
    for cell in chosen {
        let known = cell.verdict(&cache)?;
        let known = known.filter(|known| known.commit == commit && !again);
        let verdict = match known {
            Some(known) => known,
            None => cell.run(&cache, &klto, &commit)?,
        };
        println!("{}", line(cell, &verdict));
        if !verdict.pass {
            failed.push(cell.name());
        }
    }
    write_document(&cache)?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::build(format!("cells that fail: {}", failed.join(", "))).into()),
    }
}

fn line(cell: Cell, verdict: &Verdict) -> String {
    let pass = if verdict.pass { "pass" } else { "FAIL" };
    format!(
        "{:<22} {pass} {:>4.0} s  {}",
        cell.name(),
        verdict.seconds,
        verdict.why
    )
}

/// A cell that this machine has no result of keeps its row.
fn write_document(cache: &Cache) -> Result<()> {
    let path = product::repository().join("docs/matrix.md");
    let before = match path.exists() {
        true => fs::read_to_string(&path)?,
        false => String::new(),
    };
    let mut text = "# Matrix\n\n\
        Written by `cargo xtask matrix`; do not edit. Each cell is the smallest configuration that boots \
        with modules and the function tracer (`tests/kernel/matrix-*.config`), built by `klto make -j2` \
        from an empty store and booted in QEMU. *thin-none* and *none-thin* go on in a copy of the other \
        mode's output. *trim* is TRIM_UNUSED_KSYMS, *btf* DEBUG_INFO_BTF, *cfi-livepatch* CFI, which \
        lkdtm puts to the test, and the livepatch sample of the tree, *pci* PCI with its quirks and a disk that the \
        machine finds on it; the others have no PCI. *Equal to none*: initcalls in boot order, PCI fixups, \
        `Module.symvers`, the list of modules and `modinfo` are those of the cell without LTO; exports and what a module \
        depends on may be in another order with *full*.\n\n\
        | tree | architecture | mode | LLVM | variant | result | seconds | what, or why | commit |\n\
        |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for cell in Cell::all() {
        let coordinates = cell.coordinates().join(" | ");
        text += &match cell.verdict(cache)? {
            Some(verdict) => format!(
                "| {coordinates} | {} | {:.0} | {} | {} |\n",
                if verdict.pass { "pass" } else { "fail" },
                verdict.seconds,
                verdict.why.replace('|', "\\|"),
                verdict.commit
            ),
            None => {
                let start = format!("| {coordinates} |");
                let known = before.lines().find(|line| line.starts_with(&start));
                let none = format!("{start} not run | | | |");
                format!("{}\n", known.unwrap_or(&none))
            }
        };
    }
    fs::write(&path, text)?;
    println!("wrote {}", path.display());
    Ok(())
}
