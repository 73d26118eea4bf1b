//! Keys of compiles: which stored bitcode, or machine code, is what a compile would give now.
//!
//! What a compile reads is known only when it is over. So a compile is stored under two keys. Its *call* is
//! known before it runs, and leads to the sets of files that such calls read ([`Reads`]). One set with the
//! files' digests gives the key of the *result*. If the files of a set are what they were, and the same files
//! exist where headers were looked for in vain or passed over, the compile would read the same set again and
//! give the same object.
//!
//! | key | field | from | why |
//! |---|---|---|---|
//! | call | tool | as for every action | variables that change more than the tool's identity: not stored |
//! | call | argument | the call without output, dependency file and mode marker | paths below the tree or the output by their root, where the object cannot show them |
//! | call | directory | with debug information only | it is in the object |
//! | result | call | | |
//! | result | file, digest | place and tokens of each file that was read, or its bytes ([`Grain`]) | their lines where the file expands `__LINE__` |
//! | result | option, value | what `autoconf.h` says of each option that these files mention; all of it where one pastes names of options | as kbuild's fixdep |
//!
//! It is pure: digests and values come from the caller.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use klto_core::{Digest, KeyBuilder};
use serde::{Deserialize, Serialize};

/// Where a file is, without what differs between checkouts and output trees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Below the kernel's source tree.
    Source(PathBuf),
    /// Below the directory in which kbuild compiles: its output tree.
    Output(PathBuf),
    /// Anywhere else.
    Elsewhere(PathBuf),
}

impl Place {
    /// Text that no other place has.
    pub fn text(&self) -> Vec<u8> {
        let (root, path) = match self {
            Self::Source(path) => (&b"\0source/"[..], path),
            Self::Output(path) => (&b"\0output/"[..], path),
            Self::Elsewhere(path) => (&b""[..], path),
        };
        [root, path.as_os_str().as_bytes()].concat()
    }
}

/// The files that one compile read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// In the order in which they were first read; the source first.
    pub files: Vec<Place>,
    /// Which of them are headers of the system, left out of the dependency file, by place in `files`.
    pub system: Vec<u32>,
    /// Those in which the lines of tokens matter, because `__LINE__` is expanded there or might be; by place in
    /// `files`, ascending.
    pub by_line: Vec<u32>,
    /// Files that were there and were not read, where a header was looked for before it was found or was
    /// asked for.
    pub passed_over: Vec<Place>,
}

/// What a compile is called with.
#[derive(Debug, Clone)]
pub struct CompileCallParts<'a> {
    /// Identity of the compiler.
    pub tool: Digest,
    /// Arguments, their paths as [`Place::text`].
    pub arguments: &'a [OsString],
    /// The directory, where the object shows it.
    pub directory: Option<PathBuf>,
}

/// How closely a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Tokens, and their lines in the files of [`Reads::by_line`]; bitcode that is found has the places of inline
    /// assembly in another text, which only messages show.
    Tokens,
    /// Each byte: the result is what the compiler writes, bit for bit.
    Bytes,
}

/// The key of a call.
pub fn call_key(parts: &CompileCallParts<'_>) -> Digest {
    let mut key = KeyBuilder::new("compile-call", 3);
    key.digest("tool", parts.tool);
    for argument in parts.arguments {
        key.argument("argument", argument.as_bytes());
    }
    if let Some(directory) = &parts.directory {
        key.field("directory", directory.as_os_str().as_bytes());
    }
    key.finish()
}

/// The key of a result: a call that reads these files, when `autoconf.h` says this of their options.
pub fn result_key(
    call: Digest,
    grain: Grain,
    files: &[(&Place, Digest)],
    options: &BTreeMap<&[u8], Option<&[u8]>>,
) -> Digest {
    let kind = match grain {
        Grain::Tokens => "compile",
        Grain::Bytes => "compile-bytes",
    };
    let mut key = KeyBuilder::new(kind, 3);
    key.digest("call", call);
    for (place, digest) in files {
        key.field("file", &place.text()).digest("digest", *digest);
    }
    for (option, value) in options {
        key.field("option", option);
        if let Some(value) = value {
            key.field("value", value);
        }
    }
    key.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(arguments: &[OsString]) -> CompileCallParts<'_> {
        CompileCallParts {
            tool: Digest::of_bytes(b"clang"),
            arguments,
            directory: None,
        }
    }

    #[test]
    fn every_part_of_a_call_changes_its_key() {
        let arguments = [OsString::from("-O2")];
        let call = parts(&arguments);
        let changed = [
            CompileCallParts {
                tool: Digest::of_bytes(b"other"),
                ..call.clone()
            },
            CompileCallParts {
                arguments: &[],
                ..call.clone()
            },
            CompileCallParts {
                directory: Some("/build".into()),
                ..call.clone()
            },
        ];
        for other in changed {
            assert_ne!(call_key(&call), call_key(&other), "{other:?}");
        }
    }

    #[test]
    fn every_part_of_a_result_changes_its_key() {
        let call = Digest::of_bytes(b"call");
        let (one, other) = (Digest::of_bytes(b"1"), Digest::of_bytes(b"2"));
        let source = Place::Source("a.c".into());
        let output = Place::Output("a.c".into());
        let options = |value| BTreeMap::from([(&b"CONFIG_A"[..], value)]);
        let base = result_key(call, Grain::Tokens, &[(&source, one)], &options(None));
        let changed = [
            result_key(other, Grain::Tokens, &[(&source, one)], &options(None)),
            result_key(call, Grain::Bytes, &[(&source, one)], &options(None)),
            result_key(call, Grain::Tokens, &[(&output, one)], &options(None)),
            result_key(call, Grain::Tokens, &[(&source, other)], &options(None)),
            result_key(call, Grain::Tokens, &[(&source, one)], &options(Some(b"1"))),
            result_key(call, Grain::Tokens, &[(&source, one)], &BTreeMap::new()),
        ];
        for key in changed {
            assert_ne!(key, base);
        }
    }
}
