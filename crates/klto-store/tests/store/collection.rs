//! Garbage collection as callers see it: order, limit, strangers, leftovers, and one at a time.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use klto_store::{Collected, Lookup, StoreError};

use crate::Fixture;

/// Ten results of one entry (a block of 4 KiB) and one blob (four blocks) each; the oldest last.
fn ten_results(fixture: &Fixture) -> Vec<Vec<u8>> {
    (0..10)
        .map(|number| {
            let content = vec![number; 16384];
            fixture.insert(&[number], &content);
            fixture.set_age(&[number], &content, 10 * (u64::from(number) + 1));
            content
        })
        .collect()
}

#[test]
fn collection_removes_the_least_recently_used() {
    let fixture = Fixture::new(100_000);
    let contents = ten_results(&fixture);
    assert_eq!(fixture.store.usage().unwrap().bytes, 10 * 20480);
    // The oldest result is used once more and so survives.
    assert!(matches!(fixture.lookup(&[9]), Lookup::Hit(_)));
    let Collected::Done {
        removed_files,
        removed_bytes,
        size,
    } = fixture.store.collect_garbage().unwrap()
    else {
        panic!("nobody else collects");
    };
    assert_eq!((removed_files, removed_bytes), (12, 6 * 20480));
    assert_eq!(size, fixture.store.usage().unwrap().bytes);
    assert!(size <= 90_000);
    for number in 0..10u8 {
        let kept = matches!(fixture.lookup(&[number]), Lookup::Hit(_));
        assert_eq!(kept, number < 3 || number == 9, "result {number}");
    }
    assert!(!fixture.blob_file(&contents[8]).exists());
}

#[test]
fn collection_under_the_limit_removes_nothing() {
    let fixture = Fixture::new(10 * 20480);
    ten_results(&fixture);
    let done = Collected::Done {
        removed_files: 0,
        removed_bytes: 0,
        size: 10 * 20480,
    };
    assert_eq!(fixture.store.collect_garbage().unwrap(), done);
}

#[test]
fn collection_is_due_when_what_was_added_passes_the_limit() {
    let fixture = Fixture::new(3 * 20480);
    let store = &fixture.store;
    fixture.insert(&[0], &[0; 16384]);
    assert!(store.collect_when_due().unwrap().is_some(), "the first");
    for number in 1..3 {
        fixture.insert(&[number], &[number; 16384]);
        assert_eq!(store.collect_when_due().unwrap(), None);
    }
    // Another process adds something.
    let other = klto_store::Store::open(&fixture.path("store"), u64::MAX).unwrap();
    let content = fixture.path("content");
    fs::write(&content, [9; 16384]).unwrap();
    let key = klto_core::Digest::of_bytes(b"other");
    other.insert(key, &[&content], &[]).unwrap();
    assert_eq!(other.collect_when_due().unwrap(), None);
    let collected = store.collect_when_due().unwrap();
    assert!(
        matches!(collected, Some(Collected::Done { removed_files, .. }) if removed_files > 0),
        "{collected:?}"
    );
    assert_eq!(store.collect_when_due().unwrap(), None);
    let tomorrow = || SystemTime::now() + Duration::from_secs(25 * 3600);
    let store = store.clone().with_clock(tomorrow);
    assert!(store.collect_when_due().unwrap().is_some());
}

#[test]
fn collection_leaves_files_alone_that_are_not_the_stores() {
    let fixture = Fixture::new(0);
    fixture.insert(b"key", b"content");
    let stranger = fixture.path("store/v1/blobs/README");
    fs::write(&stranger, "mine").unwrap();
    let in_shard = fixture.blob_file(b"content").with_file_name("notes");
    fs::write(&in_shard, "mine").unwrap();
    fixture.store.collect_garbage().unwrap();
    assert_eq!(fixture.store.usage().unwrap().bytes, 0);
    assert!(stranger.exists() && in_shard.exists());
}

#[test]
fn collection_removes_stale_temporaries_only() {
    let fixture = Fixture::new(1 << 30);
    let (old, new) = (
        fixture.path("store/v1/tmp/old"),
        fixture.path("store/v1/tmp/new"),
    );
    fs::write(&new, "").unwrap();
    let two_days_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    let file = File::create(&old).unwrap();
    file.set_modified(two_days_ago).unwrap();
    fixture.store.collect_garbage().unwrap();
    assert!(!old.exists() && new.exists());
}

#[test]
fn only_one_collector_runs() {
    let fixture = Fixture::new(0);
    fixture.insert(b"key", b"content");
    let lock = File::create(fixture.path("store/v1/collector.lock")).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&lock, exclusive).unwrap();
    assert_eq!(fixture.store.collect_garbage().unwrap(), Collected::Busy);
    assert!(matches!(fixture.lookup(b"key"), Lookup::Hit(_)));
    drop(lock);
    fixture.store.collect_garbage().unwrap();
    assert_eq!(fixture.lookup(b"key"), Lookup::Miss);
}

#[test]
fn readers_survive_a_collector() {
    let fixture = Fixture::new(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let to = fixture.path("fetched.o");
            let mut fetched = 0;
            for _ in 0..300 {
                let stored = fixture.insert(b"key", b"content");
                match fixture.store.fetch(stored.outputs[0], &to) {
                    Ok(()) => {
                        assert_eq!(fs::read(&to).unwrap(), b"content");
                        fetched += 1;
                    }
                    Err(StoreError::Missing { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                fixture.lookup(b"key");
            }
            assert!(fetched > 0);
        });
        while !reader.is_finished() {
            fixture.store.collect_garbage().unwrap();
        }
    });
}
