//! Tools that are loaded once and forked for each call.
//!
//! Most of what a short run of clang or lld costs is loading: libLLVM has some 200,000 relocations and
//! thousands of static constructors. A *fork server* is the tool's own executable, loaded and then held
//! before `main` by a preloaded object. For each call it forks, and the child goes on into `main`
//! with the caller's arguments, environment, directory and standard descriptors: the same code on the
//! same inputs, 10 to 20 ms sooner.
//!
//! In: a tool's path, calls. Out: wait statuses. Whatever does not fit (a script, a static executable,
//! variables that the loader reads) is [`Unfit`], and the caller starts the tool itself.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | a call as bytes |
//! | `client.rs` | has a fork server run a call |
//! | `server.rs` | starts a fork server |
//! | `preload.rs` | what is preloaded; a program of its own, compiled by `build.rs` |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[allow(
    dead_code,
    reason = "the preloaded object decodes, the library encodes"
)]
mod call;
mod client;
mod server;

pub use client::{Unfit, run};
pub use server::{ForkServer, socket_beside};

/// Whether a program's loader or allocator reads the variable before `main`.
fn is_for_the_loader(name: &OsStr) -> bool {
    let beginnings: [&[u8]; 3] = [b"LD_", b"GLIBC_TUNABLES", b"MALLOC_"];
    beginnings
        .into_iter()
        .any(|beginning| name.as_bytes().starts_with(beginning))
}
