//! Symbol versions (CRCs) of exported symbols, on trees whose kbuild links them into the object.
//!
//! Before 5.19 kbuild runs `ld -r -o .tmp_foo.o foo.o -T .tmp_foo.ver`, where the script defines
//! `__crc_<symbol>` (scripts/Makefile.build, cmd_modversions_c). Bitcode cannot be linked so: klto
//! keeps the script and applies it to the native object, so that every later link sees the CRCs.

use std::ffi::OsString;
use std::path::PathBuf;

use klto_core::{Action, ActionKind, Argument, Digest, FileRef, Input, Storable};

/// The CRCs of one object, as kbuild would link them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolVersions {
    /// The linker script that genksyms wrote.
    pub script: Vec<u8>,
    /// Options of kbuild's link, as `-EL`, `-m`, `-z`.
    pub options: Vec<OsString>,
}

/// Whether a linker script is what genksyms writes: it defines CRCs.
pub fn is_symbol_versions_script(script: &[u8]) -> bool {
    script.windows(6).any(|window| window == b"__crc_")
}

/// The link of `native` with its CRCs as an action.
pub fn symbol_versions_action(
    label: String,
    linker: (PathBuf, Digest, Storable),
    versions: &SymbolVersions,
    (native, script): (Input, PathBuf),
    output: PathBuf,
    (directory, environment): (PathBuf, Vec<(OsString, OsString)>),
) -> Action {
    let (program, tool_identity, storable) = linker;
    let mut arguments: Vec<Argument> = versions
        .options
        .iter()
        .cloned()
        .map(Argument::Text)
        .collect();
    arguments.extend([
        Argument::Text("-r".into()),
        Argument::Text("-o".into()),
        Argument::File("", FileRef::Output(0)),
        Argument::File("", FileRef::Input(0)),
        Argument::Text("-T".into()),
        Argument::File("", FileRef::Input(1)),
    ]);
    let digest = Digest::of_bytes(&versions.script);
    Action {
        kind: ActionKind::SymbolVersions,
        label,
        program,
        tool_identity,
        arguments,
        inputs: vec![
            native,
            Input {
                role: "versions",
                path: script,
                digest,
            },
        ],
        outputs: vec![output],
        edits: None,
        directory,
        environment,
        storable,
    }
}
