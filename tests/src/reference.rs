//! Plain kbuild builds without LTO, to compare with. They are kept between runs of the tests.
//!
//! A stamp says what a reference was made from: the fragments, the compiler's version, the source
//! package. With another stamp it is built again from nothing.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use xtask::kernel::{self, Tree};
use xtask::{command, sources};

use crate::place::{cache, remove};
use crate::shared::step;

/// The output directory of a complete plain build of `tree`.
pub fn reference(tree: &Tree) -> Result<PathBuf> {
    sources::fetch(cache(), tree)?;
    let output = cache().builds()?.join(format!("reference-{}", tree.name));
    let stamp = cache()
        .builds()?
        .join(format!("reference-{}.complete", tree.name));
    let wanted = made_from(tree)?;
    if fs::read_to_string(&stamp).ok().as_deref() == Some(&wanted) && output.is_dir() {
        return Ok(output);
    }
    let _ = fs::remove_file(&stamp);
    remove(&output)?;
    let name = format!("reference build of {}", tree.name);
    step(&name, || kernel::build_reference(cache(), tree))?;
    fs::write(&stamp, wanted)?;
    Ok(output)
}

fn made_from(tree: &Tree) -> Result<String> {
    let mut text = command::output(Command::new("clang-22").arg("--version"))?;
    text += &command::output(Command::new("ld.lld-22").arg("--version"))?;
    text += &format!("{:?}\n", (tree.name, tree.variables, tree.image_goal));
    let prefix = format!("{}_", tree.package);
    let mut packages = Vec::new();
    for entry in fs::read_dir(cache().downloads()?)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        packages.extend(name.starts_with(&prefix).then_some(name));
    }
    packages.sort();
    text += &format!("{}\n", packages.join(" "));
    for name in [tree.fragment, "lto-none.config"] {
        let content = fs::read(kernel::fragments().join(name))?;
        text += &format!("{name} {}\n", blake3::hash(&content));
    }
    Ok(text)
}
