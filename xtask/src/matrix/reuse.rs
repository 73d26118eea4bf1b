//! What edits of a cell's kernel cost: the links and backends that run again, and that a change which is
//! taken back is found in the store.
//!
//! In: a build that is complete, in a source tree of its own. Out: what ran, or what should not have.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use super::build::Build;
use crate::kernel::Lto;

/// A source of `autofs4.ko`, and where its objects are.
const OF_MODULE: (&str, &str) = ("fs/autofs/waitq.c", "fs/autofs/");
/// A source of vmlinux.
const OF_VMLINUX: &str = "init/main.c";
/// A function that nothing calls.
const MORE: &str = "int klto_more(void);\nint klto_more(void) { return 7; }\n";
/// The kinds of actions that end in native code.
const LINKS: [&str; 3] = ["full-link", "merge", "backend"];
/// The most backends that may run again under ThinLTO after an edit that changes no other function.
const FEW: usize = 20;

/// Edits a module and vmlinux, and takes each edit back.
pub(super) fn check(build: &Build<'_>, goals: &[&str]) -> Result<String> {
    let vmlinux = build.output.join("vmlinux");
    let before = fs::read(&vmlinux)?;
    let (of_module, module_seconds) = edit(build, goals, OF_MODULE.0)?;
    let is_of_module = |object: &String| object.starts_with(OF_MODULE.1);
    if of_module.is_empty() || !of_module.iter().all(is_of_module) {
        return wrong(&format!("an edit of {} ran {of_module:?}", OF_MODULE.0));
    }
    let (of_vmlinux, vmlinux_seconds) = edit(build, goals, OF_VMLINUX)?;
    let is_right = match build.lto {
        Lto::Full => of_vmlinux == BTreeSet::from(["vmlinux.o".to_owned()]),
        _ => of_vmlinux.contains("init/main.o") && of_vmlinux.len() <= FEW,
    };
    if !is_right {
        return wrong(&format!("an edit of {OF_VMLINUX} ran {of_vmlinux:?}"));
    }
    if fs::read(&vmlinux)? != before {
        return wrong("vmlinux is another after an edit was taken back");
    }
    let ran = match build.lto {
        Lto::Full => "the link of vmlinux".to_owned(),
        _ => format!("{} backends", of_vmlinux.len()),
    };
    Ok(format!(
        ", an edit of a module ran its own links alone ({module_seconds:.1} s), one of {OF_VMLINUX} {ran} \
         ({vmlinux_seconds:.1} s), both found when taken back"
    ))
}

/// What an edit of this source ran, and the seconds of its build. Taking it back must run nothing.
fn edit(build: &Build<'_>, goals: &[&str], source: &str) -> Result<(BTreeSet<String>, f64)> {
    let path = build.source.join(source);
    let text = fs::read_to_string(&path)?;
    // The file is shared with the tree that it was copied from.
    let write = |text: &str| -> Result<()> {
        fs::remove_file(&path)?;
        Ok(fs::write(&path, text)?)
    };
    write(&format!("{text}{MORE}"))?;
    let begin = Instant::now();
    build.make(goals)?;
    let seconds = begin.elapsed().as_secs_f64();
    let ran = ran(build)?;
    write(&text)?;
    build.make(goals)?;
    let after = self::ran(build)?;
    if !after.is_empty() {
        return Err(Failure::build(format!("an edit taken back ran {after:?}")).into());
    }
    Ok((ran, seconds))
}

/// The objects of links and backends that the last build ran.
fn ran(build: &Build<'_>) -> Result<BTreeSet<String>> {
    let log = fs::read_to_string(build.output.join(".klto/log"))?;
    let object = |line: &str| {
        let (kind, rest) = line.strip_prefix("ran ")?.split_once(' ')?;
        let object = rest.split_once(": ").map_or(rest, |(object, _)| object);
        LINKS.contains(&kind).then(|| object.to_owned())
    };
    Ok(log.lines().filter_map(object).collect())
}

fn wrong(what: &str) -> Result<String> {
    Err(Failure::build(what).into())
}
