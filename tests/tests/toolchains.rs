//! Every way in which people choose the toolchain and the directories, on each tree.
//!
//! Each builds a module of one object with LTO, of the tree where the tree reads the words by rules of its own,
//! else an external one. A plain make after it, in the same words, must not take klto's objects for its own.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::Path;
use std::process::Command;

use klto_tests::{Build, Log, PrivateSource};
use xtask::kernel::Lto;

use prepared::tools::{path_with, real_program, without_suffix};
use prepared::{after_mounts, copy_tree, directory, jbd2, jbd2_of_6_12, run, with_private_source};

const MODULE: &str = "lib/crc16.ko";
const OBJECT: &str = "lib/crc16.o";

/// The tools that `LLVM=` chooses, by variable.
const TOOLS: [(&str, &str); 8] = [
    ("CC", "clang"),
    ("LD", "ld.lld"),
    ("AR", "llvm-ar"),
    ("NM", "llvm-nm"),
    ("OBJCOPY", "llvm-objcopy"),
    ("OBJDUMP", "llvm-objdump"),
    ("READELF", "llvm-readelf"),
    ("STRIP", "llvm-strip"),
];

/// Each tool by name, as `name` spells it, and what a tree of 5.10 needs besides.
fn named(spelling: impl Fn(&str) -> String) -> Vec<String> {
    let tools = TOOLS
        .iter()
        .map(|(variable, tool)| format!("{variable}={}", spelling(tool)));
    let more = ["LLVM_IAS=1".to_owned(), "HOSTCC=gcc".to_owned()];
    tools.chain(more).collect()
}

/// How a user says which tools: make's words, and the environment.
#[derive(Debug, Default)]
struct Spelling {
    name: &'static str,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Spelling {
    fn words(name: &'static str, words: Vec<String>) -> Self {
        let environment = Vec::new();
        Self {
            name,
            words,
            environment,
        }
    }

    fn environment(name: &'static str, variables: &[(&'static str, &str)]) -> Self {
        let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        let environment = variables.iter().map(owned).collect();
        Self {
            name,
            words: Vec::new(),
            environment,
        }
    }

    /// `build` with these words and the tree's architecture.
    fn apply(&self, build: Build, architecture: &str) -> Build {
        let mut words = self.words.clone();
        let in_environment = self
            .environment
            .iter()
            .any(|(_, value)| value.contains("ARCH"))
            || self.environment.iter().any(|(name, _)| *name == "ARCH");
        if !in_environment {
            words.push(format!("ARCH={architecture}"));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let build = build.variables(&words).goals(&[MODULE]);
        self.environment
            .iter()
            .fold(build, |build, (name, value)| build.environment(name, value))
    }
}

/// Every spelling but those with `CROSS_COMPILE`, whose value is the tree's.
fn spellings(architecture: &'static str) -> Vec<Spelling> {
    let one = |word: &str| vec![word.to_owned()];
    let clang = real_program("clang-22");
    // The tools' own directory: /usr/bin/clang-22 leads to it.
    let bin = fs_err::canonicalize(&clang).unwrap();
    let bin = bin.parent().unwrap().display().to_string();
    let make_flags = format!("LLVM=-22 HOSTCC=gcc ARCH={architecture}");
    let mut with_ccache = named(|tool| format!("{tool}-22"));
    with_ccache[0] = "CC=ccache clang-22".to_owned();
    vec![
        Spelling::words("LLVM=1", one("LLVM=1")),
        Spelling::words("LLVM=-22", one("LLVM=-22")),
        Spelling::words("LLVM=prefix", vec![format!("LLVM={bin}/")]),
        Spelling::words("names", named(|tool| format!("{tool}-22"))),
        Spelling::words("paths", named(|tool| format!("{bin}/{tool}"))),
        Spelling::words("ccache", with_ccache),
        Spelling::environment("environment", &[("LLVM", "-22"), ("ARCH", architecture)]),
        Spelling::environment("MAKEFLAGS", &[("MAKEFLAGS", &make_flags)]),
    ]
}

/// The module is built with LTO; `plain`, a build without klto's LTO in the same words, then makes
/// its object again.
fn check(build: &Build, plain: &Build, name: &str) {
    let outcome = build.succeed();
    let mut backends = outcome.log.backends_run();
    backends.extend(outcome.log.backends_found());
    assert!(backends.contains(OBJECT), "{name}: {}", outcome.describe());
    let plain = plain.clone().goals(&[OBJECT]).succeed();
    let lines = plain.kbuild_lines();
    let made = lines.iter().any(|(_, object)| object == OBJECT);
    assert!(made, "{name}: {}", plain.describe());
    assert!(plain.log.lines.is_empty(), "{name}");
}

/// The same with an external module, on an output tree that is left as it is.
fn check_external(build: &Build, plain: impl Fn(Build) -> Build, name: &str) {
    let place = directory("module");
    fs_err::write(place.join("Makefile"), "obj-m := one.o\n").unwrap();
    let text = "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\n";
    fs_err::write(place.join("one.c"), text).unwrap();
    // Without a vmlinux modpost knows no symbol that the kernel exports.
    let build = build.clone().environment("KBUILD_MODPOST_WARN", "1");
    let build = build
        .word(format!("M={}", place.display()))
        .goals(&["modules"]);
    build.succeed();
    let unit = Log::read(&place).inputs.get("one.o").cloned();
    assert_eq!(unit, Some(vec!["one.o".to_owned()]), "{name}");
    let plain = plain(build).succeed();
    let lines = plain.kbuild_lines();
    let made = lines.iter().any(|(_, object)| object.ends_with("/one.o"));
    assert!(made, "{name}: {}", plain.describe());
}

/// Checks the spellings of these names, with a module of the tree or an external one.
fn check_all(
    fresh: impl Fn(&str) -> Build,
    plain: impl Fn(Build) -> Build,
    (architecture, cross_compile): (&'static str, &str),
    (of_tree, external): (&[&str], &[&str]),
) {
    let path = path_with(&without_suffix(&format!("llvm-{architecture}")));
    let mut all = spellings(architecture);
    let cross = vec![
        "LLVM=1".to_owned(),
        format!("CROSS_COMPILE={cross_compile}"),
    ];
    all.push(Spelling::words("CROSS_COMPILE", cross));
    let known = |name: &&str| all.iter().any(|spelling| spelling.name == *name);
    assert!(of_tree.iter().chain(external).all(known));
    let shared = fresh("spelling-shared");
    for spelling in &all {
        let name = spelling.name;
        let apply = |build: &Build| {
            let build = build.clone().environment("PATH", &path);
            spelling.apply(build, architecture)
        };
        klto_tests::step(name, || {
            if of_tree.contains(&name) {
                let build = apply(&fresh("spelling"));
                check(&build, &plain(build.clone()), name);
            } else if external.contains(&name) {
                check_external(&apply(&shared), &plain, name);
            }
        });
    }
}

/// This tree alone takes no suffix, and clang's target only from `CROSS_COMPILE`: make without LTO
/// goes through klto too, which adds both and runs no session. The machine has no assembler of the
/// target but clang's, which klto adds for LTO alone.
#[test]
fn every_spelling_of_the_toolchain_on_5_10() {
    let plain = |build: Build| build.mode(None).word("LLVM_IAS=1");
    let of_tree = ["LLVM=1", "LLVM=-22", "LLVM=prefix", "ccache"];
    let external = [
        "names",
        "paths",
        "environment",
        "MAKEFLAGS",
        "CROSS_COMPILE",
    ];
    let target = ("arm64", "aarch64-linux-gnu-");
    check_all(jbd2, plain, target, (&of_tree, &external));
}

/// Those that the tree reads by rules of its own.
#[test]
fn spellings_of_the_toolchain_on_6_12() {
    let external = ["LLVM=1", "LLVM=-22", "environment", "CROSS_COMPILE"];
    let target = ("x86_64", "x86_64-linux-gnu-");
    check_all(
        jbd2_of_6_12,
        Build::plain,
        target,
        (&["LLVM=prefix"], &external),
    );
}

fn succeed_with_lto(build: &Build) {
    let outcome = build.succeed();
    let unit = outcome.log.inputs.get(OBJECT).map(Vec::as_slice);
    assert_eq!(
        unit,
        Some(&[OBJECT.to_owned()][..]),
        "{}",
        outcome.describe()
    );
}

/// A private copy of the tree's source, and an output tree for it.
fn in_private_source(name: &str) -> (Build, PrivateSource) {
    with_private_source(jbd2(name).goals(&[MODULE]))
}

#[test]
fn the_output_tree_may_be_relative() {
    let (build, source) = in_private_source("relative");
    let name = build
        .output_directory()
        .file_name()
        .unwrap()
        .to_string_lossy();
    let build = build
        .clone()
        .started_in(source.path())
        .word(format!("O=../{name}"));
    succeed_with_lto(&build);
}

#[test]
fn the_output_tree_may_be_named_by_kbuild_output() {
    let (build, source) = in_private_source("environment");
    let output = build.output_directory().to_owned();
    let build = build
        .started_in(source.path())
        .environment("KBUILD_OUTPUT", &output);
    succeed_with_lto(&build);
}

#[test]
fn the_output_tree_may_be_inside_the_source() {
    let (build, source) = in_private_source("inside");
    let inside = source.path().join("out");
    copy_tree(build.output_directory(), &inside).unwrap();
    let build = build
        .output(&inside)
        .started_in(source.path())
        .word("O=out");
    succeed_with_lto(&build);
}

#[test]
fn the_source_may_be_its_own_output_tree() {
    let (build, source) = in_private_source("in-tree");
    let config = build.output_directory().join(".config");
    fs_err::copy(config, source.path().join(".config")).unwrap();
    let build = build.output(source.path()).started_in(source.path());
    succeed_with_lto(&build);
    assert!(source.path().join(".klto/log").is_file());
}

#[test]
fn the_source_may_be_a_link() {
    let (build, source) = in_private_source("linked");
    let link = directory("link").join("linux");
    fs_err::os::unix::fs::symlink(source.path(), &link).unwrap();
    succeed_with_lto(&build.source(&link));
}

#[test]
fn the_source_may_be_read_only() {
    let build = jbd2("read-only").goals(&[MODULE]);
    let command = build.command();
    let words: Vec<_> = command.get_args().collect();
    let place = words.iter().position(|word| *word == "-C").unwrap();
    let source = Path::new(words[place + 1]).display().to_string();
    let script = format!("mount --bind '{source}' '{source}'; mount -o remount,ro,bind '{source}'");
    run(&mut after_mounts(&script, &command)).expect(0, &[]);
    let log = klto_tests::Log::read(build.output_directory());
    assert!(log.backends_run().contains(OBJECT));
}

#[test]
fn another_configuration_than_asked_for_is_refused_with_the_command_that_changes_it() {
    let build = jbd2_of_6_12("otherwise").lto(Lto::None);
    build.configure().unwrap();
    let build = build.mode(Some("thin")).goals(&[MODULE]);
    let ended = run(&mut build.command());
    ended.expect(
        2,
        &[
            "--lto=thin is asked for, but",
            "chooses LTO_NONE",
            "  hint: ",
        ],
    );
    let hint = ended.stderr.split("  hint: ").nth(1).unwrap();
    let hint = hint.lines().next().unwrap();
    let klto = klto_tests::klto_binary().parent().unwrap();
    let changed = run(Command::new("sh")
        .args(["-c", hint])
        .env("PATH", path_with(klto)));
    changed.expect(0, &[]);
    succeed_with_lto(&build);
}
