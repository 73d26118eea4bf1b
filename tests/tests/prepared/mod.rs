//! What the tests of faults, toolchains and jobs share: a 5.10 output tree in which small goals,
//! as one module, take seconds; and a look at the processes of a build.
//!
//! Each test copies a tree in which `modules_prepare` is made.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod processes;
pub mod random;
pub mod tools;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use klto_tests::{Build, PrivateSource, Shared, fresh_directory};
use xtask::command;

/// The module of six objects that most tests build.
pub const JBD2: &str = "fs/jbd2/jbd2.ko";
/// Its objects.
pub const JBD2_OBJECTS: [&str; 6] = [
    "checkpoint",
    "commit",
    "journal",
    "recovery",
    "revoke",
    "transaction",
];

/// A build of [`JBD2`] in a prepared output tree of its own, with an empty store.
pub fn jbd2(name: &str) -> Build {
    copy("5.10", name)
        .unwrap_or_else(|error| panic!("{error:#}"))
        .goals(&[JBD2])
}

/// The same with ThinLTO of 6.12, whose `.config` asks for it. Without a vmlinux its modpost knows no
/// symbol that the kernel exports.
pub fn jbd2_of_6_12(name: &str) -> Build {
    copy("6.12", name)
        .unwrap_or_else(|error| panic!("{error:#}"))
        .goals(&[JBD2])
        .environment("KBUILD_MODPOST_WARN", "1")
}

/// The build with a source tree of its own, for which its output tree is prepared.
pub fn with_private_source(build: Build) -> (Build, PrivateSource) {
    let source = PrivateSource::prepared(build.tree()).unwrap();
    let build = build.source(source.path());
    prepare_again(&build, &source);
    (build, source)
}

/// A build of [`JBD2`] of 6.12 with a source tree of its own, and a store that has all its results: for tests that
/// are about what comes after the first build.
pub fn private_jbd2_of_6_12(name: &str) -> (Build, PrivateSource) {
    with_private_source(with_clean_results(jbd2_of_6_12(name)))
}

/// Prepares the output tree of a build in that source.
pub fn prepare_again(build: &Build, source: &PrivateSource) {
    let prepared = klto_tests::prepared_for(source, build.tree()).unwrap();
    copy_output(&prepared, build.output_directory()).unwrap();
}

fn copy(tree: &str, name: &str) -> Result<Build> {
    let build = Build::new(tree, &format!("{}-{name}", test_file()))?
        .ext4()
        .empty_store()?;
    copy_output(&klto_tests::prepared(tree)?, build.output_directory())?;
    Ok(build)
}

/// The name of the test's program without cargo's suffix.
fn test_file() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let name = program.file_stem().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_owned()
}

/// Copies an output tree. kbuild's own tools note by absolute path where they were built, as objtool; they
/// would be built again, which takes as long as what a test is about.
pub fn copy_output(from: &Path, to: &Path) -> Result<()> {
    copy_tree(from, to)?;
    let [from, to_path] = [from, to].map(|path| path.to_string_lossy().into_owned());
    for file in files_below(&to.join("tools")) {
        let text = match file.extension() {
            Some(end) if end == "cmd" => fs_err::read_to_string(&file)?,
            _ => continue,
        };
        if !text.contains(&from) {
            continue;
        }
        let modified = fs_err::metadata(&file)?.modified()?;
        fs_err::write(&file, text.replace(&from, &to_path))?;
        let file = fs_err::OpenOptions::new().append(true).open(&file)?;
        file.file().set_modified(modified)?;
    }
    Ok(())
}

/// Copies a directory with modes and times; `to` is replaced.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs_err::remove_dir_all(to)?;
    }
    command::run(Command::new("cp").arg("-a").arg(from).arg(to))
}

/// What a build of [`JBD2`] gave: the module and the objects in it.
pub fn jbd2_products() -> Vec<PathBuf> {
    let objects = JBD2_OBJECTS.map(|name| PathBuf::from(format!("fs/jbd2/{name}.o")));
    let module = [JBD2, "fs/jbd2/jbd2.o", "fs/jbd2/jbd2.mod.o"].map(PathBuf::from);
    objects.into_iter().chain(module).collect()
}

/// An output tree with a clean build of [`JBD2`].
pub fn clean_jbd2() -> &'static Path {
    static CLEAN: Shared<Build> = Shared::new();
    CLEAN
        .get(|| klto_tests::clean_module("5.10", JBD2))
        .output_directory()
}

/// The build with a store that has the results of a clean build of [`JBD2`].
pub fn with_clean_results(build: Build) -> Build {
    let clean = klto_tests::clean_module(build.tree().name, JBD2).unwrap();
    copy_tree(clean.store_directory(), build.store_directory()).unwrap();
    build
}

/// Fails unless the module and its objects equal a clean build's bit for bit.
pub fn assert_clean(build: &Build) {
    let report = klto_verify::bit_equal(clean_jbd2(), build.output_directory(), &jbd2_products());
    let report = report.unwrap();
    assert!(report.equal(), "{report}");
}

/// A directory for a test's own files, empty.
pub fn directory(name: &str) -> PathBuf {
    fresh_directory(&format!("{}-{name}", test_file())).unwrap()
}

/// Writes an executable file.
pub fn write_program(path: &Path, text: &str) {
    fs_err::write(path, text).unwrap();
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Damages a file in its middle, and no other name of it.
pub fn flip_a_bit(file: &Path) {
    let mut bytes = fs_err::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::remove_file(file).unwrap();
    fs_err::write(file, bytes).unwrap();
}

/// The files below a directory, at any depth, sorted.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => directories.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    files
}

/// `command` after `script` in a mount namespace of its own: its mounts end with it.
pub fn after_mounts(script: &str, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let script = format!("set -e; {script}; exec \"$@\"");
    wrapped(unshare.args(["sh", "-c", &script, "sh"]), command)
}

/// `command` as the last words of `outer`, with its directory and environment.
pub fn wrapped(outer: &mut Command, command: &Command) -> Command {
    let mut whole = Command::new(outer.get_program());
    whole.args(outer.get_args());
    whole.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        whole.current_dir(directory);
    }
    copy_environment(command, &mut whole);
    whole
}

/// Gives `to` the variables that `from` sets and removes.
pub fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// How a command ended: its exit code and all that it printed.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; 128 and more for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", command::words(command)));
    let signalled = 128 + output.status.signal().unwrap_or(0);
    Ended {
        code: output.status.code().unwrap_or(signalled),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ended {
    /// Fails unless the exit code is `code` and standard error holds each of `texts`.
    pub fn expect(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "no {text:?} in:\n{}",
                self.stderr
            );
        }
        self
    }
}
