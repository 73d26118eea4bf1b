//! The boot proof: a built kernel boots, init reports each step, and the kernel complains of nothing.
//!
//! In: a tree and its output directory. Out: the console, and the list of what is missing or wrong
//! in it. The lines are those of `tests/kernel/init.c`. It does not know how the kernel was built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;
use object::{Object as _, ObjectSection as _};

use crate::kernel::{self, Architecture, Feature, Tree};
use crate::qemu::{self, Ending};
use crate::{command, initramfs, modules};

/// Emulated on a busy machine a boot takes 10 to 30 s.
const TIME_LIMIT: Duration = Duration::from_secs(240);

/// What the console must show beyond the steps that every boot has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Names of the modules that load.
    pub modules: Vec<String>,
    /// Length and FNV-1a of `kernel/config_data.gz`, which `/proc/config.gz` must equal.
    pub config: (usize, u64),
    /// What the kernel itself says of its features.
    pub proofs: &'static [&'static str],
    /// The features that are there; all others must be absent.
    pub features: Vec<Feature>,
}

/// A boot that ended one way or the other.
#[derive(Debug)]
pub struct Booted {
    /// The serial console.
    pub console: String,
    /// How QEMU ended.
    pub ending: Ending,
    /// What the console must show.
    pub expected: Expected,
    /// From QEMU's start to its end.
    pub elapsed: Duration,
}

/// What is booted.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Its tree.
    pub tree: &'a Tree,
    /// The boot image.
    pub image: PathBuf,
    /// Modules in an order that loads.
    pub modules: Vec<PathBuf>,
    /// What must not load, because it has no signature.
    pub unsigned: Option<PathBuf>,
    /// The file that `/proc/config.gz` must equal, where the tree has it.
    pub config: PathBuf,
    /// What init finds.
    pub features: Vec<Feature>,
    /// More words for the kernel's command line.
    pub parameters: &'a str,
}

impl<'a> Subject<'a> {
    /// What was built for `tree` in `output`.
    pub fn built(tree: &'a Tree, output: &Path) -> Result<Self> {
        Ok(Self {
            tree,
            image: output.join(tree.image),
            modules: modules::load_order(output)?,
            unsigned: None,
            config: output.join("kernel/config_data.gz"),
            features: tree.features.to_vec(),
            parameters: "",
        })
    }

    /// Boots it to its end.
    pub fn boot(&self) -> Result<Booted> {
        let scratch = tempfile::tempdir()?;
        let init = build_init(self.tree.architecture, scratch.path())?;
        let archive = scratch.path().join("initramfs.cpio");
        let loaded = load_modules(&self.modules)?;
        let has = |feature: Feature| self.features.contains(&feature);
        let mut others = Vec::new();
        if has(Feature::Versions) {
            others.push(("wrong-version.ko", wrong_version(&loaded)?));
        }
        if let Some(unsigned) = &self.unsigned {
            others.push(("unsigned.ko", fs::read(unsigned)?));
        }
        if has(Feature::Cfi) {
            others.push(("check-cfi", Vec::new()));
        }
        fs::write(&archive, initramfs::build(&init, &loaded, &others))?;
        let config = match has(Feature::Config) {
            true => fs::read(&self.config)?,
            false => Vec::new(),
        };
        let begin = Instant::now();
        let machine = self.tree.machine;
        let kernel = (self.image.as_path(), self.parameters);
        let run = qemu::run(machine, kernel, &archive, TIME_LIMIT)?;
        let names = self.modules.iter().map(|file| modules::module_name(file));
        Ok(Booted {
            console: run.console,
            ending: run.ending,
            expected: Expected {
                modules: names.collect(),
                config: (config.len(), fnv1a(&config)),
                proofs: self.tree.boot_proofs,
                features: self.features.clone(),
            },
            elapsed: begin.elapsed(),
        })
    }
}

/// Boots what was built for `tree` in `output`.
pub fn boot(tree: &Tree, output: &Path) -> Result<Booted> {
    Subject::built(tree, output)?.boot()
}

/// The same, and loads these modules after the tree's own.
pub fn boot_with(tree: &Tree, output: &Path, more_modules: &[PathBuf]) -> Result<Booted> {
    let mut subject = Subject::built(tree, output)?;
    subject.modules.extend_from_slice(more_modules);
    subject.boot()
}

fn load_modules(order: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let load = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Ok((name.into_owned(), fs::read(file)?))
    };
    order.iter().map(load).collect()
}

/// The first module that needs versions, with another CRC for one symbol. It is not the first entry:
/// that is the version of the module structure, which the kernel compares by a rule of its own.
fn wrong_version(modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    for (_, module) in modules {
        if klto_verify::module_versions(module)?.len() < 2 {
            continue;
        }
        let file = object::File::parse(module.as_slice())?;
        let section = file.section_by_name("__versions");
        // An entry is a CRC in a word and a name, 64 bytes together.
        if let Some((offset, _)) = section.and_then(|section| section.file_range()) {
            let mut wrong = module.clone();
            let place = usize::try_from(offset)? + 64;
            if let Some(byte) = wrong.get_mut(place) {
                *byte ^= 1;
            }
            return Ok(wrong);
        }
    }
    Err(Failure::build("no module has symbol versions").into())
}

/// Compiles `tests/kernel/init.c` without any library for `architecture`.
fn build_init(architecture: Architecture, directory: &Path) -> Result<Vec<u8>> {
    let program = directory.join("init");
    let mut clang = Command::new("clang-22");
    clang
        .arg(format!("--target={}", architecture.target()))
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(["-ffreestanding", "-fno-stack-protector", "-fno-pic"])
        .args(["-nostdlib", "-static", "-fuse-ld=lld", "-o"])
        .arg(&program)
        .arg(kernel::fragments().join("init.c"));
    command::run(&mut clang)?;
    Ok(fs::read(&program)?)
}

/// The 64-bit FNV-1a that init prints, see RFC 9923.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Fails with every problem of the boot in the message.
pub fn verdict(booted: &Booted) -> Result<()> {
    let mut problems = match booted.ending {
        Ending::Exited(status) if status.success() => Vec::new(),
        Ending::Exited(status) => vec![format!("QEMU: {status}")],
        Ending::TimedOut => vec![format!(
            "the machine did not power off in time; its last lines:\n{}",
            last_lines(&booted.console, 30)
        )],
    };
    problems.extend(check(&booted.console, &booted.expected));
    if problems.is_empty() {
        return Ok(());
    }
    let list = problems.join("\n  ");
    Err(Failure::build(format!("the kernel does not boot as it must:\n  {list}")).into())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What the kernel prints when something is wrong with it.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "Unable to handle",
    "unable to handle",
    "Internal error",
    "Kernel panic",
    "Call trace",
    "Call Trace",
    "CFI failure",
    "cut here",
    "disagrees about version",
    "Unknown symbol",
    "general protection fault",
];

/// Complaints that have nothing to do with loading a module.
const OF_A_CRASH: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "Kernel panic",
    "CFI failure",
    "cut here",
];

/// Complaints that not even a crash on purpose covers.
const NEVER: &[&str] = &[
    "WARNING:",
    "Kernel panic",
    "CFI failure",
    "disagrees about version",
];

/// What init provokes on purpose.
struct Announced {
    begin: &'static str,
    end: &'static str,
    /// Complaints that stay problems.
    never: &'static [&'static str],
    /// One of these must come.
    wanted: &'static [&'static str],
    /// The problem where none comes.
    otherwise: &'static str,
}

const CRASH: Announced = Announced {
    begin: "klto-init: lkdtm begin",
    end: "klto-init: lkdtm end child-signal ",
    never: NEVER,
    wanted: &["Oops", "Internal error"],
    otherwise: "lkdtm's EXEC_RODATA did not make the kernel stop its caller",
};

const WRONG_CALL: Announced = Announced {
    begin: "klto-init: cfi begin",
    end: "klto-init: cfi end child-signal ",
    never: &["WARNING:", "Kernel panic", "disagrees about version"],
    wanted: &["CFI failure"],
    otherwise: "CFI did not find the call by a pointer of another type",
};

const WRONG_VERSION: Announced = Announced {
    begin: "klto-init: versions begin",
    end: "klto-init: versions end ",
    never: OF_A_CRASH,
    wanted: &["disagrees about version of symbol"],
    otherwise: "the kernel did not say which symbol of the module has another version",
};

const UNSIGNED: Announced = Announced {
    begin: "klto-init: signature begin",
    end: "klto-init: signature end ",
    never: COMPLAINTS,
    wanted: &["Loading of unsigned module is rejected"],
    otherwise: "the kernel did not say that a module has no signature",
};

/// All that is missing or wrong in `console`; empty when the boot is good.
pub fn check(console: &str, expected: &Expected) -> Vec<String> {
    let mut problems = missing_lines(console, expected);
    let mut announced: Option<&Announced> = None;
    let mut came = false;
    for line in console.lines() {
        if let Some(over) = announced.filter(|announced| line.contains(announced.end)) {
            if !came {
                problems.push(over.otherwise.to_owned());
            }
            announced = None;
        }
        let list = announced.map_or(COMPLAINTS, |announced| announced.never);
        if list.iter().any(|complaint| line.contains(complaint)) {
            problems.push(format!("not announced: {line}"));
        }
        if line.contains("klto-init: FAIL") {
            problems.push(line.to_owned());
        }
        let is_wanted =
            |announced: &Announced| announced.wanted.iter().any(|text| line.contains(text));
        came |= announced.is_some_and(is_wanted);
        let begins = |announced: &&Announced| line.contains(announced.begin);
        if let Some(next) = [&CRASH, &WRONG_CALL, &WRONG_VERSION, &UNSIGNED]
            .into_iter()
            .find(begins)
        {
            announced = Some(next);
            came = false;
        }
    }
    problems
}

/// Init's lines must come in this order, other lines between them.
fn missing_lines(console: &str, expected: &Expected) -> Vec<String> {
    let mut wanted = vec!["start".to_owned(), "mounts done".to_owned()];
    let lines_of = |feature: Feature| match expected.features.contains(&feature) {
        true => present_lines(feature, expected),
        false => vec![format!("{} absent", init_name(feature))],
    };
    let before_modules = [Feature::Versions, Feature::Signature];
    wanted.extend(before_modules.into_iter().flat_map(lines_of));
    let loaded = |name: &String| format!("module {name} loaded");
    wanted.extend(expected.modules.iter().map(loaded));
    wanted.push(format!("modules ok {}", expected.modules.len()));
    let after_modules = Feature::ALL
        .into_iter()
        .filter(|feature| !before_modules.contains(feature));
    wanted.extend(after_modules.flat_map(lines_of));
    wanted.push("done".to_owned());
    let mut lines = console.lines();
    let mut missing = Vec::new();
    for line in wanted {
        let line = format!("klto-init: {line}");
        let is_it = |found: &str| {
            // A line that ends in a space goes on with what the run decides.
            found == line || line.ends_with(' ') && found.starts_with(&line)
        };
        let mut rest = lines.clone();
        if rest.any(is_it) {
            lines = rest;
        } else {
            missing.push(format!("missing: {line}"));
        }
    }
    for proof in expected.proofs {
        if !console.contains(proof) {
            missing.push(format!("missing: {proof}"));
        }
    }
    for feature in ["lkdtm", "cfi"] {
        if console.contains(&format!("klto-init: {feature} end child-signal 0")) {
            missing.push(format!("{feature}: the child was not killed"));
        }
    }
    missing
}

/// What init calls a feature.
const fn init_name(feature: Feature) -> &'static str {
    match feature {
        Feature::Versions => "versions",
        Feature::Signature => "signature",
        Feature::Disk => "disk",
        Feature::Tracer => "tracer",
        Feature::Config => "config.gz",
        Feature::Vdso => "vdso",
        Feature::Efi => "efi",
        Feature::Kvm => "kvm",
        Feature::Stack => "stack",
        Feature::Lkdtm => "lkdtm",
        Feature::Cfi => "cfi",
        Feature::Livepatch => "livepatch",
    }
}

/// What init says of a feature that is there.
fn present_lines(feature: Feature, expected: &Expected) -> Vec<String> {
    let name = init_name(feature);
    match feature {
        // It goes on with the traced line.
        Feature::Tracer => vec!["tracer ok ".to_owned()],
        // It goes on with the names of functions, the innermost first.
        Feature::Stack => vec!["stack ".to_owned()],
        Feature::Config => {
            let (length, hash) = expected.config;
            vec![format!("{name} {length} bytes fnv {hash:x}")]
        }
        // EINVAL, from resolve_symbol() in the kernel's module loader.
        Feature::Versions => vec![
            "versions begin".to_owned(),
            "versions end errno 22".to_owned(),
        ],
        // EKEYREJECTED, from module_sig_check() in the kernel's module loader.
        Feature::Signature => vec![
            "signature begin".to_owned(),
            "signature end errno 129".to_owned(),
        ],
        Feature::Lkdtm | Feature::Cfi => {
            vec![format!("{name} begin"), format!("{name} end child-signal ")]
        }
        Feature::Disk | Feature::Vdso | Feature::Efi | Feature::Kvm | Feature::Livepatch => {
            vec![format!("{name} ok")]
        }
    }
}

#[cfg(test)]
mod tests;
