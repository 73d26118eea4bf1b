//! What a finished build consists of: its modules in an order that loads, and its objects.
//!
//! In: an output directory of kbuild. Out: module files and counts. It asks `modinfo` and the
//! archiver, and does not know how the build was made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fs_err as fs;
use klto_core::Failure;
use object::read::archive::ArchiveFile;

use crate::command;

/// The first bytes of bitcode (LLVM Bitcode File Format, "Magic Numbers").
const BITCODE: [u8; 4] = *b"BC\xc0\xde";

/// The modules of `output` so that each comes after those it needs; otherwise in the order of
/// `modules.order`. Empty for a kernel without modules.
pub fn load_order(output: &Path) -> Result<Vec<PathBuf>> {
    // A list of an earlier configuration may lie there still.
    let configuration = fs::read_to_string(output.join(".config"))?;
    if !configuration.lines().any(|line| line == "CONFIG_MODULES=y") {
        return Ok(Vec::new());
    }
    let listed = fs::read_to_string(output.join("modules.order"))?;
    // Trees from 6.3 on list `.o`, earlier ones `.ko`.
    let files: Vec<PathBuf> = listed
        .lines()
        .map(|line| output.join(line).with_extension("ko"))
        .collect();
    in_order(files)
}

/// These modules so that each comes after those it needs; otherwise in the order given.
pub fn in_order(files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut modules = Vec::new();
    for file in files {
        let depends = depends(&file)?;
        modules.push((file, depends));
    }
    in_dependency_order(&modules)
}

/// The module's name as the kernel and `modinfo` say it.
pub fn module_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().replace('-', "_")
}

fn depends(module: &Path) -> Result<Vec<String>> {
    let mut modinfo = Command::new("modinfo");
    let listed = command::output(modinfo.args(["--field", "depends"]).arg(module))?;
    let names = listed.trim().split(',').filter(|name| !name.is_empty());
    Ok(names.map(|name| name.replace('-', "_")).collect())
}

fn in_dependency_order(modules: &[(PathBuf, Vec<String>)]) -> Result<Vec<PathBuf>> {
    let by_name: BTreeMap<String, usize> = modules
        .iter()
        .enumerate()
        .map(|(index, (file, _))| (module_name(file), index))
        .collect();
    let mut waiting: Vec<usize> = (0..modules.len()).collect();
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|index| {
            modules[*index].1.iter().all(|name| {
                by_name
                    .get(name)
                    .is_some_and(|needed| done.contains(needed))
            })
        });
        let Some(position) = ready else {
            return Err(Failure::build(format!(
                "{} needs a module that is not built, or itself",
                modules[waiting[0]].0.display()
            ))
            .into());
        };
        let index = waiting.remove(position);
        done.insert(index);
        order.push(modules[index].0.clone());
    }
    Ok(order)
}

/// How many objects compiled from C or assembly lie in vmlinux and the modules of `output`: each
/// `.o` whose recorded command compiles, except those of host programs and of code that another
/// object holds already linked.
pub fn linked_objects(output: &Path) -> Result<usize> {
    let mut count = 0;
    let mut directories = vec![output.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                if !is_apart(output, &path) {
                    directories.push(path);
                }
            } else if is_compile_record(&path)? {
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Bytes of bitcode among the objects of vmlinux in `output`, by the archive of all of them that trees since
/// 6.1 make; zero without it.
pub fn bitcode_of_vmlinux(output: &Path) -> Result<u64> {
    let path = output.join("vmlinux.a");
    if !path.exists() {
        return Ok(0);
    }
    let bytes = fs::read(&path)?;
    let archive =
        ArchiveFile::parse(bytes.as_slice()).with_context(|| path.display().to_string())?;
    let mut sum = 0;
    for member in archive.members() {
        let name = std::str::from_utf8(member?.name())?.to_owned();
        let mut file = fs::File::open(output.join(name))?;
        let mut magic = [0; BITCODE.len()];
        if file.read_exact(&mut magic).is_ok() && magic == BITCODE {
            sum += file.metadata()?.len();
        }
    }
    Ok(sum)
}

/// Host programs, the boot wrapper, and objects that are linked on their own and embedded.
fn is_apart(output: &Path, directory: &Path) -> bool {
    let apart = ["scripts", "tools"].map(|name| output.join(name));
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let embedded = ["vdso", "vdso32", "boot", "realmode", "nvhe"];
    apart.iter().any(|path| path == directory) || embedded.contains(&name.as_ref())
}

fn is_compile_record(path: &Path) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Of distributed ThinLTO each object has two.
    let is_second = name.ends_with(".mod.o.cmd") || name.ends_with(".thinlto-native.o.cmd");
    if !name.ends_with(".o.cmd") || is_second {
        return Ok(false);
    }
    let record = fs::read(path)?;
    let record = String::from_utf8_lossy(&record);
    let command = record.lines().next().unwrap_or_default();
    Ok(command.contains(" -c "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, depends: &[&str]) -> (PathBuf, Vec<String>) {
        (
            path.into(),
            depends.iter().map(|name| (*name).to_owned()).collect(),
        )
    }

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let modules = [
            module("d/virtio-blk.ko", &["virtio_ring", "virtio"]),
            module("d/virtio.ko", &[]),
            module("d/virtio_ring.ko", &["virtio"]),
        ];
        let order = in_dependency_order(&modules).unwrap();
        let names: Vec<String> = order.iter().map(|file| module_name(file)).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "virtio_blk"]);
    }

    #[test]
    fn bitcode_is_that_of_vmlinux_s_archive() {
        let output = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(output.path().join(name), bytes).unwrap();
        assert_eq!(bitcode_of_vmlinux(output.path()).unwrap(), 0);
        write("a.o", b"BC\xc0\xde1234");
        write("b.o", b"\x7fELF");
        write("c.o", b"BC\xc0\xde");
        let header = |name: &str, size: usize| {
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644)
        };
        let (first, second) = (header("a.o/", 8), header("b.o/", 4));
        write("vmlinux.a", format!("!<thin>\n{first}{second}").as_bytes());
        assert_eq!(bitcode_of_vmlinux(output.path()).unwrap(), 8);
    }

    #[test]
    fn a_circle_is_an_error() {
        let modules = [module("a.ko", &["b"]), module("b.ko", &["a"])];
        assert!(in_dependency_order(&modules).is_err());
    }
}
