//! Two `klto make` at once: in two output trees they share the store, in one the second waits for the first.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeSet;
use std::process::Command;

use klto_tests::Build;

use prepared::{assert_clean, directory, jbd2, processes};

/// Starts the build and waits until it compiles.
fn start(build: &Build) -> klto_tests::Running {
    let running = build.start().unwrap();
    let output = build.output_directory();
    processes::await_process(output, "compiler", |process| process.is_compile());
    running
}

#[test]
fn two_output_trees_share_a_store_at_the_same_time() {
    let store = directory("both-store");
    let builds = ["one", "two", "three"].map(|name| jbd2(name).store(&store).verify(0));
    let [first, second, third] = &builds;
    let running = [first, second].map(start);
    for running in running {
        let outcome = running.wait().unwrap().succeeded();
        assert!(
            !outcome.stderr.contains("klto: warning"),
            "{}",
            outcome.stderr
        );
    }
    let outcome = third.succeed();
    for kind in ["compile", "backend"] {
        assert_eq!(outcome.log.objects("ran", kind), BTreeSet::new(), "{kind}");
        let found = outcome.log.objects("hit", kind);
        let of_the_module = found.iter().filter(|name| name.starts_with("fs/jbd2/"));
        assert_eq!(of_the_module.count(), 6, "{kind}: {found:?}");
    }
    builds.iter().for_each(assert_clean);
}

/// Once it has removed the objects, the other build would find none.
#[test]
fn a_clean_waits_for_the_build() {
    let build = jbd2("clean-waits");
    let running = start(&build);
    let clean = build.clone().goals(&["clean"]).succeed();
    assert!(
        clean.stderr.contains("klto: waiting for process"),
        "{}",
        clean.stderr
    );
    running.wait().unwrap().succeeded();
    assert!(!build.output_directory().join(".klto").exists());
}

/// Once as long as the first one builds, once until it is killed.
#[test]
fn the_second_in_an_output_tree_says_for_whom_it_waits() {
    for is_killed in [false, true] {
        let build = jbd2(if is_killed { "killed" } else { "waits" });
        let mut first = start(&build);
        let waiting = format!(
            "klto: waiting for process {} on {}",
            first.child.id(),
            build.output_directory().display()
        );
        // The log stays the first one's.
        let mut second: Command = build.command();
        let printed = tempfile::NamedTempFile::new().unwrap();
        second
            .stdout(printed.reopen().unwrap())
            .stderr(printed.reopen().unwrap());
        let mut second = klto_core::die_with_parent(&mut second).spawn().unwrap();
        let said = || fs_err::read_to_string(printed.path()).unwrap();
        let in_time = std::time::Duration::from_secs(30);
        let found = processes::wait_for(in_time, || said().contains(&waiting).then_some(()));
        assert!(found.is_some(), "{}", said());
        if is_killed {
            first.child.kill().unwrap();
            first.wait().unwrap();
        } else {
            first.wait().unwrap().succeeded();
        }
        assert!(second.wait().unwrap().success(), "{}", said());
        assert_clean(&build);
    }
}
