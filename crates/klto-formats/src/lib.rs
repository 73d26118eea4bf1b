//! Readers and rewriters of the formats that a kernel build holds.
//!
//! Bytes come in, views and new bytes go out. Nothing here opens a file, starts a tool or knows
//! what a kernel is. No input makes any of it panic: wrong bytes give a [`FormatError`].

pub mod archive;
pub mod assembler;
pub mod assembler_data;
pub mod bitcode;
pub mod c_source;
pub mod depfile;
pub mod elf;
mod error;
pub mod genksyms;
pub mod linker_script;
pub mod response;
pub mod symbol_versions;

pub use error::FormatError;
