//! No parser panics: random bytes, and real objects with cut ends and changed bytes.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use common::{SOURCE, compile, run};
use klto_formats::c_source::{self, CSource};
use klto_formats::depfile::Depfile;
use klto_formats::elf::Listing;
use klto_formats::{
    archive, assembler, assembler_data, bitcode, elf, genksyms, linker_script, response,
    symbol_versions,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// Real objects of every format.
static OBJECTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let ways: [(&str, &str, &[&str]); 6] = [
        ("thin.o", "aarch64-linux-gnu", &["-flto=thin", "-fcommon"]),
        ("full.o", "x86_64-linux-gnu", &["-flto=full", "-g"]),
        ("elf64.o", "aarch64-linux-gnu", &["-fcommon"]),
        ("elf32.o", "armv7-linux-gnueabi", &["-g"]),
        ("big.o", "powerpc-linux-gnu", &[]),
        ("traced.o", "x86_64-linux-gnu", &["-pg", "-mfentry"]),
    ];
    for (name, target, flags) in ways {
        compile(root, name, SOURCE, target, flags);
    }
    run("llvm-ar", root, &["cDPrST", "thin.a", "thin.o", "elf64.o"]);
    run(
        "llvm-ar",
        root,
        &["cDPrs", "regular.a", "elf32.o", "elf64.o"],
    );
    let names = ways.map(|(name, ..)| name);
    let index = [
        "--plugin-opt=thinlto-index-only",
        "--entry=foo",
        "--unresolved-symbols=ignore-all",
    ];
    run(
        "ld.lld",
        root,
        &[&index[..], &["-o", "linked", "thin.o"]].concat(),
    );
    let names = names
        .into_iter()
        .chain(["thin.a", "regular.a", "thin.o.thinlto.bc"]);
    names
        .map(|name| std::fs::read(root.join(name)).unwrap())
        .collect()
});

/// Calls everything; the results do not matter.
fn read_as_everything(bytes: &[u8]) {
    let _ = bitcode::is_bitcode(bytes);
    let _ = bitcode::assembly(bytes);
    let _ = bitcode::symbols(bytes);
    let _ = bitcode::has_thin_summary(bytes);
    let _ = bitcode::differ_only_in_assembly_places(bytes, bytes);
    let _ = bitcode::differ_only_in_assembly_places(&OBJECTS[0], bytes);
    let _ = bitcode::definitions(bytes);
    let _ = bitcode::imported_modules(bytes);
    let _ = bitcode::index_digest(bytes, &BTreeSet::new());
    let _ = archive::defined_globals(bytes);
    let _ = elf::symbols(bytes);
    for listing in [Listing::ByName, Listing::ByAddress, Listing::WithSizes] {
        let _ = elf::listing(bytes, listing);
    }
    let _ = elf::entry_calls(bytes);
    let _ = elf::recorded_entries(bytes);
    if let Ok(recorded) = elf::record_entry_calls(bytes) {
        let _ = elf::recorded_entries(&recorded);
    }
    if let Ok(extended) = elf::add_undefined_symbols(bytes, &[b"one".to_vec()]) {
        let _ = elf::symbols(&extended);
    }
    let _ = elf::section_names(bytes);
    let longer = |name: &[u8]| Some([name, b"_renamed"].concat());
    if let Ok(renamed) = elf::rename_symbols(bytes, &longer) {
        let _ = elf::symbols(&renamed);
    }
    if let Ok(members) = archive::members(bytes) {
        for member in members {
            let _ = member.data.map(|data| &bytes[data]);
        }
    }
}

fn read_as_text(text: &[u8]) {
    let _ = assembler::files_read(text);
    let _ = linker_script::identifiers(text);
    let _ = symbol_versions::parse(text);
    let _ = genksyms::printed_versions(text);
    let _ = response::parse(text);
    let _ = assembler_data::fold(text, Path::new("a.S"));
    let _ = c_source::options(text);
    let _ = CSource::read(text).essence(text);
    let _ = Depfile::read(text);
}

#[test]
fn every_truncation_is_survived() {
    for object in OBJECTS.iter() {
        read_as_everything(object);
        let step = (object.len() / 300).max(1);
        for length in (0..object.len()).step_by(step).chain(0..200) {
            read_as_everything(object.get(..length).unwrap_or(object));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn changed_bytes_are_survived(
        which in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<Index>()),
        misaligned in any::<bool>(),
    ) {
        let mut bytes = which.get(&OBJECTS).clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if misaligned {
            bytes.insert(0, 0);
            read_as_everything(&bytes[1..]);
        } else {
            read_as_everything(&bytes);
        }
    }

    #[test]
    fn changed_headers_are_survived(
        which in any::<Index>(),
        changes in prop::collection::vec((0..128_usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = which.get(&OBJECTS).clone();
        let length = bytes.len();
        for (place, value) in changes {
            bytes[place % length] = value;
        }
        read_as_everything(&bytes);
    }

    #[test]
    fn random_bytes_are_survived(
        start in prop::sample::select(vec![
            &b""[..], b"BC\xc0\xde", b"\xde\xc0\x17\x0b", b"\x7fELF\x02\x01\x01",
            b"\x7fELF\x01\x02\x01", b"!<arch>\n", b"!<thin>\n",
        ]),
        random in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let bytes = [start, &random].concat();
        read_as_everything(&bytes);
        read_as_text(&bytes);
    }

    #[test]
    fn random_texts_are_survived(
        text in prop::collection::vec(prop::sample::select(vec![
            &b".incbin"[..], b".include", b"\"", b"'", b"\\", b" ", b"\n", b"/*", b"*/", b"a.b",
            b"$0", b"__crc_a", b"CONFIG_A", b"#", b"//", b".asciz", b".quad", b".byte", b"0x", b":", b"=", b"0x12", b";", b"SECTIONS", b"{", b".", b"\xff", b"\0",
        ]), 0..24)
    ) {
        read_as_text(&text.concat());
    }
}
