//! What kbuild put into vmlinux and into each module, read from kbuild's own files.
//!
//! Archives and `.mod` files say it without klto, so that they can prove what klto's log claims.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use klto_core::normalize;
use klto_formats::{archive, bitcode};

/// The members of the archives of `output` that the kernel is linked from, as paths below
/// `output`: one list for each archive, in its order. Archives below `tools` and `scripts` are not
/// the kernel's.
pub fn archives(output: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let mut lists = Vec::new();
    let mut directories = vec![output.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !["scripts", "tools", ".klto"].contains(&name.as_str()) {
                directories.push(entry.path());
            } else if kind.is_file() && name.ends_with(".a") {
                lists.push(members(output, &entry.path())?);
            }
        }
    }
    Ok(lists)
}

fn members(output: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let place = path.strip_prefix(output)?;
    let members = archive::members(&fs::read(path)?)
        .with_context(|| format!("reading {}", path.display()))?;
    let member =
        |member: &archive::Member| normalize(&archive::thin_member_path(place, &member.name));
    Ok(members.iter().map(member).collect())
}

/// The objects of the module whose first linked object is `unit` (`fs/ext4/ext4.o`), in order: the
/// first line of its `.mod` file, on all trees with a word or a line for each object.
pub fn module_objects(output: &Path, unit: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(output.join(unit.with_extension("mod")))?;
    // Linux 5.10 writes all objects into the first line, 6.12 one into each.
    let words = text.split_whitespace().filter(|word| word.ends_with(".o"));
    Ok(words.map(PathBuf::from).collect())
}

/// Whether the file begins as bitcode does.
pub fn is_bitcode(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && bitcode::is_bitcode(&head)
}

/// The objects that ought to be bitcode and are native: compiled from C, and not among those that
/// `explained` says something reads as ELF. `is_bitcode` answers for a path below `output`.
pub fn natives_without_reason(
    output: &Path,
    objects: &BTreeSet<PathBuf>,
    explained: &BTreeSet<PathBuf>,
    is_bitcode: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for object in objects {
        if !is_bitcode(object) && !explained.contains(object) && is_compiled(output, object)? {
            found.push(object.clone());
        }
    }
    Ok(found)
}

/// Whether `object` is compiled from C: by the command that kbuild recorded beside it. Others are
/// assembled, or made from another object by objcopy, strip or ld.
pub fn is_compiled(output: &Path, object: &Path) -> Result<bool> {
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    let record = output.join(object.with_file_name(format!(".{name}.cmd")));
    let record = String::from_utf8_lossy(&fs::read(record)?).into_owned();
    let command = record.lines().next().unwrap_or_default();
    // `-c -o foo.o foo.c`, then on some trees `; objtool …` or `&& recordmcount …`.
    let mut words = command.split([' ', ';']);
    Ok(command.contains(" -c ") && words.any(|word| word.ends_with(".c")))
}
