//! An action as a value: tool identity, arguments, named inputs, named outputs, environment.
//!
//! The same value can be run here, be looked up in a store, or be sent to a build farm.
//!
//! # The key of an action
//!
//! | field | from | why |
//! |---|---|---|
//! | kind, version | [`ActionKind`] | a change of meaning never finds old results |
//! | tool | [`Action::tool_identity`] | executable, shared objects, configuration, version, listed environment |
//! | argument | [`Action::arguments`] | text as it is, `native` with this machine's processor; files by their place in inputs or outputs |
//! | input | [`Action::inputs`] | role and digest, in order; never the path |
//! | outputs | number of [`Action::outputs`] | the paths are where results go, not what they are |
//! | environment | [`Action::environment`] | what the tool is given beyond the identity |
//!
//! The directory is not part of the key: an action whose arguments or inputs name a path relative
//! to it has named that text already.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::digest::{Digest, KeyBuilder};

/// What an action does; part of its key, and how logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// Bitcode, index and imports to one native object.
    Backend,
    /// A native object to the same one with what objtool adds to it.
    Objtool,
    /// A native object and its symbol versions to a native object that defines the CRCs.
    SymbolVersions,
    /// All objects of a unit to one native object, by full LTO.
    FullLink,
    /// All bitcode objects of a unit to one, optimized by full LTO.
    Merge,
}

impl ActionKind {
    /// The word for logs and keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Objtool => "objtool",
            Self::SymbolVersions => "symbol-versions",
            Self::FullLink => "full-link",
            Self::Merge => "merge",
        }
    }

    const fn key_version(self) -> u32 {
        match self {
            Self::Backend | Self::Objtool | Self::SymbolVersions | Self::FullLink | Self::Merge => {
                1
            }
        }
    }
}

/// A file that the action reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What the file is to the action, as `bitcode`, `index`, `import`, `imported-variables`, `asm-file`.
    pub role: &'static str,
    /// Where it is; not part of the key.
    pub path: PathBuf,
    /// Its content, or what of it the action can see, where its role says so.
    pub digest: Digest,
}

/// A place in [`Action::inputs`] or [`Action::outputs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRef {
    /// Index into the inputs.
    Input(usize),
    /// Index into the outputs.
    Output(usize),
}

/// One argument of the tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Text that means the same everywhere.
    Text(OsString),
    /// A file's path after a prefix that may be empty, as `-fthinlto-index=`.
    File(&'static str, FileRef),
}

/// Whether a result may be stored and found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storable {
    /// Every input is named.
    Yes,
    /// Run it each time; the text says why.
    No(String),
}

/// One run of one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What it does.
    pub kind: ActionKind,
    /// How logs name it: the object, as `init/main.o`.
    pub label: String,
    /// The executable to start.
    pub program: PathBuf,
    /// Digest of everything that makes the tool what it is.
    pub tool_identity: Digest,
    /// Arguments in order.
    pub arguments: Vec<Argument>,
    /// Files read, in a defined order.
    pub inputs: Vec<Input>,
    /// Files written.
    pub outputs: Vec<PathBuf>,
    /// The place of the input of which the first output begins as a copy, for a tool that edits a
    /// file in place. The kind implies it.
    pub edits: Option<usize>,
    /// Where the tool runs.
    pub directory: PathBuf,
    /// The whole environment of the tool, sorted by name.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the result may be reused.
    pub storable: Storable,
}

impl Action {
    /// The key; see the module's table.
    pub fn key(&self) -> Digest {
        let mut key = KeyBuilder::new(self.kind.name(), self.kind.key_version());
        key.digest("tool", self.tool_identity);
        for argument in &self.arguments {
            match argument {
                Argument::Text(text) => key.argument("argument", text.as_bytes()),
                Argument::File(prefix, file) => {
                    let (label, index) = match file {
                        FileRef::Input(index) => ("argument-input", index),
                        FileRef::Output(index) => ("argument-output", index),
                    };
                    key.field("argument-prefix", prefix.as_bytes());
                    key.field(label, &(*index as u64).to_le_bytes())
                }
            };
        }
        for input in &self.inputs {
            key.field("input", input.role.as_bytes())
                .digest("input-digest", input.digest);
        }
        key.field("outputs", &(self.outputs.len() as u64).to_le_bytes());
        for (name, value) in &self.environment {
            key.field("environment", name.as_bytes())
                .field("value", value.as_bytes());
        }
        key.finish()
    }

    /// Where the outputs are for a process that runs elsewhere: below the action's directory, unless
    /// absolute.
    pub fn output_places(&self) -> Vec<PathBuf> {
        self.outputs
            .iter()
            .map(|output| self.directory.join(output))
            .collect()
    }

    /// The arguments as the tool receives them.
    pub fn command_arguments(&self) -> Vec<OsString> {
        let path = |file: &FileRef| match file {
            FileRef::Input(index) => self.inputs.get(*index).map(|input| &input.path),
            FileRef::Output(index) => self.outputs.get(*index),
        };
        let text = |argument: &Argument| match argument {
            Argument::Text(text) => text.clone(),
            Argument::File(prefix, file) => {
                let mut text = OsString::from(prefix);
                text.push(path(file).map(|path| path.as_os_str()).unwrap_or_default());
                text
            }
        };
        self.arguments.iter().map(text).collect()
    }
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All outputs are in place.
    Done {
        /// What the tool printed on standard error, byte for byte.
        stderr: Vec<u8>,
    },
    /// The tool failed, or its outputs are not what they must be.
    Failed {
        /// What the tool printed on standard error, byte for byte.
        stderr: Vec<u8>,
        /// Why klto calls it a failure, as `exit code 1`, `killed by signal 9`.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Action {
        Action {
            kind: ActionKind::Backend,
            label: "init/main.o".into(),
            program: "/usr/bin/clang".into(),
            tool_identity: Digest::of_bytes(b"clang"),
            arguments: vec![
                Argument::Text("-O2".into()),
                Argument::File("-fthinlto-index=", FileRef::Input(0)),
                Argument::File("", FileRef::Output(0)),
            ],
            inputs: vec![Input {
                role: "index",
                path: "a.bc".into(),
                digest: Digest::of_bytes(b"i"),
            }],
            outputs: vec!["out/a.o".into()],
            edits: None,
            directory: "/build".into(),
            environment: vec![("LC_ALL".into(), "C".into())],
            storable: Storable::Yes,
        }
    }

    #[test]
    fn places_do_not_change_the_key() {
        let action = sample();
        let mut moved = action.clone();
        moved.outputs[0] = "elsewhere/a.o".into();
        moved.inputs[0].path = "elsewhere/a.bc".into();
        moved.directory = "/elsewhere".into();
        moved.label = "other".into();
        assert_eq!(action.key(), moved.key());
    }

    #[test]
    fn every_named_field_changes_the_key() {
        let action = sample();
        let changes: [fn(&mut Action); 8] = [
            |action| action.kind = ActionKind::SymbolVersions,
            |action| action.tool_identity = Digest::of_bytes(b"other"),
            |action| action.arguments[0] = Argument::Text("-O3".into()),
            |action| action.arguments[1] = Argument::File("-x", FileRef::Input(0)),
            |action| action.arguments[2] = Argument::File("", FileRef::Input(0)),
            |action| action.inputs[0].digest = Digest::of_bytes(b"j"),
            |action| action.inputs[0].role = "import",
            |action| action.environment[0].1 = "de".into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = action.clone();
            change(&mut changed);
            assert_ne!(action.key(), changed.key(), "change {number}");
        }
    }

    #[test]
    fn command_arguments_put_paths_in_place() {
        let arguments = sample().command_arguments();
        assert_eq!(arguments, ["-O2", "-fthinlto-index=a.bc", "out/a.o"]);
    }
}
