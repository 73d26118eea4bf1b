//! Variable assignments as make reads them on its command line and in MAKEFLAGS.
//!
//! In: one word. Out: name, operator and value, or nothing when the word is a goal. It does not
//! expand references; `variables.rs` does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How an assignment sets its variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `:=`, `::=` and `:::=`: the value replaces the old one.
    Set,
    /// `+=`: the value is added after a space.
    Append,
    /// `?=`: only if the variable has no value, not even from the environment.
    SetIfUndefined,
    /// `!=`: the output of a shell command, which klto does not run.
    Shell,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The name.
    pub name: OsString,
    /// How it is set.
    pub operator: Operator,
    /// The value with its references, as written.
    pub value: OsString,
}

impl Assignment {
    /// Reads `word` as make does: a colon that no `=` follows makes it a goal.
    pub(super) fn parse(word: &OsStr) -> Option<Self> {
        let bytes = word.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=')?;
        let (before, operator) = split_operator(bytes.get(..equals)?);
        let name = before.trim_ascii();
        let bad = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b':' | b'#' | b'=');
        if name.is_empty() || name.iter().any(bad) {
            return None;
        }
        let value = bytes.get(equals + 1..)?.trim_ascii_start();
        Some(Self {
            name: OsString::from_vec(name.to_vec()),
            operator,
            value: OsString::from_vec(value.to_vec()),
        })
    }
}

fn split_operator(before: &[u8]) -> (&[u8], Operator) {
    match before {
        [name @ .., b'+'] => (name, Operator::Append),
        [name @ .., b'?'] => (name, Operator::SetIfUndefined),
        [name @ .., b'!'] => (name, Operator::Shell),
        [name @ .., b':', b':', b':'] | [name @ .., b':', b':'] | [name @ .., b':'] => {
            (name, Operator::Set)
        }
        name => (name, Operator::Set),
    }
}

/// `NAME=value` for a literal value: make reads `$$` as `$`.
pub(super) fn literal(name: &str, value: &OsStr) -> OsString {
    let mut word = format!("{name}=").into_bytes();
    for byte in value.as_bytes() {
        if *byte == b'$' {
            word.push(b'$');
        }
        word.push(*byte);
    }
    OsString::from_vec(word)
}
