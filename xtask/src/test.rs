//! The whole test run, as the continuous integration does it.
//!
//! In: a filter for test names. Out: the exit code of the first step that fails. The tests on real
//! kernels come last, and nothing is printed after cargo's summary of them.

use std::io::Seek as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::Result;
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
const UNIT_TESTS_OF_KERNEL_TESTS: &[&str] = &["test", "--package", "klto-tests", "--lib"];
const RELEASE: &[&str] = &["build", "--release", "--package", "klto"];
const KERNEL_TESTS: &[&str] = &["test", "--package", "klto-tests", "--no-fail-fast"];

/// Test programs whose tests share nothing but what they lock: two of them run at a time, for each
/// builds a few objects and waits much.
const TWO_AT_A_TIME: &[&str] = &[
    "behaviour",
    "configuration",
    "faults",
    "full",
    "modes",
    "shapes",
    "store_faults",
    "together",
    "toolchains",
];
/// Those that build and boot whole kernels, one test after the other: two rows of them run beside each other,
/// for links and boots leave a processor idle.
const BESIDE_EACH_OTHER: [&[&str]; 2] =
    [&["arm64_5_10", "x86_64_5_10"], &["oracle", "x86_64_6_12"]];
/// The others: shared output trees, figures that need the processors alone.
const ONE_AT_A_TIME: &[&str] = &[
    "compiles",
    "interrupts",
    "jobs",
    "surroundings",
    "unchanged",
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
    let more_unit_tests = [UNIT_TESTS_OF_KERNEL_TESTS, filter.as_slice()].concat();
    let stages = [
        ("format", FORMAT),
        ("clippy", CLIPPY),
        ("unit tests", &unit_tests),
        ("unit tests of the kernel tests", &more_unit_tests),
        ("release build", RELEASE),
    ];
    for (name, arguments) in stages {
        println!("xtask: {name}");
        let begin = Instant::now();
        let status = command::status(&mut product::cargo(arguments))?;
        print_seconds(name, begin);
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    println!("xtask: kernel tests");
    let two = command::status(&mut kernel_tests(TWO_AT_A_TIME, 2, filter))?;
    let [first, second] = beside_each_other(filter)?;
    let one = command::status(&mut kernel_tests(ONE_AT_A_TIME, 1, filter))?;
    let readers = match filter {
        None => command::status(&mut readers_of_a_kernel()?)?,
        Some(_) => ExitStatus::default(),
    };
    let all = [two, first, second, one, readers];
    let failed = all.into_iter().find(|status| !status.success());
    Ok(failed.map_or(0, exit_code))
}

/// Runs both rows of [`BESIDE_EACH_OTHER`]; what the second prints comes when both are over.
fn beside_each_other(filter: Option<&str>) -> Result<[ExitStatus; 2]> {
    let [first, second] = BESIDE_EACH_OTHER.map(|row| kernel_tests(row, 1, filter));
    let (mut first, mut second) = (first, second);
    let mut printed = tempfile::tempfile()?;
    second
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed.try_clone()?);
    let mut second = klto_core::die_with_parent(&mut second).spawn()?;
    let first = command::status(&mut first);
    let second = second.wait()?;
    printed.rewind()?;
    std::io::copy(&mut printed, &mut std::io::stdout())?;
    Ok([first?, second])
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

/// The tests of klto-verify's readers on a whole kernel: the one that others were compared with.
fn readers_of_a_kernel() -> Result<Command> {
    let kernel = Cache::open()?.builds()?.join("reference-6.12");
    let mut cargo = product::cargo(&["test", "--package", "klto-verify", "--test", "objects"]);
    cargo
        .args(["finished_build", "--", "--ignored"])
        .env("KLTO_FINISHED_BUILD", kernel);
    Ok(cargo)
}

/// The kernel tests of those programs; each says its own seconds.
fn kernel_tests(programs: &[&str], at_a_time: usize, filter: Option<&str>) -> Command {
    let mut cargo = product::cargo(KERNEL_TESTS);
    for program in programs {
        cargo.args(["--test", program]);
    }
    cargo
        .args(filter)
        .args(["--", "--nocapture"])
        .arg(format!("--test-threads={at_a_time}"));
    cargo
}

/// What a process returned; a signal counts as 1.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().and_then(|code| code.try_into().ok());
    code.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_program_is_run() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests");
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() || path.join("main.rs").is_file() {
                found.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
            }
        }
        found.sort();
        let [first, second] = BESIDE_EACH_OTHER;
        let mut run = [TWO_AT_A_TIME, first, second, ONE_AT_A_TIME].concat();
        run.sort_unstable();
        assert_eq!(found, run);
    }
}
