//! Linker calls: what is linked, in which order, and the options that reach link-time optimization.
//!
//! In: a linker's arguments as kbuild wrote them, response files already expanded. Out: items in
//! order, from which the same call can be written with other files. It reads no file and does not
//! know which inputs are bitcode.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The list of the objects of vmlinux that are lowered one by one, with CONFIG_LTO_CLANG_THIN_DIST
/// (scripts/Makefile.vmlinux_a).
pub const VMLINUX_INDEX_LIST: &str = "vmlinux.thinlto-index";

/// Where kbuild has the index of an object put, and its native (scripts/Makefile.thinlto).
pub fn index_and_native(object: &Path) -> (PathBuf, PathBuf) {
    let mut index = object.as_os_str().to_owned();
    index.push(".thinlto.bc");
    (index.into(), object.with_extension("thinlto-native.o"))
}

/// Whether a file is an index, a native of one, or kbuild's record of that native: the link of vmlinux alone
/// reads them.
pub fn is_of_distributed_link(name: &[u8]) -> bool {
    let ends: [&[u8]; 3] = [
        b".o.thinlto.bc",
        b".thinlto-native.o",
        b".thinlto-native.o.cmd",
    ];
    ends.iter().any(|end| name.ends_with(end))
}

/// A compiler call that makes a native of bitcode by its index: the bitcode, and the output.
pub fn distributed_backend(arguments: &[OsString]) -> Option<(PathBuf, PathBuf)> {
    let by_index = |argument: &OsString| argument.as_bytes().starts_with(b"-fthinlto-index=");
    arguments.iter().find(|argument| by_index(argument))?;
    let place = arguments.iter().position(|argument| argument == "-o")?;
    Some((arguments.last()?.into(), arguments.get(place + 1)?.into()))
}

/// A link, as its items in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCall {
    /// `-r`: the output is an object again.
    pub relocatable: bool,
    /// `-o`; empty where only indexes are asked for.
    pub output: PathBuf,
    /// The list of `--thinlto-index-only=`: nothing is linked, indexes are written.
    pub index_list: Option<PathBuf>,
    /// `-T` scripts in order.
    pub scripts: Vec<PathBuf>,
    /// Everything, in order.
    pub items: Vec<LinkItem>,
}

/// One item of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkItem {
    /// An option with its operands, as it stands in the call.
    Option(Vec<OsString>),
    /// An option that says how the files after it are taken: `--whole-archive`, `--start-lib`, …
    State(OsString),
    /// An input file.
    File {
        /// As it stands in the call.
        path: PathBuf,
        /// Whether every member of an archive is linked.
        whole_archive: bool,
        /// Whether the file stands between `--start-lib` and `--end-lib`.
        in_lib: bool,
    },
}

/// Options of ld.lld of one letter whose operand is the next argument (`ld.lld --help`).
const SHORT_WITH_OPERAND: [&[u8]; 16] = [
    b"-o", b"-T", b"-m", b"-z", b"-e", b"-u", b"-L", b"-l", b"-y", b"-h", b"-b", b"-dT", b"-F",
    b"-f", b"-R", b"-O",
];
/// Others that take an operand, as the next argument where no `=` follows; with one dash or two.
const LONG_WITH_OPERAND: [&[u8]; 35] = [
    b"Map",
    b"auxiliary",
    b"call-graph-ordering-file",
    b"chroot",
    b"default-script",
    b"defsym",
    b"dynamic-linker",
    b"dynamic-list",
    b"entry",
    b"exclude-libs",
    b"export-dynamic-symbol",
    b"filter",
    b"fini",
    b"format",
    b"hash-style",
    b"image-base",
    b"init",
    b"just-symbols",
    b"library",
    b"library-path",
    b"mllvm",
    b"oformat",
    b"orphan-handling",
    b"output",
    b"plugin-opt",
    b"rpath",
    b"script",
    b"section-start",
    b"soname",
    b"sort-section",
    b"symbol-ordering-file",
    b"sysroot",
    b"undefined",
    b"version-script",
    b"wrap",
];

fn takes_operand(argument: &[u8]) -> bool {
    let long = argument.strip_prefix(b"-");
    let long = long.map(|name| name.strip_prefix(b"-").unwrap_or(name));
    SHORT_WITH_OPERAND.contains(&argument)
        || long.is_some_and(|name| LONG_WITH_OPERAND.contains(&name))
}

/// Whether an option has the linker read and write nothing but its inputs and its output, and print nothing.
/// Of one that is not known here that is not so.
pub fn is_pure_option(words: &[OsString]) -> bool {
    const PURE: [&[u8]; 16] = [
        b"-m",
        b"-z",
        b"-r",
        b"--relocatable",
        b"-o",
        b"--output",
        b"-T",
        b"--script",
        b"-EL",
        b"-EB",
        b"-X",
        b"-S",
        b"--strip-debug",
        b"--emit-relocs",
        b"--gc-sections",
        b"--fatal-warnings",
    ];
    const PURE_BEGINNINGS: [&[u8]; 11] = [
        b"-T",
        b"-maarch64",
        b"-melf_",
        b"--script=",
        b"--output=",
        b"--no-",
        b"--build-id",
        b"--orphan-handling=",
        b"--lto-O",
        b"--lto-CGO",
        b"--fix-cortex-",
    ];
    let mut texts = words.iter().map(|word| word.as_bytes());
    let first = texts.next().unwrap_or_default();
    let llvm = match (first, texts.next()) {
        (b"-mllvm" | b"--mllvm" | b"-plugin-opt" | b"--plugin-opt", Some(value)) => Some(value),
        _ => joined_lto_option(first).filter(|option| *option != first),
    };
    match llvm {
        Some(option) => is_pure_llvm_option(option),
        None => {
            PURE.contains(&first)
                || PURE_BEGINNINGS
                    .iter()
                    .any(|beginning| first.starts_with(beginning))
        }
    }
}

/// Whether an option of LLVM names no file: it has no value, a number, or is known.
fn is_pure_llvm_option(option: &[u8]) -> bool {
    const KNOWN: [&[u8]; 3] = [b"-code-model=", b"-mattr=", b"-mcpu="];
    let value = option.splitn(2, |byte| *byte == b'=').nth(1);
    let is_number = |value: &[u8]| value.iter().all(u8::is_ascii_digit);
    let is_known = KNOWN.iter().any(|known| option.starts_with(known));
    let is_flag = option.starts_with(b"-") || option.starts_with(b"O");
    is_known || is_flag && value.is_none_or(is_number)
}

impl LinkCall {
    /// Reads a link; `None` when it names neither an output nor a list of indexes, or has an argument that
    /// klto cannot place.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let mut call = Self {
            relocatable: false,
            output: PathBuf::new(),
            index_list: None,
            scripts: Vec::new(),
            items: Vec::new(),
        };
        let mut whole_archive = false;
        let mut in_lib = false;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let text = argument.as_bytes();
            if takes_operand(text) {
                let operand = rest.next()?;
                call.option(text, operand);
                call.items
                    .push(LinkItem::Option(vec![argument.clone(), operand.clone()]));
                continue;
            }
            match text {
                b"--whole-archive" | b"-whole-archive" => whole_archive = true,
                b"--no-whole-archive" | b"-no-whole-archive" => whole_archive = false,
                b"--start-lib" | b"-start-lib" => in_lib = true,
                b"--end-lib" | b"-end-lib" => in_lib = false,
                b"--start-group" | b"--end-group" | b"-(" | b"-)" => {}
                _ if text.first() == Some(&b'@') => return None,
                _ => {
                    let item = if text.first() == Some(&b'-') {
                        call.relocatable |= matches!(text, b"-r" | b"--relocatable");
                        call.joined_option(text);
                        LinkItem::Option(vec![argument.clone()])
                    } else {
                        LinkItem::File {
                            path: PathBuf::from(argument),
                            whole_archive,
                            in_lib,
                        }
                    };
                    call.items.push(item);
                    continue;
                }
            }
            call.items.push(LinkItem::State(argument.clone()));
        }
        let writes = !call.output.as_os_str().is_empty() || call.index_list.is_some();
        writes.then_some(call)
    }

    fn option(&mut self, name: &[u8], operand: &OsStr) {
        match name {
            b"-o" | b"--output" => self.output = PathBuf::from(operand),
            b"-T" | b"--script" => self.scripts.push(PathBuf::from(operand)),
            b"--thinlto-index-only" => self.index_list = Some(PathBuf::from(operand)),
            _ => {}
        }
    }

    fn joined_option(&mut self, text: &[u8]) {
        for (prefix, name) in [
            (&b"--output="[..], &b"-o"[..]),
            (b"--script=", b"-T"),
            (b"-T", b"-T"),
            (b"--thinlto-index-only=", b"--thinlto-index-only"),
        ] {
            if let Some(value) = text.strip_prefix(prefix) {
                return self.option(name, OsStr::from_bytes(value));
            }
        }
    }

    /// Input files in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.items.iter().filter_map(|item| match item {
            LinkItem::File { path, .. } => Some(path.as_path()),
            _ => None,
        })
    }

    /// Options without output, scripts, maps, files and what only the link of natives needs.
    pub fn options_for_thin_link(&self) -> Vec<OsString> {
        const NOT_FOR_THIN_LINK: [&[u8]; 7] = [
            b"-o",
            b"--output",
            b"-T",
            b"--script",
            b"-Map",
            b"--Map",
            b"-r",
        ];
        let wanted = |words: &&Vec<OsString>| {
            let first = words
                .first()
                .map(|word| word.as_bytes())
                .unwrap_or_default();
            let joined = [
                &b"-Map="[..],
                b"--Map=",
                b"--script=",
                b"--output=",
                b"-T",
                b"--thinlto-",
            ]
            .iter()
            .any(|prefix| first.starts_with(prefix));
            !NOT_FOR_THIN_LINK.contains(&first) && !joined
        };
        let options = self.items.iter().filter_map(|item| match item {
            LinkItem::Option(words) => Some(words),
            _ => None,
        });
        options.filter(wanted).flatten().cloned().collect()
    }

    /// The options of the link line that configure in-process LTO backends, as backend flags.
    ///
    /// `Err` names an option that klto cannot translate.
    pub fn backend_options(&self) -> Result<Vec<OsString>, String> {
        let mut flags = Vec::new();
        for item in &self.items {
            let LinkItem::Option(words) = item else {
                continue;
            };
            let mut words = words.iter().map(|word| word.as_bytes());
            let name = words.next().unwrap_or_default();
            let option = match (name, words.next()) {
                (b"-mllvm" | b"--mllvm" | b"-plugin-opt", Some(value)) => value,
                _ => match joined_lto_option(name) {
                    Some(value) => value,
                    None => continue,
                },
            };
            translate(option, &mut flags)?;
        }
        Ok(flags)
    }
}

fn joined_lto_option(name: &[u8]) -> Option<&[u8]> {
    for prefix in [
        &b"-plugin-opt="[..],
        b"--plugin-opt=",
        b"-mllvm=",
        b"--mllvm=",
    ] {
        if let Some(value) = name.strip_prefix(prefix) {
            return Some(value);
        }
    }
    let known = name.starts_with(b"--lto")
        || name.starts_with(b"-lto")
        || name.starts_with(b"--save-temps");
    known.then_some(name)
}

/// One LLVM option of a link line as flags of `clang -c`.
///
/// ld.lld registers LLVM's code generation options, clang does not: those have driver spellings.
fn translate(option: &[u8], flags: &mut Vec<OsString>) -> Result<(), String> {
    let mut push = |text: &[u8]| flags.push(OsString::from(OsStr::from_bytes(text)));
    if option.starts_with(b"-import-") || option.starts_with(b"--lto-whole-program-visibility") {
        // Import decisions are the thin-link's; a backend follows the index.
        return Ok(());
    }
    for (prefix, driver) in [
        (&b"-code-model="[..], &b"-mcmodel="[..]),
        (b"-stack-alignment=", b"-mstack-alignment="),
        (b"-warn-stack-size=", b"-Wframe-larger-than="),
        (b"--lto-O", b"-O"),
        (b"O", b"-O"),
    ] {
        if let Some(value) = option.strip_prefix(prefix) {
            push(&[driver, value].concat());
            return Ok(());
        }
    }
    if let Some(feature) = option.strip_prefix(b"-mattr=") {
        for word in [b"-Xclang", &b"-target-feature"[..], b"-Xclang", feature] {
            push(word);
        }
        return Ok(());
    }
    if option.starts_with(b"-") && !option.starts_with(b"--") {
        push(b"-mllvm");
        push(option);
        return Ok(());
    }
    Err(String::from_utf8_lossy(option).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LinkCall {
        let arguments: Vec<_> = text.split_whitespace().map(OsString::from).collect();
        LinkCall::parse(&arguments).unwrap()
    }

    #[test]
    fn the_link_of_vmlinux_o_keeps_order_and_archive_state() {
        let call = parse(
            "-m elf_x86_64 -mllvm -import-instr-limit=5 -z noexecstack -r -o vmlinux.o -T .tmp_initcalls.lds \
             --whole-archive vmlinux.a --no-whole-archive --start-group lib/lib.a --end-group",
        );
        assert!(call.relocatable);
        assert_eq!(call.output, Path::new("vmlinux.o"));
        assert_eq!(call.scripts, [Path::new(".tmp_initcalls.lds")]);
        let files: Vec<_> = call
            .items
            .iter()
            .filter_map(|item| match item {
                LinkItem::File {
                    path,
                    whole_archive,
                    ..
                } => Some((path.to_str()?, *whole_archive)),
                _ => None,
            })
            .collect();
        assert_eq!(files, [("vmlinux.a", true), ("lib/lib.a", false)]);
        assert_eq!(
            call.options_for_thin_link(),
            [
                "-m",
                "elf_x86_64",
                "-mllvm",
                "-import-instr-limit=5",
                "-z",
                "noexecstack"
            ]
        );
    }

    #[test]
    fn lto_options_of_the_link_line_reach_backends_or_are_refused() {
        let call = parse(
            "-mllvm -import-instr-limit=5 -plugin-opt=-code-model=kernel -plugin-opt=-stack-alignment=8 \
             -mllvm -mattr=+c -mllvm -foo -r -o a.o b.o",
        );
        assert_eq!(
            call.backend_options().unwrap(),
            [
                "-mcmodel=kernel",
                "-mstack-alignment=8",
                "-Xclang",
                "-target-feature",
                "-Xclang",
                "+c",
                "-mllvm",
                "-foo"
            ]
        );
        let call = parse("--lto-basic-block-sections=all -r -o a.o b.o");
        assert_eq!(
            call.backend_options().unwrap_err(),
            "--lto-basic-block-sections=all"
        );
        let call = parse("-plugin-opt=sample-profile=x -r -o a.o b.o");
        assert_eq!(call.backend_options().unwrap_err(), "sample-profile=x");
    }

    #[test]
    fn a_distributed_backend_is_recognized() {
        let arguments = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let call =
            "-O2 -x ir -fno-lto -fthinlto-index=a/b.o.thinlto.bc -c -o a/b.thinlto-native.o a/b.o";
        let (object, output) = distributed_backend(&arguments(call)).unwrap();
        assert_eq!(object, Path::new("a/b.o"));
        let (index, native) = index_and_native(&object);
        assert_eq!((index.to_str(), native), (Some("a/b.o.thinlto.bc"), output));
        assert_eq!(distributed_backend(&arguments("-c -o a.o a.c")), None);
        for name in [
            "b.o.thinlto.bc",
            "b.thinlto-native.o",
            ".b.thinlto-native.o.cmd",
        ] {
            assert!(is_of_distributed_link(name.as_bytes()));
        }
        assert!(!is_of_distributed_link(b"b.o"));
    }

    #[test]
    fn a_link_of_indexes_alone_needs_no_output() {
        let call = parse("-m elf_x86_64 -r --thinlto-index-only=vmlinux.thinlto-index a.o b.o");
        assert_eq!(
            call.index_list.as_deref(),
            Some(Path::new(VMLINUX_INDEX_LIST))
        );
        assert_eq!(call.options_for_thin_link(), ["-m", "elf_x86_64"]);
    }

    #[test]
    fn an_operand_is_no_file() {
        let call = parse("--wrap foo -sort-section name -b elf64 -r -o a.o b.o");
        let files: Vec<&Path> = call.files().collect();
        assert_eq!(files, [Path::new("b.o")]);
    }

    #[test]
    fn options_that_may_touch_other_files_are_told_from_pure_ones() {
        let is_pure = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            is_pure_option(&words)
        };
        for pure in [
            "-m elf_x86_64",
            "-maarch64elf",
            "-z noexecstack",
            "-T .tmp_initcalls.lds",
            "-EL",
            "--no-warn-rwx-segments",
            "--fix-cortex-a53-843419",
            "-mllvm -import-instr-limit=5",
            "-plugin-opt=-code-model=kernel",
            "-plugin-opt=-stack-alignment=8",
            "--plugin-opt=O2",
        ] {
            assert!(is_pure(pure), "{pure}");
        }
        for other in [
            "-plugin-opt=sample-profile=p",
            "-plugin-opt=save-temps",
            "--lto-sample-profile=p",
            "--lto-basic-block-sections=bb",
            "--load-pass-plugin=x.so",
            "-Map=m.map",
            "-M",
            "--save-temps",
            "--time-trace=x",
            "--version-script v",
            "-mllvm -foo=a.txt",
            "-lgcc",
        ] {
            assert!(!is_pure(other), "{other}");
        }
    }

    #[test]
    fn a_call_without_output_or_with_a_response_file_is_not_read() {
        assert_eq!(LinkCall::parse(&["-r".into(), "a.o".into()]), None);
        assert_eq!(
            LinkCall::parse(&["@x".into(), "-o".into(), "a".into()]),
            None
        );
    }
}
