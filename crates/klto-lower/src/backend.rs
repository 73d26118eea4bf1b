//! Backends: one object's bitcode, its index and what it imports, to one native object.
//!
//! The flags are the object's own, as its compile had them, so that two objects of one unit may
//! differ in stack alignment, sections or code model. Options of the link line stand before them:
//! the object's own win.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use klto_core::{Action, ActionKind, Argument, Digest, FileRef, Input, Storable};
use klto_formats::elf;
use klto_kbuild::compile::{BackendFlags, may_name_file, split_dwarf_flags};

/// What link-time optimization did for an object before its backend.
#[derive(Debug)]
pub enum Before {
    /// A thin-link wrote this; role `index`, without the hashes of modules of which only variables are
    /// imported.
    Index(Input),
    /// A thin-link left it out, a lazy object: it imports nothing.
    LeftOut,
    /// Full LTO has merged and optimized its unit.
    Optimized,
}

/// What a backend is made of.
#[derive(Debug)]
pub struct BackendParts<'a> {
    /// The object, as logs name it.
    pub label: String,
    /// The compiler.
    pub program: PathBuf,
    /// Digest of what makes the compiler.
    pub tool_identity: Digest,
    /// Flags of the object's compile.
    pub flags: &'a BackendFlags,
    /// Flags that stand for options of the link line.
    pub link_options: &'a [OsString],
    /// Role `bitcode`: the object.
    pub bitcode: Input,
    /// What link-time optimization did before.
    pub before: Before,
    /// Role `import`: every object of the import list; or `imported-variables`, where nothing else is
    /// imported, with the digest of their definitions (`klto-formats/src/bitcode/definitions.rs`).
    pub imports: Vec<Input>,
    /// Role `asm-file`: what `.incbin` and `.include` read.
    pub assembler_files: Vec<Input>,
    /// Where the native goes.
    pub native: PathBuf,
    /// The directory of the link.
    pub directory: PathBuf,
    /// The tool's whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the caller knows every input.
    pub storable: Storable,
}

/// The backend as an action.
pub fn backend_action(parts: BackendParts<'_>) -> Action {
    let text = |text: &str| Argument::Text(text.into());
    let mut arguments: Vec<Argument> = parts
        .link_options
        .iter()
        .chain(&parts.flags.arguments)
        .cloned()
        .map(Argument::Text)
        .collect();
    if !parts.assembler_files.is_empty() {
        // Clang's driver does not pass `-I` on for bitcode.
        for directory in &parts.flags.include_directories {
            arguments.extend(["-Xclang", "-I", "-Xclang"].map(text));
            arguments.push(Argument::Text(directory.into()));
        }
    }
    // Flags that only the front end reads are unused here, and some trees make that an error.
    arguments.push(text("-Wno-unused-command-line-argument"));
    arguments.extend([
        text("-c"),
        text("-x"),
        text("ir"),
        Argument::File("", FileRef::Input(0)),
    ]);
    let mut inputs = vec![parts.bitcode];
    match parts.before {
        Before::Index(index) => {
            inputs.push(index);
            arguments.push(Argument::File("-fthinlto-index=", FileRef::Input(1)));
        }
        // Clang's spelling for a ThinLTO object that takes no part in a thin-link.
        Before::LeftOut => arguments.push(text("-fthinlto-index=/dev/null")),
        Before::Optimized => arguments.extend(["-Xclang", "-disable-llvm-passes"].map(text)),
    }
    inputs.extend(parts.imports);
    inputs.extend(parts.assembler_files);
    arguments.extend([text("-o"), Argument::File("", FileRef::Output(0))]);
    let mut outputs = vec![parts.native];
    if let Some(file) = &parts.flags.split_dwarf {
        outputs.extend(outputs.first().map(|native| split_dwarf_beside(native)));
        arguments.extend(split_dwarf_flags(file.as_os_str()).map(Argument::Text));
        arguments.extend(["-Xclang", "-split-dwarf-output", "-Xclang"].map(text));
        arguments.push(Argument::File("", FileRef::Output(1)));
    }
    Action {
        kind: ActionKind::Backend,
        label: parts.label,
        program: parts.program,
        tool_identity: parts.tool_identity,
        arguments,
        inputs,
        outputs,
        edits: None,
        directory: parts.directory,
        environment: parts.environment,
        storable: match parts.storable {
            Storable::Yes => follows_all_files(parts.flags, parts.link_options),
            no => no,
        },
    }
}

/// Whether no flag names a file that the action does not know as an input.
fn follows_all_files(flags: &BackendFlags, link_options: &[OsString]) -> Storable {
    let mut options = link_options.iter();
    match (&flags.not_storable, options.find(|one| may_name_file(one))) {
        (Some(reason), _) => Storable::No(reason.clone()),
        (None, Some(option)) => Storable::No(format!("{} may name a file", option.display())),
        (None, None) => Storable::Yes,
    }
}

/// Where a backend puts split debug information.
pub fn split_dwarf_beside(native: &Path) -> PathBuf {
    native.with_extension("dwo")
}

/// Refuses what a backend must not write: clang gives exit code 0 and an empty object when an import
/// is missing (llvm-project issue 75441).
pub fn check_native(action: &Action, bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err(format!("the {} wrote an empty file", action.kind.name()));
    }
    if !elf::is_elf(bytes) {
        return Err(format!("the {} wrote no ELF object", action.kind.name()));
    }
    let sections = elf::section_names(bytes).map_err(|error| error.to_string())?;
    if sections.is_empty() {
        return Err(format!(
            "the {} wrote an object without sections",
            action.kind.name()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use klto_kbuild::compile::backend_flags;

    fn input(role: &'static str, path: &str) -> Input {
        Input {
            role,
            path: path.into(),
            digest: Digest::of_bytes(path.as_bytes()),
        }
    }

    fn parts<'a>(flags: &'a BackendFlags, link_options: &'a [OsString]) -> BackendParts<'a> {
        BackendParts {
            label: "init/main.o".into(),
            program: "/usr/bin/clang".into(),
            tool_identity: Digest::of_bytes(b"clang"),
            flags,
            link_options,
            bitcode: input("bitcode", "init/main.o"),
            before: Before::Index(input("index", "index/init/main.o.thinlto.bc")),
            imports: vec![input("import", "init/calibrate.o")],
            assembler_files: vec![],
            native: "raw/init/main.o".into(),
            directory: "/build".into(),
            environment: vec![],
            storable: Storable::Yes,
        }
    }

    #[test]
    fn a_backend_names_its_object_index_and_native() {
        let flags = backend_flags(&["-O2".into(), "-I.".into(), "-c".into()]);
        let link_options = ["-mcmodel=kernel".into()];
        let action = backend_action(parts(&flags, &link_options));
        assert_eq!(
            action.command_arguments(),
            [
                "-mcmodel=kernel",
                "-O2",
                "-Wno-unused-command-line-argument",
                "-c",
                "-x",
                "ir",
                "init/main.o",
                "-fthinlto-index=index/init/main.o.thinlto.bc",
                "-o",
                "raw/init/main.o"
            ]
        );
        assert_eq!(action.inputs.len(), 3);
    }

    #[test]
    fn imports_index_flags_and_assembler_files_are_in_the_key() {
        let flags = backend_flags(&["-O2".into(), "-Iinclude".into()]);
        let key = |change: &dyn Fn(&mut BackendParts<'_>)| {
            let mut changed = parts(&flags, &[]);
            change(&mut changed);
            backend_action(changed).key()
        };
        let plain = key(&|_| {});
        assert_ne!(
            plain,
            key(&|parts| parts.imports.push(input("import", "x.o")))
        );
        assert_ne!(plain, key(&|parts| parts.imports.clear()));
        assert_ne!(plain, key(&|parts| parts.before = Before::LeftOut));
        assert_ne!(
            plain,
            key(&|parts| parts.bitcode = input("bitcode", "other"))
        );
        assert_ne!(
            plain,
            key(&|parts| parts
                .assembler_files
                .push(input("asm-file", "config_data.gz")))
        );
        let other = backend_flags(&["-O3".into()]);
        assert_ne!(plain, backend_action(parts(&other, &[])).key());
    }

    #[test]
    fn split_debug_information_is_an_output() {
        let flags = backend_flags(&["-gsplit-dwarf".into(), "-o".into(), "init/main.o".into()]);
        let action = backend_action(parts(&flags, &[]));
        let outputs = ["raw/init/main.o", "raw/init/main.dwo"].map(PathBuf::from);
        assert_eq!(action.outputs, outputs);
        let words = action.command_arguments();
        assert!(words.contains(&"init/main.dwo".into()));
        assert_eq!(words.last(), Some(&"raw/init/main.dwo".into()));
    }

    #[test]
    fn an_option_of_the_link_that_may_name_a_file_is_not_stored() {
        let flags = backend_flags(&[]);
        let link_options = ["-mllvm".into(), "-profile=/tmp/x".into()];
        let action = backend_action(parts(&flags, &link_options));
        assert!(matches!(action.storable, Storable::No(_)));
    }

    #[test]
    fn empty_and_foreign_outputs_are_refused() {
        let flags = backend_flags(&[]);
        let action = backend_action(parts(&flags, &[]));
        assert!(check_native(&action, b"").unwrap_err().contains("empty"));
        assert!(
            check_native(&action, b"BC\xc0\xde")
                .unwrap_err()
                .contains("no ELF")
        );
    }
}
