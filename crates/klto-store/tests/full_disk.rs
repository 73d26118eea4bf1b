//! A full disk, as a file size limit: this test starts itself again as a child with the limit.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use klto_core::Digest;
use klto_store::{Lookup, Store, StoreError};
use rustix::process::{Resource, Rlimit};

const DIRECTORY: &str = "KLTO_TEST_FULL_DISK";
const LIMIT: u64 = 8192;

#[test]
fn without_room_nothing_partial_is_left() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return under_the_limit(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let big = directory.path().join("big.o");
    fs::write(&big, vec![1; 100_000]).unwrap();
    fs::write(directory.path().join("small.o"), "small").unwrap();
    // The child shall find this one in the store and have no room to fetch it.
    let store = Store::open(&directory.path().join("store"), 1 << 30).unwrap();
    fs::write(directory.path().join("stored.o"), vec![2; 100_000]).unwrap();
    let stored = directory.path().join("stored.o");
    let key = Digest::of_bytes(b"stored");
    store.insert(key, &[&stored], b"").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_room_nothing_partial_is_left"])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

fn under_the_limit(directory: &Path) {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).unwrap();
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
    let store = Store::open(&directory.join("store"), 1 << 30).unwrap();
    let (big, small) = (directory.join("big.o"), directory.join("small.o"));

    let key = Digest::of_bytes(b"blob");
    let error = store.insert(key, &[&small, &big], b"").unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(store.lookup(key).unwrap(), Lookup::Miss);

    let key = Digest::of_bytes(b"entry");
    let stderr = vec![b'w'; 100_000];
    let error = store.insert(key, &[&small], &stderr).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(store.lookup(key).unwrap(), Lookup::Miss);

    let to = directory.join("out/fetched.o");
    let blob = Digest::of_file(&directory.join("stored.o")).unwrap();
    let error = store.fetch(blob, &to).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");

    for empty in ["store/v1/tmp", "out"] {
        let left = fs::read_dir(directory.join(empty)).unwrap().count();
        assert_eq!(left, 0, "{empty}");
    }
    store.insert(key, &[&small], b"").unwrap();
    assert!(matches!(store.lookup(key).unwrap(), Lookup::Hit(_)));
}
