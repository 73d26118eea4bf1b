//! Starts fork servers.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use klto_core::die_with_parent;
use rustix::io::FdFlags;

use crate::call::LISTEN_VARIABLE;
use crate::is_for_the_loader;

/// The compiled `preload.rs`; empty for a C library other than glibc.
const PRELOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));
/// Space for the arguments that `ps` shows of a call; the kernel allows 128 KiB an argument.
const TITLE_SPACE: usize = 32 * 1024;

/// A tool that waits for calls. When dropped, it ends them by SIGTERM and then ends itself; it is killed
/// when the thread ends that started it.
#[derive(Debug)]
pub struct ForkServer {
    child: Child,
}

impl ForkServer {
    /// Writes the preloaded object to `path`, unless it is there.
    pub fn write_preload(path: &Path) -> io::Result<()> {
        match std::fs::read(path).is_ok_and(|found| found == PRELOAD) {
            true => Ok(()),
            false => klto_core::publish(path, PRELOAD),
        }
    }

    /// Starts `program` in this environment with the object at `preload`, to wait for calls at `socket`.
    ///
    /// A static program cannot be held: it ends at once, and calls of it are refused.
    ///
    /// # Errors
    ///
    /// Also when `program` is a script, of which its interpreter would be held, and when variables
    /// for the loader are set: a call may be without them.
    pub fn start<'a>(
        program: &Path,
        environment: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
        preload: &Path,
        socket: &Path,
    ) -> io::Result<Self> {
        if PRELOAD.is_empty() {
            return Err(io::Error::other("klto was built without fork servers"));
        }
        let environment: Vec<_> = environment.collect();
        if let Some((name, _)) = environment.iter().find(|(name, _)| is_for_the_loader(name)) {
            return Err(io::Error::other(format!("{} is set", name.display())));
        }
        let listener = UnixListener::bind(socket)?;
        rustix::io::fcntl_setfd(&listener, FdFlags::empty())?;
        let mut command = Command::new(program);
        command
            .args(["--version", &" ".repeat(TITLE_SPACE)])
            .env_clear()
            .envs(environment)
            .env("LD_PRELOAD", preload)
            .env(LISTEN_VARIABLE, listener.as_raw_fd().to_string())
            .current_dir("/");
        // Its other end closes when klto drops the server.
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = die_with_parent(&mut command).spawn()?;
        let mut server = Self { child };
        let runs = std::fs::read_link(format!("/proc/{}/exe", server.child.id()))?;
        match runs == std::fs::canonicalize(program)? {
            true => Ok(server),
            false => {
                // An interpreter does not know what a closed standard input means.
                let _ = server.child.kill();
                Err(io::Error::other(format!("it is run by {}", runs.display())))
            }
        }
    }
}

impl ForkServer {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Where the fork server of the tool of this name listens, beside the session's socket.
pub fn socket_beside(session: &Path, name: &str) -> PathBuf {
    session.with_file_name(format!("{name}.fork"))
}
