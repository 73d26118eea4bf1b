//! Names that ThinLTO promoted: only those stay whose base name another symbol has.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use klto_tests::{archives, is_bitcode};
use klto_verify::{promoted_names, symbol_list};

use crate::{Thin, module_units, thin};

/// How often each name stands in the symbol tables of what `unit` is linked from.
fn owners(output: &Path, unit: &str, members: &BTreeSet<PathBuf>) -> HashMap<String, usize> {
    let mut owners = HashMap::new();
    for member in members {
        let lowered = output
            .join(".klto/units")
            .join(unit)
            .join("raw")
            .join(member);
        let object = match is_bitcode(&output.join(member)) {
            true => lowered,
            false => output.join(member),
        };
        let names: BTreeSet<String> = symbol_list(&fs_err::read(&object).unwrap())
            .unwrap()
            .into_iter()
            .collect();
        for name in names {
            *owners.entry(name).or_default() += 1;
        }
    }
    owners
}

/// Whether the base of a promoted name belongs to another symbol too.
fn is_ambiguous(name: &str, owners: &HashMap<String, usize>, script: &BTreeSet<&str>) -> bool {
    let (base, _) = name.split_once(".llvm.").unwrap();
    let prefix = format!("{base}.llvm.");
    let promoted = owners.keys().filter(|other| other.starts_with(&prefix));
    owners.contains_key(base) || promoted.count() > 1 || script.contains(base)
}

#[test]
fn a_promoted_name_stays_only_where_its_base_is_not_unique() {
    let Thin { build, first, .. } = thin();
    let output = build.output_directory();
    let map = fs_err::read_to_string(output.join("System.map")).unwrap();
    let words = map.split_whitespace();
    let left: BTreeSet<String> = words
        .filter(|word| word.contains(".llvm."))
        .map(str::to_owned)
        .collect();
    let listed = &first.log.promoted["vmlinux.o"];
    let unlisted: Vec<&String> = left.difference(listed).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    let mut members: BTreeSet<PathBuf> = archives(output).unwrap().into_iter().flatten().collect();
    members.insert("arch/arm64/kernel/head.o".into());
    let all = owners(output, "vmlinux.o", &members);
    let script = fs_err::read_to_string(output.join("arch/arm64/kernel/vmlinux.lds")).unwrap();
    let is_separator = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let script: BTreeSet<&str> = script.split(is_separator).collect();
    for name in listed {
        assert!(
            is_ambiguous(name, &all, &script),
            "{name} could have its name back"
        );
    }
    let promoted = all.keys().filter(|name| name.contains(".llvm.")).count();
    eprintln!("    {promoted} promoted names, {} stay", listed.len());
    assert!(promoted > 2 * listed.len());
    for unit in module_units(output) {
        let bytes = fs_err::read(output.join(unit.with_extension("ko"))).unwrap();
        let left: BTreeSet<String> = promoted_names(&bytes).unwrap().into_iter().collect();
        let none = BTreeSet::new();
        let unit = unit.display().to_string();
        let listed = first.log.promoted.get(&unit).unwrap_or(&none);
        assert!(left.is_subset(listed), "{unit}: {left:?}");
    }
}
