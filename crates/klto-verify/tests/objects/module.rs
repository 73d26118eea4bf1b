//! What is read of modules, against modinfo, llvm-readelf and llvm-nm.
//!
//! The modules are single objects with the sections that modpost writes.

use std::path::PathBuf;

use klto_verify::{modinfo, module_versions, section_list, symbol_list};

use crate::toolchain::{Workshop, ask};

/// Assembler source of a module whose `__versions` has `crcs`, with a `long` written by `long`.
pub fn module_source(long: &str, modinfo: &[&str], crcs: &[(&str, u32)]) -> String {
    let mut text = String::from(".section .modinfo,\"a\"\n");
    for pair in modinfo {
        text += &format!(".asciz {pair:?}\n");
    }
    text += ".section __versions,\"a\"\n";
    for (name, crc) in crcs {
        let padding = 64 - name.len() - if long == ".quad" { 8 } else { 4 };
        text += &format!("{long} {crc:#x}\n.ascii {name:?}\n.space {padding}\n");
    }
    text += ".text\n.globl init_module\n.type init_module,%function\n";
    text + "init_module: .space 16\nlocal_label: .space 4\n.globl kfree\n.data\nvalue: .long 7\n"
}

fn build(workshop: &Workshop, triple: &str, text: &str) -> PathBuf {
    let object = workshop.compile(triple, &[], "module.s", text);
    workshop.link(&["-r"], &[&object], "module.ko")
}

const PAIRS: [&str; 4] = [
    "license=GPL v2",
    "description=key=value in a value",
    "alias=pci:v00001af4d*",
    "alias=virtio:d00000002v*",
];

#[test]
fn modinfo_pairs_are_those_that_the_tool_shows() {
    let workshop = Workshop::new();
    let text = module_source(".quad", &PAIRS, &[]);
    let module = build(&workshop, "x86_64-linux-gnu", &text);
    let pairs = modinfo(&std::fs::read(&module).unwrap()).unwrap();
    let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(shown, PAIRS);
    for key in ["license", "description", "alias"] {
        let values = pairs.iter().filter(|(name, _)| name == key);
        let values: String = values.map(|(_, value)| format!("{value}\n")).collect();
        assert_eq!(values, ask("modinfo", &["-F", key], &module), "{key}");
    }
}

#[test]
fn sections_and_symbols_are_those_of_readelf_and_nm_in_order() {
    let workshop = Workshop::new();
    let text = module_source(".quad", &PAIRS, &[("kfree", 1)]);
    let module = build(&workshop, "x86_64-linux-gnu", &text);
    let bytes = std::fs::read(&module).unwrap();
    let table = ask("llvm-readelf-22", &["-SW"], &module);
    let oracle: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_once(']')?.1.split_whitespace().next())
        .filter(|name| name.starts_with(['.', '_']))
        .collect();
    assert_eq!(section_list(&bytes).unwrap(), oracle);
    assert!(oracle.contains(&"__versions"), "{table}");
    let names = ask("llvm-nm-22", &["-p", "--format=just-symbols"], &module);
    let oracle: Vec<&str> = names.lines().collect();
    assert_eq!(symbol_list(&bytes).unwrap(), oracle);
}

#[test]
fn versions_are_read_in_each_word_size_and_byte_order() {
    let crcs = [("module_layout", 0x1234_5678), ("kfree", 0xfedc_ba98)];
    for (triple, long) in [
        ("x86_64-linux-gnu", ".quad"),
        ("i386-linux-gnu", ".long"),
        ("s390x-linux-gnu", ".quad"),
    ] {
        let workshop = Workshop::new();
        let module = build(&workshop, triple, &module_source(long, &PAIRS, &crcs));
        let versions = module_versions(&std::fs::read(module).unwrap()).unwrap();
        let versions: Vec<(&str, u32)> = versions.iter().map(|(s, c)| (s.as_str(), *c)).collect();
        assert_eq!(versions, crcs, "{triple}");
    }
}

#[test]
fn an_object_that_is_no_module_is_refused_and_one_cut_short_too() {
    let workshop = Workshop::new();
    let plain = build(&workshop, "x86_64-linux-gnu", ".text\n.space 4\n");
    let bytes = std::fs::read(plain).unwrap();
    assert!(modinfo(&bytes).is_err());
    assert!(module_versions(&bytes).unwrap().is_empty());
    let cut = ".section __versions,\"a\"\n.space 65\n";
    let cut = build(&workshop, "x86_64-linux-gnu", cut);
    assert!(module_versions(&std::fs::read(cut).unwrap()).is_err());
    let wide = ".section __versions,\"a\"\n.quad 0x100000000\n.space 56\n";
    let wide = build(&workshop, "x86_64-linux-gnu", wide);
    assert!(module_versions(&std::fs::read(wide).unwrap()).is_err());
    assert!(modinfo(b"no ELF file").is_err());
}
