//! The trees that tests build: where each one's source is, its tools, its machine, and what it shows.
//!
//! In: nothing. Out: a table. It does not know how a kernel is built or booted.

use anyhow::Result;
use klto_core::Failure;

use super::Configuration;
use crate::qemu::{ARM64_EFI, Machine, X86_64_PC};
use crate::sources::Place;
use crate::suites::Suite;

/// An architecture that a tree is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit ARM.
    Arm64,
    /// 64-bit x86.
    X86_64,
}

impl Architecture {
    /// Clang's name of it, for programs of Linux.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-linux-gnu",
            Self::X86_64 => "x86_64-linux-gnu",
        }
    }
}

/// What init proves where the kernel has it; see `tests/kernel/init.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// A module with one wrong CRC is refused.
    Versions,
    /// A module without a signature is refused.
    Signature,
    /// A virtio disk can be read.
    Disk,
    /// The function tracer shows a line.
    Tracer,
    /// `/proc/config.gz` is there and equal to the build's.
    Config,
    /// The vdso's clock agrees with the kernel's.
    Vdso,
    /// The firmware is EFI.
    Efi,
    /// KVM answers.
    Kvm,
    /// `/proc/self/stack` shows the way from the system call.
    Stack,
    /// lkdtm's EXEC_RODATA kills its caller.
    Lkdtm,
    /// lkdtm's CFI_FORWARD_PROTO kills its caller.
    Cfi,
    /// The sample livepatch of the tree applies.
    Livepatch,
}

impl Feature {
    /// All of them, in the order in which init comes to them.
    pub const ALL: [Self; 12] = [
        Self::Versions,
        Self::Signature,
        Self::Disk,
        Self::Tracer,
        Self::Config,
        Self::Vdso,
        Self::Efi,
        Self::Kvm,
        Self::Stack,
        Self::Lkdtm,
        Self::Cfi,
        Self::Livepatch,
    ];
}

/// A kernel tree and how it is built and booted.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Its version, as the commands name it.
    pub name: &'static str,
    /// Directory of the unpacked source in the cache.
    pub source: &'static str,
    /// The Debian package that holds the source.
    pub package: &'static str,
    /// Where that package is.
    pub place: Place,
    /// What it is built for.
    pub architecture: Architecture,
    /// The variables of make that choose architecture and toolchain.
    pub variables: &'static [&'static str],
    /// Goals of make that write the configuration that the fragments change.
    pub base: &'static [&'static str],
    /// The configuration fragments in `tests/kernel`; a later one overrides an earlier one.
    pub fragments: &'static [&'static str],
    /// Whether Kconfig has `LTO_CLANG_THIN`; otherwise only klto's arguments ask for LTO.
    pub has_lto_option: bool,
    /// The boot image below the output directory.
    pub image: &'static str,
    /// The goal of make that builds it.
    pub image_goal: &'static str,
    /// The machine that boots it.
    pub machine: &'static Machine,
    /// What init finds; it must say of each other feature that it is absent.
    pub features: &'static [Feature],
    /// What the kernel itself says of its features when it boots.
    pub boot_proofs: &'static [&'static str],
}

/// The tools of a tree that does not know `LLVM=-22`: each is named.
macro_rules! named_tools {
    ($($word:literal),+) => {
        &[
            $($word,)+
            "CC=clang-22",
            "LD=ld.lld-22",
            "AR=llvm-ar-22",
            "NM=llvm-nm-22",
            "OBJCOPY=llvm-objcopy-22",
            "OBJDUMP=llvm-objdump-22",
            "READELF=llvm-readelf-22",
            "STRIP=llvm-strip-22",
            "HOSTCC=gcc",
            "LLVM_IAS=1",
        ]
    };
}

const ARM64_5_10: Tree = Tree {
    name: "5.10",
    source: "linux-5.10",
    package: "linux-source-5.10",
    place: Place::Other(Suite::Security("bullseye-security")),
    architecture: Architecture::Arm64,
    variables: named_tools!["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"],
    base: &["allnoconfig"],
    fragments: &["5.10-arm64.config"],
    has_lto_option: false,
    image: "arch/arm64/boot/Image",
    image_goal: "Image",
    machine: &ARM64_EFI,
    features: &[
        Feature::Versions,
        Feature::Disk,
        Feature::Tracer,
        Feature::Config,
        Feature::Vdso,
        Feature::Efi,
        Feature::Kvm,
        Feature::Stack,
        Feature::Lkdtm,
    ],
    boot_proofs: &["KASLR enabled", "Hyp mode initialized successfully"],
};

const X86_64_6_12: Tree = Tree {
    name: "6.12",
    source: "linux-6.12",
    package: "linux-source-6.12",
    place: Place::Machine,
    architecture: Architecture::X86_64,
    variables: &["ARCH=x86_64", "LLVM=-22"],
    base: &["allnoconfig"],
    fragments: &["6.12-x86_64.config"],
    has_lto_option: true,
    image: "arch/x86/boot/bzImage",
    image_goal: "bzImage",
    machine: &X86_64_PC,
    features: &[
        Feature::Versions,
        Feature::Tracer,
        Feature::Config,
        Feature::Vdso,
        Feature::Stack,
        Feature::Lkdtm,
        Feature::Cfi,
    ],
    boot_proofs: &["SMP alternatives: Using kCFI"],
};

/// The trees of the tests. The first two have the short names of their versions.
pub static TREES: &[Tree] = &[
    ARM64_5_10,
    X86_64_6_12,
    Tree {
        name: "5.10-x86_64",
        variables: named_tools!["ARCH=x86_64"],
        fragments: &["5.10-x86_64.config"],
        has_lto_option: false,
        source: ARM64_5_10.source,
        package: ARM64_5_10.package,
        place: ARM64_5_10.place,
        features: &[
            Feature::Versions,
            Feature::Tracer,
            Feature::Config,
            Feature::Vdso,
            Feature::Stack,
            Feature::Lkdtm,
        ],
        machine: &X86_64_PC,
        boot_proofs: &["Spectre V2 : Mitigation: Retpolines"],
        ..X86_64_6_12
    },
];

impl Tree {
    /// The tree of that version.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = TREES.iter().find(|tree| tree.name == name);
        let unknown = || {
            let names: Vec<&str> = TREES.iter().map(|tree| tree.name).collect();
            Failure::bad_input(format!("no tree {name}")).hint(names.join(" or "))
        };
        Ok(found.ok_or_else(unknown)?)
    }

    /// What make is asked for; `modules` is an error to a kernel without them.
    pub fn goals(&self, configuration: Configuration) -> Vec<&'static str> {
        let mut goals = vec![self.image_goal];
        if configuration.modules {
            goals.push("modules");
        }
        goals
    }
}
