//! BTF: the newest pahole that a Debian suite has, and what the types of two kernels have in common.
//!
//! In: output directories, each with vmlinux and modules. Out: a sentence; or what differs more than it may.
//! bpftool reads the types, so that the format is not this file's word.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::suites::{Kind, PrivateApt, Suite};
use crate::{command, sources};

/// pahole with all that it is linked to; their C library is newer than the machine's.
const PACKAGES: [&str; 10] = [
    "pahole",
    "libdwarves1",
    "libbpf1",
    "libdw1t64",
    "libelf1t64",
    "libc6",
    "zlib1g",
    "libzstd1",
    "liblzma5",
    "libbz2-1.0",
];
const SUITE: Suite = Suite::Main("sid");
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The most that the numbers of functions may differ, as a part of the reference's.
const MOST: f64 = 0.03;

/// The program: started by the loader of its own suite, nothing is installed.
pub fn pahole(cache: &Cache) -> Result<PathBuf> {
    let place = cache.sources()?.join("pahole");
    let program = place.join("pahole");
    if program.is_file() {
        return Ok(program);
    }
    let apt = PrivateApt::open(cache, SUITE, Kind::Binary)?;
    let incoming = tempfile::tempdir_in(cache.downloads()?)?;
    command::run(apt.download(incoming.path()).arg("download").args(PACKAGES))?;
    for entry in fs::read_dir(incoming.path())? {
        unpack(&entry?.path(), &place)?;
    }
    let root = place.display();
    let script = format!(
        "#!/bin/sh\nexec {root}/{LIBRARIES}/ld-linux-x86-64.so.2 --library-path {root}/{LIBRARIES} \
         {root}/usr/bin/pahole \"$@\"\n"
    );
    let partial = place.join("pahole.partial");
    fs::write(&partial, script)?;
    fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))?;
    fs::rename(partial, &program)?;
    Ok(program)
}

/// The machine's own bpftool, which a package has that is not installed.
fn bpftool(cache: &Cache) -> Result<PathBuf> {
    let place = cache.sources()?.join("bpftool");
    let program = place.join("usr/sbin/bpftool");
    if !program.is_file() {
        unpack(&sources::package(cache, "bpftool")?, &place)?;
    }
    Ok(program)
}

fn unpack(package: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    let mut dpkg = Command::new("dpkg-deb");
    command::run(dpkg.arg("--extract").arg(package).arg(place))
}

/// Compares functions of the kernel and of each module of `output` with the reference's.
///
/// # Errors
/// More than `MOST` of the kernel's functions differ in number, or a module has none.
pub fn compare(cache: &Cache, reference: &Path, output: &Path) -> Result<String> {
    let bpftool = bpftool(cache)?;
    let vmlinux = Path::new("vmlinux");
    let kernel = |output: &Path| -> Result<Functions> {
        let map = fs::read_to_string(output.join("System.map"))?;
        Ok(Functions {
            typed: functions(&bpftool, &output.join(vmlinux), None)?,
            symbols: symbols(&map),
        })
    };
    let (of_reference, of_output) = (kernel(reference)?, kernel(output)?);
    let mut what = of_output.difference(&of_reference);
    let (before, after) = (of_reference.typed.len(), of_output.typed.len());
    if before.abs_diff(after) as f64 > MOST * before as f64 {
        return Err(Failure::build(what).into());
    }
    let of_modules = |output: &Path| -> Result<usize> {
        let base = output.join(vmlinux);
        let mut count = 0;
        for module in klto_verify::modules(output)? {
            let found = functions(&bpftool, &output.join(&module), Some(&base));
            count += found
                .with_context(|| format!("types of {}", module.display()))?
                .len();
        }
        Ok(count)
    };
    what += &format!(
        "; {} of {} in modules",
        of_modules(output)?,
        of_modules(reference)?
    );
    Ok(what)
}

/// The functions of one kernel.
struct Functions {
    /// Those that have types. pahole gives none to a function whose parameters are not all where the calling
    /// convention has them, nor to those of one name with different parameters.
    typed: BTreeSet<String>,
    /// Those that are there at all, with everything else in `System.map`; what is inlined everywhere is not.
    symbols: BTreeSet<String>,
}

impl Functions {
    /// What is different from the reference, by class of name.
    fn difference(&self, reference: &Self) -> String {
        let classes = |from: &Self, to: &Self| {
            let missing: Vec<&String> = from.typed.difference(&to.typed).collect();
            let is_there = |name: &&&String| to.symbols.contains(**name);
            let there = missing.iter().filter(is_there).count();
            (missing.len() - there, there)
        };
        let (gone_inlined, gone_untyped) = classes(reference, self);
        let (new_inlined, new_untyped) = classes(self, reference);
        format!(
            "{} BTF functions of {}: without those that LTO alone inlines ({gone_inlined}) or changes the \
             parameters of ({gone_untyped}), with those that only the reference inlines ({new_inlined}) or has no \
             one type of ({new_untyped})",
            self.typed.len(),
            reference.typed.len()
        )
    }
}

/// Names of functions that have types; of a module above those of the kernel.
fn functions(bpftool: &Path, file: &Path, base: Option<&Path>) -> Result<BTreeSet<String>> {
    let mut dump = Command::new(bpftool);
    if let Some(base) = base {
        dump.arg("--base-btf").arg(base);
    }
    let text = command::output(dump.args(["btf", "dump", "file"]).arg(file))?;
    let names = names(&text);
    match names.is_empty() {
        true => Err(Failure::build(format!("{} has no functions", file.display())).into()),
        false => Ok(names),
    }
}

/// As `[17] FUNC 'do_exit' type_id=16 linkage=static`.
fn names(dump: &str) -> BTreeSet<String> {
    let functions = dump.lines().filter_map(|line| {
        let (_, rest) = line.split_once("] FUNC '")?;
        Some(rest.split_once('\'')?.0.to_owned())
    });
    functions.collect()
}

/// Names in a `System.map`.
fn symbols(map: &str) -> BTreeSet<String> {
    let names = map.lines().filter_map(|line| line.split(' ').nth(2));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_in_a_dump() {
        let dump = "[1] INT 'int' size=4\n[17] FUNC 'do_exit' type_id=16 linkage=static\n\
                    [18] FUNC_PROTO '(anon)' ret_type_id=0 vlen=1\n";
        assert_eq!(names(dump), BTreeSet::from(["do_exit".to_owned()]));
        let map = "ffffffff81000000 T _text\nffffffff81000010 t do_exit\n";
        assert!(symbols(map).contains("do_exit"));
    }

    #[test]
    fn differences_have_classes() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let functions = |typed: &[&str], symbols: &[&str]| Functions {
            typed: set(typed),
            symbols: set(symbols),
        };
        let reference = functions(&["a", "b", "c"], &["a", "b", "c"]);
        let output = functions(&["a", "d"], &["a", "c", "d"]);
        let what = output.difference(&reference);
        assert!(what.starts_with("2 BTF functions of 3:"), "{what}");
        assert!(what.contains("inlines (1) or changes the parameters of (1)"));
        assert!(what.contains("reference inlines (1) or has no one type of (0)"));
    }
}
