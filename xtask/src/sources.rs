//! Kernel sources: from Debian's source packages to an unpacked tree in the cache.
//!
//! In: a tree's package name and the suite that has it. Out: the directory of the source, complete:
//! its `.complete` stamp is written last. No host name stands here: mirrors are those of the
//! machine's own apt configuration.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use fs_err as fs;
use klto_core::Failure;
use klto_core::die_with_parent;

use crate::cache::Cache;
use crate::kernel::Tree;
use crate::suites::{Kind, PrivateApt, Suite};
use crate::{command, packages};

/// Where a source package is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the suites that the machine uses.
    Machine,
    /// In another one.
    Other(Suite),
}

/// Returns the unpacked source of `tree`; downloads and unpacks what is not there.
pub fn fetch(cache: &Cache, tree: &Tree) -> Result<PathBuf> {
    let sources = cache.sources()?;
    let source = sources.join(tree.source);
    let stamp = sources.join(format!("{}.complete", tree.source));
    if stamp.exists() && source.is_dir() {
        return Ok(source);
    }
    let package = match downloaded(cache, tree.package)? {
        Some(package) => package,
        None => download(cache, tree)?,
    };
    println!("unpacking {}", package.display());
    let partial = sources.join(format!("{}.partial", tree.source));
    remove_directory(&partial)?;
    remove_directory(&source)?;
    fs::create_dir_all(&partial)?;
    unpack(&package, tree, &partial)?;
    fs::rename(&partial, &source)?;
    fs::write(&stamp, "")?;
    Ok(source)
}

/// Returns a Debian package of the machine's own suites, downloaded and not installed.
pub fn package(cache: &Cache, name: &str) -> Result<PathBuf> {
    if let Some(package) = downloaded(cache, name)? {
        return Ok(package);
    }
    let incoming = tempfile::tempdir_in(cache.downloads()?)?;
    download_by_machine(name, incoming.path())?;
    keep(cache, name, incoming.path())
}

fn remove_directory(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn downloaded(cache: &Cache, name: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{name}_");
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(cache.downloads()?)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.pop())
}

/// apt writes into a directory of its own; only a whole package reaches the downloads.
fn download(cache: &Cache, tree: &Tree) -> Result<PathBuf> {
    let downloads = cache.downloads()?;
    let incoming = tempfile::tempdir_in(&downloads)?;
    match tree.place {
        Place::Machine => download_by_machine(tree.package, incoming.path())?,
        Place::Other(suite) => {
            let apt = PrivateApt::open(cache, suite, Kind::Binary)?;
            let mut download = apt.download(incoming.path());
            command::run(download.args(["download", tree.package]))?;
        }
    }
    keep(cache, tree.package, incoming.path())
}

/// Moves what apt brought to the downloads; the package of that name.
fn keep(cache: &Cache, package: &str, incoming: &Path) -> Result<PathBuf> {
    let downloads = cache.downloads()?;
    for entry in fs::read_dir(incoming)? {
        let path = entry?.path();
        if let Some(name) = path
            .file_name()
            .filter(|_| path.extension() == Some("deb".as_ref()))
        {
            fs::rename(&path, downloads.join(name))?;
        }
    }
    let lost = || Failure::environment(format!("apt-get brought no {package}"));
    Ok(downloaded(cache, package)?.ok_or_else(lost)?)
}

fn download_by_machine(package: &str, directory: &Path) -> Result<()> {
    let attempt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-oAPT::Sandbox::User=root", "download", package]);
        command::run(apt.current_dir(directory))
    };
    match attempt() {
        // The lists may be absent or older than the mirror's files.
        Err(_) if rustix::process::geteuid().is_root() => {
            packages::update_lists();
            attempt()
        }
        other => other,
    }
}

/// The package holds one archive, `usr/src/linux-source-V.tar.xz`; it goes through pipes.
fn unpack(package: &Path, tree: &Tree, directory: &Path) -> Result<()> {
    let member = format!("./usr/src/{}.tar.xz", tree.package);
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(package);
    let (dpkg, files) = piped(&mut dpkg, Stdio::null())?;
    let mut outer = Command::new("tar");
    outer.args(["--extract", "--to-stdout", &member]);
    let (outer, archive) = piped(&mut outer, Stdio::from(files))?;
    let mut inner = Command::new("tar");
    inner
        .args([
            "--extract",
            "--xz",
            "--no-same-owner",
            "--strip-components=1",
            "--directory",
        ])
        .arg(directory)
        .stdin(Stdio::from(archive));
    let status = die_with_parent(&mut inner)
        .status()
        .context("starting tar")?;
    let mut good = status.success();
    for mut child in [dpkg, outer] {
        good &= child.wait()?.success();
    }
    if good {
        return Ok(());
    }
    Err(
        Failure::environment(format!("unpacking {}", package.display()))
            .hint("remove the file, it may be damaged")
            .into(),
    )
}

fn piped(command: &mut Command, input: Stdio) -> Result<(Child, ChildStdout)> {
    command.stdin(input).stdout(Stdio::piped());
    let mut child = die_with_parent(command)
        .spawn()
        .with_context(|| format!("starting {}", command::words(command)))?;
    let output = child.stdout.take().context("a pipe was asked for")?;
    Ok((child, output))
}
