//! Job slots: who may run a tool now.
//!
//! A shim that waits for the session holds one of make's slots and lends it; every further tool needs
//! a token of make's jobserver. Tokens that come when nobody wants them any more go back at once.
//!
//! Facts about the protocol: GNU make manual, "POSIX Jobserver Interaction".

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, unbounded};
use jobserver::{Acquired, Client, HelperThread};

/// Leave to run one tool; given back when dropped.
#[derive(Debug)]
pub enum Slot {
    /// A token of make's jobserver.
    Token(Acquired),
    /// One of as many as there are processors (`make -j` without a number).
    Free,
}

/// Where slots beyond the lent ones come from.
pub enum Slots {
    /// make runs one job at a time: only lent slots.
    LentOnly,
    /// No limit was asked for: this many beyond the lent one.
    Free(usize),
    /// make's jobserver.
    Jobserver(JobserverSlots),
}

type Waiting = Arc<Mutex<VecDeque<Sender<Slot>>>>;

/// Slots from a jobserver, asked for by a thread of its own.
pub struct JobserverSlots {
    waiting: Waiting,
    helper: HelperThread,
}

/// The slots that one link unit receives while it has work.
///
/// Tokens that arrive after the crew is dropped return to the jobserver.
pub struct Crew {
    /// Slots, as they come.
    pub arrivals: Receiver<Slot>,
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, VecDeque<Sender<Slot>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    /// Slots from the jobserver that make's recipes use.
    pub fn from_jobserver(client: Client) -> io::Result<Self> {
        let waiting: Waiting = Arc::default();
        let for_helper = Arc::clone(&waiting);
        let helper = client.into_helper_thread(move |token| {
            let Ok(token) = token else { return };
            let mut slot = Slot::Token(token);
            // A send gives the slot back when its crew is gone; the next one may want it.
            while let Some(crew) = lock(&for_helper).pop_front() {
                match crew.send(slot) {
                    Ok(()) => return,
                    Err(returned) => slot = returned.into_inner(),
                }
            }
        })?;
        Ok(Self::Jobserver(JobserverSlots { waiting, helper }))
    }

    /// Asks for up to `wanted` slots beyond the lent one.
    pub fn crew(&self, wanted: usize) -> Crew {
        let (sender, arrivals) = unbounded();
        match self {
            Self::LentOnly => {}
            Self::Free(limit) => {
                for _ in 0..wanted.min(*limit) {
                    // The receiver is held above: the channel is open.
                    let _ = sender.send(Slot::Free);
                }
            }
            Self::Jobserver(slots) => {
                // No machine runs more tools at once than this; each request costs the helper a read.
                for _ in 0..wanted.min(256) {
                    lock(&slots.waiting).push_back(sender.clone());
                    slots.helper.request_token();
                }
            }
        }
        Crew { arrivals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_jobserver_bounds_the_crew_and_gets_its_tokens_back() {
        let client = Client::new(2).unwrap();
        let slots = Slots::from_jobserver(client.clone()).unwrap();
        let crew = slots.crew(3);
        let first = crew.arrivals.recv().unwrap();
        let second = crew.arrivals.recv().unwrap();
        let third = crew.arrivals.recv_timeout(Duration::from_millis(200));
        assert!(third.is_err());
        drop((first, second, crew));
        // The third request is still pending and takes a token for a crew that is gone; it must
        // come back, so that both can be had again.
        let again = (client.acquire().unwrap(), client.acquire().unwrap());
        drop(again);
    }

    #[test]
    fn without_a_jobserver_only_the_lent_slot_exists() {
        assert!(Slots::LentOnly.crew(8).arrivals.recv().is_err());
        assert_eq!(Slots::Free(3).crew(8).arrivals.iter().count(), 3);
    }
}
