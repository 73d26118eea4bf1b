//! Child processes that end with their parent and whose output is captured whole.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;

/// How a child ended and what it printed.
#[derive(Debug)]
pub struct Captured {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
}

/// Makes the child of `command` receive SIGKILL when the thread that spawns it ends, so that
/// nothing outlives a killed klto. The spawning thread must therefore wait for the child.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    signal_with_parent(command, Signal::KILL)
}

/// [`die_with_parent`] with another signal: make ends its own children at SIGTERM.
#[allow(unsafe_code)]
pub fn signal_with_parent(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs between fork and exec and makes two system calls (prctl, getppid); it
    // allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // The parent may have ended before the call above.
            match rustix::process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(rustix::io::Errno::SRCH.into()),
            }
        })
    }
}

/// Runs `program` to its end without standard input.
pub fn run_captured<I, S>(
    program: &Path,
    arguments: I,
    directory: &Path,
) -> std::io::Result<Captured>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    let output = die_with_parent(&mut command).output()?;
    Ok(Captured {
        status: output.status,
        stdout: output.stdout,
        stderr: output.stderr,
    })
}
