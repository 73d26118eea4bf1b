//! Compiler calls: which of them compile kernel code, and the flags of each later step.
//!
//! In: a compiler's arguments as kbuild wrote them. Out: the same call as bitcode, the same call as
//! a native object, or the flags that the object's backend needs. It starts no tool and reads no file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One compile of one C source of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileCall {
    /// The source file.
    pub source: PathBuf,
    /// The object.
    pub output: PathBuf,
    /// Whether the object is part of a module (`-DMODULE`).
    pub module_part: bool,
    /// Whether the object is the whole of its module: KBUILD_BASENAME equals KBUILD_MODNAME.
    pub single_object_module: bool,
}

/// Flags with which a backend turns bitcode into the object that this compile would have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFlags {
    /// In the order of the compile.
    pub arguments: Vec<OsString>,
    /// `-I` directories in order: the integrated assembler searches them for `.incbin` files.
    pub include_directories: Vec<PathBuf>,
    /// The file of split debug information (`-gsplit-dwarf`), as the compile names it.
    pub split_dwarf: Option<PathBuf>,
    /// Why a result with these flags may not be stored, if so.
    pub not_storable: Option<String>,
}

impl CompileCall {
    /// Reads a call that has `-c`; `None` when it is not one compile of one C source with an output.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let mut source = None;
        let mut output = None;
        let mut base_name = None;
        let mut module_name = None;
        let mut module_part = false;
        for word in words(arguments) {
            match word {
                Word::Operand(b"-o", value) => output = Some(PathBuf::from(value)),
                Word::Plain(text) if !text.as_bytes().starts_with(b"-") => {
                    if source.replace(PathBuf::from(text)).is_some() {
                        return None;
                    }
                }
                Word::Plain(text) => {
                    let text = text.as_bytes();
                    module_part |= text == b"-DMODULE";
                    base_name = text.strip_prefix(b"-DKBUILD_BASENAME=").or(base_name);
                    module_name = text.strip_prefix(b"-DKBUILD_MODNAME=").or(module_name);
                }
                Word::Operand(..) => {}
            }
        }
        let source = source.filter(|source| source.extension() == Some(OsStr::new("c")))?;
        let single = module_part && base_name.is_some() && base_name == module_name;
        Some(Self {
            source,
            output: output?,
            module_part,
            single_object_module: single,
        })
    }
}

/// The call with link-time optimization added, for a tree whose kbuild does not add it.
///
/// `-fvisibility=hidden` is what upstream uses too (Makefile, CC_FLAGS_LTO): a kernel has no dynamic
/// symbols, and hidden ones need no GOT. `first` goes before every other include path.
pub fn with_thin_lto(arguments: &[OsString], first: &[OsString]) -> Vec<OsString> {
    let mut result = first.to_vec();
    result.extend(arguments.iter().cloned());
    result.extend(["-flto=thin", "-fvisibility=hidden"].map(OsString::from));
    result
}

/// The same for full LTO. The headers that go first make functions of global names, which have to be the
/// object's own: of an object of vmlinux this is `object`, its path below the output tree.
pub fn with_full_lto(
    arguments: &[OsString],
    first: &[OsString],
    object: Option<&Path>,
) -> Vec<OsString> {
    let mut result = first.to_vec();
    let name = object.map(|object| identifier(&object.with_extension("")));
    result.extend(name.map(|name| OsString::from(format!("-DKLTO_OBJECT={name}"))));
    result.extend(arguments.iter().cloned());
    result.extend(["-flto=full", "-fvisibility=hidden"].map(OsString::from));
    result
}

/// A path with `_` for all that an identifier of C cannot have.
fn identifier(path: &Path) -> String {
    let letters = path.as_os_str().as_bytes().iter();
    letters
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(*byte),
            false => '_',
        })
        .collect()
}

/// The call that gives the native object of a build without LTO.
pub fn without_lto(arguments: &[OsString]) -> Vec<OsString> {
    arguments
        .iter()
        .filter(|argument| !is_lto_flag(argument.as_bytes()))
        .cloned()
        .collect()
}

/// [`without_lto`] for an object that is compiled a second time, when kbuild has already read its
/// dependency file: that file is left alone.
pub fn without_lto_or_depfile(arguments: &[OsString]) -> Vec<OsString> {
    let is_depfile = |argument: &OsString| {
        let text = argument.as_bytes();
        text.starts_with(b"-Wp,-M") || text == b"-MD" || text == b"-MMD"
    };
    without_lto(arguments)
        .into_iter()
        .filter(|argument| !is_depfile(argument))
        .collect()
}

/// Whether an object is made anew for each link of vmlinux and is made before it: `init/version.o`, before
/// `init/version-timestamp.o` came (scripts/link-vmlinux.sh raises `.version`). As bitcode it would let no
/// merge of vmlinux be found again.
pub fn changes_with_each_link(output: &Path) -> bool {
    output.ends_with("init/version.o")
}

/// The call with another output; `None` if it names none. Split debug information keeps its place.
pub fn with_output(arguments: &[OsString], output: &Path) -> Option<Vec<OsString>> {
    let split_dwarf = backend_flags(arguments).split_dwarf;
    let mut arguments = arguments.to_vec();
    if let Some(file) = &split_dwarf {
        arguments.extend(split_dwarf_flags(file.as_os_str()));
        arguments.extend(["-Xclang", "-split-dwarf-output", "-Xclang"].map(OsString::from));
        arguments.push(file.into());
    }
    let place = arguments.iter().position(|argument| argument == "-o")?;
    *arguments.get_mut(place + 1)? = output.into();
    Some(arguments)
}

/// Flags that have an object name `file` as that of its split debug information.
pub fn split_dwarf_flags(file: &OsStr) -> [OsString; 4] {
    let flags = ["-Xclang", "-split-dwarf-file", "-Xclang"].map(OsString::from);
    let [xclang, flag, again] = flags;
    [xclang, flag, again, file.to_owned()]
}

fn is_lto_flag(text: &[u8]) -> bool {
    text.starts_with(b"-flto")
        || matches!(
            text,
            b"-fno-lto" | b"-fsplit-lto-unit" | b"-fvisibility=hidden"
        )
}

/// Flags with an operand of their own that only the preprocessor or the driver reads.
const FRONT_END_OPERANDS: [&[u8]; 16] = [
    b"-o",
    b"-x",
    b"-D",
    b"-U",
    b"-I",
    b"-isystem",
    b"-iquote",
    b"-idirafter",
    b"-include",
    b"-imacros",
    b"-MF",
    b"-MT",
    b"-MQ",
    b"-iprefix",
    b"-iwithprefix",
    b"-isysroot",
];

/// Flags with an operand of their own that code generation reads.
const BACK_END_OPERANDS: [&[u8]; 4] = [b"-mllvm", b"-Xclang", b"-Xassembler", b"-target"];

/// Beginnings of flags that end with the front end, whose whole work is in the bitcode.
const FRONT_END_PREFIXES: [&[u8]; 17] = [
    b"-D",
    b"-U",
    b"-I",
    b"-isystem",
    b"-iquote",
    b"-idirafter",
    b"-include",
    b"-imacros",
    b"-isysroot",
    b"-Wp,",
    b"-M",
    b"-std=",
    b"-x",
    b"-fmacro-prefix-map=",
    b"-frandomize-layout-seed",
    b"-save-temps",
    b"-nostdinc",
];

enum Word<'a> {
    Plain(&'a OsStr),
    Operand(&'static [u8], &'a OsStr),
}

/// Splits arguments into flags that stand alone and flags with the operand that follows them.
fn words(arguments: &[OsString]) -> Vec<Word<'_>> {
    let mut result = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let flag = FRONT_END_OPERANDS
            .iter()
            .chain(&BACK_END_OPERANDS)
            .find(|flag| argument.as_bytes() == **flag);
        match flag.and_then(|flag| Some((flag, rest.next()?))) {
            Some((flag, value)) => result.push(Word::Operand(flag, value)),
            None => result.push(Word::Plain(argument)),
        }
    }
    result
}

/// The flags of a compile that its backend needs.
///
/// Everything is kept that is not known to end with the front end: a flag that the backend ignores
/// costs nothing, one that it misses gives other code.
pub fn backend_flags(arguments: &[OsString]) -> BackendFlags {
    let mut flags = BackendFlags {
        arguments: Vec::new(),
        include_directories: Vec::new(),
        split_dwarf: None,
        not_storable: None,
    };
    let mut output = None;
    for word in words(arguments) {
        match word {
            Word::Operand(b"-I", value) => flags.include_directories.push(PathBuf::from(value)),
            Word::Operand(b"-o", value) => output = Some(PathBuf::from(value)),
            Word::Operand(flag, value) if BACK_END_OPERANDS.contains(&flag) => {
                note_unknown_file(&mut flags, value);
                flags
                    .arguments
                    .push(OsString::from(OsStr::from_bytes(flag)));
                flags.arguments.push(value.to_owned());
            }
            Word::Operand(..) => {}
            Word::Plain(text) => keep_plain(&mut flags, text),
        }
    }
    let is_split = |flag: &OsString| flag == "-gsplit-dwarf" || flag == "-gsplit-dwarf=split";
    if flags.arguments.iter().any(is_split) {
        flags.split_dwarf = output.map(|output| output.with_extension("dwo"));
    }
    flags
}

fn keep_plain(flags: &mut BackendFlags, text: &OsStr) {
    let bytes = text.as_bytes();
    if let Some(directory) = bytes.strip_prefix(b"-I") {
        flags
            .include_directories
            .push(PathBuf::from(OsStr::from_bytes(directory)));
    }
    let is_file = !bytes.starts_with(b"-");
    let front_end = FRONT_END_PREFIXES
        .iter()
        .any(|prefix| bytes.starts_with(prefix));
    if is_file || front_end || bytes == b"-c" || is_lto_flag(bytes) {
        return;
    }
    note_unknown_file(flags, text);
    if matches!(bytes, b"-fno-integrated-as" | b"-no-integrated-as") {
        let reason = || format!("{} has another assembler make it", text.display());
        flags.not_storable.get_or_insert_with(reason);
    }
    flags.arguments.push(text.to_owned());
}

fn note_unknown_file(flags: &mut BackendFlags, text: &OsStr) {
    if flags.not_storable.is_none() && may_name_file(text) {
        let reason = format!(
            "{} may name a file that klto does not follow",
            text.display()
        );
        flags.not_storable = Some(reason);
    }
}

/// Whether a flag of code generation may name a file whose content no key has: its value looks like
/// a path and is not known to be mere text, or the flag is known to take a file.
pub fn may_name_file(flag: &OsStr) -> bool {
    const TEXT_ONLY: [&[u8]; 6] = [
        b"-ffile-prefix-map=",
        b"-fdebug-prefix-map=",
        b"-fdebug-compilation-dir=",
        b"--prefix=",
        b"--gcc-toolchain=",
        b"-ffile-compilation-dir=",
    ];
    const FILES: [&[u8]; 15] = [
        b"--config",
        b"-fauto-profile",
        b"-fplugin",
        b"-fpass-plugin",
        b"-fprofile-",
        b"-fbasic-block-sections=list",
        b"-fbasic-block-address-map",
        b"-fmemory-profile",
        b"-foptimization-record-file",
        b"-fproc-stat-report",
        b"-fsanitize-coverage-allowlist",
        b"-fsanitize-coverage-ignorelist",
        b"-fsanitize-ignorelist",
        b"-fsanitize-blacklist",
        b"-fxray-",
    ];
    let flag = flag.as_bytes();
    let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| flag.starts_with(prefix));
    let value = flag.split(|byte| *byte == b'=').nth(1);
    begins(&FILES) || (value.is_some_and(|value| value.contains(&b'/')) && !begins(&TEXT_ONLY))
}

/// Whether an object is linked only after link-time optimization, so that kbuild's next step wants
/// it native: what modpost generates, and what link-vmlinux.sh adds.
pub fn is_linked_after_lto(output: &Path) -> bool {
    let name = output.file_name().unwrap_or_default().as_bytes();
    name.ends_with(b".mod.o")
        || name.ends_with(b".module-common.o")
        || name == b".vmlinux.export.o"
        || output.ends_with("init/version-timestamp.o")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn compile(extra: &str) -> Vec<OsString> {
        arguments(&format!(
            "-Wp,-MMD,fs/ext4/.inode.o.d -nostdinc -I./include -I ./arch -include kconfig.h -D__KERNEL__ \
             -std=gnu11 -O2 -mcmodel=kernel {extra} -DKBUILD_BASENAME=\"inode\" -c -o fs/ext4/inode.o \
             ../fs/ext4/inode.c"
        ))
    }

    #[test]
    fn a_compile_names_its_source_output_and_module() {
        let call = CompileCall::parse(&compile("-DMODULE -DKBUILD_MODNAME=\"ext4\"")).unwrap();
        assert_eq!(call.source, Path::new("../fs/ext4/inode.c"));
        assert_eq!(call.output, Path::new("fs/ext4/inode.o"));
        assert!(call.module_part && !call.single_object_module);
        let call = CompileCall::parse(&compile("-DMODULE -DKBUILD_MODNAME=\"inode\"")).unwrap();
        assert!(call.single_object_module);
        let call = CompileCall::parse(&compile("-DKBUILD_MODNAME=\"inode\"")).unwrap();
        assert!(!call.single_object_module && !call.module_part);
    }

    #[test]
    fn backends_keep_code_generation_flags_and_include_directories() {
        let flags = backend_flags(&compile(
            "-flto=thin -fsplit-lto-unit -mllvm -x=1 -ffunction-sections",
        ));
        assert_eq!(
            flags.arguments,
            arguments("-O2 -mcmodel=kernel -mllvm -x=1 -ffunction-sections")
        );
        assert_eq!(
            flags.include_directories,
            [Path::new("./include"), Path::new("./arch")]
        );
        assert_eq!(flags.not_storable, None);
    }

    #[test]
    fn flags_that_may_name_files_are_not_stored() {
        let storable = |flag| backend_flags(&compile(flag)).not_storable.is_none();
        assert!(!storable("-fprofile-sample-use=/tmp/profile"));
        assert!(!storable("-fplugin=x.so"));
        assert!(!storable("-fno-integrated-as"));
        assert!(storable("-fdebug-prefix-map=/a=/b"));
    }

    #[test]
    fn split_debug_information_keeps_its_name() {
        let split = compile("-g -gsplit-dwarf");
        let name = Path::new("fs/ext4/inode.dwo");
        assert_eq!(backend_flags(&split).split_dwarf.as_deref(), Some(name));
        assert_eq!(backend_flags(&compile("-g")).split_dwarf, None);
        let moved = with_output(&split, Path::new("x.o")).unwrap();
        let names = moved.iter().filter(|word| *word == name.as_os_str());
        assert_eq!(names.count(), 2);
    }

    #[test]
    fn the_native_call_is_the_call_before_lto() {
        let plain = compile("");
        let thin = with_thin_lto(&plain, &[]);
        assert!(thin.contains(&OsString::from("-flto=thin")));
        let full = with_full_lto(&plain, &[], Some(Path::new("drivers/pci/a-b.o")));
        let added = ["-DKLTO_OBJECT=drivers_pci_a_b", "-flto=full"];
        assert!(
            added
                .iter()
                .all(|flag| full.contains(&OsString::from(flag)))
        );
        assert_eq!(without_lto(&thin), plain);
        let again = without_lto_or_depfile(&thin);
        assert!(
            !again
                .iter()
                .any(|argument| argument.as_bytes().starts_with(b"-Wp,-MMD"))
        );
    }

    #[test]
    fn generated_module_objects_are_linked_after_lto() {
        assert!(is_linked_after_lto(Path::new("fs/ext4/ext4.mod.o")));
        assert!(is_linked_after_lto(Path::new(".vmlinux.export.o")));
        assert!(!is_linked_after_lto(Path::new("fs/mod.o")));
    }
}
