//! Calls of the system's shell as a fork server.

#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use klto_fork::{ForkServer, Unfit, run};

struct Shell {
    directory: tempfile::TempDir,
    socket: PathBuf,
    server: ForkServer,
}

impl Shell {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (socket, server) = start(Path::new("/bin/sh"), directory.path());
        Self {
            directory,
            socket,
            server: server.unwrap(),
        }
    }

    /// Exit status and what `script` printed.
    fn call(&self, script: &str, environment: &[(&str, &str)]) -> (ExitStatus, String) {
        self.try_call(script, environment).unwrap()
    }

    fn try_call(
        &self,
        script: &str,
        environment: &[(&str, &str)],
    ) -> Result<(ExitStatus, String), Unfit> {
        let mut printed = tempfile::tempfile().unwrap();
        let nothing = File::open("/dev/null").unwrap();
        let pairs = environment.iter();
        let status = run(
            &self.socket,
            ["/bin/sh", "-c", script, "zero", "one two"]
                .map(OsStr::new)
                .into_iter(),
            pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))),
            self.directory.path(),
            [nothing.as_fd(), printed.as_fd(), printed.as_fd()],
        )?;
        printed.rewind().unwrap();
        let mut text = String::new();
        printed.read_to_string(&mut text).unwrap();
        Ok((status, text))
    }
}

fn start(program: &Path, directory: &Path) -> (PathBuf, std::io::Result<ForkServer>) {
    let (socket, preload) = (directory.join("s"), directory.join("preload.so"));
    ForkServer::write_preload(&preload).unwrap();
    let server = ForkServer::start(program, std::iter::empty(), &preload, &socket);
    (socket, server)
}

#[test]
fn a_call_has_its_own_arguments_directory_environment_and_status() {
    let shell = Shell::start();
    let script = "echo \"$0|$1|$A|$HOME|$LD_PRELOAD|$KLTO_FORK_LISTEN\"; pwd; umask; exit 3";
    let (status, text) = shell.call(script, &[("A", "b")]);
    let directory = shell.directory.path().display();
    let umask = String::from_utf8(
        std::process::Command::new("sh")
            .args(["-c", "umask"])
            .output()
            .unwrap()
            .stdout,
    );
    assert_eq!(status.code(), Some(3));
    assert_eq!(
        text,
        format!("zero|one two|b|||\n{directory}\n{}", umask.unwrap())
    );
    assert_eq!(shell.call("echo $A", &[]).1, "\n");
}

#[test]
fn calls_run_beside_each_other() {
    let shell = Shell::start();
    let path = [("PATH", "/bin:/usr/bin")];
    assert!(shell.call("mkfifo meeting", &path).0.success());
    // Either waits for the other.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| shell.call("cat meeting", &path).1);
        assert!(shell.call("echo met > meeting", &path).0.success());
        assert_eq!(reader.join().unwrap(), "met\n");
    });
}

#[test]
fn a_signal_ends_a_call_and_not_the_server() {
    let shell = Shell::start();
    let (status, _) = shell.call("kill -9 $$", &[]);
    assert_eq!(status.signal(), Some(9));
    let (status, _) = shell.call("kill -TERM $$", &[]);
    assert_eq!(status.signal(), Some(15));
    assert!(shell.call(":", &[]).0.success());
}

#[test]
fn the_arguments_of_a_call_are_those_that_ps_shows() {
    let shell = Shell::start();
    let environment = [("PATH", "/bin:/usr/bin")];
    let (_, text) = shell.call("tr '\\0' ' ' < /proc/$$/cmdline", &environment);
    assert!(text.starts_with("/bin/sh -c tr"), "{text}");
    assert!(text.trim_end().ends_with("zero one two"), "{text}");
}

#[test]
fn a_call_ends_with_its_caller() {
    let shell = Shell::start();
    let pid_file = shell.directory.path().join("pid");
    let this = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "caller", "--ignored", "--nocapture"])
        .env("SOCKET_OF_THE_TEST", &shell.socket)
        .spawn();
    let mut this = this.unwrap();
    let read = || {
        std::fs::read_to_string(&pid_file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    };
    let pid = wait_for(read);
    this.kill().unwrap();
    this.wait().unwrap();
    wait_for(|| (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
    assert!(shell.directory.path().join("cleaned").exists());
}

#[test]
fn a_call_ends_with_its_server_and_cleans_up() {
    let shell = Shell::start();
    let directory = shell.directory.path().to_owned();
    let socket = shell.socket.clone();
    let call = std::thread::spawn(move || {
        let nothing = File::open("/dev/null").unwrap();
        run(
            &socket,
            ["sh", "-c", UNTIL_TERMINATED].map(OsStr::new).into_iter(),
            std::iter::empty(),
            &directory,
            [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()],
        )
    });
    let started = shell.directory.path().join("pid");
    wait_for(|| started.exists().then_some(()));
    let Shell {
        directory, server, ..
    } = shell;
    drop(server);
    assert_eq!(call.join().unwrap().unwrap().code(), Some(4));
    assert!(directory.path().join("cleaned").exists());
}

#[test]
fn a_crowd_of_calls_is_served() {
    let shell = Shell::start();
    std::thread::scope(|scope| {
        for number in 0..200 {
            let shell = &shell;
            scope.spawn(move || {
                let status = shell.call(&format!("exit {}", number % 7), &[]).0;
                assert_eq!(status.code(), Some(number % 7));
            });
        }
    });
}

/// Names its process in `pid`, and cleans up when it is told to end.
const UNTIL_TERMINATED: &str =
    "trap ': > cleaned; exit 4' TERM; echo $$ > pid; while :; do :; done";

/// Killed by the test above while it waits for its call.
#[test]
#[ignore = "a part of another test"]
fn caller() {
    let socket = PathBuf::from(std::env::var_os("SOCKET_OF_THE_TEST").unwrap());
    let nothing = File::open("/dev/null").unwrap();
    let _ = run(
        &socket,
        ["sh", "-c", UNTIL_TERMINATED].map(OsStr::new).into_iter(),
        std::iter::empty(),
        socket.parent().unwrap(),
        [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()],
    );
}

fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed().as_secs() < 20, "nothing came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_does_not_fit_is_left_to_the_caller() {
    let shell = Shell::start();
    assert!(
        shell
            .try_call(":", &[("LD_PRELOAD", "libfakeroot.so")])
            .is_err()
    );
    assert!(shell.try_call("cat /dev/fd/5", &[]).is_err());
    let missing = shell.directory.path().join("none");
    let nothing = File::open("/dev/null").unwrap();
    let descriptors = [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()];
    let words = ["sh"].map(OsStr::new).into_iter();
    assert!(
        run(
            &missing,
            words,
            std::iter::empty(),
            Path::new("/"),
            descriptors
        )
        .is_err()
    );
}

#[test]
fn a_script_has_no_fork_server() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("clang");
    std::fs::write(&script, "#!/bin/sh\nexec clang \"$@\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, server) = start(&script, directory.path());
    assert!(server.unwrap_err().to_string().contains("it is run by"));
}
