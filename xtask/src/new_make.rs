//! A make of 4.4 or later, whose jobserver is a named pipe; Debian 12 has 4.3.
//!
//! In: the development cache. Out: a directory that holds only this `make`, built from the source
//! package of a newer Debian, by a private apt source list; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::command;
use crate::suites::{Kind, PrivateApt, Suite};

const SUITE: &str = "trixie";
const PACKAGE: &str = "make-dfsg";

/// The directory of the program; it is built on the first call.
pub fn fetch(cache: &Cache) -> Result<PathBuf> {
    let place = cache.sources()?.join("new-make");
    if place.join("make").is_file() {
        return Ok(place);
    }
    let archive = match downloaded(cache)? {
        Some(archive) => archive,
        None => download(cache)?,
    };
    let build = tempfile::tempdir_in(cache.sources()?)?;
    compile(&archive, build.path())?;
    fs::create_dir_all(&place)?;
    fs::rename(build.path().join("make"), place.join("make"))?;
    Ok(place)
}

fn downloaded(cache: &Cache) -> Result<Option<PathBuf>> {
    archive_in(&cache.downloads()?)
}

fn archive_in(directory: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PACKAGE) && name.contains(".orig.tar.") && !name.ends_with(".asc") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// apt checks the archive against the signed index of the suite.
fn download(cache: &Cache) -> Result<PathBuf> {
    let apt = PrivateApt::open(cache, Suite::Main(SUITE), Kind::Source)?;
    let incoming = tempfile::tempdir_in(cache.downloads()?)?;
    let mut source = apt.download(incoming.path());
    command::run(source.args(["source", "--download-only", PACKAGE]))?;
    let lost = || Failure::environment(format!("apt-get brought no {PACKAGE}"));
    let archive = archive_in(incoming.path())?.ok_or_else(lost)?;
    let kept = cache
        .downloads()?
        .join(archive.file_name().unwrap_or_default());
    fs::rename(archive, &kept)?;
    Ok(kept)
}

fn compile(archive: &Path, directory: &Path) -> Result<()> {
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--strip-components=1", "--no-same-owner"]);
    unpack.arg("--file").arg(archive).current_dir(directory);
    command::run(&mut unpack)?;
    // Debian's archive leaves the documentation out; configure wants its makefile.
    fs::create_dir_all(directory.join("doc"))?;
    fs::write(directory.join("doc/Makefile.in"), "all:\n")?;
    let mut configure = Command::new("./configure");
    configure.args(["--quiet", "--disable-nls", "--disable-dependency-tracking"]);
    command::run(configure.arg("--without-guile").current_dir(directory))?;
    for arguments in [&["--silent", "-C", "lib"][..], &["--silent", "make"]] {
        let mut make = Command::new("make");
        command::run(make.args(arguments).current_dir(directory))?;
    }
    Ok(())
}
