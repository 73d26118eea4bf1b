//! Where tests build: directories of the development cache.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;
use xtask::cache::Cache;
use xtask::packages;

use crate::shared::Shared;

/// The development cache.
///
/// # Panics
/// Packages that the tests need are not installed. No test is skipped for that.
pub fn cache() -> &'static Cache {
    static CACHE: Shared<Cache> = Shared::new();
    CACHE.get(|| {
        let missing = packages::missing()?;
        if !missing.is_empty() {
            let list = missing.join(" ");
            bail!("the tests need {list}: run `cargo xtask setup`");
        }
        Cache::open()
    })
}

/// `builds/test-NAME` of the cache, as it is; it may not exist.
pub fn test_directory(name: &str) -> Result<PathBuf> {
    Ok(cache().builds()?.join(format!("test-{name}")))
}

/// `builds/test-NAME` of the cache, empty.
pub fn fresh_directory(name: &str) -> Result<PathBuf> {
    let directory = test_directory(name)?;
    remove(&directory)?;
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Waits until nobody else holds the lock of `directory`, a file beside it; it is held as long as the
/// returned file lives.
pub(crate) fn lock(directory: &Path) -> Result<std::fs::File> {
    let file = fs::File::create(format!("{}.lock", directory.display()))?;
    let file = file.into_parts().0;
    if file.try_lock().is_err() {
        eprintln!(
            "    waits for {}, which another test has",
            directory.display()
        );
        file.lock()?;
    }
    Ok(file)
}

pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
