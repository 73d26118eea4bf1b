//! Who owns the jobserver, and how make learns of it.
//!
//! klto takes `-j` out of make's arguments and owns the tokens, so that backends and recipes share
//! them. An inherited jobserver is joined instead. The pipe style is spoken by every make; 4.4 and
//! later accept it from a parent (GNU make manual, "POSIX Jobserver Interaction").

use std::num::NonZeroU32;
use std::process::Command;

use anyhow::Context as _;
use jobserver::Client;
use klto_exec::Slots;
use klto_kbuild::{Jobs as KbuildJobs, MakeFlags, Parallelism};

use crate::log::tell;

/// Slots for the session, and the jobserver that make is told of.
pub(crate) struct Jobs {
    /// Slots beyond the lent ones.
    pub slots: Slots,
    tell: Tell,
}

/// What MAKEFLAGS says of jobs.
enum Tell {
    /// Nothing: one job at a time.
    Nothing,
    /// `-j`.
    Unlimited,
    /// What the parent make put there.
    Inherited,
    /// `-jN --jobserver-auth=R,W`.
    Own(NonZeroU32, Client),
}

impl Jobs {
    /// Makes or joins the jobserver.
    pub fn open(parallelism: &Parallelism) -> anyhow::Result<Self> {
        let (slots, tell) = match parallelism {
            Parallelism::Inherited(_) => match inherited() {
                Some(client) => (Slots::from_jobserver(client)?, Tell::Inherited),
                None => {
                    tell(
                        "klto: warning: the jobserver is not available: add '+' to the parent make's rule",
                    );
                    (Slots::LentOnly, Tell::Nothing)
                }
            },
            Parallelism::Jobs(KbuildJobs::Unlimited) => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                (Slots::Free(processors.saturating_sub(1)), Tell::Unlimited)
            }
            Parallelism::Jobs(KbuildJobs::Number(count)) => match count.get() as usize - 1 {
                0 => (Slots::LentOnly, Tell::Nothing),
                // make itself holds one slot that is no token.
                tokens => {
                    let client = Client::new(tokens).context("making the jobserver")?;
                    (
                        Slots::from_jobserver(client.clone())?,
                        Tell::Own(*count, client),
                    )
                }
            },
        };
        Ok(Self { slots, tell })
    }

    /// Tells `make` by MAKEFLAGS; the jobserver's descriptors stay open in it.
    pub fn configure(&self, make: &mut Command, flags: &MakeFlags) {
        let text = match &self.tell {
            Tell::Inherited => return,
            Tell::Nothing => flags.without_jobserver(),
            Tell::Unlimited => {
                make.arg("-j");
                flags.without_jobserver()
            }
            Tell::Own(count, client) => {
                client.configure_make(make);
                let value = make.get_envs().find(|(name, _)| *name == "MAKEFLAGS");
                let value = value
                    .and_then(|(_, value)| value?.to_str())
                    .unwrap_or_default();
                let auth = value
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("--jobserver-auth="));
                flags.with_jobserver(*count, auth.unwrap_or_default())
            }
        };
        make.env("MAKEFLAGS", text);
        for name in ["MFLAGS", "GNUMAKEFLAGS", "CARGO_MAKEFLAGS"] {
            make.env_remove(name);
        }
    }
}

#[allow(unsafe_code)]
fn inherited() -> Option<Client> {
    // SAFETY: called once, before klto opens descriptors of its own that could take the numbers that
    // MAKEFLAGS names; the crate checks that they are pipes.
    unsafe { Client::from_env_ext(true).client.ok() }
}
