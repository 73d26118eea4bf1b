//! Compiles out of the store: in another checkout, after changes that a compiler does not see, and never
//! after one that it sees.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeSet;
use std::path::PathBuf;

use fs_err as fs;
use klto_tests::{Build, Outcome, PrivateSource, Shared};

use prepared::{JBD2_OBJECTS, copy_output, jbd2, jbd2_of_6_12, run, with_private_source};

fn objects() -> BTreeSet<String> {
    let path = |name: &&str| format!("fs/jbd2/{name}.o");
    JBD2_OBJECTS.iter().map(path).collect()
}

/// Objects of jbd2 whose compile went that way.
fn compiles(outcome: &Outcome, how: &str) -> BTreeSet<String> {
    let mut found = outcome.log.objects(how, "compile");
    found.retain(|object| object.starts_with("fs/jbd2/"));
    found
}

/// Objects of jbd2 that export symbols.
fn exporting() -> BTreeSet<String> {
    let path = |name: &&str| format!("fs/jbd2/{name}.o");
    ["commit", "journal", "transaction"]
        .iter()
        .map(path)
        .collect()
}

/// Objects of jbd2 whose symbol versions came about that way.
fn versions(outcome: &Outcome, how: &str) -> BTreeSet<String> {
    let mut found = outcome.log.objects(how, "versions");
    found.retain(|object| object.starts_with("fs/jbd2/"));
    found
}

/// Objects whose list of symbols came out of the store in the last build.
fn lists_found(build: &Build) -> BTreeSet<String> {
    let timeline = build.output_directory().join(".klto/timeline");
    let text = fs::read_to_string(timeline).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (_, object) = line.split_once("\tsymbols\thit\t")?;
        Some(object.to_owned())
    });
    lines.collect()
}

fn assert_found(outcome: &Outcome) {
    assert_eq!(
        compiles(outcome, "hit"),
        objects(),
        "{}",
        outcome.describe()
    );
    assert_eq!(compiles(outcome, "ran"), BTreeSet::new());
}

/// The first build on a source tree of its own: everything is compiled, and stored.
fn first(build: Build) -> (Build, PrivateSource) {
    let (build, source) = with_private_source(build);
    let build = build.verify(0);
    let outcome = build.succeed();
    assert_eq!(
        compiles(&outcome, "ran"),
        objects(),
        "{}",
        outcome.log.lines.join("\n")
    );
    (build, source)
}

/// That of 6.12, which the tests share. They change its source, and change it back. No other test here can
/// have that source: it is kept to the end.
fn shared() -> &'static (Build, PrivateSource) {
    static FIRST: Shared<(Build, PrivateSource)> = Shared::new();
    FIRST.get(|| Ok(first(jbd2_of_6_12("first"))))
}

/// The same in another output directory, with the same store.
fn copy(name: &str) -> (Build, &'static PrivateSource) {
    let (first, source) = shared();
    let build = jbd2_of_6_12(name).source(source.path()).verify(0);
    copy_output(first.output_directory(), build.output_directory()).unwrap();
    (build.store(first.store_directory()), source)
}

/// kbuild compiles every object again.
fn compile_again(build: &Build) -> Outcome {
    for object in objects() {
        // A build that failed has removed what it did not make.
        let _ = fs::remove_file(build.output_directory().join(object));
    }
    build.succeed()
}

fn in_another_checkout(first: &Build, other: Build, name: &str) {
    let path = format!("{}-at-a-longer-path", first.tree().name);
    let checkout = PrivateSource::of(first.tree(), &path).unwrap();
    let build = other.source(checkout.path()).verify(0);
    let clean = build.succeed();
    assert_eq!(compiles(&clean, "ran"), objects());
    let files = objects().into_iter().chain(["fs/jbd2/jbd2.ko".into()]);
    let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
    let kept = prepared::directory(&format!("{name}-kept"));
    fs::create_dir_all(kept.join("fs/jbd2")).unwrap();
    for file in &files {
        fs::rename(build.output_directory().join(file), kept.join(file)).unwrap();
    }
    fs::remove_dir_all(build.output_directory().join(".klto/units")).unwrap();
    let of_module = "fs/jbd2/jbd2.mod.o".to_owned();
    fs::remove_file(build.output_directory().join(&of_module)).unwrap();
    let found = build.clone().store(first.store_directory()).succeed();
    assert_found(&found);
    assert_eq!(versions(&found, "hit"), exporting());
    assert_eq!(found.log.backends_found(), objects());
    assert!(
        found
            .log
            .objects("hit", "native-compile")
            .contains(&of_module)
    );
    let report = klto_verify::bit_equal(&kept, build.output_directory(), &files).unwrap();
    assert!(report.equal(), "{report}");
}

#[test]
fn another_checkout_finds_what_the_first_one_compiled() {
    in_another_checkout(&shared().0, jbd2_of_6_12("checkout-6.12"), "6.12");
    let (of_5_10, _source) = first(jbd2("first-5.10"));
    in_another_checkout(&of_5_10, jbd2("checkout-5.10"), "5.10");
}

/// The whole set of files that make looks at is that of a build without klto, and so are the versions of
/// symbols.
#[test]
fn make_knows_the_same_prerequisites_and_versions() {
    let (build, source) = copy("prerequisites");
    let plain = jbd2_of_6_12("prerequisites-plain")
        .source(source.path())
        .plain();
    plain.succeed();
    let again = compile_again(&build);
    assert_found(&again);
    assert_eq!(versions(&again, "hit"), exporting());
    assert!(lists_found(&build).is_superset(&objects()));
    for object in JBD2_OBJECTS {
        // Symbol versions stand behind them.
        let prerequisites = |build: &Build| {
            let path = build
                .output_directory()
                .join(format!("fs/jbd2/.{object}.o.cmd"));
            let text = fs::read_to_string(path).unwrap();
            let list = text.split_once("\ndeps_").unwrap().1;
            list.to_owned()
        };
        assert_eq!(prerequisites(&build), prerequisites(&plain), "{object}");
    }
}

#[test]
fn a_comment_compiles_nothing_unless_it_moves_a_line_that_is_read() {
    let (build, source) = copy("comment");
    let header = "include/linux/jbd2.h";
    let text = fs::read_to_string(source.path().join(header)).unwrap();
    let define = "#define JBD2_MIN_JOURNAL_BLOCKS 1024";
    assert!(text.contains(define));
    let with = |more: &str| text.replace(define, &format!("{define}{more}"));
    // As BUG() and WARN() read theirs: through a macro.
    let reading =
        "#define KLTO_LINE __LINE__\nstatic inline int klto_line(void) { return KLTO_LINE; }\n";
    let reading = |more: &str| with(&format!("{more}\n{reading}"));
    let makefile = fs::read_to_string(source.path().join("fs/jbd2/Makefile")).unwrap();
    // For a comment alone make would not run.
    let write = |text: &str| {
        source.write("fs/jbd2/Makefile", &makefile).unwrap();
        source.write(header, text).unwrap();
    };
    write(&with(" /* a comment */"));
    assert_found(&build.succeed());
    write(&with(" /* a comment\n */"));
    assert_found(&build.succeed());
    write(&reading(""));
    assert_eq!(compiles(&build.succeed(), "ran"), objects());
    write(&reading(" /* a comment\n */"));
    let moved = build.succeed();
    assert_eq!(compiles(&moved, "ran"), objects());
    assert_eq!(versions(&moved, "ran"), exporting());
    // Inline assembly stands elsewhere, and the code is the same.
    let same = moved.log.lines.iter().filter_map(|line| {
        let object = line.strip_prefix("ran compile ")?;
        object.strip_suffix(": the same code").map(str::to_owned)
    });
    let same: BTreeSet<String> = same.filter(|object| objects().contains(object)).collect();
    assert!(same.len() > 3, "{:?}", moved.log.lines);
    assert!(same.is_disjoint(&moved.log.backends_run()));
    // Another output tree finds the natives of what was the same code here.
    fs::remove_dir_all(build.output_directory().join(".klto/units")).unwrap();
    let again = compile_again(&build);
    assert_found(&again);
    assert_eq!(again.log.backends_found(), objects());
    write(&format!("{text}\n/* the end */\n"));
    assert_found(&build.succeed());
    write(&text);
    assert_found(&build.succeed());
}

/// `KBUILD_SYMTYPES` has genksyms write the types that versions are made of.
#[test]
fn types_of_symbols_are_those_of_the_source() {
    let (build, _) = copy("symtypes");
    let build = build.word("KBUILD_SYMTYPES=1");
    let made = compile_again(&build);
    assert_found(&made);
    assert_eq!(versions(&made, "hit"), BTreeSet::new());
    let types = build.output_directory().join("fs/jbd2/journal.symtypes");
    let types = fs::read_to_string(types).unwrap();
    assert!(types.contains("s#journal_s struct journal_s {"), "{types}");
}

#[test]
fn a_header_in_front_of_the_one_that_was_found_is_seen() {
    let (build, source) = copy("in-front");
    assert_found(&compile_again(&build));
    // This directory is searched before include/.
    let front = "arch/x86/include/linux/journal-head.h";
    fs::create_dir_all(source.path().join(front).parent().unwrap()).unwrap();
    source.write(front, "#error found in front\n").unwrap();
    fs::remove_file(build.output_directory().join("fs/jbd2/commit.o")).unwrap();
    run(&mut build.command()).expect(2, &["found in front"]);
    fs::remove_file(source.path().join(front)).unwrap();
    assert_found(&compile_again(&build));
}

#[test]
fn an_option_matters_where_it_is_mentioned() {
    let (build, _) = copy("option");
    let config = build.output_directory().join(".config");
    let text = fs::read_to_string(&config).unwrap();
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(&config, text.replace(from, to)).unwrap();
    };
    // Only printk's own files mention it.
    change("CONFIG_LOG_BUF_SHIFT=17\n", "CONFIG_LOG_BUF_SHIFT=16\n");
    assert_found(&compile_again(&build));
    change("# CONFIG_JBD2_DEBUG is not set\n", "CONFIG_JBD2_DEBUG=y\n");
    assert_eq!(compiles(&build.succeed(), "ran"), objects());
}

/// What clang says names files as kbuild does, and is said each time.
#[test]
fn a_compile_with_a_warning_is_not_stored() {
    let (build, source) = copy("warning");
    let file = "fs/jbd2/revoke.c";
    let text = fs::read_to_string(source.path().join(file)).unwrap();
    let warns = format!("{text}\n#warning this is said\n");
    source.write(file, &warns).unwrap();
    let said = |outcome: &Outcome| -> Vec<String> {
        let lines = outcome
            .stderr
            .lines()
            .skip_while(|line| !line.contains("revoke.c:"));
        lines.take(3).map(str::to_owned).collect()
    };
    let first = build.succeed();
    assert!(
        said(&first)[0].contains("this is said"),
        "{}",
        first.describe()
    );
    let path = source.path().join(file);
    assert!(
        said(&first)[0].starts_with(path.to_str().unwrap()),
        "{}",
        first.stderr
    );
    let again = compile_again(&build);
    assert_eq!(said(&again), said(&first));
    assert_eq!(
        compiles(&again, "ran"),
        ["fs/jbd2/revoke.o".to_owned()].into()
    );
    source.write(file, &text).unwrap();
}

/// With debug information the columns count, and the object shows where it was built.
#[test]
fn debug_information_is_that_of_the_build() {
    let object = "fs/jbd2/revoke.o";
    let of_object = |build: Build| build.word("KCFLAGS=-g").goals(&[object]);
    let compiled = |build: &Build, how: &str| {
        let outcome = build.succeed();
        assert_eq!(compiles(&outcome, how), [object.to_owned()].into());
    };
    let (build, source) = copy("debug");
    let build = of_object(build);
    compiled(&build, "ran");
    fs::remove_file(build.output_directory().join(object)).unwrap();
    compiled(&build, "hit");
    let header = "include/linux/jbd2.h";
    let text = fs::read_to_string(source.path().join(header)).unwrap();
    let wider = text.replace("#ifdef __KERNEL__", "#ifdef  __KERNEL__");
    source.write(header, &wider).unwrap();
    compiled(&build, "ran");
    source.write(header, &text).unwrap();
    let (elsewhere, _) = copy("debug-elsewhere");
    compiled(&of_object(elsewhere), "ran");
}
