//! One call of a tool as bytes. Compiled into the library and into the preloaded object.
//!
//! A message is a `u32` length (little endian), sent together with the three standard descriptors, and
//! a body: the file mode mask, then the directory, the arguments and the environment as
//! length-prefixed strings. The answer is one byte when the child has the call, and the tool's wait
//! status, an `i32`, when it is over.

/// The variable that tells the preloaded object its listening socket's descriptor.
pub const LISTEN_VARIABLE: &str = "KLTO_FORK_LISTEN";

/// What a tool is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The file mode creation mask.
    pub umask: u32,
    /// The working directory.
    pub directory: Vec<u8>,
    /// The program's name and its arguments.
    pub arguments: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub environment: Vec<Vec<u8>>,
}

impl Call {
    /// The body of a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.umask.to_le_bytes().to_vec();
        put(&mut body, &self.directory);
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
            directory: text(&mut rest)?,
            arguments: list(&mut rest)?,
            environment: list(&mut rest)?,
        })
    }
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
            directory in vec(any::<u8>(), 0..40),
            arguments in vec(vec(any::<u8>(), 0..40), 0..8),
            environment in vec(vec(any::<u8>(), 0..40), 0..8),
        ) {
            let call = Call { umask, directory, arguments, environment };
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
