//! Why the store could not do what it was asked; each variant is something a caller branches on.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use klto_core::{Digest, Failure, with_causes};

/// A failure of the store. None of them leaves a partial file under a published name.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else could put results into this store.
    #[error("the store {} is not safe: {reason}", root.display())]
    Unsafe {
        /// The root that was asked for.
        root: PathBuf,
        /// Who else can write.
        reason: String,
    },
    /// The store cannot be created or written.
    #[error("the store {} cannot be written", root.display())]
    NotWritable {
        /// The root that was asked for.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, the quota or the file size limit leaves no room.
    #[error("no room to write {}", path.display())]
    Full {
        /// The file that does not fit; outside the store when a blob was fetched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other fault of a file.
    #[error("accessing {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The blob is not in the store, or not any more: a collector may run at any time.
    #[error("blob {blob} is not in the store")]
    Missing {
        /// What was asked for.
        blob: Digest,
    },
    /// The file is not what was stored. It is removed.
    #[error("damaged store file {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// What a user sees of it where nothing goes on without the store.
    pub fn into_failure(self) -> Failure {
        let failure = Failure::environment(with_causes(&self));
        match self {
            Self::Unsafe { root, .. } => failure.hint(format!(
                "chmod 700 {}, or name another directory in KLTO_CACHE",
                root.display()
            )),
            _ => failure,
        }
    }

    /// For `map_err`: a fault of the file `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}
