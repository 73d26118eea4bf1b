//! The development cache: where downloads, kernel sources and builds lie between two runs.
//!
//! In: `KLTO_DEV_CACHE`, `XDG_CACHE_HOME` or `HOME`. Out: the directories, made on first use.
//! It does not know what lies in them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

/// The root of the cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the cache by the environment and makes its root.
    pub fn open() -> Result<Self> {
        let root = root_from(|name| env::var_os(name).filter(|value| !value.is_empty()))?;
        Self::at(&root)
    }

    /// The cache at a directory of the caller's choice, made when missing.
    pub fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        let root = fs::canonicalize(root)?;
        Ok(Self { root })
    }

    /// Debian packages as they were downloaded.
    pub fn downloads(&self) -> Result<PathBuf> {
        self.directory("downloads")
    }

    /// Unpacked kernel sources and their `.complete` stamps.
    pub fn sources(&self) -> Result<PathBuf> {
        self.directory("sources")
    }

    /// Output directories of builds that are kept.
    pub fn builds(&self) -> Result<PathBuf> {
        self.directory("builds")
    }

    /// Raw figures of measurements and the builds that they measure.
    pub fn benchmarks(&self) -> Result<PathBuf> {
        self.directory("bench")
    }

    /// State of a private apt configuration for `suite`.
    pub fn apt(&self, suite: &str) -> Result<PathBuf> {
        self.directory(&format!("apt/{suite}"))
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

fn root_from(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<PathBuf> {
    if let Some(root) = variable("KLTO_DEV_CACHE") {
        return Ok(root.into());
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("klto-dev"));
    }
    match variable("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/klto-dev")),
        None => Err(Failure::environment("no place for the development cache")
            .hint("set KLTO_DEV_CACHE or HOME")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(set: &[(&str, &str)]) -> Result<PathBuf> {
        root_from(|name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_own_variable_goes_first_and_home_last() {
        let all = [
            ("HOME", "/h"),
            ("XDG_CACHE_HOME", "/x"),
            ("KLTO_DEV_CACHE", "/k"),
        ];
        assert_eq!(root(&all).unwrap(), Path::new("/k"));
        assert_eq!(root(&all[..2]).unwrap(), Path::new("/x/klto-dev"));
        assert_eq!(root(&all[..1]).unwrap(), Path::new("/h/.cache/klto-dev"));
        assert!(root(&[]).is_err());
    }
}
