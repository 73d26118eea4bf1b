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

/// A source of a module, and where its objects are.
const OF_MODULE: (&str, &str) = ("fs/autofs/waitq.c", "fs/autofs/");
const MODULE: &str = "fs/autofs/autofs4.ko";
/// A source of vmlinux.
const OF_VMLINUX: &str = "init/main.c";
/// A function that nothing calls.
const MORE: &str = "int klto_more(void);\nint klto_more(void) { return 7; }\n";
/// The kinds of actions that end in native code.
const LINKS: [&str; 3] = ["full-link", "merge", "backend"];
/// The most backends that may run again under ThinLTO after an edit that changes no other function.
const FEW: usize = 20;

/// An edit, and what its build ran.
struct Edit {
    /// The objects of links and backends.
    ran: BTreeSet<String>,
    seconds: f64,
}

/// Edits a module and vmlinux, and takes each edit back.
pub(super) fn check(build: &Build<'_>, goals: &[&str]) -> Result<String> {
    let of_module = edit(build, goals, OF_MODULE.0, MODULE)?;
    let is_of_module = |object: &String| object.starts_with(OF_MODULE.1);
    if of_module.ran.is_empty() || !of_module.ran.iter().all(is_of_module) {
        return wrong(&format!(
            "an edit of {} ran {:?}",
            OF_MODULE.0, of_module.ran
        ));
    }
    let of_vmlinux = edit(build, goals, OF_VMLINUX, "vmlinux")?;
    let is_right = match build.lto {
        Lto::Full => of_vmlinux.ran == BTreeSet::from(["vmlinux.o".to_owned()]),
        _ => of_vmlinux.ran.contains("init/main.o") && of_vmlinux.ran.len() <= FEW,
    };
    if !is_right {
        return wrong(&format!("an edit of {OF_VMLINUX} ran {:?}", of_vmlinux.ran));
    }
    let ran = match (build.lto, of_vmlinux.ran.len()) {
        (Lto::Full, _) => "the link of vmlinux".to_owned(),
        (_, 1) => "1 backend".to_owned(),
        (_, count) => format!("{count} backends"),
    };
    Ok(format!(
        ", an edit of a module ran its own links alone ({:.1} s), one of {OF_VMLINUX} {ran} ({:.1} s), both found \
         when taken back",
        of_module.seconds, of_vmlinux.seconds
    ))
}

/// Edits a source, and takes that back: `product` must become another, and the one that it was, and all that
/// ran for the edit must be found.
fn edit(build: &Build<'_>, goals: &[&str], source: &str, product: &str) -> Result<Edit> {
    let path = build.source.join(source);
    let text = fs::read_to_string(&path)?;
    // The file is shared with the tree that it was copied from.
    let write = |text: &str| -> Result<()> {
        fs::remove_file(&path)?;
        Ok(fs::write(&path, text)?)
    };
    let product = build.output.join(product);
    let before = fs::read(&product)?;
    write(&format!("{text}{MORE}"))?;
    let begin = Instant::now();
    build.make(goals)?;
    let seconds = begin.elapsed().as_secs_f64();
    let ran = links(build, "ran")?;
    if fs::read(&product)? == before {
        return wrong(&format!(
            "an edit of {source} left {} as it was",
            product.display()
        ));
    }
    write(&text)?;
    build.make(goals)?;
    if fs::read(&product)? != before {
        let what = format!(
            "{} is another after an edit was taken back",
            product.display()
        );
        return wrong(&what);
    }
    let (again, found) = (links(build, "ran")?, links(build, "hit")?);
    match again.is_empty() && found.is_superset(&ran) {
        true => Ok(Edit { ran, seconds }),
        false => wrong(&format!(
            "an edit of {source} taken back ran {again:?}, found {found:?}"
        )),
    }
}

/// The objects of links and backends that the last build `ran`, or `hit` in the store.
fn links(build: &Build<'_>, how: &str) -> Result<BTreeSet<String>> {
    let log = fs::read_to_string(build.output.join(".klto/log"))?;
    let object = |line: &str| {
        let (kind, rest) = line.strip_prefix(how)?.strip_prefix(' ')?.split_once(' ')?;
        let object = rest.split_once(": ").map_or(rest, |(object, _)| object);
        LINKS.contains(&kind).then(|| object.to_owned())
    };
    Ok(log.lines().filter_map(object).collect())
}

fn wrong<T>(what: &str) -> Result<T> {
    Err(Failure::build(what).into())
}
