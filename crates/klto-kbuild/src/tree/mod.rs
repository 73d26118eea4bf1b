//! The source tree, the output tree and the module that a make command works on.
//!
//! In: the directory, the command line, the environment, and Makefiles. Out: paths, version and the
//! facts that the tree's own files state. Nothing is written or created.
//!
//! make changes to each `-C` in turn and reads `-f` files, or `GNUmakefile`, `makefile`,
//! `Makefile`. The top Makefile takes `O=` from the command line only, else KBUILD_OUTPUT from
//! anywhere, relative to where make runs; an output directory's Makefile includes the source's.

mod makefile;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use klto_core::{Failure, normalize};

use crate::make_arguments::MakeOption;
use crate::variables::Variables;
use crate::versions::{Behaviour, KernelVersion};
use makefile::Makefile;

/// What a make command works on; all paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The source tree, without symbolic links.
    pub source: PathBuf,
    /// Where objects go: the source tree itself or another directory, which may not exist yet.
    pub output: PathBuf,
    /// The `.config`, which may not exist.
    pub config: PathBuf,
    /// From the top Makefile.
    pub version: KernelVersion,
    /// The module that is built against the tree.
    pub external_module: Option<ExternalModule>,
    /// The name of the target's directory in `arch/`, as `x86`.
    pub source_architecture: String,
    /// The same for the machine that builds.
    pub host_architecture: String,
}

/// A module out of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalModule {
    /// Its sources.
    pub source: PathBuf,
    /// Where its objects go.
    pub output: PathBuf,
}

impl Tree {
    /// Finds the tree that make would work on when it is started in `directory` of a machine that
    /// `uname -m` calls `machine`.
    pub fn probe(directory: &Path, variables: &Variables, machine: &str) -> Result<Self> {
        let directory = working_directory(directory, variables)?;
        let makefile = find_makefile(&directory, variables)?;
        let source = makefile.source.clone();
        let version = makefile.version;
        let has = |behaviour: Behaviour| behaviour.is_of(version, &source);
        let given = output_directory(&directory, &makefile, variables, has)?;
        let external = external_module(variables, &makefile)?;
        let output = match (&given, &external) {
            (Some(output), _) => output.clone(),
            // From 6.13 on a module may be built from anywhere.
            (None, Some(_)) if has(Behaviour::ExternalModuleOutput) => source.clone(),
            (None, _) => directory.clone(),
        };
        let external_module = match external {
            Some(path) => Some(module_directories(
                &path, &directory, &source, &output, &makefile, variables,
            )?),
            None => None,
        };
        let host_architecture = architecture_of_machine(machine).to_owned();
        let architecture = variables.get_filled("ARCH")?;
        let architecture = architecture.as_deref().map(OsStr::to_string_lossy);
        let source_architecture =
            source_architecture(architecture.as_deref().unwrap_or(&host_architecture)).to_owned();
        let config = variables
            .get_filled("KCONFIG_CONFIG")?
            .unwrap_or_else(|| ".config".into());
        Ok(Self {
            config: output.join(config),
            source,
            output,
            version,
            external_module,
            source_architecture,
            host_architecture,
        })
    }

    /// Whether the tree does something; see the table in `versions.rs`.
    pub fn has(&self, behaviour: Behaviour) -> bool {
        behaviour.is_of(self.version, &self.source)
    }

    /// The directory that make writes to: the module's if there is one, else the tree's.
    pub fn written(&self) -> &Path {
        self.external_module
            .as_ref()
            .map_or(&self.output, |module| &module.output)
    }
}

/// Each `-C` is relative to the one before; make's CURDIR has no symbolic links.
fn working_directory(start: &Path, variables: &Variables) -> Result<PathBuf> {
    let mut directory = start.to_owned();
    for change in variables.arguments.values(MakeOption::Directory) {
        directory.push(change);
    }
    fs_err::canonicalize(&directory)
        .map_err(|error| Failure::bad_input(format!("make cannot run there: {error}")))
        .context(format!(
            "looking for a kernel tree in {}",
            directory.display()
        ))
}

fn find_makefile(directory: &Path, variables: &Variables) -> Result<Makefile> {
    let given: Vec<PathBuf> = variables
        .arguments
        .values(MakeOption::File)
        .map(|file| directory.join(file))
        .collect();
    let candidates = if given.is_empty() {
        let names = ["GNUmakefile", "makefile", "Makefile"].into_iter();
        let first = names
            .map(|name| directory.join(name))
            .find(|path| path.is_file());
        first.into_iter().collect()
    } else {
        given
    };
    for candidate in &candidates {
        if let Some(makefile) = Makefile::of_kernel(candidate, directory)? {
            return Ok(makefile);
        }
    }
    let named = variables
        .arguments
        .values(MakeOption::Directory)
        .next()
        .is_some();
    let remedy = if named {
        "name another with -C"
    } else {
        "go to one, or name it with -C"
    };
    Err(
        Failure::bad_input(format!("{} is no Linux kernel tree", directory.display()))
            .hint(format!(
                "klto builds Linux kernels and their modules; {remedy}"
            ))
            .into(),
    )
}

fn output_directory(
    directory: &Path,
    makefile: &Makefile,
    variables: &Variables,
    has: impl Fn(Behaviour) -> bool,
) -> Result<Option<PathBuf>> {
    let own = makefile.exports("KBUILD_OUTPUT");
    let value = match variables.on_command_line("O")? {
        Some(value) => Some(value),
        None => overridden(variables, "KBUILD_OUTPUT", own)?,
    };
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let home = || {
        variables
            .environment
            .get("HOME")
            .filter(|home| !home.is_empty())
    };
    let path = match (bytes, home()) {
        ([b'~'] | [b'~', b'/', ..], Some(home)) if has(Behaviour::OutputByShell) => {
            let rest = bytes.get(1..).unwrap_or_default();
            PathBuf::from(OsString::from_vec([home.as_bytes(), rest].concat()))
        }
        _ => PathBuf::from(&value),
    };
    if bytes.iter().any(u8::is_ascii_whitespace) {
        let message = format!(
            "the output directory \"{}\" has a blank in its name",
            value.display()
        );
        let hint = "kbuild would take the first word alone; choose another directory";
        return Err(Failure::bad_input(message).hint(hint).into());
    }
    let path = resolve(&directory.join(path));
    if path.exists() && !path.is_dir() {
        let message = format!("the output directory {} is a file", path.display());
        return Err(Failure::bad_input(message).into());
    }
    Ok(Some(path))
}

fn external_module(variables: &Variables, makefile: &Makefile) -> Result<Option<PathBuf>> {
    let value = match variables.on_command_line("M")? {
        Some(value) => Some(value),
        None => overridden(
            variables,
            "KBUILD_EXTMOD",
            makefile.exports("KBUILD_EXTMOD"),
        )?,
    };
    Ok(value.filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// A variable that an output directory's Makefile may assign.
fn overridden(variables: &Variables, name: &str, own: Option<&str>) -> Result<Option<OsString>> {
    match (variables.overriding(name)?, own) {
        (Some(value), _) => Ok(Some(value)),
        (None, Some(own)) => Ok(Some(own.into())),
        (None, None) => variables.get(name),
    }
}

fn module_directories(
    path: &Path,
    directory: &Path,
    source: &Path,
    output: &Path,
    makefile: &Makefile,
    variables: &Variables,
) -> Result<ExternalModule> {
    if !makefile.has(Behaviour::ExternalModuleOutput) {
        // Sources that are named without a leading slash are looked for in the source tree, and
        // objects go to the same place in the output tree.
        let [source, output] = [source, output].map(|base| resolve(&base.join(path)));
        return Ok(ExternalModule { source, output });
    }
    let module = resolve(&directory.join(path));
    let own = makefile.exports("KBUILD_EXTMOD_OUTPUT");
    let given = match variables.on_command_line("MO")? {
        Some(value) => Some(value),
        None => overridden(variables, "KBUILD_EXTMOD_OUTPUT", own)?,
    };
    let output = match given.filter(|value| !value.is_empty()) {
        Some(given) => resolve(&directory.join(given)),
        None if directory == output || directory == source => module.clone(),
        None => directory.to_owned(),
    };
    Ok(ExternalModule {
        source: module,
        output,
    })
}

/// `path` without symbolic links as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let path = normalize(path);
    for existing in path.ancestors() {
        let Ok(real) = fs_err::canonicalize(existing) else {
            continue;
        };
        return match path.strip_prefix(existing) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        };
    }
    path
}

/// As `scripts/subarch.include` maps `uname -m`.
fn architecture_of_machine(machine: &str) -> &str {
    const BEGINNINGS: [(&str, &str); 11] = [
        ("x86_64", "x86"),
        ("aarch64", "arm64"),
        ("arm64", "arm64"),
        ("arm", "arm"),
        ("ppc", "powerpc"),
        ("mips", "mips"),
        ("riscv", "riscv"),
        ("loongarch", "loongarch"),
        ("s390", "s390"),
        ("sh", "sh"),
        ("parisc", "parisc"),
    ];
    let is_intel = machine.len() == 4 && machine.starts_with('i') && machine.ends_with("86");
    let of = |(beginning, _): &&(&str, &str)| machine.starts_with(beginning);
    match BEGINNINGS.iter().find(of) {
        _ if is_intel => "x86",
        Some((_, architecture)) => architecture,
        None => machine,
    }
}

/// As the top Makefile maps ARCH to SRCARCH.
fn source_architecture(architecture: &str) -> &str {
    match architecture {
        "i386" | "x86_64" => "x86",
        "sparc32" | "sparc64" => "sparc",
        "parisc64" => "parisc",
        "sh64" => "sh",
        other => other,
    }
}
