//! A build in which nothing can have changed runs no make; any change, however small, runs it.

#![allow(clippy::unwrap_used)]

mod prepared;

use fs_err as fs;
use klto_tests::{Build, PrivateSource};

use prepared::jbd2_of_6_12;

const COMMIT: &str = "fs/jbd2/commit.c";
const NOTHING: &str = "  KLTO    nothing has changed since the last build\n";

/// Runs the build; whether make ran, and why.
fn make_ran(build: &Build) -> Option<String> {
    let outcome = build.succeed();
    match outcome.stdout.contains(NOTHING) {
        true => {
            assert_eq!(outcome.stdout, NOTHING);
            None
        }
        false => Some(outcome.log.why_make_ran.unwrap()),
    }
}

/// After the change make runs and names it; after that it need not.
fn expect_make(build: &Build, change: &str, why: &str) {
    let reason = make_ran(build);
    assert!(
        reason.as_ref().is_some_and(|reason| reason.contains(why)),
        "{change}: {reason:?}"
    );
    assert_eq!(make_ran(build), None, "after {change}");
}

#[test]
fn every_change_runs_make_and_nothing_else_does() {
    let build = jbd2_of_6_12("changes");
    let source = PrivateSource::of(build.tree(), "unchanged").unwrap();
    let build = build.source(source.path());
    let output = build.output_directory();
    // The copied output tree still has its link to the source that it was made from.
    build.succeed();
    expect_make(&build, "nothing was built", "no build");
    // The copy shares its files with others: one that changes is replaced.
    let touch = |file: &str| {
        let text = fs::read_to_string(source.path().join(file)).unwrap();
        source.write(file, &text).unwrap();
    };

    // What a compile read counts by its content.
    touch(COMMIT);
    assert_eq!(make_ran(&build), None, "a touched source");
    touch("include/linux/jbd2.h");
    assert_eq!(make_ran(&build), None, "a touched header");
    touch("fs/jbd2/Makefile");
    expect_make(&build, "a touched Makefile", "source fs/jbd2/Makefile");
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    let of_same_size = text.replacen("Copyright", "copyright", 1);
    assert!(of_same_size != text);
    for text in [&of_same_size, &text] {
        touch("include/linux/jbd2.h");
        source.write(COMMIT, text).unwrap();
        expect_make(&build, "a changed source", "source fs/jbd2/commit.c");
    }
    fs::write(source.path().join("mm/new"), "").unwrap();
    expect_make(&build, "a new file", "source mm");
    fs::remove_file(source.path().join("mm/new")).unwrap();
    expect_make(&build, "a removed file", "source mm");
    fs::remove_file(output.join("fs/jbd2/commit.o")).unwrap();
    expect_make(&build, "a removed object", "output fs/jbd2");
    let config = output.join(".config");
    fs::write(&config, fs::read(&config).unwrap()).unwrap();
    expect_make(&build, "a touched configuration", "output");
    fs::remove_file(output.join(".klto/journal")).unwrap();
    expect_make(&build, "a lost journal", "the journal");

    let other = build.clone().environment("KLTO_OF_THE_TEST", "1");
    assert!(make_ran(&other).unwrap().contains("the environment"));
    assert_eq!(make_ran(&other), None);
    let tools = prepared::directory("tools");
    let of_user = prepared::tools::path_with(&tools);
    let other = build.clone().environment("PATH", &of_user);
    make_ran(&other).unwrap();
    assert_eq!(make_ran(&other), None);
    prepared::write_program(&tools.join("pahole"), "#!/bin/sh\necho v1.30\n");
    expect_make(&other, "a new program in PATH", "tools");
    let other = build.clone().word("V=1");
    assert!(make_ran(&other).is_some());
    expect_make(&build, "other words", "the arguments");
    assert_eq!(make_ran(&build.clone().jobs(Some(1))), None, "another -j");
    assert!(make_ran(&build.clone().goals(&["prepare"])).is_some());
    assert!(make_ran(&build.clone().goals(&["prepare"])).is_some());
}

/// Which of the two versions make has read cannot be known.
#[test]
fn a_source_that_changes_during_the_build_is_not_taken_for_built() {
    let build = jbd2_of_6_12("during");
    let source = PrivateSource::of(build.tree(), "during").unwrap();
    let build = build.source(source.path());
    make_ran(&build).unwrap();
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    source.write(COMMIT, &format!("{text}\n")).unwrap();
    let running = build.start().unwrap();
    prepared::processes::await_process(build.output_directory(), "compiler", |process| {
        process.is_compile()
    });
    source
        .write(COMMIT, &format!("{text}\nextern int klto_during;\n"))
        .unwrap();
    running.wait().unwrap();
    assert!(make_ran(&build).is_some());
    assert_eq!(make_ran(&build), None);
}

#[test]
fn a_build_that_failed_is_not_complete() {
    let build = jbd2_of_6_12("failed");
    let source = PrivateSource::of(build.tree(), "failed").unwrap();
    let build = build.source(source.path());
    make_ran(&build).unwrap();
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    source
        .write(COMMIT, &format!("{text}\n#error here\n"))
        .unwrap();
    for _ in 0..2 {
        assert!(!build.run().unwrap().status.success());
    }
}
