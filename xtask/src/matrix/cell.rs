//! One cell of the matrix: a tree, an architecture, a mode and an LLVM, built by klto and booted.
//!
//! In: a cell. Out: its result, kept in the development cache with the commit that was tested, so that
//! an interrupted run goes on with the next cell. Thin is held against the cell without LTO of the same
//! tools, where that is there; an output that went from one mode to the other against that mode's cell.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;
use klto_verify::Comparison;

use super::build::Build;
use super::{checks, reuse};
use crate::build_log::BuildLog;
use crate::cache::Cache;
use crate::kernel::{self, Architecture, Configuration, Feature, Lto, TREES, Tree};
use crate::releases::{NEWEST_LLVM, OLDER_LLVM, RELEASES, Release};
use crate::verdict::Verdict;
use crate::{btf, command, modules, names, qemu, sources};

/// The most that a cell may take; its own time stands beside it.
const LIMIT: Duration = Duration::from_secs(600);
/// The same where its kernel is edited and built four times more.
const LIMIT_WITH_EDITS: Duration = Duration::from_secs(1200);

/// A cell.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    release: &'static Release,
    architecture: Architecture,
    mode: Mode,
    llvm: u32,
    variant: Variant,
}

/// How the output comes to its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// From nothing.
    Clean(Lto),
    /// From the output of the other mode's cell.
    SwitchedTo(Lto),
}

impl Mode {
    const fn lto(self) -> Lto {
        match self {
            Self::Clean(lto) | Self::SwitchedTo(lto) => lto,
        }
    }
}

/// What differs in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Plain,
    /// It exports what its own modules use (TRIM_UNUSED_KSYMS).
    Trimmed,
    /// It has no modules; `lib.a` is then linked by need, not whole.
    WithoutModules,
    /// It describes its types (DEBUG_INFO_BTF).
    Btf,
    /// It checks indirect calls (CFI_CLANG), and is patched while it runs (LIVEPATCH).
    CfiAndLivepatch,
    /// It has PCI with its quirks, and a disk on it.
    Pci,
}

impl Cell {
    /// All cells; one without LTO comes before the one that is held against it.
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for release in &RELEASES {
            for architecture in [Architecture::X86_64, Architecture::Arm64] {
                let cell = |mode, llvm, variant| Self {
                    release,
                    architecture,
                    mode,
                    llvm,
                    variant,
                };
                let clean = [Lto::None, Lto::Thin].map(Mode::Clean);
                let switched = [Lto::None, Lto::Thin].map(Mode::SwitchedTo);
                cells.extend(clean.map(|mode| cell(mode, NEWEST_LLVM, Variant::Plain)));
                let full = Mode::Clean(Lto::Full);
                cells.push(cell(full, NEWEST_LLVM, Variant::Plain));
                if release.has_distributed_lto {
                    let distributed = Mode::Clean(Lto::ThinDist);
                    cells.push(cell(distributed, NEWEST_LLVM, Variant::Plain));
                }
                // Elsewhere the entries of the table are the tree's own.
                if !release.has_lto_option {
                    let modes = [clean[0], full];
                    cells.extend(modes.map(|mode| cell(mode, NEWEST_LLVM, Variant::Pci)));
                }
                if architecture == Architecture::Arm64 {
                    continue;
                }
                if release.has_cfi {
                    let modes = [clean[1], full];
                    cells.extend(
                        modes.map(|mode| cell(mode, NEWEST_LLVM, Variant::CfiAndLivepatch)),
                    );
                }
                if release.has_btf {
                    let modes = clean.into_iter().chain([full]);
                    cells.extend(modes.map(|mode| cell(mode, NEWEST_LLVM, Variant::Btf)));
                }
                let older = OLDER_LLVM.into_iter();
                let older = older.filter(|llvm| *llvm >= release.oldest_llvm);
                cells.extend(older.map(|llvm| cell(clean[1], llvm, Variant::Plain)));
                if release.has_all_variants {
                    cells.extend(switched.map(|mode| cell(mode, NEWEST_LLVM, Variant::Plain)));
                    cells.extend(clean.map(|mode| cell(mode, NEWEST_LLVM, Variant::Trimmed)));
                    cells.push(cell(clean[1], NEWEST_LLVM, Variant::WithoutModules));
                    cells.push(cell(full, NEWEST_LLVM, Variant::Trimmed));
                }
            }
        }
        cells
    }

    /// As `6.1-x86_64-thin-19`, `6.1-x86_64-thin-22-trim`.
    pub fn name(self) -> String {
        let [release, architecture, mode, llvm, variant] = self.coordinates();
        let end = match self.variant {
            Variant::Plain => String::new(),
            _ => format!("-{variant}"),
        };
        format!("{release}-{architecture}-{mode}-{llvm}{end}")
    }

    /// Tree, architecture, mode, LLVM, variant.
    pub fn coordinates(self) -> [String; 5] {
        let architecture = match self.architecture {
            Architecture::Arm64 => "arm64",
            Architecture::X86_64 => "x86_64",
        };
        let mode = match self.mode {
            Mode::Clean(Lto::None) => "none",
            Mode::Clean(Lto::Thin) => "thin",
            Mode::Clean(Lto::ThinDist) => "thin-dist",
            Mode::Clean(Lto::Full) => "full",
            Mode::SwitchedTo(Lto::None) => "thin-none",
            Mode::SwitchedTo(Lto::Thin) => "none-thin",
            Mode::SwitchedTo(Lto::ThinDist) => "none-thin-dist",
            Mode::SwitchedTo(Lto::Full) => "none-full",
        };
        let variant = match self.variant {
            Variant::Plain => "",
            Variant::Trimmed => "trim",
            Variant::WithoutModules => "no-modules",
            Variant::Btf => "btf",
            Variant::CfiAndLivepatch => "cfi-livepatch",
            Variant::Pci => "pci",
        };
        let llvm = self.llvm.to_string();
        [self.release.name, architecture, mode, &llvm, variant].map(str::to_owned)
    }

    /// The result that the cache has, if there is one.
    pub fn verdict(self, cache: &Cache) -> Result<Option<Verdict>> {
        Verdict::read(&self.directory(cache)?.join("verdict"))
    }

    /// Builds, boots and compares, and keeps the result.
    pub fn run(self, cache: &Cache, klto: &Path, commit: &str) -> Result<Verdict> {
        let directory = self.directory(cache)?;
        fs::remove_dir_all(&directory)?;
        fs::create_dir_all(&directory)?;
        let begin = Instant::now();
        let result = self.examine(cache, klto, &directory);
        let elapsed = begin.elapsed();
        let limit = match self.is_edited() {
            true => LIMIT_WITH_EDITS,
            false => LIMIT,
        };
        let result = match result {
            Ok(_) if elapsed > limit => {
                let limit = limit.as_secs();
                Err(Failure::build(format!("more than {limit} s")).into())
            }
            result => result,
        };
        let verdict = Verdict {
            commit: commit.to_owned(),
            pass: result.is_ok(),
            seconds: elapsed.as_secs_f64(),
            why: match result {
                Ok(what) => what,
                Err(error) => format!("{error:#}").replace('\n', " "),
            },
        };
        verdict.write(&directory.join("verdict"))?;
        Ok(verdict)
    }

    fn directory(self, cache: &Cache) -> Result<PathBuf> {
        let directory = cache.builds()?.join("matrix").join(self.name());
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    fn examine(self, cache: &Cache, klto: &Path, directory: &Path) -> Result<String> {
        let mut tree = self.tree();
        if self.variant == Variant::Btf {
            let pahole = format!("PAHOLE={}", btf::pahole(cache)?.display());
            tree.variables = [tree.variables, &[pahole.leak()]].concat().leak();
        }
        let shared = sources::fetch(cache, &tree)?;
        let source = match self.is_edited() {
            true => copy_of(&shared, &directory.join("linux"))?,
            false => shared,
        };
        let build = Build {
            lto: self.mode.lto(),
            source,
            output: directory.join("kernel"),
            tree,
            klto,
            directory,
        };
        let configuration = self.configuration();
        if let Mode::SwitchedTo(_) = self.mode {
            let other = self.clean(match self.mode.lto() {
                Lto::None => Lto::Thin,
                Lto::Thin | Lto::ThinDist | Lto::Full => Lto::None,
            });
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(other.kernel_that_passed(cache)?);
            command::run(copy.arg(&build.output))?;
        }
        kernel::configure(&build.tree, &build.source, &build.output, configuration)?;
        let goals = build.tree.goals(configuration);
        build.make(&goals)?;
        let mut what = format!("{} objects", modules::linked_objects(&build.output)?);
        if self.mode.lto() != Lto::None {
            what += &self.lto_happened(cache, &build.output)?;
        }
        if let Mode::SwitchedTo(lto) = self.mode {
            let clean = self.clean(lto);
            what += &clean.equals_bit_for_bit(cache, &build.tree, &build.output)?;
        }
        let external = match self.variant {
            Variant::Plain | Variant::CfiAndLivepatch => Some(build.external_module()?),
            Variant::Trimmed | Variant::WithoutModules | Variant::Btf | Variant::Pci => None,
        };
        what += &build.boot(external)?;
        if self.is_edited() {
            what += &reuse::check(&build, &goals)?;
            fs::remove_dir_all(&build.source)?;
        }
        // A store of all cells would fill the disk, and no cell may find another's results.
        let store = build.store();
        if store.exists() {
            fs::remove_dir_all(store)?;
        }
        Ok(what)
    }

    /// Whether its sources are edited, to see what that costs: where one link has all of vmlinux, and where
    /// kbuild's own make would run each backend again.
    fn is_edited(self) -> bool {
        let lto = self.mode.lto();
        self.variant == Variant::Plain && matches!(lto, Lto::Full | Lto::ThinDist)
    }

    fn configuration(self) -> Configuration {
        Configuration {
            lto: self.mode.lto(),
            modules: self.variant != Variant::WithoutModules,
            trim: self.variant == Variant::Trimmed,
            btf: self.variant == Variant::Btf,
            cfi_and_livepatch: self.variant == Variant::CfiAndLivepatch,
            ..Configuration::default()
        }
    }

    /// The cell that gets to this mode from nothing.
    const fn clean(self, lto: Lto) -> Self {
        Self {
            mode: Mode::Clean(lto),
            ..self
        }
    }

    /// The output directory of this cell.
    fn kernel_that_passed(self, cache: &Cache) -> Result<PathBuf> {
        match self.verdict(cache)? {
            Some(verdict) if verdict.pass => Ok(self.directory(cache)?.join("kernel")),
            _ => {
                let needed = format!("the cell {} must have passed before", self.name());
                Err(Failure::bad_input(needed).into())
            }
        }
    }

    /// Compares another output with this cell's: kernel, boot image, modules.
    fn equals_bit_for_bit(self, cache: &Cache, tree: &Tree, output: &Path) -> Result<String> {
        let clean = self.kernel_that_passed(cache)?;
        let mut files = ["vmlinux", "System.map", tree.image]
            .map(PathBuf::from)
            .to_vec();
        files.extend(klto_verify::modules(&clean)?);
        let report = klto_verify::bit_equal(&clean, output, &files)?;
        match report.equal() {
            true => Ok(format!(", {} files equal to a clean build's", files.len())),
            false => Err(Failure::build(format!("not what a clean build gives: {report}")).into()),
        }
    }

    /// How many bitcode objects are in vmlinux; fails where that is not all of it, or modules are not.
    fn bitcode_of_vmlinux(self, log: &BuildLog, module_count: usize) -> Result<usize> {
        let units = names::UNITS.iter().map(|name| log.units.get(*name));
        let vmlinux: usize = units.flatten().map(|unit| unit.inputs.len()).sum();
        if vmlinux < 200 || log.units.len() != module_count + 1 {
            let what = format!(
                "{vmlinux} bitcode objects in vmlinux, {} units for {module_count} modules",
                log.units.len()
            );
            return Err(Failure::build(what).into());
        }
        if self.release.has_lto_option && !log.initcalls_agree {
            let what = "the order of initcalls was not held against that of the tree's script";
            return Err(Failure::build(what).into());
        }
        Ok(vmlinux)
    }

    /// Counts what went through LTO, and compares with the kernel without LTO.
    fn lto_happened(self, cache: &Cache, output: &Path) -> Result<String> {
        let log = BuildLog::parse(&fs::read_to_string(output.join(".klto/log"))?);
        let vmlinux = self.bitcode_of_vmlinux(&log, modules::load_order(output)?.len())?;
        let names = names::changed(output, self.mode.lto(), &log)?;
        let mut what = format!(", {vmlinux} of vmlinux from bitcode, {names}");
        if self.variant == Variant::WithoutModules {
            what += &checks::members_of_lib_stay_out(output, &log)?;
        }
        let plain = self.clean(Lto::None);
        if self.variant == Variant::Pci {
            plain.kernel_that_passed(cache)?;
        }
        if plain.llvm != NEWEST_LLVM {
            return Ok(what);
        }
        if !plain.verdict(cache)?.is_some_and(|verdict| verdict.pass) {
            return Ok(format!(
                "{what}, not compared: no result of {} is here",
                plain.name()
            ));
        }
        let reference = plain.directory(cache)?.join("kernel");
        if self.architecture == Architecture::Arm64 {
            what += &checks::acquire_loads(&reference, output)?;
        }
        let report = Comparison::of(&reference, output)?;
        let fixups = report.row("PCI fixups").map_or(0, |row| row.count);
        match self.variant {
            Variant::Pci if fixups == 0 => {
                return Err(Failure::build("the build without LTO has no PCI fixups").into());
            }
            Variant::Pci => what += &format!(", {fixups} PCI fixups"),
            _ => {}
        }
        let mut rows = vec!["initcalls", "PCI fixups", "modules"];
        match self.mode.lto() {
            Lto::Full => checks::same_symbols_in_any_order(&reference, output)?,
            Lto::None | Lto::Thin | Lto::ThinDist => rows.extend(["Module.symvers", "modinfo"]),
        }
        if self.variant == Variant::Btf {
            what += &format!(", {}", btf::compare(cache, &reference, output)?);
        }
        let differs = |row: &&&str| !report.row(row).is_some_and(|row| row.equal);
        match rows.iter().find(differs) {
            Some(row) => {
                Err(Failure::build(format!("{row} differ from the build without LTO")).into())
            }
            None => Ok(what + ", equal to none"),
        }
    }

    /// The tree with the tools of this cell and the smallest configuration.
    fn tree(self) -> Tree {
        let named = |name: &str| TREES.iter().find(|tree| tree.name == name);
        let (like, machine, fragments): (_, _, &[&str]) = match self.architecture {
            Architecture::Arm64 => ("5.10", &qemu::ARM64_DIRECT, &["matrix-arm64.config"]),
            Architecture::X86_64 => ("5.10-x86_64", &qemu::X86_64_PC, &["matrix-x86_64.config"]),
        };
        // Their tools are named one by one, which every tree understands.
        let like = named(like).unwrap_or(&TREES[0]);
        Tree {
            name: self.release.name,
            source: self.release.source,
            package: self.release.package,
            place: self.release.place,
            has_lto_option: self.release.has_lto_option,
            variables: with_llvm(like.variables, self.llvm),
            fragments: [
                fragments,
                self.release.fragments,
                self.fragments_of_variant(),
            ]
            .concat()
            .leak(),
            machine,
            features: match self.variant {
                Variant::WithoutModules => &[Feature::Tracer, Feature::Vdso, Feature::Stack],
                Variant::CfiAndLivepatch => &[
                    Feature::Versions,
                    Feature::Tracer,
                    Feature::Vdso,
                    Feature::Stack,
                    Feature::Lkdtm,
                    Feature::Cfi,
                    Feature::Livepatch,
                ],
                Variant::Pci => &[
                    Feature::Versions,
                    Feature::Disk,
                    Feature::Tracer,
                    Feature::Vdso,
                    Feature::Stack,
                ],
                Variant::Plain | Variant::Trimmed | Variant::Btf => &[
                    Feature::Versions,
                    Feature::Tracer,
                    Feature::Vdso,
                    Feature::Stack,
                ],
            },
            boot_proofs: &[],
            ..like.clone()
        }
    }

    /// What a variant adds that only the matrix knows.
    const fn fragments_of_variant(self) -> &'static [&'static str] {
        match (self.variant, self.architecture) {
            (Variant::Pci, Architecture::Arm64) => &["pci.config", "pci-arm64.config"],
            (Variant::Pci, Architecture::X86_64) => &["pci.config"],
            _ => &[],
        }
    }
}

/// A copy of a source tree that may be edited, made of hard links.
fn copy_of(source: &Path, copy: &Path) -> Result<PathBuf> {
    command::run(Command::new("cp").arg("-al").arg(source).arg(copy))?;
    Ok(copy.to_owned())
}

/// The words with another version of LLVM's tools; a handful for each cell, kept to the end.
fn with_llvm(words: &[&str], llvm: u32) -> &'static [&'static str] {
    let suffix = format!("-{llvm}");
    let newest = format!("-{NEWEST_LLVM}");
    let word = |word: &&str| -> &'static str {
        match word.strip_suffix(newest.as_str()) {
            Some(tool) => format!("{tool}{suffix}").leak(),
            None => word.to_string().leak(),
        }
    };
    words.iter().map(word).collect::<Vec<_>>().leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_name_and_its_own_tools() {
        let cells = Cell::all();
        let names: std::collections::BTreeSet<String> =
            cells.iter().map(|cell| cell.name()).collect();
        assert_eq!(names.len(), cells.len());
        assert!(names.contains("6.1-x86_64-thin-19"));
        let old = cells.iter().find(|cell| cell.llvm == 16).unwrap();
        assert!(old.tree().variables.contains(&"CC=clang-16"));
        assert!(old.tree().variables.contains(&"HOSTCC=gcc"));
    }
}
