//! What a clean build with a full store makes all the same, counted by what it is.
//!
//! In: the output tree of such a build by klto. Out: counts, each with an example: a file beside the raw
//! figures, and a section of the document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::sizes::Size;
use crate::product;

/// How many of each kind, and one of them.
type Counts = BTreeMap<String, (usize, String)>;

fn file(size: Size) -> PathBuf {
    let name = format!("docs/figures/{}-not-reused.tsv", size.name());
    product::repository().join(name)
}

/// Counts what the last build in `output` made without the store, and writes it down.
pub(super) fn count(size: Size, output: &Path) -> Result<()> {
    let mut counts = Counts::new();
    let log = fs::read_to_string(output.join(".klto/log"))?;
    let mut compiled = BTreeSet::new();
    for line in log.lines() {
        add_line(line, &mut counts, &mut compiled);
    }
    add_objects(output, output, &compiled, &mut counts)?;
    let commit = product::commit()?;
    let lines = counts
        .iter()
        .map(|(what, (count, example))| format!("{what}\t{count}\t{example}\t{commit}\n"));
    Ok(fs::write(file(size), lines.collect::<String>())?)
}

fn add(counts: &mut Counts, what: String, example: &str) {
    let (count, _) = counts
        .entry(what)
        .or_insert_with(|| (0, example.to_owned()));
    *count += 1;
}

/// One line of klto's log: what ran. Every object that a compile was asked for goes into `compiled`.
fn add_line(line: &str, counts: &mut Counts, compiled: &mut BTreeSet<String>) {
    let (how, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (what, note) = rest.split_once(": ").unwrap_or((rest, ""));
    let Some((kind, object)) = what.split_once(' ') else {
        return;
    };
    if matches!(kind, "compile" | "native-compile") && (how == "ran" || how == "hit") {
        compiled.insert(object.to_owned());
    }
    if how != "ran" {
        return;
    }
    let reason = note.rsplit_once("not stored: ").map(|(_, reason)| reason);
    let what = match reason {
        // Files have names of their own.
        Some(reason) => {
            let words = reason.split(' ');
            let words = words.map(|word| if word.contains('/') { "…" } else { word });
            let reason: Vec<&str> = words.collect();
            format!("{kind}, not stored: {}", reason.join(" "))
        }
        None => kind.to_owned(),
    };
    add(counts, what, object);
}

/// Objects below `directory` for which klto was not asked, by kbuild's records.
fn add_objects(
    output: &Path,
    directory: &Path,
    compiled: &BTreeSet<String>,
    counts: &mut Counts,
) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let (path, kind) = {
            let entry = entry?;
            (entry.path(), entry.file_type()?)
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if kind.is_dir() {
            if name != ".klto" {
                add_objects(output, &path, compiled, counts)?;
            }
            continue;
        }
        let stem = name.strip_prefix('.');
        let Some(object) = stem.and_then(|stem| stem.strip_suffix(".cmd")) else {
            continue;
        };
        let object = directory.strip_prefix(output)?.join(object);
        let object = object.display().to_string();
        if compiled.contains(&object) {
            continue;
        }
        let record = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        if let Some(what) = kind_of(&record) {
            add(counts, what.to_owned(), &object);
        }
    }
    Ok(())
}

/// What a target is by kbuild's record of it (scripts/basic/fixdep.c), where a compiler made it.
fn kind_of(record: &str) -> Option<&'static str> {
    let source = record.lines().find(|line| line.starts_with("source_"))?;
    let is_of_kernel = record.contains(" -D__KERNEL__");
    Some(match source.rsplit_once('.')?.1 {
        "S" => "assembler source",
        _ if !is_of_kernel => "host program or its object",
        "c" => "C compiled without LTO",
        _ => "other source",
    })
}

/// The section about every size that was measured.
pub(super) fn section() -> Result<String> {
    let mut rows = String::new();
    for size in Size::ALL {
        let path = file(size);
        let text = match path.exists() {
            true => fs::read_to_string(path)?,
            false => String::new(),
        };
        for line in text.lines() {
            let line = line.replace('|', "\\|").replace('\t', " | ");
            rows += &format!("| {} | {line} |\n", size.name());
        }
    }
    Ok(match rows.is_empty() {
        true => String::new(),
        false => format!(
            "\n## What a full store does not have\n\n\
             What klto's clean build with a full store, the row `clean-full`, makes all the same.\n\n\
             | kernel | what | how many | as | commit |\n|---|---|---|---|---|\n{rows}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_is_counted_by_kind_and_reason() {
        let (mut counts, mut compiled) = (Counts::new(), BTreeSet::new());
        for line in [
            "hit compile fs/a.o",
            "why compile fs/b.o: it was not there",
            "ran compile fs/b.o: not stored: it fails or prints something",
            "ran compile fs/c.o: not stored: /src/x.h has just been written",
            "ran compile fs/d.o: not stored: /src/y.h has just been written",
            "ran thin-link vmlinux.o: 3 objects, 0.1 s",
        ] {
            add_line(line, &mut counts, &mut compiled);
        }
        let one = |count: usize, object: &str| (count, object.to_owned());
        let written = "compile, not stored: … has just been written";
        let printed = "compile, not stored: it fails or prints something";
        let expected = [
            (written, one(2, "fs/c.o")),
            (printed, one(1, "fs/b.o")),
            ("thin-link", one(1, "vmlinux.o")),
        ];
        let expected = expected.map(|(what, counted)| (what.to_owned(), counted));
        assert_eq!(counts, Counts::from(expected));
        assert!(compiled.contains("fs/a.o"));
    }

    #[test]
    fn a_target_is_told_by_its_record() {
        let record = |command: &str, source: &str| {
            format!("savedcmd_x.o := {command} -o x.o\n\nsource_x.o := {source}\n")
        };
        let kind = |command, source| kind_of(&record(command, source));
        assert_eq!(
            kind("clang -D__KERNEL__", "/src/x.S"),
            Some("assembler source")
        );
        assert_eq!(
            kind("gcc", "/src/scripts/x.c"),
            Some("host program or its object")
        );
        assert_eq!(
            kind("clang -D__KERNEL__", "/src/x.c"),
            Some("C compiled without LTO")
        );
        assert_eq!(kind_of("savedcmd_x.a := ar x.a\n"), None);
    }
}
