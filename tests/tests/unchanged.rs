//! A build in which nothing can have changed runs no make; any change, however small, runs it.

#![allow(clippy::unwrap_used)]
#![expect(
    clippy::too_many_lines,
    reason = "changes of one tree, one after the other, are one test"
)]

mod prepared;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use klto_tests::{Build, Opened, Outcome, step};

use prepared::{jbd2_of_6_12, private_jbd2_of_6_12, with_private_source};

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

/// What `klto explain --next` says of the build.
fn next(build: &Build) -> String {
    let build = build.command();
    let mut explain = Command::new(build.get_program());
    explain
        .args(["explain", "--next"])
        .args(build.get_args().skip(1));
    prepared::copy_environment(&build, &mut explain);
    let ended = prepared::run(&mut explain);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout
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
    let (build, source) = private_jbd2_of_6_12("changes");
    let output = build.output_directory();
    expect_make(&build, "nothing was built", "no build");
    let touch = |file: &str| {
        let text = fs::read_to_string(source.path().join(file)).unwrap();
        source.write(file, &text).unwrap();
    };

    // What a compile read counts by its content.
    touch(COMMIT);
    assert_eq!(make_ran(&build), None, "a touched source");
    touch("include/linux/jbd2.h");
    assert_eq!(make_ran(&build), None, "a touched header");
    assert!(next(&build).starts_with("make does not run: "));
    touch("fs/jbd2/Makefile");
    let why = "make runs: source fs/jbd2/Makefile has changed\n";
    assert_eq!(next(&build), why);
    expect_make(&build, "a touched Makefile", "source fs/jbd2/Makefile");
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    let of_same_size = text.replacen("JBD2: commit phase 1", "JBD2: commit PHASE 1", 1);
    assert!(of_same_size != text);
    for text in [&of_same_size, &text] {
        touch("include/linux/jbd2.h");
        source.write(COMMIT, text).unwrap();
        let told = "make runs: source fs/jbd2/commit.c has changed\nmake again: fs/jbd2/commit.o\n";
        assert_eq!(next(&build), told);
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
    let named = tools.join("named");
    prepared::write_program(&named, "#!/bin/sh\n");
    let other = build
        .clone()
        .word(format!("KLTO_PROGRAM={}", named.display()));
    make_ran(&other).unwrap();
    assert_eq!(make_ran(&other), None);
    prepared::write_program(&named, "#!/bin/sh\nexit\n");
    expect_make(&other, "a program that a word names", "named");
    let other = build.clone().word("KCFLAGS=-I/usr/include/linux");
    for _ in 0..2 {
        let why = make_ran(&other).unwrap();
        assert!(why.contains("the compiler reads other trees"), "{why}");
    }
    let other = build.clone().word("C=2").word("CHECK=true");
    for _ in 0..2 {
        let why = make_ran(&other).unwrap();
        assert!(why.contains("make checks all sources"), "{why}");
    }
    let other = build.clone().word("V=1");
    assert!(make_ran(&other).is_some());
    expect_make(&build, "other words", "the arguments");
    assert_eq!(make_ran(&build.clone().jobs(Some(1))), None, "another -j");
    assert!(make_ran(&build.clone().goals(&["prepare"])).is_some());
    assert!(make_ran(&build.clone().goals(&["prepare"])).is_some());
}

/// For make nothing has changed. Of the first target klto saw a compile, of the second kbuild alone has a
/// record.
#[test]
fn a_header_with_a_time_before_its_targets_is_no_old_one() {
    const HEADER: &str = "arch/x86/include/asm/thread_info.h";
    let (build, source) = private_jbd2_of_6_12("older");
    build.succeed();
    let path = source.path().join(HEADER);
    let (text, before) = (
        fs::read_to_string(&path).unwrap(),
        fs::metadata(&path).unwrap().modified().unwrap(),
    );
    let offsets = build
        .output_directory()
        .join("arch/x86/kernel/asm-offsets.s");
    // Alone, and beside a change that klto knows nothing of.
    for number in 1..=2 {
        let more = format!("{text}extern int klto_older{number};\n");
        source.write(HEADER, &more).unwrap();
        let opened = fs::File::options().write(true).open(&path).unwrap();
        opened.file().set_modified(before).unwrap();
        if number == 2 {
            source.write("arch/x86/include/asm/klto.h", "").unwrap();
        }
        let outcome = build.succeed();
        for line in [
            "made old fs/jbd2/commit.o: its source is not newer",
            "made old arch/x86/kernel/asm-offsets.s: its source is not newer",
        ] {
            let mut lines = outcome.log.lines.iter();
            assert!(lines.any(|found| found == line), "{line}");
        }
        let age = fs::metadata(&offsets)
            .unwrap()
            .modified()
            .unwrap()
            .elapsed();
        assert!(age.unwrap().as_secs() < 600);
        assert_eq!(make_ran(&build), None);
    }
}

/// A copy that was set aside is moved back: what the failed build made of the other text is newer.
#[test]
fn a_header_of_a_failed_build_that_gets_its_time_back_is_no_old_one() {
    const HEADER: &str = "arch/x86/include/asm/thread_info.h";
    let (build, source) = private_jbd2_of_6_12("aside");
    build.succeed();
    let texts = [HEADER, COMMIT].map(|file| {
        let path = source.path().join(file);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        (file, fs::read_to_string(&path).unwrap(), before)
    });
    for (file, text, _) in &texts {
        let more = match file.ends_with(".h") {
            true => "extern int klto_aside;\n",
            false => "#error here\n",
        };
        source.write(file, &format!("{text}{more}")).unwrap();
    }
    assert!(!build.run().unwrap().status.success());
    for (file, text, before) in &texts {
        source.write(file, text).unwrap();
        let path = source.path().join(file);
        let opened = fs::File::options().write(true).open(path).unwrap();
        opened.file().set_modified(*before).unwrap();
    }
    let outcome = build.succeed();
    let line = "made old arch/x86/kernel/asm-offsets.s: its source is not newer";
    assert!(outcome.log.lines.iter().any(|found| found == line));
    assert_eq!(make_ran(&build), None);
}

/// Which of the two versions make has read cannot be known.
#[test]
fn a_source_that_changes_during_the_build_is_not_taken_for_built() {
    let (build, source) = private_jbd2_of_6_12("during");
    make_ran(&build).unwrap();
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    let before = format!("{text}\nextern int klto_before;\n");
    source.write(COMMIT, &before).unwrap();
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
    made_by(&build.succeed())
}

fn made_by(outcome: &Outcome) -> (BTreeSet<String>, Option<usize>) {
    let made = outcome.log.objects("ran", "compile");
    let found = outcome.log.objects("hit", "compile");
    let left_out = outcome.log.makes_left_out;
    (&made | &found, left_out.map(|(_, left_out)| left_out))
}

/// Names, inodes and times of the answers that the compiler gave to kbuild's probes.
fn answers(build: &Build) -> BTreeSet<(PathBuf, u64, i64)> {
    let root = build.output_directory().join(".klto/answers");
    let places = fs::read_dir(&root).into_iter().flatten();
    let answers = places.flat_map(|place| fs::read_dir(place.unwrap().path()).unwrap());
    let told = answers.map(|answer| {
        let answer = answer.unwrap();
        let metadata = answer.metadata().unwrap();
        (answer.path(), metadata.ino(), metadata.mtime_nsec())
    });
    told.collect()
}

#[test]
fn makes_above_nothing_that_changed_are_left_out() {
    let (build, source) = private_jbd2_of_6_12("left-out");
    make_ran(&build).unwrap();
    let text = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    let write = |more: &str| source.write(COMMIT, &format!("{text}{more}")).unwrap();
    let object = || BTreeSet::from(["fs/jbd2/commit.o".to_owned()]);
    let begun_before_make_asked = Cell::new(0);
    let note_begun = |outcome: &Outcome| {
        let mut actions = outcome.log.actions.iter();
        let is_begun = actions.any(|action| action.note.starts_with("before make asked"));
        begun_before_make_asked.set(begun_before_make_asked.get() + u32::from(is_begun));
    };
    let expect_left_out = || {
        let outcome = build.succeed();
        let (made, left_out) = made_by(&outcome);
        assert_eq!(made, object());
        assert!(left_out.is_some_and(|count| count > 0), "{left_out:?}");
        note_begun(&outcome);
        assert_eq!(make_ran(&build), None);
    };

    assert!(answers(&build).is_empty(), "the tools may be others");
    write("int klto_one;\n");
    expect_left_out();
    let first = answers(&build);
    assert!(first.len() > 20, "{first:?}");
    // A listing for the user is none of the build's.
    build.clone().goals(&["fs/jbd2/commit.s"]).succeed();
    make_ran(&build).unwrap();
    write("int klto_listed;\n");
    expect_left_out();
    assert_eq!(answers(&build), first, "the compiler is probed once");
    // What make tells by times alone, it would not see.
    write("int klto_two;\n");
    let path = source.path().join(COMMIT);
    let old = fs::metadata(source.path().join("Makefile")).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.file().set_modified(old.modified().unwrap()).unwrap();
    expect_left_out();
    assert_eq!(answers(&build), first, "the compiler is probed once");
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
    // Where make had a slot to spare, which it may not have at each edit.
    let begins_before_make_asks = |build: &Build| {
        for more in 0..10 {
            if begun_before_make_asked.get() == 0 {
                write(&format!("int klto_more_{more};\n"));
                note_begun(&build.succeed());
            }
        }
        assert!(begun_before_make_asked.replace(0) > 0);
    };
    begins_before_make_asks(&build);
    // With debug information the directory is in the key.
    let debug = build.clone().word("KCFLAGS=-g");
    make_ran(&debug).unwrap();
    begins_before_make_asks(&debug);
    make_ran(&build).unwrap();

    // A make of tools compares its copy of a source with the kernel's.
    write("int klto_without_copy;\n");
    let (_, without) = made_again(&build);
    let copies = source.path().join("tools/fs/jbd2");
    fs::create_dir_all(&copies).unwrap();
    fs::write(copies.join("commit.c"), "").unwrap();
    make_ran(&build).unwrap();
    write("int klto_with_copy;\n");
    let (_, with) = made_again(&build);
    assert!(with < without, "{with:?} {without:?}");

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

    // A makefile of another directory may list what is made of it.
    let lists = "klto-objs := jbd2/commit.o\n";
    source.write(makefile, &format!("{text}{lists}")).unwrap();
    make_ran(&build).unwrap();
    write("int klto_listed_twice;\n");
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

    // In other surroundings another compiler may answer.
    let other = build.clone().environment("KLTO_OF_THE_TEST", "1");
    make_ran(&other).unwrap();
    write("int klto_five;\n");
    make_ran(&other).unwrap();
    let second = answers(&other);
    assert!(second.len() > 20 && second.is_disjoint(&first));
}

const COMMENTS: &str = "  KLTO    nothing has changed but comments in include/linux/jbd2.h\n";

#[test]
fn comments_that_nothing_shows_run_no_make() {
    let (build, source) = private_jbd2_of_6_12("comments");
    make_ran(&build).unwrap();
    let header = "include/linux/jbd2.h";
    let text = fs::read_to_string(source.path().join(header)).unwrap();
    let guard = "#define _LINUX_JBD2_H\n";
    assert!(text.contains(guard));
    let edit = |line: &str| source.write(header, &text.replace(guard, line)).unwrap();
    let expect_no_make = || {
        assert!(
            next(&build).starts_with("make does not run: nothing has changed but comments in ")
        );
        assert_eq!(build.succeed().stdout, COMMENTS);
        assert_eq!(make_ran(&build), None);
    };
    let commented = "#define _LINUX_JBD2_H /* of the test */\n";
    edit(commented);
    expect_no_make();
    // What comes next is an edit of one source, for make too.
    let of_commit = fs::read_to_string(source.path().join(COMMIT)).unwrap();
    source
        .write(COMMIT, &format!("{of_commit}int klto_one;\n"))
        .unwrap();
    let (made, left_out) = made_again(&build);
    assert_eq!(made, BTreeSet::from(["fs/jbd2/commit.o".to_owned()]));
    assert!(left_out.is_some_and(|count| count > 0));

    // An option that is mentioned: kbuild's records change.
    let all = |made: &BTreeSet<String>| made.len() == 6;
    edit("#define _LINUX_JBD2_H /* see CONFIG_KLTO_OF_THE_TEST */\n");
    assert!(all(&made_again(&build).0));
    // A program that reads the header as text.
    let makefile = "fs/jbd2/Makefile";
    let rule = "klto := $(shell grep -c test $(srctree)/include/linux/jbd2.h)\n";
    let of_makefile = fs::read_to_string(source.path().join(makefile)).unwrap();
    source
        .write(makefile, &format!("{of_makefile}{rule}"))
        .unwrap();
    make_ran(&build).unwrap();
    edit("#define _LINUX_JBD2_H /* and CONFIG_KLTO_OF_THE_TEST */\n");
    assert!(all(&made_again(&build).0));
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

/// Files outside of both trees that may be read though no watch is on them, and why a change of them matters
/// to no build.
const NOT_WATCHED: [(&str, &str); 10] = [
    ("/proc/", "the kernel makes it up"),
    ("/sys/", "the kernel makes it up"),
    ("/dev/", "no file"),
    ("/etc/passwd", "the name of the user is watched"),
    (
        "/etc/nsswitch.conf",
        "where the name of the user is looked up",
    ),
    ("/etc/ld.so.cache", "watched by its stat"),
    ("/etc/localtime", "dates are those of the environment"),
    ("/usr/lib/locale/", "the language of messages"),
    ("/usr/lib/ssl/", "a key is generated once"),
    ("/etc/ssl/", "a key is generated once"),
];

/// Paths of packages; some are known by the name that they had before `/lib` became a link.
fn of_packages(paths: &BTreeSet<String>) -> BTreeSet<String> {
    let mut query = Command::new("dpkg-query");
    query.arg("--search");
    for path in paths {
        query
            .arg(path)
            .arg(path.strip_prefix("/usr").unwrap_or(path));
    }
    let found = prepared::run(query.env("LC_ALL", "C")).stdout;
    let path_of = |line: &str| line.split_once(": ").map(|(_, path)| path.to_owned());
    found.lines().filter_map(path_of).collect()
}

/// Programs that read C sources and headers of which a makefile need not say so, and why comments do not
/// matter to what is built.
const READERS: [(&str, &str); 7] = [
    ("clang", "the C preprocessor"),
    ("klto", "reads what compilers read"),
    ("fixdep", "options in comments count"),
    (
        "modpost",
        "srcversion leaves comments out (scripts/mod/sumversion.c)",
    ),
    (
        "diff",
        "objtool compares its copies with the kernel's, and warns",
    ),
    ("install", "copies headers of objtool's own"),
    ("sed", "scripts/atomic/check-atomics.sh warns"),
];

/// Comments of sources that compilers read count nowhere, unless a makefile names the source.
fn check_readers(build: &Build, opened: &BTreeSet<(String, String)>) {
    let source = xtask::sources::fetch(klto_tests::cache(), build.tree()).unwrap();
    let below = |path: &String| {
        Path::new(path)
            .strip_prefix(&source)
            .ok()
            .map(Path::to_owned)
    };
    let is_known = |program: &str| READERS.iter().any(|(known, _)| program.starts_with(known));
    let (known, others): (Vec<_>, Vec<_>) = opened
        .iter()
        .filter_map(|(program, path)| Some((program.as_str(), below(path)?)))
        .partition(|(program, _)| is_known(program));
    assert!(known.len() > 500, "{}", known.len());
    // arch/x86/Makefile names it, for scripts/orc_hash.sh.
    let orc_types = PathBuf::from("arch/x86/include/asm/orc_types.h");
    assert_eq!(others, [("sh", orc_types)]);
}

#[test]
fn every_file_that_a_build_reads_is_watched() {
    let build = jbd2_of_6_12("traced");
    // From nothing but the configuration: host programs and all that is generated too.
    let output = build.output_directory();
    let config = fs::read(output.join(".config")).unwrap();
    fs::remove_dir_all(output).unwrap();
    fs::create_dir_all(output).unwrap();
    fs::write(output.join(".config"), config).unwrap();
    let place = prepared::directory("trace");
    let log = place.join("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-s", "4096", "--seccomp-bpf"]);
    strace.args([
        "-e",
        "trace=openat,execve,clone,clone3,fork,vfork",
        "-e",
        "status=successful",
        "-o",
    ]);
    let traced = prepared::wrapped(strace.arg(&log), &build.command());
    let ended = step("a build from nothing under strace", || {
        let mut traced = traced;
        prepared::run(&mut traced)
    });
    ended.expect(0, &[]);

    let opened = Opened::read(&fs::read_to_string(&log).unwrap());
    check_readers(&build, &opened.sources);
    let opened = opened.files;
    assert!(
        opened
            .iter()
            .any(|file| file.ends_with("/fs/jbd2/commit.c"))
    );
    assert!(
        opened.iter().any(|file| file.ends_with("/stdio.h")),
        "no host program"
    );
    let sources = xtask::sources::fetch(klto_tests::cache(), build.tree()).unwrap();
    let programs = std::env::var_os("PATH").unwrap();
    let programs: Vec<_> = std::env::split_paths(&programs).collect();
    let own = klto_tests::klto_binary();
    let of_klto = [build.store_directory(), own.parent().unwrap()];
    // Which version of a program these have chosen is watched, and that one is not changed in place.
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let of_user = [".gitconfig", ".rustup", ".pyenv"].map(|name| home.join(name));
    let temporary = std::env::temp_dir();
    let is_watched = |file: &String| {
        let path = Path::new(file);
        path.starts_with(&sources)
            || path.starts_with(output)
            || path.parent().is_some_and(|place| programs.iter().any(|one| one == place))
            || of_klto.iter().any(|place| path.starts_with(place))
            || of_user.iter().any(|place| path.starts_with(place))
            // What a build has in such a place is its own.
            || path.starts_with(&temporary)
            || NOT_WATCHED.iter().any(|(start, _)| file.starts_with(start))
    };
    let mut rest = opened.clone();
    rest.retain(|file| !is_watched(file));
    let packaged = of_packages(&rest);
    assert!(packaged.iter().any(|file| file.ends_with("/stdio.h")));
    rest.retain(|file| {
        let short = file.strip_prefix("/usr").unwrap_or(file);
        !packaged.contains(file) && !packaged.contains(short)
    });
    assert_eq!(rest, BTreeSet::new(), "{} files were opened", opened.len());
}
