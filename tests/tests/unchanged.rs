//! A build in which nothing can have changed runs no make; any change, however small, runs it.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeSet;

use fs_err as fs;
use klto_tests::Build;

use prepared::{jbd2_of_6_12, with_private_source};

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
    let (build, source) = with_private_source(jbd2_of_6_12("changes"));
    let output = build.output_directory();
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
    let (build, source) = with_private_source(jbd2_of_6_12("during"));
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

/// What a build made again, the makes under it that were left out, if any were.
fn made_again(build: &Build) -> (BTreeSet<String>, Option<usize>) {
    let outcome = build.succeed();
    let made = outcome.log.objects("ran", "compile");
    let found = outcome.log.objects("hit", "compile");
    let left_out = outcome.log.makes_left_out;
    (&made | &found, left_out.map(|(_, left_out)| left_out))
}

#[test]
fn makes_above_nothing_that_changed_are_left_out() {
    let (build, source) = with_private_source(jbd2_of_6_12("left-out"));
    make_ran(&build).unwrap();
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    let write = |more: &str| source.write(COMMIT, &format!("{text}{more}")).unwrap();
    let object = || BTreeSet::from(["fs/jbd2/commit.o".to_owned()]);
    let expect_left_out = || {
        let (made, left_out) = made_again(&build);
        assert_eq!(made, object());
        assert!(left_out.is_some_and(|count| count > 0), "{left_out:?}");
        assert_eq!(make_ran(&build), None);
    };

    write("int klto_one;\n");
    expect_left_out();
    // What make tells by times alone, it would not see.
    write("int klto_two;\n");
    let path = source.path().join(COMMIT);
    let old = fs::metadata(source.path().join("Makefile")).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.file().set_modified(old.modified().unwrap()).unwrap();
    expect_left_out();
    let klto_two = || {
        let object = fs::read(build.output_directory().join("fs/jbd2/commit.o")).unwrap();
        object.windows(8).any(|bytes| bytes == b"klto_two")
    };
    assert!(klto_two());

    // After a build that failed the next one finishes it, whatever has become of the source.
    write("#error here\n");
    for _ in 0..2 {
        assert!(!build.run().unwrap().status.success());
    }
    write("int klto_two;\n");
    file.file().set_modified(old.modified().unwrap()).unwrap();
    expect_left_out();
    assert!(klto_two());

    // A header may be read by what leaves no record.
    let header = "include/linux/jbd2.h";
    let text = fs::read_to_string(source.path().join(header)).unwrap();
    source
        .write(header, &format!("{text}extern int klto_of_header;\n"))
        .unwrap();
    let (made, left_out) = made_again(&build);
    assert_eq!((made.len(), left_out), (6, None));

    // A makefile of another directory may read it with every run.
    let makefile = "fs/Makefile";
    let text = fs::read_to_string(source.path().join(makefile)).unwrap();
    let reads = "klto := $(shell grep -q klto_three $(srctree)/fs/jbd2/commit.c)\n";
    source.write(makefile, &format!("{text}{reads}")).unwrap();
    make_ran(&build).unwrap();
    write("int klto_four;\n");
    assert_eq!(made_again(&build), (object(), None));
    source.write(makefile, &text).unwrap();
    make_ran(&build).unwrap();

    // A Makefile whose rules others cannot know of.
    let makefile = "fs/jbd2/Makefile";
    let text = fs::read_to_string(source.path().join(makefile)).unwrap();
    let rule = "$(obj)/commit.o: $(shell cp $(src)/commit.c include/generated/klto.txt)\n";
    source.write(makefile, &format!("{text}{rule}")).unwrap();
    make_ran(&build).unwrap();
    write("int klto_three;\n");
    assert_eq!(made_again(&build), (object(), None));
}

#[test]
fn a_first_build_that_failed_is_not_complete() {
    let (build, source) = with_private_source(jbd2_of_6_12("failed"));
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    source
        .write(COMMIT, &format!("{text}\n#error here\n"))
        .unwrap();
    for _ in 0..2 {
        assert!(!build.run().unwrap().status.success());
    }
}
