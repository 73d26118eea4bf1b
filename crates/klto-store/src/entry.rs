//! Action entries: what one action gave, as the bytes of a file.
//!
//! In: a key and a result. Out: bytes; and back, with damage found. It does not know where the
//! file lies, nor whether the blobs that it names exist.

use klto_core::Digest;
use serde::{Deserialize, Serialize};

use crate::sealed::Format;

const FORMAT: Format = Format {
    magic: *b"KLTOACTN",
    version: 1,
};

/// What an action gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// The content of each output, in the order of the action's outputs.
    pub outputs: Vec<Digest>,
    /// What the tool printed on standard error, byte for byte.
    pub stderr: Vec<u8>,
}

/// The key comes first, so that it stands at a fixed place in the file.
#[derive(Serialize, Deserialize)]
struct Body {
    key: [u8; 32],
    outputs: Vec<[u8; 32]>,
    stderr: Vec<u8>,
}

/// The bytes of the entry of `key`.
pub(crate) fn encode(key: Digest, result: &StoredResult) -> Result<Vec<u8>, postcard::Error> {
    let body = Body {
        key: *key.as_bytes(),
        outputs: result
            .outputs
            .iter()
            .map(|digest| *digest.as_bytes())
            .collect(),
        stderr: result.stderr.clone(),
    };
    Ok(FORMAT.seal(&postcard::to_stdvec(&body)?))
}

/// The result in the entry of `key`, or what is wrong with the entry.
pub(crate) fn decode(key: Digest, bytes: &[u8]) -> Result<StoredResult, &'static str> {
    let body = FORMAT.open(bytes)?;
    let (body, rest) =
        postcard::take_from_bytes::<Body>(body).map_err(|_| "its body cannot be decoded")?;
    if !rest.is_empty() {
        return Err("bytes follow its body");
    }
    if body.key != *key.as_bytes() {
        return Err("it belongs to another key");
    }
    Ok(StoredResult {
        outputs: body.outputs.into_iter().map(Digest::from_bytes).collect(),
        stderr: body.stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Digest, StoredResult) {
        let result = StoredResult {
            outputs: vec![Digest::of_bytes(b"one"), Digest::of_bytes(b"two")],
            stderr: b"warning: \xff\n".to_vec(),
        };
        (Digest::of_bytes(b"key"), result)
    }

    #[test]
    fn an_entry_round_trips() {
        let (key, result) = sample();
        let bytes = encode(key, &result).unwrap();
        assert_eq!(decode(key, &bytes), Ok(result));
        assert_eq!(&bytes[12..44], key.as_bytes());
    }

    #[test]
    fn an_entry_under_another_key_is_refused() {
        let (key, result) = sample();
        let bytes = encode(key, &result).unwrap();
        let other = Digest::of_bytes(b"other");
        assert_eq!(decode(other, &bytes), Err("it belongs to another key"));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (key, _) = sample();
            let _ = decode(key, &body);
            let _ = decode(key, &FORMAT.seal(&body));
            let keyed = [key.as_bytes().as_slice(), &body].concat();
            let _ = decode(key, &FORMAT.seal(&keyed));
        }
    }
}
