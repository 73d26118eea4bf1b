//! The kernels that are measured, for x86_64: Linux 6.12 in three sizes, and 7.2 with distributed ThinLTO.
//!
//! In: nothing. Out: a tree with its configuration, and the edit of one of its modules. It does not
//! know what is measured.

use super::edits::{Edit, Kind};
use super::rows::Side;
use crate::kernel::{Lto, TREES, Tree};
use crate::releases::RELEASES;

/// How large the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// The smallest that boots with modules.
    Small,
    /// The configuration of the tests, with ext4 and a network.
    Middle,
    /// A defconfig as a virtual machine's guest, with what distributions add.
    Large,
    /// The large one of a tree whose kbuild runs the backends as jobs of make.
    Distributed,
}

impl Size {
    pub const ALL: [Self; 4] = [Self::Small, Self::Middle, Self::Large, Self::Distributed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Middle => "middle",
            Self::Large => "large",
            Self::Distributed => "distributed",
        }
    }

    /// Whether it differs from the others in its size alone.
    pub const fn is_of_growth(self) -> bool {
        !matches!(self, Self::Distributed)
    }

    /// What is built, for the document.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Small => "6.12, the smallest that boots with modules and the function tracer",
            Self::Middle => "6.12, the configuration of the tests, ext4 and a network",
            Self::Large => {
                "6.12, `defconfig` and `kvm_guest.config` with CFI, MODVERSIONS, the function tracer and \
                 a dozen modules"
            }
            Self::Distributed => "7.2, as large, with `LTO_CLANG_THIN_DIST` on both sides",
        }
    }

    /// A new statement in a module.
    pub const fn module_edit(self) -> Edit {
        let (file, at) = match self {
            // The one object of binfmt_misc.ko.
            Self::Small => ("fs/binfmt_misc.c", "\tretval = -ENOENT;"),
            // One of many of ext4.ko.
            Self::Middle | Self::Large | Self::Distributed => (
                "fs/ext4/inode.c",
                "\tif (!ext4_has_feature_ea_inode(inode->i_sb)) {",
            ),
        };
        Edit {
            file,
            at,
            kind: Kind::Statement,
        }
    }

    /// The tree and its configuration.
    pub fn tree(self) -> Tree {
        let named = TREES.iter().find(|tree| tree.name == "6.12");
        let tests = named.unwrap_or(&TREES[0]).clone();
        let (base, fragments): (&[&str], &[&str]) = match self {
            Self::Small => (tests.base, &["matrix-x86_64.config", "bench.config"]),
            Self::Middle => (
                tests.base,
                &[
                    "6.12-x86_64.config",
                    "ext4.config",
                    "bench-network.config",
                    "bench.config",
                ],
            ),
            Self::Large => (
                &["defconfig", "kvm_guest.config"],
                &["bench-large.config", "cfi-clang.config", "bench.config"],
            ),
            Self::Distributed => (
                &["defconfig", "kvm_guest.config"],
                &["bench-large.config", "cfi.config", "bench.config"],
            ),
        };
        let tree = Tree {
            base,
            fragments,
            ..tests
        };
        let distributed = RELEASES.iter().find(|release| release.has_distributed_lto);
        match distributed {
            Some(release) if self == Self::Distributed => Tree {
                name: release.name,
                source: release.source,
                package: release.package,
                place: release.place,
                ..tree
            },
            _ => tree,
        }
    }

    /// What the `.config` of a side chooses.
    pub const fn lto(self, side: Side) -> Lto {
        match (side, self) {
            (Side::None, _) => Lto::None,
            (Side::Full | Side::KltoFull, _) => Lto::Full,
            (Side::Thin | Side::Ccache | Side::Klto, Self::Distributed) => Lto::ThinDist,
            (Side::Thin | Side::Ccache | Side::Klto, _) => Lto::Thin,
        }
    }
}
