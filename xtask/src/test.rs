//! The whole test run, as the continuous integration does it.
//!
//! In: a filter for test names. Out: the exit code of the first step that fails. The tests on real
//! kernels come last, and nothing is printed after cargo's summary of them.

use std::os::unix::process::CommandExt;
use std::time::Instant;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::cache::Cache;
use crate::kernel::TREES;
use crate::{command, packages, product, sources};

const FORMAT: &[&str] = &["fmt", "--all", "--check"];
const CLIPPY: &[&str] = &[
    "clippy",
    "--workspace",
    "--all-targets",
    "--",
    "-D",
    "warnings",
];
const UNIT_TESTS: &[&str] = &["test", "--workspace", "--exclude", "klto-tests"];
const RELEASE: &[&str] = &["build", "--release", "--package", "klto"];
const KERNEL_TESTS: &[&str] = &[
    "test",
    "--package",
    "klto-tests",
    "--tests",
    "--no-fail-fast",
];

/// How the names of directories begin in which tests have a store of their own.
pub const STORE_OF_TEST: &str = "test-store-";

/// Installs packages, fetches both sources, checks and tests; `filter` chooses tests by name.
/// Returns the exit code of what failed.
pub fn run(filter: Option<&str>) -> Result<u8> {
    let begin = Instant::now();
    setup()?;
    remove_left_stores()?;
    print_seconds("packages and sources", begin);
    let unit_tests = [UNIT_TESTS, filter.as_slice()].concat();
    let stages = [
        ("format", FORMAT),
        ("clippy", CLIPPY),
        ("unit tests", &unit_tests),
        ("release build", RELEASE),
    ];
    for (name, arguments) in stages {
        println!("xtask: {name}");
        let begin = Instant::now();
        let status = command::status(&mut product::cargo(arguments))?;
        print_seconds(name, begin);
        if !status.success() {
            return Ok(status
                .code()
                .and_then(|code| code.try_into().ok())
                .unwrap_or(1));
        }
    }
    become_kernel_tests(filter)
}

/// Installs the Debian packages and fetches both kernel sources.
pub fn setup() -> Result<()> {
    packages::install_missing()?;
    let cache = Cache::open()?;
    for tree in TREES {
        let source = sources::fetch(&cache, tree)?;
        println!("{}: {}", tree.name, source.display());
    }
    Ok(())
}

/// Stores that tests keep to their end: nobody removes them then.
fn remove_left_stores() -> Result<()> {
    for entry in fs::read_dir(Cache::open()?.builds()?)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(STORE_OF_TEST) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn print_seconds(name: &str, begin: Instant) {
    println!("xtask: {name}: {:.0} s", begin.elapsed().as_secs_f64());
}

/// Kernel builds take all processors, so the tests run one at a time. Each says its own seconds.
fn become_kernel_tests(filter: Option<&str>) -> Result<u8> {
    println!("xtask: kernel tests");
    let mut cargo = product::cargo(KERNEL_TESTS);
    cargo
        .args(filter)
        .args(["--", "--test-threads=1", "--nocapture"]);
    let error = cargo.exec();
    Err(error).with_context(|| format!("starting {}", command::words(&cargo)))
}
