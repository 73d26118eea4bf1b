//! The kernels under test: a table of trees, and their configuration and plain build.
//!
//! In: a row of [`TREES`], its source, an output directory. Out: a `.config` made of the
//! repository's fragments, and plain kbuild's result. It does not know klto.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::qemu::{ARM64_EFI, Machine, X86_64_PC};
use crate::sources::{self, Suite};
use crate::{command, modules};

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
    /// lkdtm's EXEC_RODATA kills its caller.
    Lkdtm,
    /// lkdtm's CFI_FORWARD_PROTO kills its caller.
    Cfi,
}

impl Feature {
    /// All of them, in the order in which init comes to them.
    pub const ALL: [Self; 9] = [
        Self::Versions,
        Self::Disk,
        Self::Tracer,
        Self::Config,
        Self::Vdso,
        Self::Efi,
        Self::Kvm,
        Self::Lkdtm,
        Self::Cfi,
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
    pub suite: Suite,
    /// What it is built for.
    pub architecture: Architecture,
    /// The variables of make that choose architecture and toolchain.
    pub variables: &'static [&'static str],
    /// The configuration fragment in `tests/kernel`.
    pub fragment: &'static str,
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

/// The trees of the tests.
pub static TREES: &[Tree] = &[
    Tree {
        name: "5.10",
        source: "linux-5.10",
        package: "linux-source-5.10",
        suite: Suite::Security("bullseye-security"),
        architecture: Architecture::Arm64,
        // `LLVM=-22` means nothing to this tree: each tool is named.
        variables: &[
            "ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-",
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
        ],
        fragment: "5.10-arm64.config",
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
            Feature::Lkdtm,
        ],
        boot_proofs: &["KASLR enabled", "Hyp mode initialized successfully"],
    },
    Tree {
        name: "6.12",
        source: "linux-6.12",
        package: "linux-source-6.12",
        suite: Suite::Machine,
        architecture: Architecture::X86_64,
        variables: &["ARCH=x86_64", "LLVM=-22"],
        fragment: "6.12-x86_64.config",
        has_lto_option: true,
        image: "arch/x86/boot/bzImage",
        image_goal: "bzImage",
        machine: &X86_64_PC,
        features: &[
            Feature::Versions,
            Feature::Disk,
            Feature::Tracer,
            Feature::Config,
            Feature::Vdso,
            Feature::Lkdtm,
            Feature::Cfi,
        ],
        boot_proofs: &["SMP alternatives: Using kCFI"],
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

/// The LTO choice of a `.config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lto {
    /// `LTO_NONE`.
    #[default]
    None,
    /// `LTO_CLANG_THIN`.
    Thin,
}

impl Lto {
    /// The choice of that name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "thin" => Ok(Self::Thin),
            other => Err(Failure::bad_input(format!("no LTO mode {other}")).into()),
        }
    }

    const fn fragment(self) -> &'static str {
        match self {
            Self::None => "lto-none.config",
            Self::Thin => "lto-thin.config",
        }
    }
}

/// What varies between the configurations of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// The LTO choice, for a tree that has the option.
    pub lto: Lto,
    /// Whether the kernel has modules; otherwise everything is built in.
    pub modules: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            lto: Lto::None,
            modules: true,
        }
    }
}

/// Stamps that kbuild takes from the environment, so that two builds can be equal bit for bit.
pub const REPRODUCIBLE: [(&str, &str); 4] = [
    ("KBUILD_BUILD_TIMESTAMP", "2026-01-01"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("KBUILD_BUILD_USER", "klto"),
    ("KBUILD_BUILD_HOST", "klto"),
];

/// `tests/kernel` of this repository.
pub fn fragments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kernel")
}

/// The arguments that any make of `tree` gets, goals and `-j` apart.
pub fn make_arguments(tree: &Tree, source: &Path, output: &Path) -> Vec<String> {
    let mut arguments = vec![
        "-C".to_owned(),
        source.display().to_string(),
        format!("O={}", output.display()),
    ];
    arguments.extend(tree.variables.iter().map(|text| (*text).to_owned()));
    arguments
}

/// Plain make of `tree`, without goals.
pub fn make(tree: &Tree, source: &Path, output: &Path) -> Command {
    let mut make = Command::new("make");
    make.args(make_arguments(tree, source, output))
        .envs(REPRODUCIBLE);
    make
}

/// Writes `output/.config`, and fails when Kconfig did not take a line of a fragment.
pub fn configure(
    tree: &Tree,
    source: &Path,
    output: &Path,
    configuration: Configuration,
) -> Result<()> {
    fs::create_dir_all(output)?;
    let output = fs::canonicalize(output)?;
    let text = fragment_text(tree, configuration)?;
    let wanted = settings(&text);
    let mut fragment = tempfile::NamedTempFile::new()?;
    for (name, value) in &wanted {
        writeln!(fragment, "{name}={value}")?;
    }
    let mut make = make(tree, source, &output);
    make.args(["--silent", "allnoconfig"])
        .env("KCONFIG_ALLCONFIG", fragment.path());
    command::run(&mut make)?;
    let written = fs::read_to_string(output.join(".config"))?;
    let lost = lost_lines(&wanted, &written, configuration.modules);
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("Kconfig of {} dropped {}", tree.name, lost.join(", "));
    Err(Failure::bad_input(message).into())
}

fn fragment_text(tree: &Tree, configuration: Configuration) -> Result<String> {
    let mut names = vec![tree.fragment];
    if tree.has_lto_option {
        names.push(configuration.lto.fragment());
    }
    if !configuration.modules {
        names.push("no-modules.config");
    }
    let mut text = String::new();
    for name in names {
        text += &fs::read_to_string(fragments().join(name))?;
    }
    Ok(text)
}

/// Names and values of a fragment; the last line of an option counts.
fn settings(text: &str) -> Vec<(&str, &str)> {
    let mut settings: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.split_once('=') {
            settings.retain(|(earlier, _)| *earlier != name);
            settings.push((name, value));
        }
    }
    settings
}

/// The settings that `written` does not have. Without modules Kconfig turns each `m` into `y`.
fn lost_lines(settings: &[(&str, &str)], written: &str, modules: bool) -> Vec<String> {
    let has = |line: &str| written.lines().any(|found| found == line);
    let is_lost = |(name, value): &(&str, &str)| {
        let kept = match *value {
            "n" => !written
                .lines()
                .any(|line| line.starts_with(&format!("{name}="))),
            "m" if !modules => has(&format!("{name}=y")),
            value => has(&format!("{name}={value}")),
        };
        (!kept).then(|| format!("{name}={value}"))
    };
    settings.iter().filter_map(is_lost).collect()
}

/// A finished plain build.
#[derive(Debug)]
pub struct Built {
    /// Its output directory.
    pub directory: PathBuf,
    /// Objects in vmlinux and modules; see [`modules::linked_objects`].
    pub objects: usize,
    /// Time of this call; little when the build was there.
    pub elapsed: Duration,
}

/// Builds `tree` by plain make without LTO in `builds/reference-NAME` of the cache.
pub fn build_reference(cache: &Cache, tree: &Tree) -> Result<Built> {
    let source = sources::fetch(cache, tree)?;
    let output = cache.builds()?.join(format!("reference-{}", tree.name));
    let begin = Instant::now();
    let configuration = Configuration::default();
    configure(tree, &source, &output, configuration)?;
    let jobs = std::thread::available_parallelism()?;
    let mut make = make(tree, &source, &output);
    make.arg(format!("-j{jobs}"))
        .args(tree.goals(configuration));
    command::run(make.arg("--silent"))
        .with_context(|| format!("building the reference of {}", tree.name))?;
    Ok(Built {
        objects: modules::linked_objects(&output)?,
        directory: output,
        elapsed: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_fragment_overrides_an_earlier_one() {
        let wanted = settings("# text\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_A=n\n");
        assert_eq!(wanted, [("CONFIG_B", "m"), ("CONFIG_A", "n")]);
        let written = "# CONFIG_A is not set\nCONFIG_B=y\n";
        assert!(lost_lines(&wanted, written, false).is_empty());
        assert_eq!(lost_lines(&wanted, written, true), ["CONFIG_B=m"]);
    }

    #[test]
    fn every_fragment_is_in_the_repository() {
        let no_modules = Configuration {
            lto: Lto::Thin,
            modules: false,
        };
        for tree in TREES {
            let text = fragment_text(tree, no_modules).unwrap();
            assert!(text.contains("CONFIG_MODVERSIONS=n"));
            assert_eq!(
                text.contains("CONFIG_LTO_CLANG_THIN=y"),
                tree.has_lto_option
            );
        }
    }
}
