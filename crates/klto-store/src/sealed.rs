//! The frame of the files whose content this crate defines: magic, version, body, digest.
//!
//! In: a body. Out: bytes that [`Format::open`] gives back only when nothing was changed or lost.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic |
//! | 4 | version, little-endian |
//! | any | body |
//! | 32 | BLAKE3 digest of all that precedes it |

use klto_core::Digest;

/// Magic and version of one kind of file.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub magic: [u8; 8],
    pub version: u32,
}

impl Format {
    /// The bytes of a file with this body.
    pub fn seal(self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 4 + body.len() + 32);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(body);
        let digest = Digest::of_bytes(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// The body of a file, or what is wrong with it.
    pub fn open(self, bytes: &[u8]) -> Result<&[u8], &'static str> {
        let truncated = "it is truncated";
        let (content, digest) = bytes.split_last_chunk::<32>().ok_or(truncated)?;
        let (magic, rest) = content.split_first_chunk::<8>().ok_or(truncated)?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or(truncated)?;
        if *magic != self.magic {
            return Err("its magic is wrong");
        }
        if u32::from_le_bytes(*version) != self.version {
            return Err("it has another version");
        }
        if Digest::of_bytes(content).as_bytes() != digest {
            return Err("its content does not match its digest");
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        magic: *b"KLTOTEST",
        version: 1,
    };

    #[test]
    fn every_changed_byte_and_every_truncation_is_found() {
        let sealed = FORMAT.seal(b"body");
        assert_eq!(FORMAT.open(&sealed), Ok(&b"body"[..]));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(FORMAT.open(&changed).is_err(), "byte {index}");
            assert!(FORMAT.open(&sealed[..index]).is_err(), "length {index}");
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let newer = Format {
            version: 2,
            ..FORMAT
        };
        let fault = FORMAT.open(&newer.seal(b"body")).unwrap_err();
        assert_eq!(fault, "it has another version");
    }
}
