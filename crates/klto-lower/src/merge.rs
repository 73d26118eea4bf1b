//! Full LTO for a tree to which klto adds it: the linker makes one module of all bitcode of a unit and
//! optimizes it, and writes it as bitcode. A backend then makes the native object of it, which links take in
//! the place of the objects.
//!
//! In the linker's own backend each function would have a section of its own, which the linker scripts of
//! such trees do not know.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use klto_core::{Action, ActionKind, Argument, Digest, FileRef, Input, Storable};
use klto_formats::bitcode::Symbol;
use klto_kbuild::link::{LinkCall, LinkItem, is_pure_option};

use crate::unit::LinkUnit;

/// What a merge is made of.
#[derive(Debug)]
pub struct MergeParts<'a> {
    /// All objects, natives too: they say which symbols stay.
    pub unit: &'a LinkUnit,
    /// Their digests, in the order of the unit.
    pub digests: Vec<Digest>,
    /// kbuild's link of the unit.
    pub call: &'a LinkCall,
    /// The linker.
    pub program: PathBuf,
    /// Digest of what makes the linker.
    pub tool_identity: Digest,
    /// Role `asm-file`: what `.incbin` and `.include` read.
    pub assembler_files: Vec<Input>,
    /// Where the module goes.
    pub merged: PathBuf,
    /// The directory of the link.
    pub directory: PathBuf,
    /// The tool's whole environment.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Whether the caller knows every input.
    pub storable: Storable,
}

/// The merge as an action. Paths of objects are in the key: they reach the names of locals that are renamed.
pub fn merge_action(parts: MergeParts<'_>) -> Action {
    let mut arguments: Vec<Argument> = parts
        .call
        .options_for_thin_link()
        .into_iter()
        .map(Argument::Text)
        .collect();
    let relocatable = parts.call.relocatable.then_some("-r");
    let words = relocatable
        .into_iter()
        .chain(["--plugin-opt=emit-llvm", "-o"]);
    arguments.extend(words.map(|word| Argument::Text(word.into())));
    arguments.push(Argument::File("", FileRef::Output(0)));
    arguments.extend(parts.unit.arguments().into_iter().map(Argument::Text));
    let members = parts.unit.members.iter().zip(parts.digests);
    let members = members.map(|(member, digest)| Input {
        role: "member",
        path: member.path.clone(),
        digest,
    });
    let mut impure = parts.call.items.iter().filter_map(|item| match item {
        LinkItem::Option(words) if !is_pure_option(words) => {
            Some(words.join(std::ffi::OsStr::new(" ")))
        }
        _ => None,
    });
    let storable = match (parts.storable, impure.next()) {
        (Storable::Yes, Some(option)) => {
            Storable::No(format!("{} may name a file", option.display()))
        }
        (storable, _) => storable,
    };
    Action {
        kind: ActionKind::Merge,
        label: parts.unit.name.clone(),
        program: parts.program,
        tool_identity: parts.tool_identity,
        arguments,
        inputs: members.chain(parts.assembler_files).collect(),
        outputs: vec![parts.merged],
        edits: None,
        directory: parts.directory,
        environment: parts.environment,
        storable,
    }
}

/// A static function or variable that an assembler text of its object names, and of which the unit has
/// another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambiguous {
    /// Of both.
    pub name: Vec<u8>,
    /// The places in the list of the object whose text names it, and of the other one.
    pub objects: [usize; 2],
}

/// The first such symbol of these objects, by their symbols. A merge gives one of the two another name, and
/// the text then means the wrong one.
pub fn ambiguous_static(objects: &[Vec<Symbol>]) -> Option<Ambiguous> {
    let mut defined: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (place, symbols) in objects.iter().enumerate() {
        for symbol in symbols.iter().filter(|symbol| !symbol.undefined) {
            let places = defined.entry(&symbol.name).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }
    for (place, symbols) in objects.iter().enumerate() {
        // What a text names and does not define itself the table has as undefined, beside the definition.
        let wanted: HashSet<&[u8]> = symbols
            .iter()
            .filter(|symbol| symbol.undefined)
            .map(|symbol| symbol.name.as_slice())
            .collect();
        let is_static = |symbol: &&Symbol| !symbol.undefined && !symbol.global;
        for symbol in symbols.iter().filter(is_static) {
            let places = defined.get(symbol.name.as_slice());
            let mut others = places
                .into_iter()
                .flatten()
                .filter(|other| **other != place);
            if wanted.contains(symbol.name.as_slice())
                && let Some(other) = others.next()
            {
                return Some(Ambiguous {
                    name: symbol.name.clone(),
                    objects: [place, *other],
                });
            }
        }
    }
    None
}

/// Refuses what a merge must not write.
pub fn check_merged(action: &Action, bytes: &[u8]) -> Result<(), String> {
    match klto_formats::bitcode::is_bitcode(bytes) {
        true => Ok(()),
        false => Err(format!("the {} wrote no bitcode", action.kind.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{MemberKind, UnitMember};
    use std::ffi::OsString;

    fn action(call: &str) -> Action {
        let arguments: Vec<OsString> = call.split(' ').map(OsString::from).collect();
        let member = |path: &str, kind, lazy| UnitMember {
            path: path.into(),
            kind,
            lazy,
        };
        let unit = LinkUnit {
            name: "vmlinux.o".into(),
            members: vec![
                member("head.o", MemberKind::Native, false),
                member("init/main.o", MemberKind::Bitcode, false),
                member("lib/string.o", MemberKind::Bitcode, true),
            ],
        };
        merge_action(MergeParts {
            digests: ["h", "m", "s"]
                .map(|text| Digest::of_bytes(text.as_bytes()))
                .to_vec(),
            unit: &unit,
            call: &LinkCall::parse(&arguments).unwrap(),
            program: "/usr/bin/ld.lld".into(),
            tool_identity: Digest::of_bytes(b"ld.lld"),
            assembler_files: vec![],
            merged: "merged.bc".into(),
            directory: "/build".into(),
            environment: vec![],
            storable: Storable::Yes,
        })
    }

    #[test]
    fn all_objects_of_the_unit_are_named_in_its_order() {
        let action = action(
            "-m elf_x86_64 -r -o vmlinux.o --whole-archive init.a --start-group lib.a --end-group",
        );
        let words = action.command_arguments();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "-m elf_x86_64 -r --plugin-opt=emit-llvm -o merged.bc head.o init/main.o --start-lib lib/string.o --end-lib"
        );
        assert_eq!(action.inputs.len(), 3);
        assert_eq!(action.storable, Storable::Yes);
    }

    #[test]
    fn a_static_that_a_text_names_must_be_the_only_one() {
        let symbol = |name: &str, undefined, global| Symbol {
            name: name.into(),
            undefined,
            weak: false,
            common: false,
            global,
            executable: true,
            used: false,
        };
        let named = vec![symbol("init", false, false), symbol("init", true, true)];
        let unnamed = vec![symbol("init", false, false)];
        assert_eq!(
            ambiguous_static(&[named.clone(), vec![symbol("init", true, true)]]),
            None
        );
        assert_eq!(ambiguous_static(&[unnamed.clone(), unnamed.clone()]), None);
        let found = ambiguous_static(&[unnamed, named]).unwrap();
        assert_eq!(
            (found.name.as_slice(), found.objects),
            (&b"init"[..], [1, 0])
        );
    }

    #[test]
    fn an_option_that_names_a_file_is_not_stored() {
        let action = action("--lto-sample-profile=p -r -o vmlinux.o init.a");
        assert!(matches!(action.storable, Storable::No(_)));
    }
}
