//! The clock of these tests is a cell. Whether the memo answered or the file was read shows by
//! forging the digests in the memo.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

thread_local! {
    static NOW: Cell<SystemTime> = const { Cell::new(UNIX_EPOCH) };
}

struct Fixture {
    directory: tempfile::TempDir,
    memo: StatMemo,
    path: PathBuf,
}

const FORGED: &[u8] = b"forged";

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.o");
        fs::write(&path, "aaaa").unwrap();
        // About one change time in a million looks coarse; such a file is stamped again.
        while stamp(&path).changed % COARSE == 0 {
            fs::write(&path, "aaaa").unwrap();
        }
        let memo = StatMemo::open(&directory.path().join("memo")).with_clock(|| NOW.get());
        Self {
            directory,
            memo,
            path,
        }
    }

    /// Sets the clock to this time after the file's last change.
    fn clock_after_change(&self, time: Duration) {
        let changed = u64::try_from(stamp(&self.path).changed).unwrap();
        NOW.set(UNIX_EPOCH + Duration::from_nanos(changed) + time);
    }

    fn digest(&self) -> Digest {
        self.memo.digest(&self.path).unwrap()
    }

    fn forge(&self) {
        for record in self.memo.table().records.values_mut() {
            record.digest = *Digest::of_bytes(FORGED).as_bytes();
        }
    }

    fn len(&self) -> usize {
        self.memo.table().records.len()
    }
}

fn stamp(path: &Path) -> Stamp {
    Stamp::of(&fs::metadata(path).unwrap())
}

#[test]
fn a_certain_stat_is_answered_without_reading() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_millis(21));
    assert_eq!(fixture.digest(), Digest::of_bytes(b"aaaa"));
    fixture.forge();
    assert_eq!(fixture.digest(), Digest::of_bytes(FORGED));
}

#[test]
fn a_file_written_within_the_granularity_is_hashed_again() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_millis(20));
    assert_eq!(fixture.digest(), Digest::of_bytes(b"aaaa"));
    assert_eq!(fixture.len(), 0);
    fs::write(&fixture.path, "bbbb").unwrap();
    assert_eq!(fixture.digest(), Digest::of_bytes(b"bbbb"));
}

#[test]
fn a_changed_change_time_with_an_equal_modification_time_is_hashed_again() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    fixture.forge();
    let before = stamp(&fixture.path);
    let modified = fs::metadata(&fixture.path).unwrap().modified().unwrap();
    // The clock of the memo runs ahead, so the real tick may need to come round first.
    while stamp(&fixture.path).changed == before.changed {
        fs::write(&fixture.path, "bbbb").unwrap();
        let file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
        file.set_modified(modified).unwrap();
    }
    assert_eq!(stamp(&fixture.path).modified, before.modified);
    assert_eq!(fixture.digest(), Digest::of_bytes(b"bbbb"));
}

#[test]
fn a_modification_time_in_the_future_is_never_certain() {
    let fixture = Fixture::new();
    let file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    assert_eq!(fixture.len(), 0);
}

#[test]
fn a_change_time_without_fractions_is_never_certain() {
    let stamp = Stamp {
        size: 1,
        modified: 1_500_000_000,
        changed: 2_000_000_000,
    };
    let much_later = UNIX_EPOCH + Duration::from_secs(1000);
    assert!(!stamp.is_certain(much_later));
    let fine = Stamp {
        changed: 2_000_000_001,
        ..stamp
    };
    assert!(fine.is_certain(much_later));
}

#[test]
fn what_is_no_regular_file_is_never_remembered() {
    NOW.set(SystemTime::now() + Duration::from_secs(1));
    let fixture = Fixture::new();
    let digest = fixture.memo.digest(Path::new("/dev/null")).unwrap();
    assert_eq!(digest, Digest::of_bytes(b""));
    assert_eq!(fixture.len(), 0);
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    let missing = fixture.directory.path().join("no.o");
    let error = fixture.memo.digest(&missing).unwrap_err();
    assert!(error.to_string().contains("no.o"), "{error}");
}

#[test]
fn a_saved_memo_is_read_again() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    fixture.forge();
    fixture.memo.save().unwrap();
    let again = StatMemo::open(&fixture.memo.file).with_clock(|| NOW.get());
    let digest = again.digest(&fixture.path).unwrap();
    assert_eq!(digest, Digest::of_bytes(FORGED));
}

#[test]
fn a_damaged_memo_starts_empty() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    fixture.memo.save().unwrap();
    let mut bytes = fs::read(&fixture.memo.file).unwrap();
    bytes[20] ^= 1;
    fs::write(&fixture.memo.file, &bytes).unwrap();
    assert_eq!(StatMemo::open(&fixture.memo.file).table().records.len(), 0);
    let newer = Format {
        version: 2,
        ..FORMAT
    };
    fs::write(&fixture.memo.file, newer.seal(b"\0")).unwrap();
    assert_eq!(StatMemo::open(&fixture.memo.file).table().records.len(), 0);
}

#[test]
fn a_memo_of_another_boot_starts_empty() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    let bytes = encode(&fixture.memo.table().records, "this boot").unwrap();
    assert_eq!(decode(&bytes, "this boot").map(|it| it.len()), Some(1));
    assert!(decode(&bytes, "another boot").is_none());
    let unknown = encode(&fixture.memo.table().records, "").unwrap();
    assert!(decode(&unknown, "").is_none());
}

#[test]
fn an_unchanged_memo_is_not_written() {
    let fixture = Fixture::new();
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    fixture.memo.save().unwrap();
    fs::remove_file(&fixture.memo.file).unwrap();
    fixture.digest();
    fixture.memo.save().unwrap();
    assert!(!fixture.memo.file.exists());
}

#[test]
fn records_unused_for_a_month_are_dropped() {
    let fixture = Fixture::new();
    let day = Duration::from_secs(86_400);
    fixture.clock_after_change(Duration::from_secs(1));
    fixture.digest();
    fixture.clock_after_change(day * 29);
    fixture.memo.save().unwrap();
    assert_eq!(fixture.len(), 1);
    fixture.clock_after_change(day * 32);
    fixture.memo.save().unwrap();
    assert_eq!(fixture.len(), 0);
    assert_eq!(StatMemo::open(&fixture.memo.file).table().records.len(), 0);
}

#[test]
fn too_many_records_lose_the_least_recently_used() {
    let stamp = Stamp {
        size: 0,
        modified: 0,
        changed: 0,
    };
    let record = |number: u32| {
        let inode = Inode {
            device: 1,
            inode: number.into(),
        };
        let record = Record {
            stamp,
            digest: [0; 32],
            used_day: 100 - number,
        };
        (inode, record)
    };
    let mut records = (0..10).map(record).collect();
    drop_unused(&mut records, 100, 4);
    let mut left: Vec<_> = records.keys().map(|inode| inode.inode).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3]);
}

proptest! {
    #[test]
    fn no_body_makes_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&body, "b");
        let _ = decode(&FORMAT.seal(&body), "b");
        let _ = decode(&FORMAT.seal(&[b"\x01b".as_slice(), &body].concat()), "b");
    }
}
