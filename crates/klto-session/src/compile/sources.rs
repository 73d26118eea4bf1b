//! C sources and headers by content: read once in a session, however many objects include them.
//!
//! In: paths. Out: their digests, and what of them can matter to a compile. It does not know who includes
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use klto_core::{Digest, KeyBuilder};
use klto_formats::c_source::CSource;
use klto_store::StatMemo;

use crate::session::lock;

/// What of one file matters.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its bytes.
    pub bytes: Digest,
    /// Its tokens and their lines.
    pub lines: Digest,
    /// Its tokens, whatever their lines.
    pub tokens: Digest,
    essence: Essence,
    /// Options that it mentions.
    pub options: BTreeSet<Vec<u8>>,
    /// Names of headers that are looked for beside it first.
    pub quoted_includes: Vec<PathBuf>,
    /// Whether it includes a header whose name only the preprocessor knows.
    pub computes_includes: bool,
    /// Whether it makes names of options by pasting.
    pub pastes_options: bool,
    /// Names of headers for whose existence it asks, or that it includes with `..`.
    pub asked_headers: Vec<PathBuf>,
    /// Whether the assembler may be told to read a file.
    pub names_assembler_files: bool,
    /// Whether the assembler may be told to read a file as its own text.
    pub names_assembler_text: bool,
    /// See [`CSource::hides_lines`].
    pub hides_lines: bool,
    /// A word by which it asks for more than files say.
    pub asks: Option<&'static str>,
}

/// What is neither comment nor blank of a source; see [`CSource::essence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Essence {
    /// With the lines of tokens.
    pub lines: Digest,
    /// Without them.
    pub tokens: Digest,
}

/// All that were read, by the digest of their bytes.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    by_content: Mutex<HashMap<Digest, Arc<Source>>>,
    configurations: Mutex<HashMap<Digest, Arc<Configuration>>>,
}

/// Values by option, as `#define` lines of `autoconf.h` give them; `CONFIG_X_MODULE` stands for `m`.
pub(super) type Configuration = BTreeMap<Vec<u8>, Vec<u8>>;

impl Sources {
    /// The source at `path`.
    pub(crate) fn get(&self, path: &Path, memo: &StatMemo) -> io::Result<Arc<Source>> {
        let digest = memo.digest(path)?;
        if let Some(source) = lock(&self.by_content).get(&digest) {
            return Ok(Arc::clone(source));
        }
        let bytes = fs_err::read(path)?;
        let source = Arc::new(Source::of(&bytes));
        lock(&self.by_content).insert(source.bytes, Arc::clone(&source));
        Ok(source)
    }

    /// The essence of a source that was read, by the digest of its bytes.
    pub fn essence(&self, bytes: Digest) -> Option<Essence> {
        lock(&self.by_content)
            .get(&bytes)
            .map(|source| source.essence)
    }

    /// The options that `autoconf.h` at `path` sets.
    pub(super) fn configuration(
        &self,
        path: &Path,
        memo: &StatMemo,
    ) -> io::Result<Arc<Configuration>> {
        let digest = memo.digest(path)?;
        if let Some(known) = lock(&self.configurations).get(&digest) {
            return Ok(Arc::clone(known));
        }
        let bytes = fs_err::read(path)?;
        let configuration = Arc::new(configuration(&bytes));
        let digest = Digest::of_bytes(&bytes);
        lock(&self.configurations).insert(digest, Arc::clone(&configuration));
        Ok(configuration)
    }
}

impl Source {
    fn of(bytes: &[u8]) -> Self {
        let read = CSource::read(bytes);
        let paths = |names: BTreeSet<Vec<u8>>| -> Vec<PathBuf> {
            let names = names.into_iter();
            names
                .map(|name| PathBuf::from(OsString::from_vec(name)))
                .collect()
        };
        Self {
            bytes: Digest::of_bytes(bytes),
            lines: Digest::of_bytes(&read.canonical),
            tokens: Digest::of_bytes(&read.tokens()),
            essence: Essence::of(&read, bytes),
            options: read.options,
            quoted_includes: paths(read.quoted_includes),
            computes_includes: read.computes_includes,
            pastes_options: read.pastes_options,
            asked_headers: paths(read.asked_headers),
            names_assembler_files: read.names_assembler_files,
            names_assembler_text: read.names_assembler_text,
            hides_lines: read.hides_lines,
            asks: read.asks,
        }
    }
}

impl Essence {
    /// Of the source `read`, whose text that is.
    fn of(read: &CSource, text: &[u8]) -> Self {
        let digest = |parts: Vec<Vec<u8>>| {
            let mut key = KeyBuilder::new("essence", 1);
            for part in parts {
                key.field("part", &part);
            }
            key.finish()
        };
        Self {
            lines: digest(read.essence(text)),
            tokens: digest(read.essence_of_tokens(text)),
        }
    }

    /// Of a text.
    pub fn of_text(text: &[u8]) -> Self {
        Self::of(&CSource::read(text), text)
    }
}

fn configuration(text: &[u8]) -> Configuration {
    let lines = text.split(|byte| *byte == b'\n');
    let define = |line: &[u8]| {
        let define = line.strip_prefix(b"#define ")?;
        let length = define.iter().take_while(|byte| **byte != b' ').count();
        let (name, value) = define.split_at(length);
        Some((name.to_vec(), value.trim_ascii().to_vec()))
    };
    lines.filter_map(define).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_values_of_both_names() {
        let text = b"/* made */\n#define CONFIG_A 1\n#define CONFIG_B_MODULE 1\n#define CONFIG_C \"x y\"\n";
        let found = configuration(text);
        let value = |name: &str| found.get(name.as_bytes()).map(Vec::as_slice);
        assert_eq!(value("CONFIG_A"), Some(&b"1"[..]));
        assert_eq!(value("CONFIG_B_MODULE"), Some(&b"1"[..]));
        assert_eq!(value("CONFIG_C"), Some(&b"\"x y\""[..]));
        assert_eq!(value("CONFIG_B"), None);
    }
}
