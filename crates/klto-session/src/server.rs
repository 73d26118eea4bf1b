//! The socket on which shims reach the session.
//!
//! It lies in a short private directory: a socket's path has at most 107 bytes (unix(7)), and output
//! trees can be deep. One thread serves one conversation.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use klto_wire::{Finished, Reply, Request};

use crate::recipe::Caller;
use crate::session::Session;

/// A listening socket; removed when dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// Begins to serve `session`.
    pub fn start(session: Arc<Session>) -> anyhow::Result<Self> {
        let preferred = std::env::temp_dir();
        let short = preferred.as_os_str().len() < 60;
        let parent = if short {
            preferred
        } else {
            PathBuf::from("/tmp")
        };
        let directory = tempfile::Builder::new()
            .prefix("klto-")
            .tempdir_in(&parent)
            .with_context(|| {
                format!("making a directory for the socket in {}", parent.display())
            })?;
        let server = Self { directory };
        let listener =
            UnixListener::bind(server.socket()).context("opening the session's socket")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = Arc::clone(&session);
                std::thread::spawn(move || serve(&session, stream));
            }
        });
        Ok(server)
    }

    /// Where shims connect.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }
}

/// One conversation. A shim that went away ends it: make has seen to the rest.
fn serve(session: &Session, mut stream: UnixStream) {
    let Ok(request) = Request::read(&mut stream) else {
        return;
    };
    let caller = Caller::of(&stream);
    let mut exchange = |reply: &Reply| {
        reply.write(&mut stream)?;
        match reply {
            Reply::RunThenReport { .. } => Finished::read(&mut stream).map(Some),
            _ => Ok(None),
        }
    };
    if let Err(error) = session.converse(request, caller, &mut exchange) {
        session.log.line(&format!("gone a shim: {error}"));
    }
}
