//! What can be imported of a module by itself, on objects and indexes of the real clang and linker.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{compile, run};
use klto_formats::bitcode::{Definitions, definitions, imported_modules, index_digest};

const FLAGS: [&str; 2] = ["-flto=thin", "-fvisibility=hidden"];
const TARGET: &str = "x86_64-linux-gnu";

/// Tables of every kind of constant, and what surrounds them.
const MODULE: &str = "
struct pair { int a; struct { char b[3]; long c; } inner; };
extern int elsewhere;
static int local = 7;
int number __attribute__((aligned(16))) = 5;
const struct pair table[2] = { { 1, { \"xy\", 2 } }, { 3, { \"z\", -4 } } };
const double real = 1.5;
int zero[64];
int in_section __attribute__((section(\".data.here\"))) = 1;
void *to_number = &number;
int function(void) { return local++ + elsewhere; }
";

fn definitions_of(directory: &Path, source: &str, flags: &[&str]) -> Definitions {
    let object = compile(directory, "m.o", source, TARGET, flags);
    definitions(&std::fs::read(object).unwrap())
        .unwrap()
        .unwrap()
}

#[test]
fn a_variable_is_the_same_in_another_module() {
    let directory = tempfile::tempdir().unwrap();
    let of = |source: &str| definitions_of(directory.path(), source, &FLAGS);
    let first = of(MODULE);
    // number, table, real, zero, in_section.
    assert_eq!(first.variables.len(), 5);
    let more = "int printf(const char *, ...);\nstruct other { short s; void *p; };\n\
        struct other before = { 1, 0 };\nvoid more(int n) { if (n > 3) printf(\"more %d\\n\", n); }\n";
    let second = of(&format!("{more}{MODULE}/* the end */"));
    assert_eq!(second.module, first.module);
    assert_eq!(second.variables.len(), 6);
    for (identifier, digest) in &first.variables {
        assert_eq!(second.variables.get(identifier), Some(digest));
    }
}

#[test]
fn variables_have_the_order_of_their_module() {
    let directory = tempfile::tempdir().unwrap();
    let of = |source: &str| definitions_of(directory.path(), source, &FLAGS);
    let first = of("int one = 1;\nint two = 2;\n");
    let second = of("int two = 2;\nint one = 1;\n");
    assert_eq!(first.variables, second.variables);
    assert_eq!(first.order.len(), 2);
    assert!(first.order.iter().eq(second.order.iter().rev()));
}

#[test]
fn every_part_of_a_definition_counts() {
    let directory = tempfile::tempdir().unwrap();
    let of = |source: &str| definitions_of(directory.path(), source, &FLAGS);
    let first = of(MODULE);
    for (from, to, count) in [
        ("int number", "long number", 1),
        ("= 5;", "= 6;", 1),
        ("aligned(16)", "aligned(32)", 1),
        ("\"z\"", "\"w\"", 1),
        ("-4", "4", 1),
        ("const struct pair table", "struct pair table", 1),
        ("1.5", "1.25", 1),
        ("zero[64]", "zero[65]", 1),
        (".data.here", ".data.there", 1),
        ("int in_section", "_Thread_local int in_section", 1),
        (
            "int zero",
            "__attribute__((visibility(\"default\"))) int zero",
            1,
        ),
    ] {
        let changed = of(&MODULE.replace(from, to));
        let same =
            |(identifier, digest): &(&u64, &_)| changed.variables.get(*identifier) == Some(*digest);
        let same = first.variables.iter().filter(same).count();
        assert_eq!(same, first.variables.len() - count, "{from} to {to}");
        assert_eq!(changed.module, first.module, "{from} to {to}");
    }
}

#[test]
fn what_every_import_brings_along_counts() {
    let directory = tempfile::tempdir().unwrap();
    let of = |flags: &[&str]| {
        let flags = [&FLAGS[..], flags].concat();
        definitions_of(directory.path(), MODULE, &flags).module
    };
    let plain = of(&[]);
    assert_eq!(plain, of(&["-O1"]));
    assert_ne!(plain, of(&["-fshort-wchar"]));
    assert_ne!(plain, of(&["-mcmodel=kernel"]));
    let object = compile(
        directory.path(),
        "g.o",
        MODULE,
        TARGET,
        &["-flto=thin", "-g"],
    );
    let debug = definitions(&std::fs::read(object).unwrap()).unwrap();
    assert_eq!(debug, None, "debug information comes along");
    let source = format!("{MODULE}__asm__(\".symver function, function@@V1\");");
    let object = compile(directory.path(), "v.o", &source, TARGET, &FLAGS);
    let versions = definitions(&std::fs::read(object).unwrap()).unwrap();
    assert_eq!(versions, None, "versions of symbols come along");
}

/// Writes a module, and the index of another that uses `used` of it.
fn index_of(directory: &Path, module: &str, used: &str) -> Vec<u8> {
    compile(directory, "m.o", module, TARGET, &FLAGS);
    let user = format!("{used}\n");
    compile(directory, "user.o", &user, TARGET, &FLAGS);
    let arguments = ["-r", "--thinlto-index-only", "-o", "all.o", "user.o", "m.o"];
    run("ld.lld", directory, &arguments);
    std::fs::read(directory.join("user.o.thinlto.bc")).unwrap()
}

#[test]
fn an_index_tells_variables_from_functions() {
    let directory = tempfile::tempdir().unwrap();
    let variables = |used: &str| {
        let index = index_of(directory.path(), MODULE, used);
        let mut modules = imported_modules(&index).unwrap().into_iter();
        let module = modules.find(|module| module.path == b"m.o");
        module.map(|module| module.variables)
    };
    let uses_number = "extern int number; int user(void) { return number; }";
    let found = variables(uses_number).unwrap().unwrap();
    let known = definitions(&std::fs::read(directory.path().join("m.o")).unwrap());
    let known = known.unwrap().unwrap().variables;
    assert_eq!(found.len(), 1);
    assert!(
        found
            .iter()
            .all(|identifier| known.contains_key(identifier))
    );
    let calls = "int function(void); int user(void) { return function(); }";
    assert_eq!(variables(calls), Some(None));
    assert_eq!(variables("int user(void) { return 1; }"), None);
}

#[test]
fn an_index_is_the_same_after_an_edit_of_what_is_not_imported() {
    let directory = tempfile::tempdir().unwrap();
    let used = "extern int number; int user(void) { return number; }";
    let backend = || {
        let index = "-fthinlto-index=user.o.thinlto.bc";
        let target = format!("--target={TARGET}");
        let arguments = [
            "-O2", &target, "-c", "-x", "ir", "user.o", index, "-o", "native.o",
        ];
        run("clang", directory.path(), &arguments);
        std::fs::read(directory.path().join("native.o")).unwrap()
    };
    let first = index_of(directory.path(), MODULE, used);
    let native = backend();
    let edited = MODULE.replace("local++", "local--");
    let second = index_of(directory.path(), &edited, used);
    assert!(native == backend(), "the backend sees more");
    let digest = |index: &[u8], unhashed: &[&[u8]]| {
        let unhashed: BTreeSet<Vec<u8>> = unhashed.iter().map(|path| path.to_vec()).collect();
        index_digest(index, &unhashed).unwrap()
    };
    assert_ne!(digest(&first, &[]), digest(&second, &[]));
    assert_eq!(digest(&first, &[b"m.o"]), digest(&second, &[b"m.o"]));
    let other = index_of(directory.path(), MODULE, &used.replace("number", "zero[1]"));
    assert_ne!(digest(&first, &[b"m.o"]), digest(&other, &[b"m.o"]));
}
