//! Full LTO: on 6.12 the native object of a unit is the linker's own, bit for bit; on 5.10 klto makes it, and
//! its tables are those of a build without LTO. Both are found again.
//!
//! A module of six objects and two directories of vmlinux stand for units; the matrix links whole kernels.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};
use std::process::Command;

use klto_tests::{Build, Outcome, klto_binary, reference, step};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};
use xtask::kernel::{Lto, Tree};

use prepared::{JBD2, directory, jbd2, jbd2_of_6_12, run, with_private_source};

const UNIT: &str = "fs/jbd2/jbd2.o";

/// A build of jbd2.ko with full LTO in a prepared output tree of its own.
fn full(name: &str) -> Build {
    let build = jbd2_of_6_12(name).lto(Lto::Full);
    build.configure().unwrap();
    build
}

/// How the links of units came to their results, by the log.
fn links(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.log.lines.iter().map(String::as_str);
    lines.filter(|line| line.contains(" full-link ")).collect()
}

fn assert_equal(one: &Path, other: &Path, products: &[&str]) {
    let products: Vec<PathBuf> = products.iter().map(PathBuf::from).collect();
    let report = klto_verify::bit_equal(one, other, &products).unwrap();
    assert!(report.equal(), "{report}");
}

#[test]
fn a_unit_is_that_of_plain_make_and_is_found_again() {
    let plain = full("plain").plain();
    step("plain make with full LTO", || plain.succeed());
    let first = full("first");
    let made = step("klto with full LTO", || first.succeed());
    assert_eq!(links(&made), [format!("ran full-link {UNIT}")]);
    // What is compiled after the link, as jbd2.mod.o, klto compiles without LTO.
    assert_equal(plain.output_directory(), first.output_directory(), &[UNIT]);

    let second = full("second").store(first.store_directory()).verify(0);
    let found = step("another output tree", || second.succeed());
    assert_eq!(links(&found), [format!("hit full-link {UNIT}")]);
    let directories = [first.output_directory(), second.output_directory()];
    assert_equal(directories[0], directories[1], &[UNIT, JBD2]);

    // An option that names a file: the linker is called as kbuild wrote it.
    let map = second.output_directory().join("module.map");
    let word = format!("LDFLAGS_jbd2.o=-Map={}", map.display());
    fs_err::remove_file(second.output_directory().join(UNIT)).unwrap();
    let called = second.clone().word(word).succeed();
    assert!(links(&called)[0].contains("not stored"), "{called:?}");
    assert!(map.is_file());
}

#[test]
fn an_edit_links_its_module_anew() {
    let (build, source) = with_private_source(full("edited").verify(0));
    build.configure().unwrap();
    build.succeed();
    let before = fs_err::read(build.output_directory().join(JBD2)).unwrap();
    let text = fs_err::read_to_string(source.path().join("fs/jbd2/revoke.c")).unwrap();
    let more = "int klto_more(void);\nint klto_more(void) { return 7; }\n";
    source
        .write("fs/jbd2/revoke.c", &(text.clone() + more))
        .unwrap();
    let edited = step("an edit", || build.succeed());
    assert_eq!(links(&edited), [format!("ran full-link {UNIT}")]);
    assert!(fs_err::read(build.output_directory().join(JBD2)).unwrap() != before);
    source.write("fs/jbd2/revoke.c", &text).unwrap();
    let back = step("the edit taken back", || build.succeed());
    assert_eq!(links(&back), [format!("hit full-link {UNIT}")]);
    assert!(fs_err::read(build.output_directory().join(JBD2)).unwrap() == before);
}

/// When the full links of a build began and ended, in microseconds, in the order of their begin.
fn times_of_links(build: &Build) -> Vec<(u64, u64)> {
    let mut trace = Command::new(klto_binary());
    trace.args(["trace", "-O"]).arg(build.output_directory());
    let trace = xtask::command::output(&mut trace).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let mut times = Vec::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        if event["cat"] == "full-link" {
            assert_eq!(event["args"]["how"], "ran", "{event}");
            let begin = event["ts"].as_u64().unwrap();
            times.push((begin, begin + event["dur"].as_u64().unwrap()));
        }
    }
    times.sort_unstable();
    times
}

#[test]
fn links_of_modules_run_beside_each_other_where_memory_allows_it() {
    const OTHER_UNIT: &str = "fs/autofs/autofs4.o";
    let build = full("memory").goals(&[JBD2, "fs/autofs/autofs4.ko"]);
    build.succeed();
    // All that is left to do is the two links, which make begins at once.
    let link = |store: String, memory: &str| {
        for unit in [UNIT, OTHER_UNIT] {
            fs_err::remove_file(build.output_directory().join(unit)).unwrap();
        }
        let store = build.store_directory().join(store);
        let build = build.clone().store(&store);
        let outcome = build.environment("KLTO_MEMORY", memory).succeed();
        assert_eq!(links(&outcome).len(), 2, "{outcome:?}");
        outcome
    };
    let warning = "klto: warning: the full link of ";

    let alone = link("alone".to_owned(), "64M");
    let [first, second] = times_of_links(&build)[..] else {
        panic!("{alone:?}");
    };
    assert!(first.1 <= second.0, "{first:?} {second:?}");
    assert!(alone.stderr.contains(warning), "{alone:?}");
    assert!(
        alone.stderr.contains("and 64 MB are available"),
        "{alone:?}"
    );

    let mut tried = Vec::new();
    let is_together = (0..5).any(|attempt| {
        let outcome = link(format!("together-{attempt}"), "4G");
        assert!(!outcome.stderr.contains(warning), "{outcome:?}");
        let times = times_of_links(&build);
        tried.push(times.clone());
        times[1].0 < times[0].1
    });
    assert!(is_together, "{tried:?}");

    let wrong = build.environment("KLTO_MEMORY", "little");
    run(&mut wrong.command()).expect(2, &["KLTO_MEMORY is \"little\""]);
}

/// Two directories of vmlinux. Its unit is made before its last link, which misses the others.
const PART_OF_VMLINUX: [&str; 6] = [
    "core-y=init/",
    "drivers-y=drivers/pci/",
    "net-y=",
    "libs-y=",
    "head-y=",
    "virt-y=",
];

/// An entry of a table: its section, what is in it beside the function, and the function's name.
type Entry = (String, Vec<u8>, String);

/// The entries of initcalls and PCI fixups of a relocatable object, section by section.
fn entries(object: &Path) -> Vec<Entry> {
    let bytes = fs_err::read(object).unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let mut entries = Vec::new();
    for section in file.sections() {
        let name = section.name().unwrap();
        let is_fixup = name.starts_with(".pci_fixup");
        if !is_fixup && !name.ends_with("initcall.init") && !name.starts_with(".initcall") {
            continue;
        }
        let data = section.data().unwrap();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                panic!("{name}: {relocation:?}");
            };
            let target = file.symbol_by_index(index).unwrap();
            let function = match target.kind() {
                SymbolKind::Section => {
                    let address = u64::try_from(relocation.addend()).unwrap();
                    let of_function = file.symbols().find(|symbol| {
                        symbol.kind() == SymbolKind::Text
                            && symbol.section() == target.section()
                            && symbol.address() == address
                    });
                    of_function.unwrap()
                }
                _ => target,
            };
            let offset = usize::try_from(offset).unwrap();
            let before = if is_fixup { offset - 12..offset } else { 0..0 };
            let fields = data[before].to_vec();
            entries.push((name.to_owned(), fields, function.name().unwrap().to_owned()));
        }
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

#[test]
fn full_lto_of_5_10_keeps_initcalls_and_fixups() {
    let plain = directory("tables-plain").join("part.o");
    let mut link = Command::new("ld.lld-22");
    link.current_dir(reference(Tree::named("5.10").unwrap()).unwrap())
        .args(["-r", "--whole-archive", "-o"])
        .arg(&plain)
        .args(["init/built-in.a", "drivers/pci/built-in.a"]);
    xtask::command::run(&mut link).unwrap();
    let build = jbd2("tables").mode(Some("full")).goals(&["vmlinux"]);
    let words = PART_OF_VMLINUX.iter();
    let build = words.fold(build, |build, word| build.word(word));
    let output = build.output_directory();
    // What would be made of the directories that are left out.
    let script = output.join("arch/arm64/kernel/vmlinux.lds");
    fs_err::write(script, "SECTIONS { }\n").unwrap();
    let ended = run(&mut build.command());
    let native = output.join(".klto/units/vmlinux.o/raw.o");
    assert!(native.is_file(), "{}{}", ended.stdout, ended.stderr);
    let (of_plain, of_full) = (entries(&plain), entries(&native));
    let count = |table: &str| {
        of_plain
            .iter()
            .filter(|entry| entry.0.starts_with(table))
            .count()
    };
    assert!(
        count(".initcall") > 5 && count(".pci_fixup") > 20,
        "{of_plain:?}"
    );
    assert_eq!(of_plain.len(), of_full.len(), "{of_full:?}");
    for ((table, fields, function), stub) in of_plain.iter().zip(&of_full) {
        assert_eq!((table, fields), (&stub.0, &stub.1));
        let level = table
            .strip_prefix(".initcall")
            .and_then(|rest| rest.strip_suffix(".init"));
        let (prefix, level) = match level {
            Some(level) => ("__initstub__kmod_", level),
            None => ("__pci_fixup_stub__", ""),
        };
        let name = &stub.2;
        let end = format!("_{function}{level}");
        assert!(
            name.starts_with(prefix) && name.ends_with(&end),
            "{name} for {function}"
        );
    }
}

#[test]
fn a_module_of_5_10_is_found_again_with_the_sections_of_a_build_without_lto() {
    let plain = jbd2("module-plain").plain().mode(None);
    plain.succeed();
    let first = jbd2("module").mode(Some("full"));
    let made = step("klto with full LTO on 5.10", || first.succeed());
    let merged = |outcome: &Outcome| -> Vec<String> {
        let lines = outcome.log.lines.iter();
        lines
            .filter(|line| line.contains(" merge "))
            .cloned()
            .collect()
    };
    assert_eq!(merged(&made), [format!("ran merge {UNIT}")]);
    let sections = |build: &Build| {
        let bytes = fs_err::read(build.output_directory().join(JBD2)).unwrap();
        let names = klto_formats::elf::section_names(&bytes).unwrap();
        let mut names: Vec<String> = names
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.retain(|name| !name.starts_with(".rela") && !name.starts_with(".note"));
        names.sort();
        names
    };
    assert_eq!(sections(&first), sections(&plain));
    let second = jbd2("module-again").mode(Some("full"));
    let second = second.store(first.store_directory()).verify(0);
    let found = second.succeed();
    assert_eq!(merged(&found), [format!("hit merge {UNIT}")]);
    let directories = [first.output_directory(), second.output_directory()];
    assert_equal(directories[0], directories[1], &[UNIT, JBD2]);

    // The other mode in the same output tree, and back.
    let thin = second.clone().mode(Some("thin")).succeed();
    let is_thin_link = |line: &String| line.starts_with("ran thin-link");
    assert!(thin.log.lines.iter().any(is_thin_link), "{thin:?}");
    second.succeed();
    assert_equal(
        first.output_directory(),
        second.output_directory(),
        &[UNIT, JBD2],
    );
}
