//! Where kernel trees differ: one table, and one table of what no hook sees. What depends on the version
//! of LLVM is refused or not, by the table in `refusals.rs`.
//!
//! In: a version, and the source directory where a file says more than the version (stable trees
//! and vendors carry patches back). Out: whether a behaviour is that tree's. Nothing else in klto
//! compares versions.

use std::fmt;
use std::path::Path;

/// VERSION, PATCHLEVEL and SUBLEVEL of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The 6 of 6.12.4.
    pub version: u32,
    /// The 12 of 6.12.4.
    pub patchlevel: u32,
    /// The 4 of 6.12.4.
    pub sublevel: u32,
}

impl KernelVersion {
    /// Whether this is `version.patchlevel` or newer.
    pub fn is_at_least(self, version: u32, patchlevel: u32) -> bool {
        (self.version, self.patchlevel) >= (version, patchlevel)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.version, self.patchlevel, self.sublevel)
    }
}

/// The oldest tree that klto builds with LTO: the oldest on which it is tested.
pub const OLDEST_TREE: (u32, u32) = (5, 10);

/// The oldest LLVM that klto uses for LTO, by major version: the oldest that Linux 6.12 accepts
/// (scripts/min-tool-version.sh), and none older is tested on older trees.
pub const OLDEST_LLVM: u32 = 13;

/// The oldest LLVM whose clang knows `#pragma clang deprecated` and `final`, and the flag for their warnings.
pub const OLDEST_LLVM_WITH_DEPRECATED_MACROS: u32 = 14;

/// Something that some trees do and others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// `LLVM=-22` and `LLVM=/dir/` select tools by suffix and prefix.
    LlvmAffixes,
    /// clang gets its `--target=` from kbuild, not from CROSS_COMPILE, and assembles itself.
    ClangTargetFromArch,
    /// An external module has an output directory of its own, and M= may be relative to where make
    /// runs.
    ExternalModuleOutput,
    /// The tree has `config LTO_CLANG_THIN`.
    LtoOption,
    /// The output directory is resolved by a shell, which expands `~`.
    OutputByShell,
    /// arm64: READ_ONCE must be an acquire under LTO, and the tree does not do it.
    NeedsReadOnceAcquire,
    /// objtool runs on each object as it is compiled.
    ObjtoolPerObject,
    /// Initcalls and PCI fixups name functions in assembler texts, by names that full LTO may change.
    NeedsStubs,
}

enum Holds {
    Before(u32, u32),
    /// A file of the source tree contains this text.
    Text(&'static str, &'static str),
    /// The source tree has this file.
    File(&'static str),
}

/// A row of the table: which trees, what klto does about it, why, and what shows it.
struct Difference {
    behaviour: Behaviour,
    holds: Holds,
    /// What klto does on such a tree.
    #[allow(dead_code, reason = "the table is read by people")]
    changes: &'static str,
    /// Where the fact is from.
    #[allow(dead_code, reason = "the table is read by people")]
    source: &'static str,
    /// A test that fails without the row.
    #[cfg_attr(not(test), allow(dead_code, reason = "read by people, and by a test"))]
    test: &'static str,
}

const DIFFERENCES: [Difference; 8] = [
    Difference {
        behaviour: Behaviour::LlvmAffixes,
        holds: Holds::Text("Makefile", "LLVM_SUFFIX"),
        changes: "elsewhere each tool is named on make's command line",
        source: "5.18, commit e9c281928c24; carried back to some stable trees",
        test: "every_spelling_of_the_toolchain_on_5_10",
    },
    Difference {
        behaviour: Behaviour::ClangTargetFromArch,
        holds: Holds::File("scripts/Makefile.clang"),
        changes: "elsewhere CROSS_COMPILE and LLVM_IAS=1 are added",
        source: "5.15; before, LLVM_IAS=1 turns the integrated assembler on",
        test: "every_spelling_of_the_toolchain_on_5_10",
    },
    Difference {
        behaviour: Behaviour::ExternalModuleOutput,
        holds: Holds::Text("Makefile", "KBUILD_EXTMOD_OUTPUT"),
        changes: "the scratch directory of an external module lies in MO=",
        source: "6.13, `MO=` in the top Makefile",
        test: "modules_are_found_by_each_trees_own_rules",
    },
    Difference {
        behaviour: Behaviour::LtoOption,
        holds: Holds::Text("arch/Kconfig", "config LTO_CLANG_THIN\n"),
        changes: "the .config decides, and kbuild adds the flags",
        source: "5.12, commit dc5723b02e52; carried back by vendors",
        test: "the_configuration_decides_where_the_tree_has_the_option",
    },
    Difference {
        behaviour: Behaviour::OutputByShell,
        holds: Holds::Text("Makefile", "cd $(KBUILD_OUTPUT) && pwd"),
        changes: "`~` in O= is the home directory",
        source: "the top Makefile of 5.10; later ones use $(realpath)",
        test: "only_a_tree_that_asks_a_shell_expands_the_home_directory",
    },
    Difference {
        behaviour: Behaviour::NeedsReadOnceAcquire,
        holds: Holds::Before(5, 11),
        changes: "arm64: a header of klto's own goes first",
        source: "5.11, arch/arm64/include/asm/rwonce.h",
        test: "read_once_is_an_acquire_load",
    },
    Difference {
        behaviour: Behaviour::ObjtoolPerObject,
        holds: Holds::Text("scripts/Makefile.build", "__objtool_obj :="),
        changes: "objtool runs on each native, after the backend",
        source: "cmd_objtool in scripts/Makefile.build of 5.10",
        test: "stacks_unwind_through_natives_to_the_reference_s_functions",
    },
    Difference {
        behaviour: Behaviour::NeedsStubs,
        holds: Holds::Before(5, 12),
        changes: "full LTO: headers of klto's own go first",
        source: "5.12, __initcall_stub in include/linux/init.h, DECLARE_PCI_FIXUP_SECTION in linux/pci.h",
        test: "full_lto_of_5_10_keeps_initcalls_and_fixups",
    },
];

impl Behaviour {
    /// Whether the tree at `source` does this.
    pub fn is_of(self, version: KernelVersion, source: &Path) -> bool {
        let mut rows = DIFFERENCES.iter().filter(|row| row.behaviour == self);
        rows.any(|row| match row.holds {
            Holds::Before(major, minor) => !version.is_at_least(major, minor),
            Holds::Text(file, text) => contains(&source.join(file), text),
            Holds::File(file) => source.join(file).is_file(),
        })
    }
}

/// A file that cannot be read does not contain the text: trees of headers lack some of these files.
fn contains(path: &Path, text: &str) -> bool {
    fs_err::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

/// A program that reads a compiled object where no hook sees it.
struct ObjectReader {
    /// The program.
    program: &'static str,
    /// The object, relative to the output directory.
    object: &'static str,
}

/// All such programs, of every tree. modpost reads objects too, but only what links have made
/// native by then.
const OBJECT_READERS: [ObjectReader; 1] = [ObjectReader {
    program: "scripts/mod/mk_elfconfig",
    object: "scripts/mod/empty.o",
}];

/// The program that reads `object` where no hook sees it, so that the object must be native from
/// the start.
pub fn unhooked_reader(object: &Path) -> Option<&'static str> {
    let row = OBJECT_READERS
        .iter()
        .find(|row| object.ends_with(row.object))?;
    Some(row.program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn version(version: u32, patchlevel: u32) -> KernelVersion {
        KernelVersion {
            version,
            patchlevel,
            sublevel: 0,
        }
    }

    /// The text of every Rust file below `directory`.
    fn rust_below(directory: &Path, text: &mut String) {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                rust_below(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs") {
                *text += &fs_err::read_to_string(path).unwrap();
            }
        }
    }

    #[test]
    fn every_row_names_a_test_that_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut text = String::new();
        for directory in ["crates", "tests"] {
            rust_below(&root.join(directory), &mut text);
        }
        for row in &DIFFERENCES {
            let function = format!("fn {}()", row.test);
            assert!(text.contains(&function), "{:?}: {function}", row.behaviour);
        }
    }

    #[test]
    fn every_behaviour_has_a_row() {
        let nowhere = Path::new("/nonexistent");
        let old = version(5, 10);
        let new = version(6, 12);
        for (behaviour, of_old) in [
            (Behaviour::NeedsReadOnceAcquire, true),
            (Behaviour::LtoOption, false),
        ] {
            assert_eq!(behaviour.is_of(old, nowhere), of_old, "{behaviour:?}");
            assert!(!behaviour.is_of(new, nowhere), "{behaviour:?}");
        }
    }

    #[test]
    fn files_of_the_tree_decide_before_its_version() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(
            directory.path().join("Makefile"),
            "LLVM_SUFFIX := $(LLVM)\n",
        )
        .unwrap();
        assert!(Behaviour::LlvmAffixes.is_of(version(5, 10), directory.path()));
    }

    #[test]
    fn an_object_that_a_host_program_reads_is_named() {
        for (object, reader) in [
            ("scripts/mod/empty.o", Some("scripts/mod/mk_elfconfig")),
            ("./scripts/mod/empty.o", Some("scripts/mod/mk_elfconfig")),
            ("/out/scripts/mod/empty.o", Some("scripts/mod/mk_elfconfig")),
            ("lib/empty.o", None),
            ("xscripts/mod/empty.o", None),
        ] {
            assert_eq!(unhooked_reader(Path::new(object)), reader, "{object}");
        }
    }
}
