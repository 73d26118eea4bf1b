//! A folded source gives the same object, by the real assembler.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;

use common::run;
use klto_formats::assembler_data::fold;

#[test]
fn a_folded_source_gives_the_same_object() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // As scripts/kallsyms.c writes it.
    let mut source = "#define PTR .quad\n\t.section .rodata, \"a\"\n".to_owned();
    for name in ["names", "offsets", "sequence"] {
        write!(source, ".globl {name}\n\t.balign 8\n{name}:\n").unwrap();
        for number in 0..1000_u32 {
            match name {
                "names" => writeln!(
                    source,
                    "\t.byte 0x03, {:#04x}, 0x20, 0xfe\t/* T_n{number} */",
                    number % 256
                ),
                "offsets" => writeln!(
                    source,
                    "\t.long\t{:#x}\t/* n{number} */",
                    number * 4_000_003
                ),
                _ => writeln!(source, "\t.short\t{number}"),
            }
            .unwrap();
        }
        source.push_str("\t.asciz\t\"token\"\n\tPTR\t_text + 8\n");
    }
    let folded = fold(source.as_bytes(), &at("data")).unwrap();
    assert!(folded.source.len() < 500 && folded.data.len() == 10_000);
    std::fs::write(at("data"), folded.data).unwrap();
    let assemble = |source: &[u8], target: &str| {
        std::fs::write(at("a.S"), source).unwrap();
        let target = format!("--target={target}");
        run(
            "clang",
            directory.path(),
            &[&target, "-D__ASSEMBLY__", "-c", "a.S", "-o", "a.o"],
        );
        std::fs::read(at("a.o")).unwrap()
    };
    for target in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        let object = assemble(source.as_bytes(), target);
        assert!(object == assemble(&folded.source, target), "{target}");
    }
}
