//! The kernels under test: their configuration and plain build; `trees.rs` has the table.
//!
//! In: a row of [`TREES`], its source, an output directory. Out: a `.config` made of the
//! repository's fragments, and plain kbuild's result. It does not know klto.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::{command, modules, sources};

mod trees;

pub use trees::{Architecture, Feature, TREES, Tree};

/// The LTO choice of a `.config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lto {
    /// `LTO_NONE`.
    #[default]
    None,
    /// `LTO_CLANG_THIN`.
    Thin,
    /// `LTO_CLANG_THIN_DIST`.
    ThinDist,
    /// `LTO_CLANG_FULL`.
    Full,
}

impl Lto {
    /// The choice of that name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::None),
            "thin" => Ok(Self::Thin),
            "full" => Ok(Self::Full),
            other => Err(Failure::bad_input(format!("no LTO mode {other}")).into()),
        }
    }

    const fn fragment(self) -> &'static str {
        match self {
            Self::None => "lto-none.config",
            Self::Thin => "lto-thin.config",
            Self::ThinDist => "lto-thin-dist.config",
            Self::Full => "lto-full.config",
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
    /// Whether only what its modules use is exported.
    pub trim: bool,
    /// Whether it has the modules that are built alone.
    pub ext4: bool,
    /// Whether it describes its types.
    pub btf: bool,
    /// Whether it checks indirect calls, and can be patched while it runs.
    pub cfi_and_livepatch: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            lto: Lto::None,
            modules: true,
            trim: false,
            ext4: false,
            btf: false,
            cfi_and_livepatch: false,
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
    let lines: String = wanted
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    let goals = |goals: &[&str]| {
        let mut make = make(tree, source, &output);
        make.arg("--silent").args(goals);
        make
    };
    if tree.base == ["allnoconfig"] {
        let mut fragment = tempfile::NamedTempFile::new()?;
        fragment.write_all(lines.as_bytes())?;
        command::run(goals(tree.base).env("KCONFIG_ALLCONFIG", fragment.path()))?;
    } else {
        command::run(&mut goals(tree.base))?;
        let file = output.join(".config");
        let base = fs::read_to_string(&file)?;
        fs::write(&file, base + &lines)?;
        command::run(&mut goals(&["olddefconfig"]))?;
    }
    let written = fs::read_to_string(output.join(".config"))?;
    let lost = lost_lines(&wanted, &written, configuration.modules);
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("Kconfig of {} dropped {}", tree.name, lost.join(", "));
    Err(Failure::bad_input(message).into())
}

/// The fragment with CFI of a tree of that name; 6.18 gave the option another name.
fn cfi_fragment(name: &str) -> &'static str {
    match name {
        "7.2" => "cfi.config",
        _ => "cfi-clang.config",
    }
}

fn fragment_text(tree: &Tree, configuration: Configuration) -> Result<String> {
    let mut names = tree.fragments.to_vec();
    if tree.has_lto_option {
        names.push(configuration.lto.fragment());
    }
    if configuration.ext4 {
        names.push("ext4.config");
    }
    if !configuration.modules {
        names.push("no-modules.config");
    }
    if configuration.trim {
        names.push("trim.config");
    }
    if configuration.btf {
        names.push("btf.config");
    }
    if configuration.cfi_and_livepatch {
        names.extend([cfi_fragment(tree.name), "cfi-livepatch.config"]);
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

/// What the tools of the reference build of `tree` printed on standard error.
pub fn warnings_of_reference(cache: &Cache, tree: &Tree) -> Result<PathBuf> {
    Ok(cache
        .builds()?
        .join(format!("reference-{}.warnings", tree.name)))
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
    // Clang's own warnings are nobody's question here, and looking for them is a tenth of its time.
    make.arg("KCFLAGS=-w");
    let errors = fs::File::create(warnings_of_reference(cache, tree)?)?;
    make.stderr(Stdio::from(errors.into_parts().0));
    command::run(make.arg("--silent")).with_context(|| {
        let printed = warnings_of_reference(cache, tree).unwrap_or_default();
        format!(
            "building the reference of {}; see {}",
            tree.name,
            printed.display()
        )
    })?;
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
            ..Configuration::default()
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
