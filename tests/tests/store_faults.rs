//! Faults of the store: a build never fails for them and never takes a wrong object, unless others
//! may write the store or a result is shown to be wrong.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use klto_core::Digest;
use klto_store::{Lookup, Store};
use klto_tests::Build;

use prepared::{
    JBD2, after_mounts, assert_clean, directory, files_below, flip_a_bit, jbd2, jbd2_of_6_12, run,
    with_clean_results,
};

const GOES_ON: &str = "klto: warning: the build goes on without the store";

/// A build whose store holds what it needs.
fn with_full_store(name: &str) -> Build {
    with_clean_results(jbd2(name))
}

fn blobs(build: &Build) -> Vec<PathBuf> {
    files_below(&build.store_directory().join("v1/blobs"))
}

#[test]
fn a_store_that_cannot_be_written_is_done_without() {
    let build = jbd2("not-writable");
    let file = directory("file").join("file");
    fs::write(&file, "").unwrap();
    let build = build.store(&file.join("store"));
    let outcome = build.succeed();
    assert_eq!(
        outcome.stderr.matches(GOES_ON).count(),
        1,
        "{}",
        outcome.stderr
    );
    assert_clean(&build);
}

#[test]
fn a_store_on_a_read_only_file_system_is_done_without() {
    let build = jbd2("read-only");
    let store = build.store_directory().display().to_string();
    let script = format!("mount -t tmpfs -o ro,mode=0700 none '{store}'");
    let ended = run(&mut after_mounts(&script, &build.command()));
    ended.expect(0, &[GOES_ON]);
    assert_clean(&build);
}

#[test]
fn a_store_that_others_may_write_is_refused() {
    let build = jbd2("shared");
    let open = std::fs::Permissions::from_mode(0o777);
    fs::set_permissions(build.store_directory(), open).unwrap();
    let ended = run(&mut build.command());
    ended.expect(3, &["others may write it (mode 0777)", "hint: chmod 700"]);
    assert!(!build.output_directory().join("fs/jbd2/jbd2.o").exists());
}

#[test]
fn a_full_disk_of_the_store_is_said_once() {
    let build = jbd2("full");
    let store = build.store_directory().display().to_string();
    let script = format!("mount -t tmpfs -o mode=0700,size=64k none '{store}'");
    let ended = run(&mut after_mounts(&script, &build.command()));
    ended.expect(0, &[GOES_ON]);
    assert_eq!(ended.stderr.matches(GOES_ON).count(), 1, "{}", ended.stderr);
    assert_clean(&build);
}

/// Every entry is a pipe, into which it comes late; its output does not.
#[test]
fn a_slow_store_is_given_up_and_that_is_said_once() {
    let build = with_full_store("slow");
    for entry in files_below(&build.store_directory().join("v1/actions")) {
        let bytes = fs::read(&entry).unwrap();
        fs::remove_file(&entry).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &entry, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::thread::spawn(move || {
            use std::io::Write as _;
            // Waits for a reader, if one comes.
            let mut pipe = fs::OpenOptions::new().write(true).open(&entry).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(4));
            let _ = pipe.write_all(&bytes);
        });
    }
    let ended = run(&mut build.clone().verify(0).command());
    ended.expect(0, &[&format!("{GOES_ON}: it is slow: ")]);
    assert_eq!(ended.stderr.matches(GOES_ON).count(), 1, "{}", ended.stderr);
    assert_clean(&build);
}

#[test]
fn damaged_entries_are_found_removed_and_made_again() {
    let build = with_full_store("damaged");
    let damaged = blobs(&build);
    assert!(damaged.len() >= 6);
    damaged.iter().for_each(|blob| flip_a_bit(blob));
    let outcome = build.clone().verify(0).succeed();
    assert!(
        outcome.stderr.contains("klto: warning: "),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("has the digest"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.log.backends_run().len(), 6);
    assert_clean(&build);
    for blob in blobs(&build) {
        let named = blob.file_name().unwrap().to_str().unwrap();
        assert_eq!(Digest::of_file(&blob).unwrap().to_hex(), named);
    }
}

#[test]
fn a_damaged_action_entry_is_removed_and_said() {
    let build = with_full_store("damaged-action");
    for action in files_below(&build.store_directory().join("v1/actions")) {
        let bytes = fs::read(&action).unwrap();
        fs::remove_file(&action).unwrap();
        fs::write(&action, &bytes[..bytes.len() / 2]).unwrap();
    }
    let outcome = build.clone().verify(0).succeed();
    let text = "klto: warning: damaged store entry removed: ";
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    assert_clean(&build);
}

/// Gives every action whose result begins like that the result of one other such action.
fn plant_wrong_entries(root: &Path, beginning: &[u8]) {
    let store = Store::open(root, u64::MAX).unwrap();
    let actions = files_below(&root.join("v1/actions"));
    let key = |path: &PathBuf| Digest::from_hex(path.file_name()?.to_str()?).ok();
    let with_result = |key: Digest| match store.lookup(key).unwrap() {
        Lookup::Hit(result) => (key, store.read(result.outputs[0]).unwrap()),
        other => panic!("{key}: {other:?}"),
    };
    let mut results: Vec<_> = actions.iter().filter_map(key).map(with_result).collect();
    results.retain(|(_, bytes)| bytes.starts_with(beginning));
    let (_, wrong) = &results[0];
    for (key, _) in &results[1..] {
        store.insert_bytes(*key, wrong).unwrap();
    }
}

#[test]
fn a_planted_wrong_entry_is_caught_and_named() {
    for (kind, beginning) in [("backend", &b"\x7fELF"[..]), ("compile", b"BC\xc0\xde")] {
        let build = with_full_store(&format!("planted-{kind}"));
        // A copied tree's own objects are looked up too, and would be the first to differ.
        let prepare = build.clone().goals(&["modules_prepare"]).verify(0);
        prepare.succeed();
        plant_wrong_entries(build.store_directory(), beginning);
        let ended = run(&mut build.clone().verify(100).command());
        let start = format!("klto: error: {kind} of fs/jbd2/");
        ended.expect(
            2,
            &[&start, "the store's result differs from a fresh run ("],
        );
    }
}

/// kbuild does not look at how the tool ends that lists symbols: the build goes on with a right list, and fails
/// at its end.
#[test]
fn a_planted_wrong_list_of_symbols_fails_the_build() {
    let build = with_clean_results(jbd2_of_6_12("planted-symbols"));
    // Most lists begin with an undefined symbol.
    plant_wrong_entries(build.store_directory(), b"                 U ");
    let ended = run(&mut build.clone().verify(100).command());
    let start = "klto: error: symbols of fs/jbd2/";
    ended.expect(1, &[start, "the store's list differs from a fresh one"]);
    let clean = klto_tests::clean_module("6.12", JBD2).unwrap();
    let outputs = [&clean, &build].map(Build::output_directory);
    let report = klto_verify::bit_equal(outputs[0], outputs[1], &[JBD2.into()]);
    let report = report.unwrap();
    assert!(report.equal(), "{report}");
}

/// Nothing in a key names the output tree, so a build in another one makes nothing anew.
#[test]
fn another_output_tree_adds_no_entry() {
    let build = with_full_store("elsewhere");
    let actions = build.store_directory().join("v1/actions");
    let before = files_below(&actions);
    let outcome = build.clone().verify(0).succeed();
    assert_eq!(outcome.log.backends_found().len(), 6);
    assert_eq!(files_below(&actions), before);
    assert_clean(&build);
}
