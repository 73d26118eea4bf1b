//! The build of one cell of the matrix, by klto in a directory of its own, and its boot.
//!
//! In: a tree with its source, and a mode. Out: an output directory, and what the boot showed. It does not
//! know what the cell is held against.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use fs_err as fs;
use klto_core::Failure;

use crate::kernel::{self, Lto, Tree};
use crate::{boot, command};

/// What `tests/kernel/external` prints when it is loaded.
const EXTERNAL_LINE: &str = "klto_sample: sum 5";

/// The build of a cell, in its directory.
pub(super) struct Build<'a> {
    pub tree: Tree,
    pub lto: Lto,
    pub source: PathBuf,
    pub output: PathBuf,
    pub klto: &'a Path,
    pub directory: &'a Path,
}

impl Build<'_> {
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// `klto make` with these words; what it prints is added to a file.
    pub fn make(&self, words: &[&str]) -> Result<()> {
        let path = self.directory.join("printed");
        let mut printed = fs::OpenOptions::new();
        let printed = printed.create(true).append(true).open(&path)?;
        let mut make = Command::new(self.klto);
        make.arg("make");
        if !self.tree.has_lto_option {
            make.arg(match self.lto {
                Lto::None => "--lto=none",
                Lto::Thin | Lto::ThinDist => "--lto=thin",
                Lto::Full => "--lto=full",
            });
        }
        make.args(kernel::make_arguments(
            &self.tree,
            &self.source,
            &self.output,
        ))
        .arg(format!("-j{}", std::thread::available_parallelism()?))
        .envs(kernel::REPRODUCIBLE)
        .env("KLTO_CACHE", self.store())
        .args(words)
        .stdout(printed.file().try_clone()?)
        .stderr(printed.into_parts().0);
        command::run(&mut make).with_context(|| format!("see {}", path.display()))
    }

    /// Builds a module of three sources outside of the tree.
    pub fn external_module(&self) -> Result<PathBuf> {
        let place = self.directory.join("external");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(kernel::fragments().join("external"));
        command::run(copy.arg(&place))?;
        self.make(&[&format!("M={}", place.display()), "modules"])?;
        Ok(place.join("klto_sample.ko"))
    }

    /// Boots it and loads its modules, an external one too.
    pub fn boot(&self, external: Option<PathBuf>) -> Result<String> {
        let external = external.as_slice();
        let booted = boot::boot_with(&self.tree, &self.output, external)?;
        fs::write(self.directory.join("console"), &booted.console)?;
        boot::verdict(&booted)?;
        let mut what = format!(", {} modules loaded", booted.expected.modules.len());
        if !external.is_empty() {
            if !booted.console.contains(EXTERNAL_LINE) {
                return Err(Failure::build("the external module said nothing").into());
            }
            what += " and an external one";
        }
        Ok(what)
    }
}
