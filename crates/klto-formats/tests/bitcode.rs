//! The bitcode readers against llvm-nm and llvm-bcanalyzer, on objects of the real clang.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{SOURCE, compile, run};
use klto_formats::bitcode;

const TARGETS: [&str; 4] = [
    "aarch64-linux-gnu",
    "x86_64-linux-gnu",
    "armv7-linux-gnueabi",
    "powerpc64-linux-gnu",
];
const MODES: [&[&str]; 4] = [
    &["-flto=thin", "-fcommon"],
    &["-flto=full", "-fcommon", "-g"],
    &["-flto=thin", "-fvisibility=hidden", "-g"],
    &["-emit-llvm"],
];

/// Compiles the common source every way and gives the object to `check`.
fn for_each_object(check: impl Fn(&Path, &[u8], &str)) {
    let directory = tempfile::tempdir().unwrap();
    for target in TARGETS {
        for mode in MODES {
            let object = compile(directory.path(), "a.o", SOURCE, target, mode);
            let bytes = std::fs::read(&object).unwrap();
            assert!(bitcode::is_bitcode(&bytes));
            check(&object, &bytes, &format!("{target} {mode:?}"));
        }
    }
}

/// The letter of llvm-nm in the terms that a symbol table knows; sections and kinds are dropped.
fn letter(shown: &str) -> &'static str {
    match shown {
        "U" => "U",
        "w" | "v" => "w",
        "W" | "V" => "W",
        "C" => "C",
        other if other.chars().all(char::is_lowercase) => "local",
        _ => "global",
    }
}

fn letter_of(symbol: &bitcode::Symbol) -> &'static str {
    match symbol {
        symbol if symbol.undefined && symbol.weak => "w",
        symbol if symbol.undefined => "U",
        symbol if symbol.common => "C",
        symbol if symbol.weak => "W",
        symbol if symbol.global => "global",
        _ => "local",
    }
}

#[test]
fn symbols_agree_with_llvm_nm() {
    for_each_object(|object, bytes, way| {
        let shown = run("llvm-nm", Path::new("/"), &[object]);
        let shown = String::from_utf8(shown).unwrap();
        let expected: BTreeMap<&str, &str> = shown
            .lines()
            .map(|line| {
                let mut fields = line.split_whitespace().rev();
                let name = fields.next().unwrap();
                (name, letter(fields.next().unwrap()))
            })
            .collect();
        let symbols = bitcode::symbols(bytes).unwrap();
        let read: BTreeMap<&str, &str> = symbols
            .iter()
            .map(|symbol| {
                (
                    std::str::from_utf8(&symbol.name).unwrap(),
                    letter_of(symbol),
                )
            })
            .collect();
        assert_eq!(read, expected, "{way}");
        assert_eq!(read["__ksymtab_foo"], "global");
        assert_eq!(read["asm_weak_used"], "w");
        assert_eq!(symbols.len(), read.len());
    });
}

/// The operands of a record that llvm-bcanalyzer shows, as `<ASM op0=46 op1=10/>`.
fn operands(line: &str) -> Vec<u64> {
    line.split_whitespace()
        .filter(|word| word.starts_with("op"))
        .filter_map(|word| word.split_once('='))
        .map(|(_, value)| value.trim_end_matches("/>").parse().unwrap())
        .collect()
}

fn bytes_of(operands: &[u64]) -> Vec<u8> {
    operands.iter().map(|operand| *operand as u8).collect()
}

#[test]
fn assembly_agrees_with_llvm_bcanalyzer() {
    for_each_object(|object, bytes, way| {
        let arguments = ["--dump", "--disable-histogram", object.to_str().unwrap()];
        let dump = run("llvm-bcanalyzer", Path::new("/"), &arguments);
        let dump = String::from_utf8_lossy(&dump);
        let mut expected = Vec::new();
        for line in dump.lines().map(str::trim_start) {
            if line.starts_with("<ASM ") {
                expected.push(bytes_of(&operands(line)));
            } else if line.starts_with("<INLINEASM ") {
                let operands = operands(line);
                let length = operands[2] as usize;
                expected.push(bytes_of(&operands[3..3 + length]));
            }
        }
        assert!(expected.len() > 3, "{way}: {expected:?}");
        let texts = bitcode::assembly(bytes).unwrap();
        assert_eq!(texts, expected, "{way}");
        let dash = "\u{2014}".as_bytes();
        assert!(texts[0].windows(dash.len()).any(|part| part == dash));
        assert!(texts.iter().any(|text| text == b"nop; nop"), "{way}");
    });
}

#[test]
fn summaries_agree_with_llvm_bcanalyzer() {
    for_each_object(|object, bytes, way| {
        let arguments = ["--dump", object.to_str().unwrap()];
        let dump = run("llvm-bcanalyzer", Path::new("/"), &arguments);
        let dump = String::from_utf8_lossy(&dump);
        let expected = dump.contains("<GLOBALVAL_SUMMARY_BLOCK");
        assert_eq!(bitcode::has_thin_summary(bytes), Ok(expected), "{way}");
        assert_eq!(expected, way.contains("-flto=thin"), "{way}");
    });
}
