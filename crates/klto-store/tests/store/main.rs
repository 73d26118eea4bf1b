//! The store as its callers see it: round trips, several users at once, damage, refusals.

#![allow(clippy::unwrap_used)]

mod collection;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klto_core::Digest;
use klto_store::{Lookup, Store, StoreError, StoredResult};

struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new(limit: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), limit).unwrap();
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn insert(&self, key: &[u8], content: &[u8]) -> StoredResult {
        let output = self.path("output");
        fs::write(&output, content).unwrap();
        let key = Digest::of_bytes(key);
        self.store.insert(key, &[&output], b"").unwrap()
    }

    fn lookup(&self, key: &[u8]) -> Lookup {
        self.store.lookup(Digest::of_bytes(key)).unwrap()
    }

    fn file(&self, kind: &str, digest: Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.path("store/v1").join(kind).join(&hex[..2]).join(hex)
    }

    fn action_file(&self, key: &[u8]) -> PathBuf {
        self.file("actions", Digest::of_bytes(key))
    }

    fn blob_file(&self, content: &[u8]) -> PathBuf {
        self.file("blobs", Digest::of_bytes(content))
    }

    /// Gives the entry and the blob this age.
    fn set_age(&self, key: &[u8], content: &[u8], hours: u64) {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        for path in [self.action_file(key), self.blob_file(content)] {
            File::open(path).unwrap().set_modified(time).unwrap();
        }
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.path("store/v1/tmp")).unwrap().count()
    }
}

/// Damages a store file, which is read-only.
fn flip_byte(path: &Path, index: usize) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[index] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default()
}

#[test]
fn a_result_round_trips() {
    let fixture = Fixture::new(1 << 30);
    let (one, two) = (fixture.path("one.o"), fixture.path("two.o"));
    fs::write(&one, "one").unwrap();
    fs::write(&two, "").unwrap();
    let key = Digest::of_bytes(b"key");
    assert_eq!(fixture.store.lookup(key).unwrap(), Lookup::Miss);
    let stored = fixture
        .store
        .insert(key, &[&one, &two], b"warning\n")
        .unwrap();
    assert_eq!(stored.stderr, b"warning\n");
    assert_eq!(
        fixture.store.lookup(key).unwrap(),
        Lookup::Hit(stored.clone())
    );
    for (blob, content) in stored.outputs.iter().zip(["one", ""]) {
        let to = fixture.path("new/directory/fetched.o");
        fixture.store.fetch(*blob, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), content);
    }
    assert_eq!(fixture.temporaries(), 0);
}

#[test]
fn a_fetched_file_is_new_and_can_be_written_in_place() {
    let fixture = Fixture::new(1 << 30);
    let stored = fixture.insert(b"key", b"content");
    let to = fixture.path("fetched.o");
    fs::write(&to, "before").unwrap();
    let other_name = fixture.path("link.o");
    fs::hard_link(&to, &other_name).unwrap();
    fixture.store.fetch(stored.outputs[0], &to).unwrap();
    assert_eq!(fs::read_to_string(&other_name).unwrap(), "before");
    assert_eq!(fs::metadata(&to).unwrap().nlink(), 1);
    let usual = fs::metadata(fixture.path("output")).unwrap().mode();
    assert_eq!(fs::metadata(&to).unwrap().mode(), usual);
    fs::write(&to, "CONTENT").unwrap();
    assert_eq!(fs::read(fixture.blob_file(b"content")).unwrap(), b"content");
}

#[test]
fn stores_in_several_threads_insert_and_fetch_the_same_keys() {
    let fixture = Fixture::new(1 << 30);
    let root = fixture.path("store");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (root, fixture) = (&root, &fixture);
            scope.spawn(move || {
                let store = Store::open(root, 1 << 30).unwrap();
                let output = fixture.path(&format!("output{thread}"));
                let fetched = fixture.path(&format!("fetched{thread}"));
                for round in 0..100 {
                    let content = format!("content {}", round % 20);
                    fs::write(&output, &content).unwrap();
                    let key = Digest::of_bytes(content.as_bytes());
                    store.insert(key, &[&output], b"").unwrap();
                    let Lookup::Hit(result) = store.lookup(key).unwrap() else {
                        panic!("no hit for {content}");
                    };
                    store.fetch(result.outputs[0], &fetched).unwrap();
                    assert_eq!(fs::read_to_string(&fetched).unwrap(), content);
                }
            });
        }
    });
    assert_eq!(fixture.temporaries(), 0);
}

#[test]
fn a_damaged_entry_is_named_and_removed() {
    let fixture = Fixture::new(1 << 30);
    fixture.insert(b"key", b"content");
    let entry = fixture.action_file(b"key");
    flip_byte(&entry, 50);
    let Lookup::Damaged(text) = fixture.lookup(b"key") else {
        panic!("the damage was not found");
    };
    assert!(text.contains(&entry.display().to_string()), "{text}");
    assert!(text.contains("does not match its digest"), "{text}");
    assert_eq!(fixture.lookup(b"key"), Lookup::Miss);
    fixture.insert(b"key", b"content");
    assert!(matches!(fixture.lookup(b"key"), Lookup::Hit(_)));
}

#[test]
fn a_damaged_blob_is_never_given_out() {
    let fixture = Fixture::new(1 << 30);
    let stored = fixture.insert(b"key", b"content");
    let blob = fixture.blob_file(b"content");
    flip_byte(&blob, 3);
    let to = fixture.path("fetched.o");
    fs::write(&to, "before").unwrap();
    let error = fixture.store.fetch(stored.outputs[0], &to).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { path, .. } if *path == blob));
    assert_eq!(fs::read_to_string(&to).unwrap(), "before");
    assert!(!blob.exists());
    assert_eq!(fixture.lookup(b"key"), Lookup::Miss);
}

#[test]
fn a_truncated_blob_is_replaced_by_the_next_insertion() {
    let fixture = Fixture::new(1 << 30);
    fixture.insert(b"key", b"content");
    let blob = fixture.blob_file(b"content");
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "con").unwrap();
    let stored = fixture.insert(b"key", b"content");
    fixture
        .store
        .fetch(stored.outputs[0], &fixture.path("fetched.o"))
        .unwrap();
}

#[test]
fn a_missing_blob_is_a_miss_on_lookup_and_missing_on_fetch() {
    let fixture = Fixture::new(1 << 30);
    let stored = fixture.insert(b"key", b"content");
    fs::remove_file(fixture.blob_file(b"content")).unwrap();
    let to = fixture.path("fetched.o");
    let error = fixture.store.fetch(stored.outputs[0], &to).unwrap_err();
    assert!(matches!(error, StoreError::Missing { blob } if blob == stored.outputs[0]));
    assert!(!to.exists());
    assert_eq!(fixture.lookup(b"key"), Lookup::Miss);
    assert!(!fixture.action_file(b"key").exists());
}

#[test]
fn an_output_that_does_not_exist_is_an_error_that_names_it() {
    let fixture = Fixture::new(1 << 30);
    let output = fixture.path("no.o");
    let key = Digest::of_bytes(b"key");
    let error = fixture.store.insert(key, &[&output], b"").unwrap_err();
    assert!(matches!(error, StoreError::Io { path, .. } if path == output));
    assert_eq!(fixture.lookup(b"key"), Lookup::Miss);
}

#[test]
fn a_new_root_is_private() {
    let fixture = Fixture::new(1 << 30);
    for path in ["store", "store/v1", "store/v1/blobs"] {
        let mode = fs::metadata(fixture.path(path)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700, "{path}");
    }
    let version = fs::read_to_string(fixture.path("store/v1/version")).unwrap();
    assert_eq!(version, "klto store 1\n");
}

#[test]
fn a_root_that_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o702, 0o720, 0o777] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        let error = Store::open(directory.path(), 1).unwrap_err();
        assert!(matches!(error, StoreError::Unsafe { .. }), "{mode:o}");
    }
    assert!(!directory.path().join("v1").exists());
}

#[test]
fn a_root_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(directory.path(), Some(1), None).unwrap();
        directory.path()
    } else {
        Path::new("/")
    };
    let error = Store::open(root, 1).unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
}

#[test]
fn a_root_that_cannot_be_made_is_not_writable() {
    let error = Store::open(Path::new("/proc/klto/store"), 1).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
}

#[test]
fn a_hit_notes_the_use_once_an_hour() {
    let fixture = Fixture::new(1 << 30);
    fixture.insert(b"key", b"content");
    let files = [fixture.action_file(b"key"), fixture.blob_file(b"content")];
    fixture.set_age(b"key", b"content", 2);
    fixture.lookup(b"key");
    for file in &files {
        assert!(age(file) < Duration::from_secs(3600), "{}", file.display());
    }
    let half_an_hour_ago = SystemTime::now() - Duration::from_secs(1800);
    for file in &files {
        let opened = File::open(file).unwrap();
        opened.set_modified(half_an_hour_ago).unwrap();
    }
    fixture.lookup(b"key");
    for file in &files {
        assert!(age(file) >= Duration::from_secs(1800), "{}", file.display());
    }
}
