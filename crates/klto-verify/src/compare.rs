//! Comes in: the output directories of a plain build and of one with LTO, of one configuration.
//! Goes out: a [`Report`] of all that LTO must leave as it was.
//!
//! Lists are compared in order and unsorted: sorting would hide exactly what LTO breaks. Does not
//! know which differences a configuration may bring.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::differences::Differences;
use crate::initcalls::initcalls;
use crate::module::{modinfo, module_versions, section_list};
use crate::pci::{PciFixup, pci_fixups};
use crate::report::{Report, Row};
use crate::symvers::{ExportVersion, export_versions};
use crate::tree::{has_modules, modules};

/// A finished kernel held against a plain build of the same configuration.
#[derive(Debug)]
pub struct Comparison<'a> {
    reference: &'a Path,
    candidate: &'a Path,
}

impl<'a> Comparison<'a> {
    /// Compares the output directory `candidate` with the plain build in `reference`.
    ///
    /// The rows: `initcalls`, `PCI fixups`, `Module.symvers`, `modules`, and over the modules that
    /// both have `modinfo`, `sections`, `left-over sections` and `__versions`.
    ///
    /// # Errors
    /// A file that such a build must have is missing or cannot be read as what it is.
    pub fn of(reference: &'a Path, candidate: &'a Path) -> Result<Report> {
        let this = Self {
            reference,
            candidate,
        };
        let (initcalls, fixups) = this.vmlinux()?;
        let mut rows = vec![initcalls, fixups, this.exports()?];
        let (module_list, common) = this.modules()?;
        rows.push(module_list);
        rows.extend(this.module_contents(&common)?);
        Ok(Report { rows })
    }

    fn vmlinux(&self) -> Result<(Row, Row)> {
        let reference = read_kernel(self.reference)?;
        let candidate = read_kernel(self.candidate)?;
        let mut differences = Differences::default();
        differences.compare_lists("", &reference.initcalls, &candidate.initcalls);
        let calls = Row::new("initcalls", reference.initcalls.len(), differences);
        let names = |list: &[PciFixup]| list.iter().map(PciFixup::to_string).collect::<Vec<_>>();
        let unstubbed = without_stubs(&candidate.fixups, &reference.fixups);
        let mut differences = Differences::default();
        differences.compare_lists("", &names(&reference.fixups), &names(&unstubbed));
        let fixups = Row::new("PCI fixups", reference.fixups.len(), differences);
        Ok((calls, fixups))
    }

    fn exports(&self) -> Result<Row> {
        let reference = read_exports(self.reference)?;
        let candidate = read_exports(self.candidate)?;
        let mut differences = Differences::default();
        // A changed checksum is one difference, not a missing and a new line.
        let by_symbol = |list: &[ExportVersion]| -> Vec<(String, String)> {
            list.iter()
                .map(|export| (export.symbol.clone(), export.to_string()))
                .collect()
        };
        let (reference, candidate) = (by_symbol(&reference), by_symbol(&candidate));
        differences.compare_maps("", &reference, &candidate);
        if differences.total == 0 {
            let names = |list: &[(String, String)]| -> Vec<String> {
                list.iter().map(|(symbol, _)| symbol.clone()).collect()
            };
            differences.compare_lists("", &names(&reference), &names(&candidate));
        }
        Ok(Row::new("Module.symvers", reference.len(), differences))
    }

    /// The row of the module lists, and the modules that both builds have.
    fn modules(&self) -> Result<(Row, Vec<PathBuf>)> {
        let reference = modules(self.reference)?;
        let candidate = modules(self.candidate)?;
        let names = |list: &[PathBuf]| -> Vec<String> {
            list.iter().map(|path| path.display().to_string()).collect()
        };
        let mut differences = Differences::default();
        differences.compare_lists("", &names(&reference), &names(&candidate));
        let row = Row::new("modules", reference.len(), differences);
        let built: HashSet<PathBuf> = candidate.into_iter().collect();
        let common = reference.into_iter().filter(|path| built.contains(path));
        Ok((row, common.collect()))
    }

    fn module_contents(&self, common: &[PathBuf]) -> Result<[Row; 4]> {
        let mut contents = ModuleContents::default();
        for path in common {
            let reference = read_module(&self.reference.join(path))?;
            let candidate = read_module(&self.candidate.join(path))?;
            contents.add(&format!("{}: ", path.display()), &reference, &candidate);
        }
        Ok(contents.into_rows())
    }
}

/// What is read of a vmlinux.
struct Kernel {
    initcalls: Vec<String>,
    fixups: Vec<PciFixup>,
}

fn read_kernel(directory: &Path) -> Result<Kernel> {
    let path = directory.join("vmlinux");
    let bytes = fs_err::read(&path)?;
    let read = || -> Result<Kernel> {
        Ok(Kernel {
            initcalls: initcalls(&bytes)?.iter().map(ToString::to_string).collect(),
            fixups: pci_fixups(&bytes)?,
        })
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// The candidate's fixups with the name of the hook where they name its stub.
fn without_stubs(candidate: &[PciFixup], reference: &[PciFixup]) -> Vec<PciFixup> {
    let unstub = |fixup: &PciFixup| {
        let mut same = reference.iter().filter(|other| other.same_devices(fixup));
        match same.find(|other| fixup.calls(&other.hook)) {
            Some(other) => other.clone(),
            None => fixup.clone(),
        }
    };
    candidate.iter().map(unstub).collect()
}

fn read_exports(directory: &Path) -> Result<Vec<ExportVersion>> {
    if !has_modules(directory) {
        return Ok(Vec::new());
    }
    let path = directory.join("Module.symvers");
    export_versions(&fs_err::read_to_string(&path)?)
        .with_context(|| format!("reading {}", path.display()))
}

/// What is read of a module.
struct Module {
    modinfo: Vec<String>,
    sections: Vec<String>,
    versions: Vec<(String, String)>,
}

fn read_module(path: &Path) -> Result<Module> {
    let bytes = fs_err::read(path)?;
    let read = || -> Result<Module> {
        let pair = |(key, value)| format!("{key}={value}");
        let version = |(symbol, crc): (String, u32)| (symbol, format!("{crc:#010x}"));
        Ok(Module {
            modinfo: modinfo(&bytes)?.into_iter().map(pair).collect(),
            sections: section_list(&bytes)?,
            versions: module_versions(&bytes)?.into_iter().map(version).collect(),
        })
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// The rows over all modules, while they grow.
#[derive(Default)]
struct ModuleContents {
    modinfo: (usize, Differences),
    sections: (usize, Differences),
    left_over: (usize, Differences),
    versions: (usize, Differences),
}

impl ModuleContents {
    fn add(&mut self, place: &str, reference: &Module, candidate: &Module) {
        let (count, differences) = &mut self.modinfo;
        *count += reference.modinfo.len();
        differences.compare_lists(place, &reference.modinfo, &candidate.modinfo);

        let (count, differences) = &mut self.sections;
        *count += reference.sections.len();
        compare_sections(place, &reference.sections, &candidate.sections, differences);

        let (count, differences) = &mut self.left_over;
        *count += candidate.sections.len();
        let known: HashSet<&String> = reference.sections.iter().collect();
        for name in &candidate.sections {
            if is_unmerged(name) && !known.contains(name) {
                differences.push(format!("{place}{name}"));
            }
        }

        let (count, differences) = &mut self.versions;
        *count += reference.versions.len();
        differences.compare_maps(place, &reference.versions, &candidate.versions);
    }

    fn into_rows(self) -> [Row; 4] {
        let row = |what, (count, differences)| Row::new(what, count, differences);
        [
            row("modinfo", self.modinfo),
            row("sections", self.sections),
            row("left-over sections", self.left_over),
            row("__versions", self.versions),
        ]
    }
}

/// Compares sections in order, and relocation sections among themselves without order: lld places
/// one where the first input has it, and natives may have their first relocation elsewhere. The
/// loader finds them by what they apply to, so their order means nothing.
fn compare_sections(
    place: &str,
    reference: &[String],
    candidate: &[String],
    differences: &mut Differences,
) {
    let split = |list: &[String]| -> (Vec<String>, Vec<String>) {
        let (mut relocations, others): (Vec<_>, Vec<_>) =
            list.iter().cloned().partition(|name| is_relocation(name));
        relocations.sort();
        (relocations, others)
    };
    let (reference_relocations, reference) = split(reference);
    let (candidate_relocations, candidate) = split(candidate);
    differences.compare_lists(place, &reference, &candidate);
    differences.compare_lists(place, &reference_relocations, &candidate_relocations);
}

/// Whether `name` is a relocation section: `.rel` or `.rela` before the name of another section.
fn is_relocation(name: &str) -> bool {
    name.starts_with(".rela.") || name.starts_with(".rel.") || name.starts_with(".rela__")
}

/// Whether `name` is a section of one function or one object, which a module's linker script
/// merges: `.text.foo`, `.data.bar`, `.bss.baz`, `.rodata..L__unnamed_1`.
fn is_unmerged(name: &str) -> bool {
    let name = name.strip_prefix(".rela").unwrap_or(name);
    [".text.", ".data.", ".bss.", ".rodata..L"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference_count(reference: &str, candidate: &str) -> usize {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut differences = Differences::default();
        compare_sections("", &list(reference), &list(candidate), &mut differences);
        differences.total
    }

    #[test]
    fn only_relocation_sections_may_change_places() {
        let reference = ".text .rela.text .rela__ksymtab .data";
        assert_eq!(
            difference_count(reference, ".text .data .rela__ksymtab .rela.text"),
            0
        );
        assert_eq!(
            difference_count(reference, ".data .rela.text .rela__ksymtab .text"),
            2
        );
        assert_eq!(difference_count(reference, ".text .rela.text .data"), 1);
        assert_eq!(
            difference_count(".text .rela.text", ".text .rela.text .rela.text"),
            1
        );
    }
}
