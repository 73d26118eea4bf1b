//! objtool on one native object, on trees whose kbuild runs it on each object.
//!
//! Before 5.12 kbuild runs objtool right after a compile (scripts/Makefile.build, cmd_objtool), with
//! arguments of that object. It edits the object in place: ORC tables, call sites of static calls,
//! retpolines and return thunks. It cannot read bitcode, so it runs on the native.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use klto_core::{Action, ActionKind, Argument, Digest, FileRef, Input, Storable};

/// objtool as kbuild runs it on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objtool {
    /// The program, what makes it what it is, and whether that is known.
    pub tool: (PathBuf, Digest, Storable),
    /// Arguments without the object, which comes last.
    pub arguments: Vec<OsString>,
}

/// Flags of a backend whose native objtool reads alone.
///
/// Link-time optimization finds that functions of other objects do not return, and leaves out what
/// follows a call of them. objtool knows such functions of other objects only by a list of names, and
/// would see one function run into the next. A trap ends the function for it: `ud2`, two bytes.
pub const BACKEND_FLAGS: [&str; 2] = ["-mllvm", "-trap-unreachable"];

/// objtool's run on a copy of `native` as an action.
pub fn objtool_action(
    label: String,
    objtool: &Objtool,
    native: Input,
    output: PathBuf,
    (directory, environment): (PathBuf, Vec<(OsString, OsString)>),
) -> Action {
    let (program, tool_identity, storable) = objtool.tool.clone();
    let words = objtool.arguments.iter().cloned().map(Argument::Text);
    let object = Argument::File("", FileRef::Output(0));
    Action {
        kind: ActionKind::Objtool,
        label,
        program,
        tool_identity,
        arguments: words.chain([object]).collect(),
        inputs: vec![native],
        outputs: vec![output],
        edits: Some(0),
        directory,
        environment,
        storable,
    }
}

/// Keys of static calls that an object lacks: `__SCK__foo` where it calls the trampoline `__SCT__foo`.
///
/// `static_call()` keeps the key's symbol in the object by a variable that no function refers to
/// (include/linux/static_call_types.h). A function that another object imports leaves it behind,
/// and objtool then stops. `known` says whether the unit has a key; a module that may call but not
/// change a static call has none.
pub fn missing_static_call_keys(
    names: &[Vec<u8>],
    known: &dyn Fn(&[u8]) -> bool,
) -> BTreeSet<Vec<u8>> {
    let present: BTreeSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let key = |name: &Vec<u8>| {
        let call = name.strip_prefix(b"__SCT__")?;
        let key = [b"__SCK__", call].concat();
        (!present.contains(key.as_slice()) && known(&key)).then_some(key)
    };
    names.iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objtool_edits_a_copy_and_takes_it_last() {
        let objtool = Objtool {
            tool: (
                "tools/objtool/objtool".into(),
                Digest::of_bytes(b"t"),
                Storable::Yes,
            ),
            arguments: vec!["orc".into(), "generate".into()],
        };
        let native = Input {
            role: "native",
            path: "raw/a.o".into(),
            digest: Digest::of_bytes(b"a"),
        };
        let place = ("/build".into(), vec![]);
        let action = objtool_action("a.o".into(), &objtool, native, "objtool/a.o".into(), place);
        assert_eq!(
            action.command_arguments(),
            ["orc", "generate", "objtool/a.o"]
        );
        assert_eq!(action.edits, Some(0));
        let mut other = action.clone();
        other.arguments.remove(0);
        assert_ne!(action.key(), other.key());
    }

    #[test]
    fn a_key_is_missing_where_only_the_trampoline_is_named() {
        let names = |list: &[&str]| -> Vec<Vec<u8>> {
            list.iter().map(|name| name.as_bytes().to_vec()).collect()
        };
        let all = names(&["__SCT__a", "__SCT__b", "__SCK__b", "__SCT__hidden", "c"]);
        let known = |key: &[u8]| key != b"__SCK__hidden";
        let missing: Vec<_> = missing_static_call_keys(&all, &known).into_iter().collect();
        assert_eq!(missing, names(&["__SCK__a"]));
    }
}
