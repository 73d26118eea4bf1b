//! Builds that are stopped in the middle: nothing of them lives on, and the next build gives what a
//! clean one gives, bit for bit.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use klto_tests::{Build, Shared, step};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use prepared::processes::{Process, assert_all_gone, await_process, of_build};
use prepared::{JBD2, JBD2_OBJECTS, assert_clean, jbd2};

const SOON: Duration = Duration::from_secs(30);

/// When a build is stopped.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Compile,
    Backend,
}

impl Moment {
    fn is_now(self, process: &Process) -> bool {
        match self {
            Self::Compile => process.is_compile(),
            Self::Backend => process.is_backend(),
        }
    }
}

/// Starts a build as a shell starts it: in a process group of its own.
fn start(build: &Build) -> Child {
    start_command(build.command())
}

fn start_command(mut command: Command) -> Child {
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn klto_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// A clean build that tests share: each leaves it complete.
fn built() -> &'static Build {
    static BUILT: Shared<Build> = Shared::new();
    BUILT.get(|| {
        let build = jbd2("built");
        step("a clean build of jbd2.ko", || build.succeed());
        Ok(build)
    })
}

/// What `moment` makes is missing there, and in the store.
fn before(moment: Moment) -> Build {
    let output = built().output_directory();
    fs_err::remove_dir_all(output.join(".klto/units")).unwrap();
    let remove = |file: &str| fs_err::remove_file(output.join(file)).unwrap();
    [JBD2, "fs/jbd2/jbd2.o"].into_iter().for_each(remove);
    if let Moment::Compile = moment {
        let objects = JBD2_OBJECTS.map(|name| format!("fs/jbd2/{name}.o"));
        objects.iter().for_each(|object| remove(object));
    }
    built().clone().empty_store().unwrap()
}

/// Starts that build, does `stop` at `moment`, and looks at what is left and at the next build.
fn stopped(moment: Moment, stop: impl Fn(&Child, &Path)) {
    stopped_in(&before(moment), moment, stop);
}

fn stopped_in(build: &Build, moment: Moment, stop: impl Fn(&Child, &Path)) {
    let output = build.output_directory().to_owned();
    let mut child = start(build);
    await_process(&output, "compiler", |process| moment.is_now(process));
    stop(&child, &output);
    let status = child.wait().unwrap();
    assert!(!status.success(), "{status}");
    assert_all_gone(&output, SOON);
    build.succeed();
    assert_clean(build);
}

fn interrupt(child: &Child, _: &Path) {
    kill_process_group(Pid::from_raw(klto_of(child)).unwrap(), Signal::INT).unwrap();
}

fn kill_klto(child: &Child, output: &Path) {
    let mut processes = of_build(output).into_iter();
    let klto = processes.find(|process| process.id == klto_of(child));
    klto.unwrap().kill(Signal::KILL);
}

/// The make that klto started, not one under it.
fn kill_make(child: &Child, output: &Path) {
    let is_first = |process: &Process| process.runs("make") && process.parent == klto_of(child);
    let make = of_build(output).into_iter().find(is_first);
    make.unwrap().kill(Signal::KILL);
}

/// Of the first build of an output tree.
#[test]
fn control_c_in_a_compile() {
    stopped_in(&jbd2("int-compile"), Moment::Compile, interrupt);
}

/// As a supervisor does it, not a terminal: make, which passes SIGINT to nobody, would go on to its end.
#[test]
fn an_interrupt_of_klto_alone() {
    let build = before(Moment::Compile);
    let mut child = start(&build);
    await_process(build.output_directory(), "compiler", Process::is_compile);
    let process = Pid::from_raw(klto_of(&child)).unwrap();
    kill_process(process, Signal::INT).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_all_gone(build.output_directory(), SOON);
    assert!(!build.output_directory().join(JBD2).exists());
    build.succeed();
    assert_clean(&build);
}

/// A shell's loop around it then stops too. At SIGTERM make tells its children and dies of it; what it
/// does at ctrl-C depends on who ends first.
#[test]
fn klto_ends_by_the_signal_that_ended_make() {
    let ended = |build: &Build| {
        let mut child = start(build);
        await_process(build.output_directory(), "compiler", Process::is_compile);
        let process = Pid::from_raw(klto_of(&child)).unwrap();
        kill_process(process, Signal::TERM).unwrap();
        child.wait().unwrap().signal()
    };
    let plain = jbd2("term-plain").plain().mode(None);
    assert_eq!(ended(&plain), Some(15));
    assert_eq!(ended(&jbd2("term")), Some(15));
}

#[test]
fn control_c_in_a_backend() {
    stopped(Moment::Backend, interrupt);
}

#[test]
fn klto_killed_in_a_compile() {
    stopped(Moment::Compile, kill_klto);
}

#[test]
fn klto_killed_in_a_backend() {
    stopped(Moment::Backend, kill_klto);
}

/// With the flags of the build before kbuild would take its objects for made, though klto has noted the other
/// flags.
#[test]
fn all_killed_in_a_compile_with_other_flags() {
    let build = built();
    let output = build.output_directory().to_owned();
    let mut child = start(&build.clone().word("KCFLAGS=-DKLTO_OTHER"));
    let is_of_module = |process: &Process| {
        let names = |object: &&str| process.command.contains(&format!("/.{object}.o.d "));
        process.is_compile() && JBD2_OBJECTS.iter().any(names)
    };
    await_process(&output, "compiler of jbd2", is_of_module);
    // klto goes first: nobody is left to clean up.
    kill_klto(&child, &output);
    for process in of_build(&output) {
        process.kill(Signal::KILL);
    }
    assert!(!child.wait().unwrap().success());
    assert_all_gone(&output, SOON);
    let is_old = |object: &&str| {
        let object = std::fs::metadata(output.join(format!("fs/jbd2/{object}.o")));
        // make may have removed it.
        object.map_or(true, |object| {
            let age = object.modified().unwrap().elapsed().unwrap();
            age > Duration::from_secs(365 * 24 * 3600)
        })
    };
    assert!(JBD2_OBJECTS.iter().any(is_old));
    build.succeed();
    assert_clean(build);
}

#[test]
fn make_killed_in_a_compile() {
    stopped(Moment::Compile, kill_make);
}

#[test]
fn make_killed_in_a_backend() {
    stopped(Moment::Backend, kill_make);
}

/// In a backend the shim of the linker waits for the session.
#[test]
fn a_shim_killed_in_a_backend() {
    stopped(Moment::Backend, |_, output| {
        await_process(output, "shim", |process| process.runs("klto-shim")).kill(Signal::KILL);
    });
}

/// The shim of the compiler waits for it when the object is a module of its own.
#[test]
fn a_shim_killed_in_a_compile() {
    let module = "drivers/block/virtio_blk.ko";
    let build = jbd2("shim-compile").goals(&[module]);
    let output = build.output_directory().to_owned();
    let clean = jbd2("shim-clean").goals(&[module]);
    clean.succeed();
    let mut child = start(&build);
    await_process(&output, "compiler", Process::is_single_module_compile);
    // A probe's shim may live too, and make does not mind when a probe fails.
    let shim = await_process(&output, "shim", |process| {
        process.runs("klto-shim") && process.command.contains(" -o drivers/block/virtio_blk.o ")
    });
    shim.kill(Signal::KILL);
    assert!(!child.wait().unwrap().success());
    assert_all_gone(&output, SOON);
    build.succeed();
    let report = klto_verify::bit_equal(clean.output_directory(), &output, &[module.into()]);
    let report = report.unwrap();
    assert!(report.equal(), "{report}");
}

/// Of what reached the disk nothing is known but that it is not all.
#[test]
fn a_machine_that_stopped_in_a_build_has_all_made_again() {
    // A result that is made again is no hit.
    let build = built().clone().verify(0);
    let begun = build.output_directory().join(".klto/begun");
    assert!(!begun.exists());
    fs_err::write(begun, "another boot\n").unwrap();
    let source = build.output_directory().join(".config");
    fs_err::write(&source, fs_err::read(&source).unwrap()).unwrap();
    let again = build.succeed();
    let all = JBD2_OBJECTS.map(|name| format!("fs/jbd2/{name}.o"));
    let found = again.log.objects("hit", "compile");
    assert!(all.iter().all(|object| found.contains(object)), "{found:?}");
    assert_clean(&build);
}

#[test]
fn a_killed_backend_fails_the_build_and_is_named() {
    let build = before(Moment::Backend);
    let output = build.output_directory().to_owned();
    let running = build.start().unwrap();
    let backend = await_process(&output, "backend", Process::is_backend);
    backend.kill(Signal::KILL);
    let outcome = running.wait().unwrap();
    let text = outcome.describe();
    assert_eq!(outcome.status.code(), Some(2), "{text}");
    assert!(text.contains("backend of fs/jbd2/"), "{text}");
    assert!(text.contains("killed by signal 9"), "{text}");
    assert_all_gone(&output, SOON);
    build.succeed();
    assert_clean(&build);
}

/// `nohup klto make` goes on when the terminal is closed, as `nohup make` does. (clang itself does
/// not: the signal is sent to klto alone.)
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let build = before(Moment::Compile);
    let output = build.output_directory().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]);
    let mut child = start_command(prepared::wrapped(&mut shell, &build.command()));
    await_process(&output, "compiler", Process::is_compile);
    let klto = Pid::from_raw(klto_of(&child)).unwrap();
    kill_process(klto, Signal::HUP).unwrap();
    kill_process(klto, Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert_clean(&build);
}
