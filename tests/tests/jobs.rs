//! How many tools run at once: never more than make's `-j` says, backends and recipes together.
//! klto's own questions for a version, of some 20 ms, run beside them.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klto_tests::{Build, Shared, cache, step};

use prepared::processes::{Process, of_build};
use prepared::tools::path_with;
use prepared::{Ended, copy_environment, copy_tree, directory, jbd2, jbd2_products, run};

/// The most tools that were seen at once.
#[derive(Debug, Default)]
struct Most {
    /// Command lines of compilers, backends and linkers together.
    tools: Vec<String>,
    /// Backends.
    backends: usize,
}

fn is_tool(process: &Process) -> bool {
    (process.runs("clang") || process.runs("lld")) && !process.says_what_it_is()
}

/// Runs a command and looks at its processes all the while.
fn watched(output: &Path, command: &mut Command) -> (Ended, Most) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = Most::default();
            while !over.load(Ordering::Relaxed) {
                let processes = of_build(output);
                let tools: Vec<&Process> = processes.iter().filter(|one| is_tool(one)).collect();
                let backends = tools.iter().filter(|one| one.is_backend()).count();
                if tools.len() > most.tools.len() {
                    most.tools = tools.iter().map(|one| one.command.clone()).collect();
                }
                most.backends = most.backends.max(backends);
                std::thread::sleep(Duration::from_millis(3));
            }
            most
        });
        let ended = run(command);
        over.store(true, Ordering::Relaxed);
        (ended, watcher.join().unwrap())
    })
}

/// The build succeeds, equals a clean one, and had this many tools at most. Returns the figures
/// and standard error.
fn at_most(limit: usize, build: &Build, command: &mut Command) -> (Most, String) {
    let (ended, most) = watched(build.output_directory(), command);
    ended.expect(0, &[]);
    assert!(
        !most.tools.is_empty() && most.tools.len() <= limit,
        "{most:#?}, not at most {limit}"
    );
    assert!(
        !ended.stderr.contains("jobserver unavailable"),
        "{}",
        ended.stderr
    );
    let (_, kept) = whole();
    let report = klto_verify::bit_equal(kept, build.output_directory(), &jbd2_products()).unwrap();
    assert!(report.equal(), "{report}");
    (most, ended.stderr)
}

/// PATH with a make of 4.4 or later in front.
fn new_make() -> std::ffi::OsString {
    static PLACE: Shared<PathBuf> = Shared::new();
    let place = PLACE.get(|| step("a make of 4.4 or later", || xtask::new_make::fetch(cache())));
    path_with(place)
}

/// A build of jbd2 in an output tree, and a copy of what it made.
fn whole() -> &'static (Build, PathBuf) {
    static WHOLE: Shared<(Build, PathBuf)> = Shared::new();
    WHOLE.get(|| {
        let build = jbd2("tree");
        step("a clean build of jbd2.ko", || build.succeed());
        let kept = directory("kept");
        copy_tree(build.output_directory(), &kept)?;
        Ok((build, kept))
    })
}

/// That build with half of its compiles done and none of its backends. Elsewhere klto would make
/// all again.
fn half_done() -> Build {
    let (build, kept) = whole();
    let output = build.output_directory();
    copy_tree(kept, output).unwrap();
    fs_err::remove_dir_all(output.join(".klto/units")).unwrap();
    for file in [
        "commit.o",
        "journal.o",
        "transaction.o",
        "jbd2.o",
        "jbd2.ko",
    ] {
        fs_err::remove_file(output.join("fs/jbd2").join(file)).unwrap();
    }
    build.clone().empty_store().unwrap()
}

/// Both makes: the machine's, and a newer one.
fn with_each_make(check: impl Fn(Build)) {
    check(half_done());
    check(half_done().environment("PATH", new_make()));
}

#[test]
fn one_job_is_one_tool() {
    with_each_make(|build| {
        let build = build.jobs(Some(1));
        at_most(1, &build, &mut build.command());
    });
}

#[test]
fn without_j_one_tool_runs() {
    with_each_make(|build| {
        let build = build.jobs(None);
        at_most(1, &build, &mut build.command());
    });
}

#[test]
fn two_jobs_are_two_tools() {
    with_each_make(|build| {
        let (most, _) = at_most(2, &build, &mut build.command());
        assert_eq!(most.backends, 2);
    });
}

#[test]
fn jobs_in_makeflags_count() {
    with_each_make(|build| {
        let build = build.jobs(None).environment("MAKEFLAGS", "-j4");
        let (most, _) = at_most(4, &build, &mut build.command());
        assert!(most.backends >= 2, "{most:?}");
    });
}

/// An outer make with three jobs, of which another recipe holds one until the build is over.
fn under_outer_make(name: &str, build: &Build, plus: &str) -> Command {
    let place = directory(name);
    let inner = build.clone().jobs(None).command();
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let over = place.join("over").display().to_string();
    let makefile = format!(
        "all: build other\n\
         build:\n\t{plus}{} && touch {over}\n\
         other:\n\twhile [ ! -e {over} ]; do sleep 0.1; done\n\
         .PHONY: all build other\n",
        words.join(" ")
    );
    fs_err::write(place.join("Makefile"), makefile).unwrap();
    let mut outer = Command::new("make");
    outer.arg("-j3").arg("-C").arg(&place);
    copy_environment(&inner, &mut outer);
    outer
}

#[test]
fn an_outer_make_shares_its_jobs() {
    with_each_make(|build| {
        let mut outer = under_outer_make("outer-place", &build, "+");
        let (most, _) = at_most(2, &build, &mut outer);
        assert_eq!(most.backends, 2);
    });
}

/// make closes its jobserver to such a recipe, which then has one job. A named pipe cannot be closed.
#[test]
fn an_outer_make_that_does_not_know_a_make_below_it_leaves_one_job() {
    let build = half_done();
    let mut outer = under_outer_make("outer-closed-place", &build, "");
    let (_, stderr) = at_most(1, &build, &mut outer);
    let text = "klto: warning: the jobserver is not available: add '+' to the parent make's rule";
    assert!(stderr.contains(text), "{stderr}");
}

#[test]
fn an_outer_make_of_4_4_shares_its_jobs_with_any_recipe() {
    let build = half_done().environment("PATH", new_make());
    let mut outer = under_outer_make("outer-pipe-place", &build, "");
    at_most(2, &build, &mut outer);
}
