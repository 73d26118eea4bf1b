//! The value that a make variable has before any Makefile sets it.
//!
//! In: the command line, MAKEFLAGS and the environment, in make's order of precedence. Out: values
//! with simple references expanded. It does not know what Makefiles assign, so a reference to such
//! a variable, to a function or to a shell command is a failure rather than a guess.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Result, bail};
use klto_core::Failure;

use crate::environment::Environment;
use crate::make_arguments::{Assignment, MakeArguments, MakeFlags, MakeOption, Operator};

/// References inside references; more is a loop.
const DEPTH: u32 = 16;

/// Where variables come from.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// The words after `make`.
    pub arguments: &'a MakeArguments,
    /// What a parent make hands down; to a Makefile it is the command line too.
    pub make_flags: &'a MakeFlags,
    /// Of the lowest precedence, unless make runs with `-e`.
    pub environment: &'a Environment,
}

impl Variables<'_> {
    /// The value if its origin is `command line`.
    pub fn on_command_line(&self, name: &str) -> Result<Option<OsString>> {
        match self.assigned(name)? {
            Some(value) => Ok(Some(self.expand(name, &value, DEPTH)?)),
            None => Ok(None),
        }
    }

    /// The value that wins over an assignment in a Makefile: the command line, and with `-e` the
    /// environment.
    pub fn overriding(&self, name: &str) -> Result<Option<OsString>> {
        let option = MakeOption::EnvironmentOverrides;
        let environment_wins =
            self.arguments.has(option) || self.make_flags.arguments().has(option);
        if environment_wins {
            self.get(name)
        } else {
            self.on_command_line(name)
        }
    }

    /// The value of a variable that no Makefile assigns, or only with `?=`.
    pub fn get(&self, name: &str) -> Result<Option<OsString>> {
        self.value(name, DEPTH)
    }

    /// As [`Self::get`], for a variable whose empty value means none.
    pub fn get_filled(&self, name: &str) -> Result<Option<OsString>> {
        Ok(self
            .get(name)?
            .filter(|value| !value.as_bytes().trim_ascii().is_empty()))
    }

    fn value(&self, name: &str, depth: u32) -> Result<Option<OsString>> {
        let value = self.assigned(name)?;
        let environment = || {
            self.environment
                .get(name)
                .map(|value| value.as_bytes().to_vec())
        };
        match value.or_else(environment) {
            Some(value) => Ok(Some(self.expand(name, &value, depth)?)),
            None => Ok(None),
        }
    }

    /// The value with its references, where the command line or MAKEFLAGS set it.
    fn assigned(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut value: Option<Vec<u8>> = None;
        let all = self
            .make_flags
            .arguments()
            .assignments()
            .chain(self.arguments.assignments());
        for assignment in all.filter(|assignment| assignment.name == *name) {
            let old = || value.clone().or_else(|| self.of_environment(name));
            value = match assignment.operator {
                Operator::Set => Some(assignment.value.as_bytes().to_vec()),
                Operator::Append => Some(appended(old(), assignment)),
                Operator::SetIfUndefined if old().is_some() => value,
                Operator::SetIfUndefined => Some(assignment.value.as_bytes().to_vec()),
                Operator::Shell => bail!(unexpanded(name, &assignment.value)),
            };
        }
        Ok(value)
    }

    fn of_environment(&self, name: &str) -> Option<Vec<u8>> {
        self.environment
            .get(name)
            .map(|value| value.as_bytes().to_vec())
    }

    fn expand(&self, name: &str, text: &[u8], depth: u32) -> Result<OsString> {
        let failure = || unexpanded(name, OsStr::from_bytes(text));
        let mut result = Vec::new();
        let mut rest = text;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'$' {
                result.push(*byte);
                continue;
            }
            if let [b'$', after @ ..] = rest {
                result.push(b'$');
                rest = after;
                continue;
            }
            let (referred, after) = reference(rest).ok_or_else(failure)?;
            let depth = depth.checked_sub(1).ok_or_else(failure)?;
            let value = self.value(referred, depth)?.ok_or_else(failure)?;
            result.extend_from_slice(value.as_bytes());
            rest = after;
        }
        Ok(OsString::from_vec(result))
    }
}

fn appended(old: Option<Vec<u8>>, assignment: &Assignment) -> Vec<u8> {
    let mut value = old
        .map(|old| [old, b" ".to_vec()].concat())
        .unwrap_or_default();
    value.extend_from_slice(assignment.value.as_bytes());
    value
}

/// The name in `(NAME)…` or `{NAME}…` and what follows; nothing for a function call.
fn reference(text: &[u8]) -> Option<(&str, &[u8])> {
    let (open, rest) = text.split_first()?;
    let close = match open {
        b'(' => b')',
        b'{' => b'}',
        _ => return None,
    };
    let end = rest.iter().position(|byte| *byte == close)?;
    let name = std::str::from_utf8(rest.get(..end)?).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes()
        .all(plain)
        .then_some((name, rest.get(end + 1..)?))
}

fn unexpanded(name: &str, text: &OsStr) -> Failure {
    Failure::bad_input(format!(
        "the make variable {name} has the value {}, which only make can expand",
        text.display()
    ))
    .hint(format!("give {name} its value without references"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(words: &[&str], flags: &str, environment: &[(&str, &str)], name: &str) -> [String; 3] {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let arguments = MakeArguments::parse(&words);
        let make_flags = MakeFlags::parse(OsStr::new(flags));
        let environment = environment.iter().copied().collect();
        let variables = Variables {
            arguments: &arguments,
            make_flags: &make_flags,
            environment: &environment,
        };
        let text = |value: Result<Option<OsString>>| match value {
            Ok(Some(value)) => value.into_string().unwrap(),
            Ok(None) => "none".into(),
            Err(_) => "failure".into(),
        };
        [
            variables.on_command_line(name),
            variables.overriding(name),
            variables.get(name),
        ]
        .map(text)
    }

    #[test]
    fn precedence_is_that_of_make() {
        let environment = &[("A", "e")][..];
        for (words, flags, expected) in [
            (&[][..], "", ["none", "none", "e"]),
            (&["-e"], "", ["none", "e", "e"]),
            (&[], "e", ["none", "e", "e"]),
            (&[], "k -- A=f", ["f", "f", "f"]),
            (&["A=c"], "k -- A=f", ["c", "c", "c"]),
            (&["A=1", "A=2"], "", ["2", "2", "2"]),
            (&["A=1", "A+=2"], "", ["1 2", "1 2", "1 2"]),
            (&["A+=2"], "", ["e 2", "e 2", "e 2"]),
            (&["A?=2"], "", ["none", "none", "e"]),
            (&["A="], "", ["", "", ""]),
        ] {
            assert_eq!(
                value(words, flags, environment, "A"),
                expected,
                "{words:?} {flags}"
            );
        }
    }

    #[test]
    fn only_simple_references_are_expanded() {
        let environment = &[("HOME", "/h"), ("LOOP", "$(LOOP)")][..];
        for (word, expected) in [
            ("A=$(HOME)/x", "/h/x"),
            ("A=${HOME}", "/h"),
            ("A=a$$b", "a$b"),
            ("A=$(shell pwd)", "failure"),
            ("A=$(NOWHERE)", "failure"),
            ("A=$(LOOP)", "failure"),
            ("A=$(HOME", "failure"),
            ("A!=pwd", "failure"),
        ] {
            assert_eq!(value(&[word], "", environment, "A")[0], expected, "{word}");
        }
    }
}
