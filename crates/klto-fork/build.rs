//! Compiles `src/preload.rs` to a shared object, which the library then holds as bytes: cargo has no
//! stable way to put one package's shared object into another's program.

use std::env::{var, var_os};
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/preload.rs");
    println!("cargo::rerun-if-changed=src/call.rs");
    let variable = |name: &str| var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("preload.so");
    if variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        // The object stands before glibc's entry point; without it every tool is started for each call.
        std::fs::write(&output, []).unwrap_or_else(|error| panic!("{}: {error}", output.display()));
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--crate-name=klto_preload", "--crate-type=cdylib"])
        .args(["--edition=2024", "--target", &variable("TARGET")])
        .args(["-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols"])
        .arg("-o")
        .arg(&output)
        .arg("src/preload.rs");
    if let Some(linker) = var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    rustc.args(linker_flags(
        &var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default(),
    ));
    let status = rustc
        .status()
        .unwrap_or_else(|error| panic!("starting rustc: {error}"));
    assert!(status.success(), "compiling the preloaded object: {status}");
}

/// Of the user's flags those that say how to link for the target.
fn linker_flags(encoded: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut words = encoded.split('\u{1f}').peekable();
    while let Some(word) = words.next() {
        let option = match word {
            "-C" | "--codegen" => words.next().unwrap_or_default(),
            word => word.strip_prefix("-C").unwrap_or_default(),
        };
        if option.starts_with("linker=") || option.starts_with("link-arg") {
            flags.push(format!("-C{option}"));
        }
    }
    flags
}
