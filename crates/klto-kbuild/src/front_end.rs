//! What a compile call tells clang's front end: where it looks for headers, which files it reads and
//! writes besides, and which of the call's words are paths.
//!
//! In: a compiler's arguments as kbuild wrote them. Out: the same call with its paths changed, and what can
//! be known of its inputs before it runs. It reads no file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::compile::may_name_file;

/// A call's files, by what they are to the front end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontEnd {
    /// Directories that are searched for headers, in clang's order: `-iquote`, `-I`, `-isystem`,
    /// `-idirafter`.
    pub searched: Vec<PathBuf>,
    /// Those of `-isystem` and `-idirafter`.
    pub system: Vec<PathBuf>,
    /// Whether the dependency file leaves out headers of `system`, as one written by `-MMD` does.
    pub leaves_out_system: bool,
    /// Files that are read and that no dependency file names.
    pub more_inputs: Vec<PathBuf>,
    /// The dependency file, if the call writes one.
    pub depfile: Option<PathBuf>,
    /// Prefixes of paths that `__FILE__` shows without them.
    pub removed_prefixes: Vec<PathBuf>,
    /// Whether the object has debug information, which holds columns and directories.
    pub has_debug_information: bool,
    /// Whether the object depends on columns: with debug information, a map of coverage or tokens of allocations, or
    /// where a sanitizer reports places.
    pub shows_columns: bool,
    /// Whether the compiler may expand macros without a warning where klto asks for one: in what it reads before
    /// any header, and in headers of the system that `system` does not name.
    pub hides_lines: bool,
    /// Why the result may not be stored, if so.
    pub not_storable: Option<String>,
    /// Whether that is for a word which may name more than a header, as a profile or a plugin, or because headers of
    /// the host are read.
    pub reads_other_files: bool,
}

/// What a path is to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathUse {
    /// The C source.
    Source,
    /// The object.
    Object,
    /// The dependency file.
    Depfile,
    /// A directory of headers, or a file that is read before the source.
    Read,
    /// What `-fmacro-prefix-map=` and the like take off.
    Prefix,
}

/// Flags whose value is a path, the value joined to the flag or the next word.
const PATH_FLAGS: [(&str, PathUse); 10] = [
    ("-iquote", PathUse::Read),
    ("-isystem", PathUse::Read),
    ("-idirafter", PathUse::Read),
    ("-include", PathUse::Read),
    ("-imacros", PathUse::Read),
    ("-I", PathUse::Read),
    ("-o", PathUse::Object),
    ("-Wp,-MMD,", PathUse::Depfile),
    ("-Wp,-MD,", PathUse::Depfile),
    ("-frandomize-layout-seed-file=", PathUse::Read),
];

const PREFIX_MAPS: [&str; 2] = ["-fmacro-prefix-map=", "-ffile-prefix-map="];

/// Flags with an operand that is no path.
const OTHER_OPERANDS: [&str; 8] = [
    "-D",
    "-U",
    "-x",
    "-mllvm",
    "-Xclang",
    "-Xassembler",
    "-target",
    "-arch",
];

/// Other flags after which a compile reads or writes files that klto does not follow.
const NOT_FOLLOWED: [&str; 19] = [
    "-M",
    "-save-temps",
    "--save-temps",
    "-ftime-trace",
    "-fmodule",
    "-ivfsoverlay",
    "--coverage",
    "-coverage",
    "-fprofile-arcs",
    "-ftest-coverage",
    "-fstack-usage",
    "-fcallgraph-info",
    "-fsave-optimization-record",
    // Its file has the name of the object.
    "-gsplit-dwarf",
    // Debug information has all options, also those that no source mentions.
    "-fdebug-macro",
    // The object shows the call itself.
    "-frecord-command-line",
    "-grecord-command-line",
    "-frecord-gcc-switches",
    "-grecord-gcc-switches",
];

/// Sanitizers that report no place in the source. KASAN's tables of globals have lines and columns before
/// LLVM 15 (AddressSanitizer.cpp, `createPrivateGlobalForSourceLoc`).
const WITHOUT_COLUMNS: [&[u8]; 5] = [
    b"kernel-hwaddress",
    b"kernel-memory",
    b"thread",
    b"kcfi",
    b"shadow-call-stack",
];

/// What is in words that have the compiler read macros first, or take headers for those of the system, beside
/// `-isystem` and `-idirafter`.
const HIDES_LINES: [&str; 5] = [
    "-imacros",
    "system-header",
    "-iwith",
    "-with-prefix",
    "-internal-",
];

/// Whether a path is that of one file, whatever directories are searched.
fn has_fixed_place(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    path.is_absolute() || text.starts_with(b"./") || text.starts_with(b"../")
}

/// One piece of a call.
enum Word<'a> {
    /// As it is.
    Text(&'a OsStr),
    /// A flag with a path: what stands before the path in the same word, the path, what stands after it.
    Path(&'a str, &'a Path, &'a OsStr, PathUse),
    /// A flag and the path that is the next word.
    PathApart(&'a str, &'a Path, PathUse),
    /// A flag and the next word, which is no path.
    TextApart(&'a OsStr, &'a OsStr),
}

fn words(arguments: &[OsString]) -> Vec<Word<'_>> {
    let mut words = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        let joined = |flag: &str| bytes.strip_prefix(flag.as_bytes());
        let path_flag = PATH_FLAGS.iter().find(|(flag, _)| joined(flag).is_some());
        let prefix_map = PREFIX_MAPS.iter().find(|flag| joined(flag).is_some());
        let word = if let Some((flag, used)) = path_flag {
            match joined(flag) {
                Some(b"") => match rest.next() {
                    Some(path) => Word::PathApart(flag, Path::new(path), *used),
                    None => Word::Text(argument),
                },
                Some(path) => {
                    let path = Path::new(OsStr::from_bytes(path));
                    Word::Path(flag, path, OsStr::new(""), *used)
                }
                None => Word::Text(argument),
            }
        } else if let Some(flag) = prefix_map {
            let value = joined(flag).unwrap_or_default();
            let length = value.iter().take_while(|byte| **byte != b'=').count();
            let (from, to) = value.split_at(length);
            let from = Path::new(OsStr::from_bytes(from));
            Word::Path(flag, from, OsStr::from_bytes(to), PathUse::Prefix)
        } else if OTHER_OPERANDS.iter().any(|flag| argument == flag) {
            match rest.next() {
                Some(value) => Word::TextApart(argument, value),
                None => Word::Text(argument),
            }
        } else if bytes.starts_with(b"-") {
            Word::Text(argument)
        } else {
            Word::Path("", Path::new(argument), OsStr::new(""), PathUse::Source)
        };
        words.push(word);
    }
    words
}

impl FrontEnd {
    /// Reads a call that compiles one C source.
    pub fn of(arguments: &[OsString]) -> Self {
        let mut front = Self::default();
        // By their place in clang's order of search.
        let mut searched: [Vec<PathBuf>; 4] = Default::default();
        for word in words(arguments) {
            match word {
                Word::Path(flag, path, _, used) | Word::PathApart(flag, path, used) => {
                    match (flag, used) {
                        ("-iquote", _) => searched[0].push(path.to_owned()),
                        ("-I", _) => searched[1].push(path.to_owned()),
                        ("-isystem", _) => searched[2].push(path.to_owned()),
                        ("-idirafter", _) => searched[3].push(path.to_owned()),
                        (_, PathUse::Depfile) => front.depfile = Some(path.to_owned()),
                        (_, PathUse::Prefix) => front.removed_prefixes.push(path.to_owned()),
                        ("-frandomize-layout-seed-file=", _) => {
                            front.more_inputs.push(path.to_owned());
                        }
                        // It is looked for in the working directory and then like a header.
                        ("-include" | "-imacros", _) if !has_fixed_place(path) => {
                            front.note_unknown(path.as_os_str());
                        }
                        _ => {}
                    }
                }
                Word::Text(text) => front.read_text(text),
                Word::TextApart(flag, value) => {
                    let is_macro = flag == "-D" || flag == "-U";
                    if value.as_bytes().starts_with(b"-debug-info-kind") {
                        front.has_debug_information = true;
                        front.shows_columns = true;
                    }
                    let is_load = flag == "-Xclang" && value == "-load";
                    if is_load || (!is_macro && value.as_bytes().contains(&b'/')) {
                        front.refuse(value);
                    }
                }
            }
        }
        let hides = |word: &OsString| {
            let word = word.to_string_lossy();
            HIDES_LINES.iter().any(|part| word.contains(part))
        };
        front.hides_lines = arguments.iter().any(hides);
        let leaves_out = |word: &OsString| word.as_bytes().starts_with(b"-Wp,-MMD,");
        front.leaves_out_system = arguments.iter().any(leaves_out);
        front.system = [searched[2].as_slice(), &searched[3]].concat();
        if !arguments.iter().any(|word| word == "-nostdinc") {
            front.refuse(OsStr::new("a call without -nostdinc"));
        }
        front.searched = searched.into_iter().flatten().collect();
        front
    }

    fn read_text(&mut self, text: &OsStr) {
        let bytes = text.as_bytes();
        let begins = |start: &&str| bytes.starts_with(start.as_bytes());
        if bytes.starts_with(b"-g") && bytes != b"-g0" {
            self.has_debug_information = true;
        }
        if let Some(names) = bytes.strip_prefix(b"-fsanitize=") {
            let mut names = names.split(|byte| *byte == b',');
            self.shows_columns |= names.any(|name| !WITHOUT_COLUMNS.contains(&name));
        }
        // The token of an allocation is made of the type's name, which has a place where the type has none.
        self.shows_columns |= self.has_debug_information
            || bytes == b"-fcoverage-mapping"
            || bytes.starts_with(b"-falloc-token");
        let is_macro = bytes.starts_with(b"-D") || bytes.starts_with(b"-U");
        if NOT_FOLLOWED.iter().any(begins) || (!is_macro && may_name_file(text)) {
            self.refuse(text);
        }
    }

    fn refuse(&mut self, word: &OsStr) {
        self.reads_other_files = true;
        self.note_unknown(word);
    }

    fn note_unknown(&mut self, word: &OsStr) {
        if self.not_storable.is_none() {
            let word = word.display();
            self.not_storable = Some(format!("{word} may name a file that klto does not follow"));
        }
    }
}

/// The word after which machine code depends on more than bitcode does: it has another assembler make it, or
/// tells the assembler what klto does not follow.
pub fn assembler_not_followed(arguments: &[OsString]) -> Option<&OsStr> {
    let is_not_followed = |word: &&OsString| {
        let text = word.as_bytes();
        let for_assembler = text.strip_prefix(b"-Wa,");
        matches!(
            text,
            b"-fno-integrated-as" | b"-no-integrated-as" | b"-Xassembler"
        ) || for_assembler.is_some_and(|words| {
            let mut words = words.split(|byte| *byte == b',');
            words.any(|word| !word.starts_with(b"-m"))
        })
    };
    let mut words = arguments.iter();
    words.find(is_not_followed).map(OsString::as_os_str)
}

/// The word after which machine code shows the path of the source, as no prefix map changes it: KASAN's tables
/// have it (LLVM, AddressSanitizer.cpp), what sanitizers report, and the names of local functions with
/// `-funique-internal-linkage-names`.
pub fn names_source(arguments: &[OsString]) -> Option<&OsStr> {
    let names = |word: &&OsString| {
        let text = word.as_bytes();
        let names = text.strip_prefix(b"-fsanitize=");
        let mut names = names
            .into_iter()
            .flat_map(|names| names.split(|byte| *byte == b','));
        text == b"-funique-internal-linkage-names"
            || names.any(|name| !WITHOUT_COLUMNS.contains(&name) || name.ends_with(b"address"))
    };
    arguments.iter().find(names).map(OsString::as_os_str)
}

/// The call with each of its paths as `change` gives it.
pub fn with_paths(
    arguments: &[OsString],
    change: &dyn Fn(&Path, PathUse) -> OsString,
) -> Vec<OsString> {
    let mut changed = Vec::with_capacity(arguments.len());
    for word in words(arguments) {
        match word {
            Word::Text(text) => changed.push(text.to_owned()),
            Word::Path(before, path, after, used) => {
                let path = change(path, used);
                let parts = [before.as_bytes(), path.as_bytes(), after.as_bytes()];
                changed.push(OsString::from_vec(parts.concat()));
            }
            Word::PathApart(flag, path, used) => {
                changed.extend([OsString::from(flag), change(path, used)]);
            }
            Word::TextApart(flag, value) => changed.extend([flag.to_owned(), value.to_owned()]),
        }
    }
    changed
}

/// The call whose dependency file names the headers of the system too.
pub fn with_all_dependencies(arguments: &[OsString]) -> Vec<OsString> {
    let change = |argument: &OsString| match argument.as_bytes().strip_prefix(b"-Wp,-MMD,") {
        Some(path) => OsString::from_vec([b"-Wp,-MD,", path].concat()),
        None => argument.clone(),
    };
    arguments.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    const CALL: &str = "-Wp,-MMD,fs/.a.o.d -nostdinc -isystem /usr/lib/clang/include -I/src/include -I ./include \
        -include /src/include/linux/kconfig.h -D__KERNEL__ -D NAME=/src/x -fmacro-prefix-map=/src/= \
        -std=gnu11 -O2 -mllvm -x=1 -frandomize-layout-seed-file=scripts/seed -c -o fs/a.o /src/fs/a.c";

    #[test]
    fn files_are_told_apart() {
        let front = FrontEnd::of(&arguments(CALL));
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let searched = ["/src/include", "./include", "/usr/lib/clang/include"];
        assert_eq!(front.searched, paths(&searched));
        assert_eq!(front.system, paths(&["/usr/lib/clang/include"]));
        assert_eq!(front.more_inputs, paths(&["scripts/seed"]));
        assert_eq!(front.depfile.as_deref(), Some(Path::new("fs/.a.o.d")));
        assert_eq!(front.removed_prefixes, paths(&["/src/"]));
        assert!(!front.has_debug_information);
        assert_eq!(front.not_storable, None);
    }

    #[test]
    fn every_path_and_no_macro_is_changed() {
        let moved = with_paths(&arguments(CALL), &|path, _| {
            let text = path.to_string_lossy();
            text.replace("/src", "/elsewhere").into()
        });
        let wanted = CALL
            .replace("/src", "/elsewhere")
            .replace("NAME=/elsewhere", "NAME=/src");
        assert_eq!(moved, arguments(&wanted));
        let same = with_paths(&moved, &|path, _| path.as_os_str().to_owned());
        assert_eq!(same, moved);
    }

    #[test]
    fn what_reads_or_writes_other_files_is_not_stored() {
        for flag in [
            "-fplugin=x.so",
            "-Xclang -load",
            "-coverage",
            "-fsanitize-coverage-allowlist=names",
            "-foptimization-record-file=x",
            "-fprofile-sample-use=/tmp/profile",
            "-save-temps=obj",
            "-Xclang /tmp/x",
            "-MF x.d",
            "-fstack-usage",
            "-gsplit-dwarf",
            "-include compat.h",
            "-grecord-command-line",
            "-frecord-gcc-switches",
            "-grecord-gcc-switches",
            "-fdebug-macro",
        ] {
            let front = FrontEnd::of(&arguments(&format!("{CALL} {flag}")));
            assert!(front.not_storable.is_some(), "{flag}");
        }
        let debug = FrontEnd::of(&arguments(&format!("{CALL} -gdwarf-5")));
        assert!(debug.has_debug_information && debug.not_storable.is_none());
        let columns =
            |flag: &str| FrontEnd::of(&arguments(&format!("{CALL} {flag}"))).shows_columns;
        assert!(columns("-gdwarf-5") && columns("-fsanitize=array-bounds,shift"));
        assert!(columns("-fcoverage-mapping") && columns("-falloc-token-max=16"));
        assert!(columns("-Xclang -debug-info-kind=line-tables-only"));
        let hides = |flag: &str| FrontEnd::of(&arguments(&format!("{CALL} {flag}"))).hides_lines;
        assert!(!hides("-Wall"));
        for flag in [
            "-imacros ./a.h",
            "--system-header-prefix=a",
            "-iwithprefixbefore a",
            "-Xclang -internal-isystem -Xclang a",
        ] {
            assert!(hides(flag), "{flag}");
        }
        assert!(columns("-fsanitize=kcfi,kernel-address"));
        assert!(!columns("-fsanitize=kcfi,kernel-hwaddress"));
    }

    #[test]
    fn what_another_assembler_makes_is_not_followed() {
        let word = |flag: &str| {
            let arguments = arguments(&format!("{CALL} {flag}"));
            assembler_not_followed(&arguments).map(OsStr::to_owned)
        };
        for flag in [
            "-fno-integrated-as",
            "-Wa,-I/tmp",
            "-Wa,-mrelax-relocations=no,-MD,x.d",
        ] {
            assert_eq!(word(flag).as_deref(), Some(OsStr::new(flag)));
        }
        assert_eq!(
            word("-Xassembler -L").as_deref(),
            Some(OsStr::new("-Xassembler"))
        );
        assert_eq!(word("-Wa,-march=armv8.5-a"), None);
    }

    #[test]
    fn what_names_the_source_is_noticed() {
        let names = |flag: &str| names_source(&arguments(&format!("{CALL} {flag}"))).is_some();
        assert!(names("-fsanitize=kernel-address"));
        assert!(names("-fsanitize=kcfi,array-bounds"));
        assert!(names("-fsanitize=shift,kernel-hwaddress"));
        assert!(names("-funique-internal-linkage-names"));
        assert!(!names("-fsanitize=kcfi -fsanitize-coverage=trace-pc"));
    }

    #[test]
    fn all_dependencies_are_written() {
        let all = with_all_dependencies(&arguments(CALL));
        assert_eq!(all[0], "-Wp,-MD,fs/.a.o.d");
        assert_eq!(all[1..], arguments(CALL)[1..]);
    }
}
