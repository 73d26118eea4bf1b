//! One call of a tool as bytes. Compiled into the library and into the preloaded object.
//!
//! A message is a `u32` length (little endian), sent together with the descriptors of the working
//! directory and of the three standard streams, and a body: the file mode mask, then where the caller
//! stands, the arguments and the environment as length-prefixed strings. The answer is [`TAKEN`] when
//! the child goes on into the tool, and the tool's wait status, an `i32`, when it is over. A
//! connection that closes before that byte means that nothing has run.

use std::os::unix::fs::MetadataExt;

/// The variable that tells the preloaded object its listening socket's descriptor.
pub const LISTEN_VARIABLE: &str = "KLTO_FORK_LISTEN";

/// The first byte of an answer.
pub const TAKEN: u8 = 1;

/// The descriptors of a message: working directory, standard input, output and error.
pub const DESCRIPTORS: usize = 4;

/// What a tool is started with, besides the descriptors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The file mode creation mask.
    pub umask: u32,
    /// Mount namespace and root directory of the caller, see [`place`]. The same path means another file
    /// elsewhere.
    pub place: Vec<u8>,
    /// The program's name and its arguments.
    pub arguments: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub environment: Vec<Vec<u8>>,
}

impl Call {
    /// The body of a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.umask.to_le_bytes().to_vec();
        put(&mut body, &self.place);
        for list in [&self.arguments, &self.environment] {
            body.extend((list.len() as u32).to_le_bytes());
            list.iter().for_each(|text| put(&mut body, text));
        }
        body
    }

    /// The inverse of [`Call::encode`]; `None` for a body that is cut off.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        Some(Self {
            umask: number(&mut rest)?,
            place: text(&mut rest)?,
            arguments: list(&mut rest)?,
            environment: list(&mut rest)?,
        })
    }
}

/// Mount namespace and root directory of this process, as bytes that differ where these do.
pub fn place() -> std::io::Result<Vec<u8>> {
    let mut place = Vec::new();
    for path in ["/proc/self/ns/mnt", "/"] {
        let metadata = std::fs::metadata(path)?;
        place.extend(metadata.dev().to_le_bytes());
        place.extend(metadata.ino().to_le_bytes());
    }
    Ok(place)
}

fn put(body: &mut Vec<u8>, text: &[u8]) {
    body.extend((text.len() as u32).to_le_bytes());
    body.extend(text);
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*bytes))
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = number(rest)? as usize;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text.to_vec())
}

fn list(rest: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    (0..number(rest)?).map(|_| text(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::any;

    proptest::proptest! {
        #[test]
        fn a_call_is_read_as_it_was_written(
            umask: u32,
            place in vec(any::<u8>(), 0..40),
            arguments in vec(vec(any::<u8>(), 0..40), 0..8),
            environment in vec(vec(any::<u8>(), 0..40), 0..8),
        ) {
            let call = Call { umask, place, arguments, environment };
            let body = call.encode();
            for end in 0..body.len() {
                assert_eq!(Call::decode(&body[..end]), None);
            }
            assert_eq!(Call::decode(&body), Some(call));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Call::decode(&bytes);
        }
    }
}
