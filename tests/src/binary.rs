//! The klto under test: built once in a process, as users get it.
//!
//! Out: the path of `klto`; `klto-shim` lies beside it. `KLTO_BIN` names another one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use xtask::command;

use crate::shared::Shared;

/// The program; built on first use by `cargo build --release -p klto`.
///
/// # Panics
/// It does not build, or the shim is not beside it.
pub fn klto_binary() -> &'static Path {
    static BINARY: Shared<PathBuf> = Shared::new();
    BINARY.get(|| {
        let klto = match env::var_os("KLTO_BIN") {
            Some(path) => PathBuf::from(path),
            None => build()?,
        };
        let shim = klto.with_file_name("klto-shim");
        ensure!(klto.is_file(), "{} is missing", klto.display());
        ensure!(shim.is_file(), "{} is missing", shim.display());
        Ok(klto)
    })
}

fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(&root)
        .args(["build", "--quiet", "--release", "--package", "klto"]);
    command::run(&mut build)?;
    // Cargo takes a relative directory from where it was started, the workspace in both cases.
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(fs_err::canonicalize(
        root.join(target).join("release/klto"),
    )?)
}
