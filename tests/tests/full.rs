//! Full LTO on 6.12: the native object of a unit is the linker's own, bit for bit, and is found again.
//!
//! A module of six objects stands for a unit; the matrix links whole kernels.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};

use klto_tests::{Build, Outcome, step};
use xtask::kernel::Lto;

use prepared::{JBD2, jbd2_of_6_12, with_private_source};

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
