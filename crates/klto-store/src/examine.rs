//! The store looked at as a whole: how large it is, whether every file of it is what it was, and its end.
//!
//! In: the store's files. Out: numbers, and the damaged files, which are removed.

use std::fs;

use klto_core::Digest;

use crate::collect::remove;
use crate::entry;
use crate::error::StoreError;
use crate::store::Store;

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Results by key.
    pub entries: u64,
    /// Files that results consist of.
    pub blobs: u64,
    /// What both take of the disk, in bytes.
    pub bytes: u64,
}

/// What [`Store::examine`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Files that were read.
    pub files: u64,
    /// Damaged ones, with the fault; they are removed.
    pub damaged: Vec<String>,
}

impl Store {
    /// Counts the store's files. Reads every directory of the store.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        let blobs = self.directory.join("blobs");
        for file in self.files()? {
            match file.path.starts_with(&blobs) {
                true => usage.blobs += 1,
                false => usage.entries += 1,
            }
            usage.bytes += file.size;
        }
        Ok(usage)
    }

    /// Reads every file of the store, and removes those that are damaged.
    pub fn examine(&self) -> Result<Examined, StoreError> {
        let mut examined = Examined::default();
        let blobs = self.directory.join("blobs");
        for file in self.files()? {
            let Ok(bytes) = fs::read(&file.path) else {
                // A collector may run.
                continue;
            };
            examined.files += 1;
            let name = file.path.file_name().and_then(|name| name.to_str());
            let Some(digest) = name.and_then(|name| Digest::from_hex(name).ok()) else {
                continue;
            };
            let fault = match file.path.starts_with(&blobs) {
                true if Digest::of_bytes(&bytes) == digest => None,
                true => Some("its content has another digest"),
                false => entry::decode(digest, &bytes).err(),
            };
            if let Some(fault) = fault {
                remove(&file.path)?;
                let path = file.path.display();
                examined.damaged.push(format!("{path}: {fault}"));
            }
        }
        Ok(examined)
    }

    /// Removes every blob and entry, and what is remembered of builds.
    pub fn clear(&self) -> Result<Usage, StoreError> {
        let usage = self.usage()?;
        for file in self.files()? {
            remove(&file.path)?;
        }
        remove(&self.directory.join("history"))?;
        Ok(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("store"), 1 << 30).unwrap();
        for text in [&b"one"[..], b"two", b"three"] {
            store.insert_bytes(Digest::of_bytes(text), text).unwrap();
        }
        let usage = store.usage().unwrap();
        assert_eq!((usage.entries, usage.blobs), (3, 3));
        assert!(store.examine().unwrap().damaged.is_empty());
        let of_kind = |kind: &str| {
            let files = store.files().unwrap();
            let is_it = |path: &std::path::PathBuf| path.starts_with(store.directory.join(kind));
            files.into_iter().map(|file| file.path).find(is_it).unwrap()
        };
        for path in [of_kind("blobs"), of_kind("actions")] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "damaged").unwrap();
        }
        let examined = store.examine().unwrap();
        assert_eq!((examined.files, examined.damaged.len()), (6, 2));
        assert!(store.examine().unwrap().damaged.is_empty());
        assert_eq!(store.usage().unwrap().entries, 2);
        store.clear().unwrap();
        assert_eq!(store.usage().unwrap(), Usage::default());
    }
}
