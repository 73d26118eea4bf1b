//! Frames: a length, a tag, and length-prefixed byte strings.
//!
//! Nothing here trusts a length: a body over [`LIMIT`] or a string that leaves its body is refused.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;

/// The largest body in bytes; a link line of a large kernel needs some 200 kB.
const LIMIT: usize = 64 << 20;

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed klto message: {what}"),
    )
}

/// A body that is being written.
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(tag: u8) -> Self {
        Self(vec![0, 0, 0, 0, tag])
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn list<'a>(&mut self, items: impl Iterator<Item = &'a [u8]>) {
        let items: Vec<_> = items.collect();
        self.length(items.len());
        for item in items {
            self.bytes(item);
        }
    }

    fn length(&mut self, length: usize) {
        // A length that does not fit is caught by the limit when the frame is sent.
        self.0
            .extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(crate) fn send(mut self, stream: &mut impl Write) -> io::Result<()> {
        let length = self.0.len() - 4;
        if length > LIMIT {
            return Err(invalid("too long"));
        }
        let length = u32::try_from(length).map_err(|_| invalid("too long"))?;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&self.0)
    }
}

/// A body that is being read.
pub(crate) struct BodyReader {
    body: Vec<u8>,
    position: usize,
}

impl BodyReader {
    pub(crate) fn receive(stream: &mut impl Read, tags: &[u8]) -> io::Result<(u8, Self)> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LIMIT {
            return Err(invalid("too long"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        match body.first() {
            Some(tag) if tags.contains(tag) => Ok((*tag, Self { body, position: 1 })),
            _ => Err(invalid("tag")),
        }
    }

    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let end = self
            .position
            .checked_add(count)
            .ok_or_else(|| invalid("length"))?;
        let bytes = self
            .body
            .get(self.position..end)
            .ok_or_else(|| invalid("length"))?;
        self.position = end;
        Ok(bytes)
    }

    fn length(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    pub(crate) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let count = self.length()?;
        Ok(self.take(count)?.to_vec())
    }

    pub(crate) fn byte(&mut self) -> io::Result<u8> {
        self.bytes()?
            .first()
            .copied()
            .ok_or_else(|| invalid("empty"))
    }

    pub(crate) fn list(&mut self) -> io::Result<Vec<OsString>> {
        let count = self.length()?;
        (0..count)
            .map(|_| self.bytes().map(OsString::from_vec))
            .collect()
    }
}
