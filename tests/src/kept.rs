//! Output trees that are kept between tests and between runs of them: plain builds without LTO to
//! compare with, and trees that klto has prepared.
//!
//! A stamp says what each was made from: the fragments, the compiler's version, the source package.
//! With another stamp it is made again from nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use xtask::kernel::{self, Tree};
use xtask::{command, sources};

use crate::binary::klto_binary;
use crate::build::Build;
use crate::place::{cache, lock, remove, test_directory};
use crate::shared::step;
use crate::source::PrivateSource;

/// The output directory of a complete plain build of `tree`.
pub fn reference(tree: &Tree) -> Result<PathBuf> {
    sources::fetch(cache(), tree)?;
    let output = cache().builds()?.join(format!("reference-{}", tree.name));
    let step_name = format!("reference build of {}", tree.name);
    kept(&output, made_from(tree, &["lto-none.config"])?, || {
        step(&step_name, || kernel::build_reference(cache(), tree))?;
        Ok(())
    })?;
    Ok(output)
}

/// An output directory of the tree of that version in which this klto made `modules_prepare`: to be
/// copied, for builds of small goals.
pub fn prepared(tree: &str) -> Result<PathBuf> {
    prepare(Build::new(tree, &format!("prepared-{tree}"))?)
}

/// The same of [`PrivateSource::prepared`]; kbuild makes everything anew for a source at another path.
pub fn prepared_for(source: &PrivateSource, tree: &'static Tree) -> Result<PathBuf> {
    let name = format!("prepared-for-private-{}", tree.name);
    prepare(Build::new(tree.name, &name)?.source(source.path()))
}

/// A clean build of `module` by this klto in an output directory of its own, and a store that has its results.
pub fn clean_module(tree: &str, module: &str) -> Result<Build> {
    let build = Build::new(tree, &format!("clean-{tree}"))?;
    let store = test_directory(&format!("clean-{tree}-store"))?;
    // Without a vmlinux modpost knows no symbol that the kernel exports.
    let build = build.ext4().goals(&[module]).store(&store);
    let build = build.environment("KBUILD_MODPOST_WARN", "1");
    kept(
        build.output_directory(),
        made_by_klto(build.tree())?,
        || {
            remove(&store)?;
            build.configure()?;
            step(&format!("{module} of {tree}"), || build.succeed());
            Ok(())
        },
    )?;
    Ok(build)
}

fn prepare(build: Build) -> Result<PathBuf> {
    let build = build.ext4().empty_store()?;
    let output = build.output_directory();
    kept(output, made_by_klto(build.tree())?, || {
        build.configure()?;
        let goals = build.clone().goals(&["modules_prepare"]);
        let name = format!("a prepared {} output tree", build.tree().name);
        step(&name, || goals.succeed());
        Ok(())
    })?;
    Ok(output.to_owned())
}

/// What decides what this klto makes of `tree`.
fn made_by_klto(tree: &Tree) -> Result<String> {
    let mut text = made_from(tree, &["lto-thin.config", "ext4.config"])?;
    for program in ["klto", "klto-shim"] {
        let content = fs::read(klto_binary().with_file_name(program))?;
        text += &format!("{program} {}\n", blake3::hash(&content));
    }
    Ok(text)
}

/// Makes `output`, unless what is there was made from the same.
fn kept(output: &Path, made_from: String, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let _lock = lock(output)?;
    let stamp = PathBuf::from(format!("{}.complete", output.display()));
    if fs::read_to_string(&stamp).ok().as_deref() == Some(&made_from) && output.is_dir() {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    remove(output)?;
    make()?;
    Ok(fs::write(&stamp, made_from)?)
}

/// What decides the content of a build of `tree`: tools, source, and fragments beside its own.
fn made_from(tree: &Tree, fragments: &[&str]) -> Result<String> {
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
    for name in tree.fragments.iter().chain(fragments) {
        let content = fs::read(kernel::fragments().join(name))?;
        text += &format!("{name} {}\n", blake3::hash(&content));
    }
    Ok(text)
}
