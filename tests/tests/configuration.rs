//! `klto config` and `klto doctor` on a real tree: what Kconfig makes of a choice, and why; and an edited `.config`
//! that make would take for an old one.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use klto_tests::{Build, is_bitcode, klto_binary};

use prepared::{Ended, copy_environment, files_below, jbd2_of_6_12, run, with_clean_results};

/// klto with another command than `make` and the same arguments, but goals.
fn klto(build: &Build, command: &[&str], more: &[&str]) -> Ended {
    let make = build.clone().goals(more).mode(None).command();
    let mut klto = Command::new(klto_binary());
    klto.args(command).args(make.get_args().skip(1));
    copy_environment(&make, &mut klto);
    run(&mut klto)
}

fn config(build: &Build) -> String {
    fs::read_to_string(build.output_directory().join(".config")).unwrap()
}

#[test]
fn the_choice_is_changed_there_and_back() {
    let build = jbd2_of_6_12("choice");
    let thin = config(&build);
    assert!(thin.contains("CONFIG_LTO_CLANG_THIN=y\n"));
    klto(&build, &["config", "--lto=none"], &[]).expect(0, &[]);
    let none = config(&build);
    assert!(none.contains("CONFIG_LTO_NONE=y\n"));
    klto(&build, &["doctor"], &[]).expect(0, &[]);
    klto(&build, &["config", "--lto=thin"], &[]).expect(0, &[]);
    assert_eq!(config(&build), thin);
    let again = klto(&build, &["config", "--lto=thin"], &[]);
    assert!(
        again.stdout.contains("has CONFIG_LTO_CLANG_THIN=y already"),
        "{again:?}"
    );
}

/// GNU nm makes `HAS_LTO_CLANG` vanish, and Kconfig drops the choice without a word.
#[test]
fn a_choice_that_kconfig_drops_changes_nothing() {
    let build = jbd2_of_6_12("dropped");
    klto(&build, &["config", "--lto=none"], &[]).expect(0, &[]);
    let before = config(&build);
    let dropped = klto(&build, &["config", "--lto=thin"], &["NM=nm"]);
    dropped.expect(
        2,
        &[
            "Kconfig does not take CONFIG_LTO_CLANG_THIN=y",
            "klto doctor",
        ],
    );
    assert_eq!(config(&build), before);
    let doctor = klto(&build, &["doctor"], &["NM=nm"]);
    assert_eq!(doctor.code, 2, "{doctor:?}");
    assert!(
        doctor.stdout.contains("LTO needs llvm-nm, but NM=nm runs "),
        "{doctor:?}"
    );
}

#[test]
fn a_tree_without_the_option_has_its_choice_remembered() {
    let build = prepared::jbd2("no-option");
    let output = build.output_directory();
    let before = config(&build);
    klto(&build, &["config", "--lto=thin"], &[]).expect(0, &[]);
    assert_eq!(config(&build), before);
    let doctor = klto(&build, &["doctor"], &[]);
    doctor.expect(0, &[]);
    assert!(doctor.stdout.contains("LTO can work"), "{doctor:?}");
    let module = output.join("fs/jbd2/commit.o");
    build.clone().mode(None).succeed();
    assert!(is_bitcode(&module));
    klto(&build, &["config", "--lto=none"], &[]).expect(0, &[]);
    build.clone().mode(None).succeed();
    assert!(!is_bitcode(&module));
    klto(&build, &["config", "--lto=thin"], &[]).expect(0, &[]);
    klto(&build, &["make"], &["mrproper"]).expect(0, &[]);
    assert!(!output.join(".config.klto").exists());
}

/// What was made of the configuration is newer than an edit where the clock was set back between the two, or where
/// a copy is moved back. Where Kconfig is asked, a `.config` whose time is still to come would have make begin anew
/// until then.
#[test]
fn a_configuration_that_is_not_newer_than_what_was_made_of_it_counts() {
    let build = with_clean_results(jbd2_of_6_12("clock"));
    build.succeed();
    let output = build.output_directory();
    let has_debugging = || {
        let module = fs::read(output.join("fs/jbd2/jbd2.ko")).unwrap();
        let parameter = b"parmtype=jbd2_debug";
        module
            .windows(parameter.len())
            .any(|part| part == parameter)
    };
    let set_time = |file: &Path, time: SystemTime| {
        let opened = fs::File::open(file).unwrap();
        opened.file().set_modified(time).unwrap();
    };
    let hour = Duration::from_secs(3600);
    for file in files_below(output) {
        if fs::symlink_metadata(&file).unwrap().is_file() {
            set_time(&file, SystemTime::now() + hour);
        }
    }
    fs::remove_file(output.join("include/config/auto.conf")).unwrap();
    build.succeed();
    let (off, on) = ("# CONFIG_JBD2_DEBUG is not set\n", "CONFIG_JBD2_DEBUG=y\n");
    let text = config(&build);
    assert!(text.contains(off) && !has_debugging());
    fs::write(output.join(".config"), text.replace(off, on)).unwrap();
    build.succeed();
    assert!(has_debugging());
    fs::write(output.join(".config"), text).unwrap();
    set_time(&output.join(".config"), SystemTime::now() - hour);
    build.succeed();
    assert!(!has_debugging());
}
