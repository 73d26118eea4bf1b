//! The one error of this crate: which format, where, and what should have stood there.
//!
//! It does not know which file the bytes are from; the caller adds that.

/// Bytes that are not what their format asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{format}: expected {expected} at offset {offset:#x}")]
pub struct FormatError {
    /// The format that was read, as `bitcode`, `ELF`, `archive`.
    pub format: &'static str,
    /// Offset in bytes from the start of the input. Where a library reads the table, the offset
    /// of the table.
    pub offset: u64,
    /// What was expected there.
    pub expected: &'static str,
}

impl FormatError {
    pub(crate) const fn new(format: &'static str, offset: u64, expected: &'static str) -> Self {
        Self {
            format,
            offset,
            expected,
        }
    }
}
