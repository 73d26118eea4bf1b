//! The three kernels that are measured: Linux 6.12 for x86_64, small, middle and large.
//!
//! In: nothing. Out: a tree with its configuration, and the edit of one of its modules. It does not
//! know what is measured.

use super::edits::{Edit, Kind};
use crate::kernel::{TREES, Tree};

/// How large the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// The smallest that boots with modules.
    Small,
    /// The configuration of the tests, with ext4 and a network.
    Middle,
    /// A defconfig as a virtual machine's guest, with what distributions add.
    Large,
}

impl Size {
    pub const ALL: [Self; 3] = [Self::Small, Self::Middle, Self::Large];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Middle => "middle",
            Self::Large => "large",
        }
    }

    /// What is built, for the document.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Small => "the smallest that boots with modules and the function tracer",
            Self::Middle => "the configuration of the tests, ext4 and a network",
            Self::Large => {
                "`defconfig` and `kvm_guest.config` with CFI, MODVERSIONS, the function tracer and a \
                 dozen modules"
            }
        }
    }

    /// A new statement in a module.
    pub const fn module_edit(self) -> Edit {
        let (file, at) = match self {
            // The one object of binfmt_misc.ko.
            Self::Small => ("fs/binfmt_misc.c", "\tretval = -ENOENT;"),
            // One of many of ext4.ko.
            Self::Middle | Self::Large => (
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
                &["bench-large.config", "bench.config"],
            ),
        };
        Tree {
            base,
            fragments,
            ..tests
        }
    }
}
