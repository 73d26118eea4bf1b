//! The names that LTO left changed in a kernel's `System.map`, and whether each had to be.
//!
//! In: an output directory and klto's log. Out: a sentence; or the name that could be its source's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;
use klto_verify::base_name;

use crate::build_log::BuildLog;
use crate::command;
use crate::kernel::Lto;

/// What ThinLTO puts behind a local name that other objects import.
const PROMOTED: &str = ".llvm.";
/// What LLVM puts behind the name of a copy that it makes for constant arguments.
const SPECIALIZED: &str = ".specialized.";
/// The unit of vmlinux, and that of distributed ThinLTO.
pub const UNITS: [&str; 2] = ["vmlinux.o", "vmlinux.thinlto-index"];

/// Checks the names of a vmlinux that went through LTO. Under ThinLTO a promoted one stays where klto's log
/// says so and two objects have its base name; literals, which the compiler numbers in each object, have no
/// name in the bitcode. Full LTO promotes none; it numbers a local name that two objects define, and the
/// members of a variable that it has split.
pub fn changed(output: &Path, lto: Lto, log: &BuildLog) -> Result<String> {
    let units = UNITS.iter().filter_map(|name| log.units.get(*name));
    let objects: Vec<String> = units.clone().flat_map(|unit| unit.inputs.clone()).collect();
    let counted = counted(output, &objects)?;
    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    let map = fs::read_to_string(output.join("System.map"))?;
    let names: BTreeSet<&str> = map
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .map(|name| name.trim_start_matches("__cfi_"))
        .collect();
    let variables: BTreeSet<&str> = map.lines().filter_map(variable).collect();
    let promoted = names.iter().filter(|name| name.contains(PROMOTED));
    let wrong = |what: &str, name: &str| Err(Failure::build(format!("{what}: {name}")).into());
    match lto {
        Lto::None | Lto::Thin | Lto::ThinDist => {
            let listed: BTreeSet<&str> = units
                .flat_map(|unit| &unit.promoted)
                .map(String::as_str)
                .collect();
            let mut unlisted = promoted.clone().filter(|name| !listed.contains(**name));
            if let Some(name) = unlisted.next() {
                return wrong("no log names the promoted", name);
            }
            let could_go = |name: &&&str| {
                let base = name.split_once(PROMOTED).map_or(**name, |(base, _)| base);
                !base.starts_with('.') && count(base) < 2
            };
            match promoted.clone().find(could_go) {
                Some(name) => wrong("one object alone has the base name of", name),
                None => Ok(format!("{} promoted names left", promoted.count())),
            }
        }
        Lto::Full => {
            if let Some(name) = promoted.clone().next() {
                return wrong("Full LTO promoted", name);
            }
            let is_of_source =
                |name: &str| counted.contains_key(name) || name.contains(SPECIALIZED);
            let numbered = names
                .iter()
                .filter(|name| base_name(name) != **name && !is_of_source(name));
            let is_member =
                |name: &str| variables.contains(name) && !names.contains(base_name(name));
            match numbered
                .clone()
                .find(|name| count(base_name(name)) < 2 && !is_member(name))
            {
                Some(name) => wrong("one object alone has the base name of", name),
                None => Ok(format!("{} names numbered", numbered.count())),
            }
        }
    }
}

/// The name of a line of `System.map` for data.
fn variable(line: &str) -> Option<&str> {
    let mut fields = line.split(' ');
    let kind = fields.nth(1)?;
    matches!(kind, "b" | "B" | "d" | "D" | "r" | "R").then(|| fields.next())?
}

/// How many of the objects, whose paths are below the output directory, have each name.
fn counted(output: &Path, objects: &[String]) -> Result<BTreeMap<String, usize>> {
    let mut list = Command::new("llvm-nm-22");
    list.args(["--format=just-symbols", "--no-sort"]);
    list.current_dir(output).args(objects);
    let mut counts = BTreeMap::new();
    for name in command::output(&mut list)?.lines() {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    Ok(counts)
}
