//! The whole test run, as the continuous integration does it.
//!
//! In: a filter for test names. Out: the exit code of the first step that fails. The tests on real
//! kernels come last, and nothing is printed after cargo's summary of them.

use std::panic::resume_unwind;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
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
const KERNEL_TESTS: &[&str] = &["test", "--package", "klto-tests"];
const RELEASE: &[&str] = &["build", "--quiet", "--release", "--package", "klto"];

/// Test programs, of which two run at a time, the longest first: links and boots leave a processor idle, and
/// builds of a few objects wait much. Tests of one program run one after the other. Every second one edits
/// one copy of the source of 6.12, which two cannot have at a time.
const TWO_AT_A_TIME: &[&str] = &[
    "oracle",
    "x86_64_6_12",
    "arm64_5_10",
    "compiles",
    "x86_64_5_10",
    "unchanged",
    "interrupts",
    "surroundings",
    "toolchains",
    "moved_lines",
    "full",
    "faults",
    "behaviour",
    "store_faults",
    "shapes",
    "modes",
    "configuration",
    "together",
];
/// Figures of this one need the processors alone.
const ALONE: &str = "jobs";

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
    let build_of_kernel_tests = [KERNEL_TESTS, &["--no-run"]].concat();
    let stages = [
        ("format", FORMAT),
        ("clippy", CLIPPY),
        ("unit tests", &unit_tests),
        ("unit tests of the kernel tests", &more_unit_tests),
        ("build of the kernel tests", &build_of_kernel_tests),
    ];
    // It has a directory of its own, and leaves a processor idle at its end.
    let release_build = std::thread::spawn(|| {
        let begin = Instant::now();
        let status = command::status(&mut product::cargo(RELEASE));
        print_seconds("release build", begin);
        status
    });
    for (name, arguments) in stages {
        println!("xtask: {name}");
        let begin = Instant::now();
        let status = command::status(&mut product::cargo(arguments))?;
        print_seconds(name, begin);
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    let status = release_build
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    println!("xtask: kernel tests");
    let mut failed = two_at_a_time(filter)?;
    // Last comes cargo's summary.
    for (program, _) in &failed {
        println!("xtask: {program} failed");
    }
    println!("xtask: {ALONE}");
    let mut note = |name, status: ExitStatus| {
        if !status.success() {
            failed.push((name, status));
        }
    };
    note(ALONE, command::status(&mut kernel_tests(ALONE, filter))?);
    if filter.is_none() {
        note("readers", command::status(&mut readers_of_a_kernel()?)?);
    }
    Ok(failed.first().map_or(0, |(_, status)| exit_code(*status)))
}

/// Runs [`TWO_AT_A_TIME`]; what one prints goes to a file, and comes when it is over. Returns those that failed.
fn two_at_a_time(filter: Option<&str>) -> Result<Vec<(&'static str, ExitStatus)>> {
    let logs = Cache::open()?.builds()?.join("test-logs");
    fs::create_dir_all(&logs)?;
    let next = AtomicUsize::new(0);
    let print = Mutex::new(());
    let run_next = || -> Result<Vec<_>> {
        let mut failed = Vec::new();
        while let Some(program) = TWO_AT_A_TIME.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let path = logs.join(program);
            println!("xtask: {program} runs, {}", path.display());
            let log = fs::File::create(&path)?.into_parts().0;
            let mut tests = kernel_tests(program, filter);
            let status = command::status(tests.stdout(log.try_clone()?).stderr(log))?;
            let _printing = print.lock().unwrap_or_else(PoisonError::into_inner);
            println!("xtask: {program}");
            std::io::copy(&mut fs::File::open(&path)?, &mut std::io::stdout())?;
            print_seconds(program, begin);
            if !status.success() {
                failed.push((*program, status));
            }
        }
        Ok(failed)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(run_next);
        let own = run_next();
        let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok([own?, other?].concat())
    })
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

/// The kernel tests of a program; each says its own seconds.
fn kernel_tests(program: &str, filter: Option<&str>) -> Command {
    let mut cargo = product::cargo(KERNEL_TESTS);
    cargo
        .args(["--test", program])
        .args(filter)
        .args(["--", "--nocapture", "--test-threads=1"]);
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
        let mut run = [TWO_AT_A_TIME, &[ALONE]].concat();
        run.sort_unstable();
        assert_eq!(found, run);
    }
}
