//! A real kernel's lists against llvm-nm, System.map and modinfo.
//!
//! Ignored unless asked for: it needs a finished build, named by `KLTO_FINISHED_BUILD`.

use std::path::{Path, PathBuf};

use klto_verify::{Comparison, bit_equal, build_products, initcalls, modinfo, modules};

use crate::toolchain::ask;

fn build() -> PathBuf {
    std::env::var_os("KLTO_FINISHED_BUILD")
        .expect("KLTO_FINISHED_BUILD names a finished kernel's output directory")
        .into()
}

fn is_entry(name: &str) -> bool {
    name.starts_with("__initcall_") && name != "__initcall_start" && name != "__initcall_end"
}

/// The entries in `listing`, lines of address, type and name.
fn entries_of(listing: &str) -> Vec<&str> {
    let names = listing.lines().filter_map(|line| line.split(' ').nth(2));
    names.filter(|name| is_entry(name)).collect()
}

#[test]
#[ignore = "needs a finished kernel in KLTO_FINISHED_BUILD"]
fn initcalls_agree_with_nm_and_system_map() {
    let build = build();
    let list = initcalls(&std::fs::read(build.join("vmlinux")).unwrap()).unwrap();
    let mine: Vec<&str> = list
        .iter()
        .filter_map(|call| call.entry.as_deref())
        .collect();
    assert!(!mine.is_empty() && mine.len() == list.len());
    let listing = ask("llvm-nm-22", &["-n"], &build.join("vmlinux"));
    assert_eq!(mine, entries_of(&listing));
    let map = std::fs::read_to_string(build.join("System.map")).unwrap();
    assert_eq!(mine, entries_of(&map));
    for call in &list {
        let entry = call.entry.as_deref().unwrap();
        assert!(entry.contains(call.base_name()), "{call:?}");
    }
}

#[test]
#[ignore = "needs a finished kernel in KLTO_FINISHED_BUILD"]
fn modinfo_agrees_with_the_tool_on_every_module() {
    let build = build();
    let modules = modules(&build).unwrap();
    assert!(!modules.is_empty());
    for module in modules {
        compare_modinfo(&build.join(module));
    }
}

fn compare_modinfo(path: &Path) {
    let pairs = modinfo(&std::fs::read(path).unwrap()).unwrap();
    for key in ["license", "depends", "alias", "vermagic", "intree", "name"] {
        let values = pairs.iter().filter(|(name, _)| name == key);
        let values: String = values.map(|(_, value)| format!("{value}\n")).collect();
        assert_eq!(
            values,
            ask("modinfo", &["-F", key], path),
            "{}",
            path.display()
        );
    }
}

#[test]
#[ignore = "needs a finished kernel in KLTO_FINISHED_BUILD"]
fn a_build_equals_itself() {
    let build = build();
    let report = Comparison::of(&build, &build).unwrap();
    assert!(report.equal(), "{report}");
    let report = bit_equal(&build, &build, &build_products(&build).unwrap()).unwrap();
    assert!(report.equal(), "{report}");
}
