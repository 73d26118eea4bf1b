//! The socket on which shims reach the session.
//!
//! It lies in a short private directory: a socket's path has at most 107 bytes (unix(7)), and output
//! trees can be deep. One thread serves one conversation.

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use klto_wire::{ANSWERS_NAME, Finished, Reply, Request, ShimRole};

use crate::reader::reader_name;
use crate::recipe::Caller;
use crate::session::Session;

const PREFIX: &str = "klto-";
const SOCKET_NAME: &str = "s";

/// A listening socket; removed when dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// Begins to serve `session`. Shims find the compiler's answers to probes in `answers`.
    pub fn start(session: Arc<Session>, answers: Option<&Path>) -> anyhow::Result<Self> {
        let preferred = std::env::temp_dir();
        let short = preferred.as_os_str().len() < 60;
        let parent = if short {
            preferred
        } else {
            PathBuf::from("/tmp")
        };
        remove_forsaken(&parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .with_context(|| {
                format!("making a directory for the socket in {}", parent.display())
            })?;
        if let Some(answers) = answers {
            let beside = directory.path().join(ANSWERS_NAME);
            std::os::unix::fs::symlink(answers, beside).context("placing answers for shims")?;
        }
        let server = Self { directory };
        let listener =
            UnixListener::bind(server.socket()).context("opening the session's socket")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&session);
                let thread = std::thread::Builder::new();
                if let Err(error) = thread.spawn(move || serve(&served, stream)) {
                    // kbuild does not look at the end of each call: none is answered any more.
                    session.log.line(&format!("gone the session: {error}"));
                    break;
                }
            }
        });
        Ok(server)
    }

    /// Where shims connect.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET_NAME)
    }
}

/// Removes the directories of sessions that were killed: nobody listens on their sockets any more.
/// Other users' cannot be removed.
fn remove_forsaken(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let refused = || {
            let connected = UnixStream::connect(entry.path().join(SOCKET_NAME));
            connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        if ours && refused() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// One conversation. A shim that went away ends it: make has seen to the rest.
fn serve(session: &Session, mut stream: UnixStream) {
    let Ok(request) = Request::read(&mut stream) else {
        return;
    };
    let caller = Caller::of(&stream);
    let (start, called) = (Instant::now(), reader_name(&request));
    let is_make = request.role == ShimRole::Make;
    let mut exchange = |reply: &Reply| {
        reply.write(&mut stream)?;
        match reply {
            Reply::RunThenReport { .. } => Finished::read(&mut stream).map(Some),
            // It goes on as another program, and this connection tells nothing of its end.
            Reply::Exec { .. } if is_make => Ok(None),
            Reply::Exec { .. } => {
                // The connection closes when the tool's fork server has ended it, or when the shim becomes
                // it.
                let _ = stream.read(&mut [0]);
                session.timeline.ended(start, "tool", "ran", &called);
                Ok(None)
            }
            Reply::Done { .. } => Ok(None),
        }
    };
    if let Err(error) = session.converse(request, caller, &mut exchange) {
        session.log.line(&format!("gone a shim: {error}"));
    }
}
