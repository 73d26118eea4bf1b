//! The bytes of a journal: a magic, then frames of length, payload and a checksum.
//!
//! In: entries, or bytes. Out: the other.

use std::io;

use klto_core::Digest;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::Entry;

pub(super) const MAGIC: &[u8; 8] = b"kltojrn7";

/// An entry as it is stored.
pub(super) fn frame(entry: &Entry) -> io::Result<Vec<u8>> {
    let payload = postcard::to_stdvec(entry).map_err(io::Error::other)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(&payload);
    frame.extend_from_slice(&Digest::of_bytes(&payload).as_bytes()[..8]);
    Ok(frame)
}

/// The entries of `bytes` up to the first that is damaged, and whether there is none.
pub(super) fn entries(bytes: &[u8]) -> (Vec<Entry>, bool) {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return (Vec::new(), false);
    };
    let mut frames = Vec::new();
    while let Some((frame, after)) = Frame::first(rest) {
        frames.push(frame);
        rest = after;
    }
    let read: Vec<Option<Entry>> = frames.par_iter().map(Frame::entry).collect();
    let count = read.len();
    let entries: Vec<Entry> = read.into_iter().map_while(|entry| entry).collect();
    let whole = rest.is_empty() && entries.len() == count;
    (entries, whole)
}

/// An entry in stored bytes.
struct Frame<'a> {
    payload: &'a [u8],
    checksum: &'a [u8; 8],
}

impl<'a> Frame<'a> {
    /// The first of `bytes`, and what follows; none where they end before it does.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, after) = bytes.split_first_chunk::<4>()?;
        let (payload, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (checksum, after) = after.split_first_chunk::<8>()?;
        Some((Self { payload, checksum }, after))
    }

    fn entry(&self) -> Option<Entry> {
        let whole = Digest::of_bytes(self.payload).as_bytes()[..8] == *self.checksum;
        whole
            .then(|| postcard::from_bytes(self.payload).ok())
            .flatten()
    }
}
