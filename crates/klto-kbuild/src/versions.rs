//! Where kernel trees and toolchains differ: one table, and one table of what no hook sees.
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
    /// Full LTO: initcalls and PCI fixups need unique names, and the tree does not give them.
    NeedsInitcallNames,
    /// genksyms CRCs are linked into each object with `ld -r -T`.
    CrcLinkedIntoObject,
    /// Exports are found by `objdump -h` and the section name `__ksymtab`.
    ExportsFoundByObjdump,
    /// objtool runs on each object as it is compiled.
    ObjtoolPerObject,
    /// Nothing links a module of one object before modpost.
    SingleObjectModuleUnlinked,
}

enum Holds {
    Before(u32, u32),
    /// A file of the source tree contains this text.
    Text(&'static str, &'static str),
    /// The source tree has this file.
    File(&'static str),
}

struct Difference {
    behaviour: Behaviour,
    holds: Holds,
    /// Where the fact is from.
    #[allow(dead_code, reason = "the table is read by people")]
    source: &'static str,
}

const fn difference(behaviour: Behaviour, holds: Holds, source: &'static str) -> Difference {
    Difference {
        behaviour,
        holds,
        source,
    }
}

const DIFFERENCES: [Difference; 11] = [
    difference(
        Behaviour::LlvmAffixes,
        Holds::Text("Makefile", "LLVM_SUFFIX"),
        "5.18, commit e9c281928c24; carried back to some stable trees",
    ),
    difference(
        Behaviour::ClangTargetFromArch,
        Holds::File("scripts/Makefile.clang"),
        "5.15; before, LLVM_IAS=1 turns the integrated assembler on",
    ),
    difference(
        Behaviour::ExternalModuleOutput,
        Holds::Text("Makefile", "KBUILD_EXTMOD_OUTPUT"),
        "6.13, `MO=` in the top Makefile",
    ),
    difference(
        Behaviour::LtoOption,
        Holds::Text("arch/Kconfig", "config LTO_CLANG_THIN\n"),
        "5.12, commit dc5723b02e52; carried back by vendors",
    ),
    difference(
        Behaviour::OutputByShell,
        Holds::Text("Makefile", "cd $(KBUILD_OUTPUT) && pwd"),
        "the top Makefile of 5.10; later ones use $(realpath)",
    ),
    difference(
        Behaviour::NeedsReadOnceAcquire,
        Holds::Before(5, 11),
        "5.11, arch/arm64/include/asm/rwonce.h",
    ),
    difference(
        Behaviour::NeedsInitcallNames,
        Holds::Before(5, 12),
        "5.12, `init: lto: ensure initcall ordering`, `PCI: Fix PREL32 relocations for LTO`",
    ),
    difference(
        Behaviour::CrcLinkedIntoObject,
        Holds::Before(5, 19),
        "5.19, `kbuild: link symbol CRCs at final link`; scripts/Makefile.build of 5.10",
    ),
    difference(
        Behaviour::ExportsFoundByObjdump,
        Holds::Text("scripts/Makefile.build", "$(OBJDUMP) -h"),
        "cmd_modversions_c in scripts/Makefile.build of 5.10",
    ),
    difference(
        Behaviour::ObjtoolPerObject,
        Holds::Text("scripts/Makefile.build", "__objtool_obj :="),
        "cmd_objtool in scripts/Makefile.build of 5.10",
    ),
    difference(
        Behaviour::SingleObjectModuleUnlinked,
        Holds::Before(5, 12),
        "5.12 links it for LTO: scripts/Makefile.build, scripts/Makefile.modpost",
    ),
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

    #[test]
    fn every_behaviour_has_a_row() {
        let nowhere = Path::new("/nonexistent");
        let old = version(5, 10);
        let new = version(6, 12);
        for (behaviour, of_old) in [
            (Behaviour::NeedsReadOnceAcquire, true),
            (Behaviour::NeedsInitcallNames, true),
            (Behaviour::CrcLinkedIntoObject, true),
            (Behaviour::SingleObjectModuleUnlinked, true),
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
