//! The repository and klto's own program, built as users get it.
//!
//! In: cargo's environment. Out: paths, and cargo commands that run in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::command;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // The directory of this crate's parent exists wherever its source does.
    fs::canonicalize(&root).unwrap_or(root)
}

/// The cargo that runs us, in the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.args(arguments).current_dir(repository());
    cargo
}

/// Builds klto and its shim in release mode; klto's program.
pub fn build_klto() -> Result<PathBuf> {
    command::run(&mut cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "klto",
    ]))?;
    // This program is target/<profile>/xtask, wherever cargo was told to put its target.
    let this = std::env::current_exe().context("finding this program's file")?;
    let target = this.parent().and_then(Path::parent);
    let klto = target
        .context("this program lies in no target directory")?
        .join("release/klto");
    Ok(fs::canonicalize(klto)?)
}

/// What results depend on; documents are written by what makes results.
const CODE: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "crates",
    "tests/src",
    "tests/tests/oracle.rs",
    "tests/tests/prepared",
];

/// What follows the name of a commit to which the code has changes.
pub const CHANGED: &str = " with changes";

/// The commit that last changed the code, and its date; a document that is written twice is the same twice.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        command::output(git.args(arguments).current_dir(repository()))
    };
    let of_code = |words: &[&str]| git(&[words, &["--"], &CODE].concat());
    let mut name = of_code(&["log", "-1", "--format=%h %cs"])?
        .trim()
        .to_owned();
    if !of_code(&["status", "--porcelain"])?.is_empty() {
        name += CHANGED;
    }
    Ok(name)
}
