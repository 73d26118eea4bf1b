//! The ELF reader and renamer against llvm-readelf and ld.lld, on objects of the real clang.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{SOURCE, compile, run};
use klto_formats::elf::{self, Binding, Kind, Listing, Place};

/// Both classes, both byte orders.
const TARGETS: [&str; 5] = [
    "aarch64-linux-gnu",
    "x86_64-linux-gnu",
    "armv7-linux-gnueabi",
    "powerpc-linux-gnu",
    "powerpc64-linux-gnu",
];

fn readelf(object: &Path, option: &str) -> String {
    let arguments = [option, "--wide", object.to_str().unwrap()];
    String::from_utf8(run("llvm-readelf", Path::new("/"), &arguments)).unwrap()
}

/// Binding, place and name of each symbol as llvm-readelf shows them, but for the null symbol.
fn shown_symbols(object: &Path) -> Vec<(Binding, Place, Option<String>)> {
    let shown = readelf(object, "--symbols");
    let rows = shown.lines().map(|line| line.split_whitespace().collect());
    let rows = rows.filter(|row: &Vec<&str>| row.first().is_some_and(|n| n.ends_with(':')));
    let rows = rows.filter(|row| row.len() >= 7 && row[0] != "Num:" && row[0] != "0:");
    rows.map(|row| {
        let binding = match row[4] {
            "LOCAL" => Binding::Local,
            "WEAK" => Binding::Weak,
            _ => Binding::Global,
        };
        // Power shows more of st_other between visibility and section.
        let place = match row.iter().rev().nth(usize::from(row.len() > 7)) {
            Some(&"UND") => Place::Undefined,
            Some(&"ABS") => Place::Absolute,
            Some(&"COM") => Place::Common,
            _ => Place::Defined,
        };
        let name = row.get(7..).and_then(|rest| rest.last());
        // A section symbol has no name; llvm-readelf shows the section's.
        let name = (row[3] != "SECTION").then(|| name.copied().unwrap_or_default().to_owned());
        (binding, place, name)
    })
    .collect()
}

fn read_symbols(bytes: &[u8]) -> Vec<(Binding, Place, Option<String>)> {
    let symbols = elf::symbols(bytes).unwrap();
    let view = |symbol: elf::Symbol| {
        let name = String::from_utf8(symbol.name).unwrap();
        let name = (symbol.kind != Kind::Section).then_some(name);
        (symbol.binding, symbol.place, name)
    };
    symbols.into_iter().map(view).collect()
}

#[test]
fn symbols_agree_with_llvm_readelf() {
    let directory = tempfile::tempdir().unwrap();
    for target in TARGETS {
        let object = compile(directory.path(), "a.o", SOURCE, target, &["-fcommon", "-g"]);
        let bytes = std::fs::read(&object).unwrap();
        assert_eq!(read_symbols(&bytes), shown_symbols(&object), "{target}");
    }
}

#[test]
fn section_names_agree_with_llvm_readelf() {
    let directory = tempfile::tempdir().unwrap();
    for target in TARGETS {
        let flags = ["-fcommon", "-ffunction-sections", "-g"];
        let object = compile(directory.path(), "a.o", SOURCE, target, &flags);
        let shown = readelf(&object, "--sections");
        let rows = shown
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix('['));
        let rows = rows.filter_map(|row| row.split_once(']'));
        let rows = rows.filter(|(number, _)| number.trim().parse::<u32>().is_ok_and(|n| n > 0));
        let expected: Vec<&str> = rows
            .filter_map(|(_, row)| row.split_whitespace().next())
            .collect();
        let names = elf::section_names(&std::fs::read(&object).unwrap()).unwrap();
        let names: Vec<&str> = names
            .iter()
            .map(|name| std::str::from_utf8(name).unwrap())
            .collect();
        assert_eq!(names, expected, "{target}");
        assert!(names.contains(&"__ksymtab_strings"));
    }
}

fn promoted_to_base(name: &[u8]) -> Option<Vec<u8>> {
    let at = name.windows(6).position(|part| part == b".llvm.")?;
    Some(name[..at].to_vec())
}

#[test]
fn a_renamed_symbol_binds_in_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let user = "extern int ops(void) asm(\"ops.llvm.8917\"); int _start(void) { return ops(); }";
    for target in TARGETS {
        let user = compile(directory, "user.o", user, target, &[]);
        let definer = compile(
            directory,
            "definer.o",
            "int ops(void) { return 7; }",
            target,
            &[],
        );
        // Linked relocatably, section names have a table of their own.
        let linked = directory.join("linked.o");
        let (user, linked) = (user.to_str().unwrap(), linked.to_str().unwrap());
        run("ld.lld", directory, &["-r", "-o", linked, user]);
        for object in [user, linked] {
            let old = std::fs::read(object).unwrap();
            let new = elf::rename_symbols(&old, &promoted_to_base).unwrap();
            assert!(new.len() > old.len());
            let renamed = directory.join("renamed.o");
            std::fs::write(&renamed, &new).unwrap();
            let mut expected = shown_symbols(Path::new(object));
            for (_, _, name) in &mut expected {
                if name.as_deref() == Some("ops.llvm.8917") {
                    *name = Some("ops".to_owned());
                }
            }
            assert_eq!(shown_symbols(&renamed), expected, "{target}");
            assert_eq!(elf::section_names(&new), elf::section_names(&old));
            let (renamed, definer) = (renamed.to_str().unwrap(), definer.to_str().unwrap());
            run("ld.lld", directory, &["-o", "program", renamed, definer]);
            run(
                "ld.lld",
                directory,
                &["-r", "-o", "again.o", renamed, definer],
            );
        }
    }
}

#[test]
fn a_rename_leaves_all_other_bytes_and_a_second_one_nothing_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let source = "static int f(int a) { return a; } int (*p)(int) = f; int x = 1;";
    let object = compile(directory.path(), "a.o", source, "aarch64-linux-gnu", &[]);
    let old = std::fs::read(object).unwrap();
    let to_y = |name: &[u8]| (name == b"x").then(|| b"renamed".to_vec());
    let new = elf::rename_symbols(&old, &to_y).unwrap();
    let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count();
    // st_name, sh_offset and sh_size.
    assert!((1..=20).contains(&changed), "{changed} bytes changed");
    assert_eq!(elf::rename_symbols(&new, &to_y).unwrap(), new);
}

/// Full LTO makes one object of a kernel, with four sections for each symbol that it exports.
#[test]
fn more_sections_than_16_bits_count_do_not_hinder_the_table_of_traced_functions() {
    let root = tempfile::tempdir().unwrap();
    let sections = (0..66_000).map(|number| format!(".section .s{number},\"a\"\n.byte 0\n"));
    let function = ".section .text.traced,\"ax\"\n.type f,@function\nf:\ncall __fentry__\nret\n";
    let source: String = sections.chain([function.to_owned()]).collect();
    std::fs::write(root.path().join("many.s"), source).unwrap();
    let arguments = ["--target=x86_64-linux-gnu", "-c", "many.s", "-o", "many.o"];
    run("clang", root.path(), &arguments);
    let bytes = std::fs::read(root.path().join("many.o")).unwrap();
    let calls = elf::entry_calls(&bytes).unwrap();
    assert_eq!(calls.len(), 1);
    let recorded = elf::record_entry_calls(&bytes).unwrap();
    assert_eq!(elf::recorded_entries(&recorded).unwrap(), calls);
    // The linker takes it.
    std::fs::write(root.path().join("recorded.o"), recorded).unwrap();
    run(
        "ld.lld",
        root.path(),
        &["-r", "recorded.o", "-o", "linked.o"],
    );
    let linked = std::fs::read(root.path().join("linked.o")).unwrap();
    assert_eq!(elf::recorded_entries(&linked).unwrap(), calls);
}

#[test]
fn the_listing_of_a_program_is_what_llvm_nm_prints() {
    const PROGRAM: &str = r#"
        extern int missing __attribute__((weak));
        extern void also_missing(void) __attribute__((weak));
        int zero, *some = &missing;
        static int of_this_file = 1;
        static const int constant[2] = { 1, 2 };
        int weak_data __attribute__((weak)) = 3;
        void weak_code(void) __attribute__((weak));
        void weak_code(void) { }
        static __attribute__((noinline)) int local(int n) { return constant[n & 1] + of_this_file++; }
        int other_name(int n) __attribute__((alias("_start")));
        int _start(int n) { if (also_missing) also_missing(); return local(n) + zero; }
        int note __attribute__((section(".note.program"))) = 1;
        asm(".section .comments_of_a_program,\"\"\n here: .globl there\n there: .byte 1\n .text");
        asm(".globl absolute\n absolute = 17\n hidden_number = 18");
    "#;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for target in ["aarch64-linux-gnu", "x86_64-linux-gnu"] {
        compile(root, "program.o", PROGRAM, target, &["-fpie", "-g"]);
        for flags in [&["-static"][..], &["-pie", "-z", "notext"]] {
            let link = [flags, &["-o", "program", "program.o"]].concat();
            run("ld.lld", root, &link);
            let bytes = std::fs::read(root.join("program")).unwrap();
            for (options, listing) in [
                (&["-n"][..], Listing::ByAddress),
                (&["-S"], Listing::WithSizes),
                (&[], Listing::ByName),
            ] {
                let printed = run("llvm-nm", root, &[options, &["program"]].concat());
                let own = elf::listing(&bytes, listing).unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                assert_eq!(text(&own), text(&printed), "{target} {flags:?} {options:?}");
            }
        }
        let link = ["-static", "-s", "-o", "stripped", "program.o"];
        run("ld.lld", root, &link);
        let bytes = std::fs::read(root.join("stripped")).unwrap();
        assert_eq!(elf::listing(&bytes, Listing::ByName), None);
    }
}
