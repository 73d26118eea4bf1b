//! Full LTO: the linker turns all bitcode of a unit into one native object, and that link is the action.
//!
//! The call is kbuild's own with another place for its output. Its words are in the key as they stand, for
//! names of inputs reach the symbols of locals that are renamed; what an archive, a script or the assembler
//! reads is an input.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use klto_core::{Action, ActionKind, Argument, Digest, FileRef, Input, Storable};
use klto_kbuild::link::{LinkCall, LinkItem, is_pure_option};

/// What a full link is made of.
#[derive(Debug)]
pub struct FullLinkParts<'a> {
    /// The unit, as logs name it.
    pub label: String,
    /// The linker.
    pub program: PathBuf,
    /// Digest of what makes the linker.
    pub tool_identity: Digest,
    /// kbuild's call.
    pub call: &'a LinkCall,
    /// Roles `object`, `archive`, `member`, `script`, `asm-file`: all that the link reads, in its order.
    pub inputs: Vec<Input>,
    /// The directory of the link.
    pub directory: PathBuf,
    /// The tool's whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the caller knows every input.
    pub storable: Storable,
}

/// The link as an action; its output is the call's own.
pub fn full_link_action(parts: FullLinkParts<'_>) -> Action {
    let mut arguments = Vec::new();
    let mut storable = parts.storable;
    for item in &parts.call.items {
        match item {
            LinkItem::Option(words) => {
                if storable == Storable::Yes && !is_pure_option(words) {
                    let option = words.join(OsStr::new(" "));
                    storable = Storable::No(format!("{} may name a file", option.display()));
                }
                arguments.extend(option(words));
            }
            LinkItem::State(word) => arguments.push(Argument::Text(word.clone())),
            LinkItem::File { path, .. } => arguments.push(Argument::Text(path.into())),
        }
    }
    Action {
        kind: ActionKind::FullLink,
        label: parts.label,
        program: parts.program,
        tool_identity: parts.tool_identity,
        arguments,
        inputs: parts.inputs,
        outputs: vec![parts.call.output.clone()],
        edits: None,
        directory: parts.directory,
        environment: parts.environment,
        storable,
    }
}

/// An option of the call, with the action's output where it names the call's.
fn option(words: &[OsString]) -> Vec<Argument> {
    let output = FileRef::Output(0);
    let first = words.first().map(|word| word.as_bytes());
    match (first.unwrap_or_default(), words.len()) {
        (b"-o" | b"--output", 2) => {
            let name = words.iter().take(1).cloned().map(Argument::Text);
            name.chain([Argument::File("", output)]).collect()
        }
        (joined, 1) if joined.starts_with(b"--output=") => {
            vec![Argument::File("--output=", output)]
        }
        _ => words.iter().cloned().map(Argument::Text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(call: &str, inputs: &[&str]) -> Action {
        let arguments: Vec<OsString> = call.split(' ').map(OsString::from).collect();
        let input = |text: &&str| Input {
            role: "object",
            path: "a.o".into(),
            digest: Digest::of_bytes(text.as_bytes()),
        };
        full_link_action(FullLinkParts {
            label: "vmlinux.o".into(),
            program: "/usr/bin/ld.lld".into(),
            tool_identity: Digest::of_bytes(b"ld.lld"),
            call: &LinkCall::parse(&arguments).unwrap(),
            inputs: inputs.iter().map(input).collect(),
            directory: "/build".into(),
            environment: vec![],
            storable: Storable::Yes,
        })
    }

    #[test]
    fn the_call_stays_as_it_is_but_for_its_output() {
        let call = "-m elf_x86_64 -r -o vmlinux.o -T s.lds --whole-archive vmlinux.a";
        let mut action = action(call, &["a"]);
        assert_eq!(action.outputs, [PathBuf::from("vmlinux.o")]);
        assert_eq!(action.storable, Storable::Yes);
        action.outputs = vec!["beside".into()];
        let words = action.command_arguments();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join(" "), call.replace("vmlinux.o", "beside"));
    }

    #[test]
    fn words_and_contents_are_in_the_key() {
        let key = |call: &str, inputs: &[&str]| action(call, inputs).key();
        let plain = key("-r -o m.o a.o", &["a"]);
        assert_ne!(plain, key("-r -o m.o b.o", &["a"]));
        assert_ne!(plain, key("-r -o m.o a.o", &["b"]));
        assert_ne!(plain, key("-r -mllvm -x -o m.o a.o", &["a"]));
        assert_eq!(plain, key("-r -o n.o a.o", &["a"]));
    }

    #[test]
    fn an_option_that_names_another_file_is_not_stored() {
        for option in ["-Map=m.map", "--lto-sample-profile=p"] {
            let storable = action(&format!("-r {option} -o m.o a.o"), &["a"]).storable;
            assert!(matches!(storable, Storable::No(_)), "{option}");
        }
    }
}
