//! Content digests and the builder of action keys.
//!
//! In: bytes, files, labelled fields. Out: 32-byte BLAKE3 digests. It does not know which fields a
//! key must have; the table in `action.rs` says that.

use std::fmt;
use std::io::Read;
use std::path::Path;

use crate::processor::processor;

/// A BLAKE3 digest, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text was not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseDigestError;

impl Digest {
    /// The digest of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's content.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut file = fs_err::File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Self(*hasher.finalize().as_bytes()));
            }
            hasher.update(&buffer[..count]);
        }
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.to_string()
    }

    /// The inverse of [`Digest::to_hex`].
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        let lower = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !lower || text.len() != 64 {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * index..2 * index + 2).ok_or(ParseDigestError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseDigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is 64 lower-case hexadecimal digits")
    }
}

impl std::error::Error for ParseDigestError {}

/// Builds a key from labelled fields.
///
/// Every field is preceded by its label and both lengths, so that no two sequences of fields give
/// the same bytes.
pub struct KeyBuilder(blake3::Hasher);

impl KeyBuilder {
    /// A key of the named kind; `version` changes when the meaning of a field changes.
    pub fn new(kind: &str, version: u32) -> Self {
        let mut builder = Self(blake3::Hasher::new());
        builder.field("kind", kind.as_bytes());
        builder.field("version", &version.to_le_bytes());
        builder
    }

    /// Adds one field.
    pub fn field(&mut self, label: &str, value: &[u8]) -> &mut Self {
        for part in [label.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds an argument of a tool; one that stands for the processor of this machine, as `-march=native`,
    /// with what that is.
    pub fn argument(&mut self, label: &str, argument: &[u8]) -> &mut Self {
        self.field(label, argument);
        // As `-plugin-opt=-mcpu=native`; it may have more features: `native+crypto`.
        let mut values = argument.split(|byte| *byte == b'=').skip(1);
        let is_native = |value: &[u8]| value.split(|byte| *byte == b'+').next() == Some(b"native");
        if values.any(is_native) {
            self.digest("processor", processor());
        }
        self
    }

    /// Adds the digest of something.
    pub fn digest(&mut self, label: &str, digest: Digest) -> &mut Self {
        self.field(label, digest.as_bytes())
    }

    /// The key.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_is_the_processor_of_this_machine() {
        let key = |argument: &[u8]| {
            KeyBuilder::new("test", 1)
                .argument("flag", argument)
                .finish()
        };
        let field = |argument: &[u8]| KeyBuilder::new("test", 1).field("flag", argument).finish();
        assert_eq!(key(b"-march=x86-64"), field(b"-march=x86-64"));
        for argument in [&b"-march=native"[..], b"-mcpu=native+crypto"] {
            assert_ne!(key(argument), field(argument));
        }
    }

    #[test]
    fn hex_text_round_trips() {
        let digest = Digest::of_bytes(b"bitcode");
        assert_eq!(Digest::from_hex(&digest.to_hex()), Ok(digest));
        assert_eq!(Digest::from_hex("AB"), Err(ParseDigestError));
        assert_eq!(
            Digest::from_hex(&digest.to_hex().to_uppercase()),
            Err(ParseDigestError)
        );
    }

    #[test]
    fn moving_a_byte_between_fields_changes_the_key() {
        let key = |a: &str, b: &str| {
            let mut builder = KeyBuilder::new("test", 1);
            builder.field("a", a.as_bytes()).field("b", b.as_bytes());
            builder.finish()
        };
        assert_ne!(key("xy", "z"), key("x", "yz"));
        assert_ne!(key("", "xyz"), key("xyz", ""));
    }
}
