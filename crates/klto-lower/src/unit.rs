//! A link unit: the ordered list of objects on the `-r` link that makes `vmlinux.o`, or on the first
//! `-r` link of a module.
//!
//! ThinLTO turns each bitcode object of the unit into one native object, and the unit is linked from
//! natives in the original order. Initcall, PCI fixup, per-CPU and every other order that a build
//! without LTO gets from link order is then the same without an ordering script.

use std::ffi::OsString;
use std::path::PathBuf;

/// What an object of a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// LLVM bitcode with a ThinLTO summary.
    Bitcode,
    /// Machine code already: from assembler, or compiled native because something reads it.
    Native,
}

/// One object of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMember {
    /// As the linker sees it: relative to the directory of the link, or absolute.
    pub path: PathBuf,
    /// Bitcode or native.
    pub kind: MemberKind,
    /// Whether it is linked only if another object needs one of its symbols.
    pub lazy: bool,
}

/// The objects of one link, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUnit {
    /// The link's output as kbuild names it, relative to the output tree: `vmlinux.o`,
    /// `fs/ext4/ext4.o`.
    pub name: String,
    /// In link order.
    pub members: Vec<UnitMember>,
}

impl LinkUnit {
    /// Bitcode members, with their places.
    pub fn bitcode(&self) -> impl Iterator<Item = (usize, &UnitMember)> {
        self.members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.kind == MemberKind::Bitcode)
    }

    /// Every member as a linker takes it: lazy ones stand between `--start-lib` and `--end-lib`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::with_capacity(self.members.len());
        let mut lazy = false;
        for member in &self.members {
            if member.lazy != lazy {
                let state = if member.lazy {
                    "--start-lib"
                } else {
                    "--end-lib"
                };
                arguments.push(state.into());
                lazy = member.lazy;
            }
            arguments.push(member.path.clone().into());
        }
        arguments.extend(lazy.then(|| OsString::from("--end-lib")));
        arguments
    }
}
