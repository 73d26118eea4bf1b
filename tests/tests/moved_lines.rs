//! Comments that move tokens to other lines, or change nothing: make does not run, and what it would have made
//! anew is still made anew.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeSet;

use fs_err as fs;
use klto_tests::{Build, Outcome, PrivateSource};

use prepared::{JBD2, JBD2_OBJECTS, private_jbd2_of_6_12};

const COMMIT: &str = "fs/jbd2/commit.c";

fn read(source: &PrivateSource, file: &str) -> String {
    fs::read_to_string(source.path().join(file)).unwrap()
}

fn runs_no_make(build: &Build, file: &str) {
    let said = format!("  KLTO    nothing has changed but comments in {file}\n");
    assert_eq!(build.succeed().stdout, said);
}

/// Objects that make had compiled.
fn compiled(outcome: &Outcome) -> BTreeSet<String> {
    let [ran, found] = ["ran", "hit"].map(|how| outcome.log.objects(how, "compile"));
    &ran | &found
}

#[test]
fn lines_count_where_something_depends_on_them() {
    let (build, source) = private_jbd2_of_6_12("lines");
    build.succeed();
    let header = "include/linux/jbd2.h";
    let moved = format!("/* one\n more */\n\n{}", read(&source, header));
    source.write(header, &moved).unwrap();
    runs_no_make(&build, header);
    // asm-offsets.s is made of it, by a call that klto does not follow.
    let header = "include/linux/sched.h";
    let moved = format!("/* of the test */\n{}", read(&source, header));
    source.write(header, &moved).unwrap();
    runs_no_make(&build, header);

    let function = "#pragma once\nstatic inline int klto_line(void) { return __LINE__; }\n";
    let reads = format!("{function}{moved}");
    for text in [reads.clone(), format!("/* more */\n{reads}")] {
        source.write(header, &text).unwrap();
        assert_eq!(compiled(&build.succeed()).len(), JBD2_OBJECTS.len());
    }
}

#[test]
fn an_object_of_before_depends_on_the_lines_of_before() {
    let (build, source) = private_jbd2_of_6_12("lines-back");
    let without = read(&source, COMMIT);
    let with = format!("{without}int klto_line = __LINE__;\n");
    for text in [&with, &without, &with] {
        source.write(COMMIT, text).unwrap();
        build.succeed();
    }
    source.write(COMMIT, &format!("/* one */\n{with}")).unwrap();
    let object = "fs/jbd2/commit.o".to_owned();
    assert_eq!(compiled(&build.succeed()), BTreeSet::from([object]));
}

/// klto has compiled an object that depends on no lines, and somebody else has compiled it otherwise: klto makes
/// it no newer than the source.
#[test]
fn an_object_that_somebody_else_compiled_stays_his() {
    const SOURCE: &str = "fs/mbcache.c";
    const MODULE: &str = "fs/mbcache.ko";
    let (build, source) = private_jbd2_of_6_12("somebody-else");
    let his_line = "#ifdef KLTO_HIS\nint klto_line = __LINE__;\n#endif\n";
    let text = format!("{}{his_line}", read(&source, SOURCE));
    source.write(SOURCE, &text).unwrap();
    build.clone().goals(&[JBD2, MODULE]).succeed();
    let his = build.clone().plain().goals(&[MODULE]);
    let his = his.word("KCFLAGS=-DKLTO_HIS");
    his.succeed();
    build.succeed();
    source.write(SOURCE, &format!("/* one */\n{text}")).unwrap();
    build.succeed();
    let compiled = ("CC".to_owned(), "fs/mbcache.o".to_owned());
    assert!(his.succeed().kbuild_lines().contains(&compiled));
}

/// A build of other goals leaves what it need not make as it was, and so does an edit of comments after it.
#[test]
fn what_another_option_left_behind_is_made_again() {
    const BOTH: [&str; 2] = ["fs/jbd2/jbd2.ko", "fs/mbcache.ko"];
    const SHIFT: &str = "CONFIG_LOG_BUF_SHIFT=17";
    let (build, source) = private_jbd2_of_6_12("left-behind");
    let (both, one) = (build.clone().goals(&BOTH), build.goals(&BOTH[..1]));
    let reads = format!(
        "{}int klto_shift = CONFIG_LOG_BUF_SHIFT;\n",
        read(&source, "fs/mbcache.c")
    );
    source.write("fs/mbcache.c", &reads).unwrap();
    both.succeed();
    let config = both.output_directory().join(".config");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(SHIFT));
    fs::write(&config, text.replace(SHIFT, "CONFIG_LOG_BUF_SHIFT=16")).unwrap();
    one.succeed();
    let commit = format!("{}int klto_edit;\n", read(&source, COMMIT));
    source.write(COMMIT, &commit).unwrap();
    one.succeed();
    source
        .write(COMMIT, &format!("{commit}/* one */\n"))
        .unwrap();
    runs_no_make(&one, COMMIT);
    let object = "fs/mbcache.o".to_owned();
    assert_eq!(compiled(&both.succeed()), BTreeSet::from([object]));
}
