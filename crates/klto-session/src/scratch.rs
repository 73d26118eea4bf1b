//! klto's directory in the output tree, `.klto`: the one place where klto writes beside the store.
//!
//! | path | what |
//! |---|---|
//! | `lock` | held by the session and every process under it; by `klto make clean` and `klto config` too |
//! | `journal` | what the hooks saw, see `journal.rs` |
//! | `begun` | in which boot of the machine a build has begun that has not ended, see `begun.rs` |
//! | `log` | why make ran, and each action of that build |
//! | `timeline` | when each call and action of that build ran |
//! | `complete` | what was so after the last build that succeeded, see `unchanged/mod.rs` |
//! | `single/` | bitcode of modules of one object, whose native kbuild expects in its place |
//! | `ahead/` | what a compile writes that make has not asked for yet |
//! | `previous/` | bitcode that a compile replaces, until it has ended |
//! | `versions/` | texts for genksyms, while they are made |
//! | `kallsyms/` | sources of the table of kernel symbols, folded |
//! | `links/` | arguments of links that take natives |
//! | `stat-memo` | digests of files by their stat |
//! | `preload.so` | what holds a tool as a fork server, see `klto-fork` |
//! | `shims/` | the tools' names, each a link to `klto-shim`; copies for what is a prerequisite of objects |
//! | `answers/<digest>/` | what the compiler answered to kbuild's probes, see `klto-shim/src/probe.rs` |
//! | `compat/<digest>/` | headers for trees that lack what LTO needs |
//! | `units/<unit>/` | `index/`, `former-index/` while it is removed, natives after each step as `unit/mod.rs` names them, `manifest` |
//!
//! A plain `make clean` may damage it without harm; `klto make clean`, `mrproper` and `distclean`
//! remove it whole: no object is left that it speaks of.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use klto_core::{Digest, publish};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;

use crate::log::tell;

/// The name of the directory in an output tree.
pub const SCRATCH_NAME: &str = ".klto";

/// An output tree's scratch directory, locked.
#[derive(Debug)]
pub struct Scratch {
    output: PathBuf,
    root: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes and locks the directory; waits for another session, and says for which.
    pub fn open(output: &Path) -> anyhow::Result<Self> {
        fs_err::create_dir_all(output.join(SCRATCH_NAME))
            .context("making klto's directory in the output tree")?;
        // Tools report the directory that they run in without symbolic links.
        let output = &fs_err::canonicalize(output)?;
        let root = output.join(SCRATCH_NAME);
        let lock = take_lock(&root.join("lock"), output)?;
        // Children inherit the lock, so that it lives as long as any of them.
        rustix::io::fcntl_setfd(lock.as_fd(), FdFlags::empty())
            .context("locking the output tree")?;
        let holder = format!("{}\n", std::process::id());
        rustix::fs::ftruncate(&lock, 0)
            .and_then(|()| rustix::io::pwrite(&lock, holder.as_bytes(), 0))
            .with_context(|| format!("writing {}", root.join("lock").display()))?;
        Ok(Self {
            output: output.to_owned(),
            root,
            _lock: lock,
        })
    }

    /// The output tree.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A path in the directory as tools in the output tree name it.
    pub fn relative(&self, name: &str) -> PathBuf {
        Path::new(SCRATCH_NAME).join(name)
    }

    /// An object's name: relative to the output tree where it is in it.
    pub fn object_name(&self, directory: &Path, path: &Path) -> PathBuf {
        let absolute = klto_core::normalize(&directory.join(path));
        let name = absolute.strip_prefix(&self.output).unwrap_or(&absolute);
        let aside = Path::new(SCRATCH_NAME).join("single");
        name.strip_prefix(aside).unwrap_or(name).to_owned()
    }

    /// Where the bitcode of a module's only object lies, as a tool in `directory` names it.
    pub fn single(&self, directory: &Path, object: &Path) -> anyhow::Result<PathBuf> {
        let name = Path::new("single").join(object.strip_prefix("/").unwrap_or(object));
        let place = self.root.join(&name);
        fs_err::create_dir_all(place.parent().unwrap_or(&self.root))?;
        Ok(match directory == self.output {
            true => Path::new(SCRATCH_NAME).join(name),
            false => place,
        })
    }

    /// Where the compiler's answers in these surroundings are; those in others are removed.
    pub fn place_for_answers(&self, surroundings: &str) -> std::io::Result<PathBuf> {
        let all = self.path("answers");
        let place = all.join(surroundings);
        fs_err::create_dir_all(&place)?;
        for entry in fs_err::read_dir(&all)? {
            let other = entry?.path();
            if other != place {
                fs_err::remove_dir_all(other)?;
            }
        }
        Ok(place)
    }

    /// Links each of `names` in `shims/` to the shim's executable, copies it to each of `stand_ins`,
    /// and removes other names.
    ///
    /// Objects depend on stand-ins: these keep one time for ever, so that another build of klto alone makes
    /// no object again.
    pub fn place_shims<'a>(
        &self,
        shim: &Path,
        names: impl Iterator<Item = &'a str>,
        stand_ins: impl Iterator<Item = &'static str>,
    ) -> anyhow::Result<PathBuf> {
        let directory = self.path("shims");
        fs_err::create_dir_all(&directory)?;
        let names: std::collections::BTreeSet<&str> = names.collect();
        let stand_ins: Vec<&str> = stand_ins.collect();
        for entry in fs_err::read_dir(&directory)? {
            let entry = entry?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| names.contains(name) || stand_ins.contains(&name))
            {
                fs_err::remove_file(entry.path())?;
            }
        }
        for name in names {
            let link = directory.join(name);
            if std::fs::read_link(&link).ok().as_deref() != Some(shim) {
                let _ = std::fs::remove_file(&link);
                fs_err::os::unix::fs::symlink(shim, &link)?;
            }
        }
        for name in stand_ins {
            copy_with_old_time(shim, &directory.join(name))
                .with_context(|| format!("placing klto's stand-in for {name}"))?;
        }
        Ok(directory)
    }

    /// Writes headers into a directory named by their content; `.cmd` files refer to it.
    pub fn unpack_compat(&self, headers: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let all: String = headers
            .iter()
            .flat_map(|(name, text)| [*name, *text])
            .collect();
        let digest = Digest::of_bytes(all.as_bytes()).to_hex();
        let name = format!("compat/{}", digest.get(..16).unwrap_or(&digest));
        for (header, text) in headers {
            let path = self.path(&name).join(header);
            if fs_err::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                publish(&path, text.as_bytes())?;
            }
        }
        Ok(self.relative(&name))
    }
}

/// The beginning of 2000: older than any object.
const OLD: Duration = Duration::from_secs(946_684_800);

fn copy_with_old_time(from: &Path, to: &Path) -> std::io::Result<()> {
    let bytes = fs_err::read(from)?;
    if fs_err::read(to).ok().as_deref() == Some(bytes.as_slice()) {
        return Ok(());
    }
    let directory = to.parent().unwrap_or(Path::new("."));
    let mut copy = tempfile::NamedTempFile::new_in(directory)?;
    copy.write_all(&bytes)?;
    let file = copy.as_file();
    file.set_permissions(PermissionsExt::from_mode(0o755))?;
    file.set_modified(std::time::UNIX_EPOCH + OLD)?;
    // A program that is open for writing cannot be run.
    copy.into_temp_path().persist(to)?;
    Ok(())
}

/// Locks the file at `path`; waits for another session, and says for which.
fn take_lock(path: &Path, output: &Path) -> anyhow::Result<File> {
    let locking = || format!("locking {}", path.display());
    loop {
        let mut options = fs_err::OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let lock = options.open(path)?.into_parts().0;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = fs_err::read_to_string(path).unwrap_or_default();
            tell(&waiting_for(holder.trim(), path, output));
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).with_context(locking)?;
        }
        // `make mrproper` may have removed the file while this process waited.
        let held = lock.metadata().with_context(locking)?.ino();
        if fs_err::metadata(path).is_ok_and(|metadata| metadata.ino() == held) {
            return Ok(lock);
        }
        fs_err::create_dir_all(path.parent().unwrap_or(output))?;
    }
}

/// A process that a build has started, and that outlives it, holds the lock too.
fn waiting_for(holder: &str, lock: &Path, output: &Path) -> String {
    let output = output.display();
    match Path::new("/proc").join(holder).exists() {
        true => format!("klto: waiting for process {holder} on {output}"),
        false => format!(
            "klto: waiting for what process {holder}, which has ended, has left running on {output}; it has {} open",
            lock.display()
        ),
    }
}

/// Waits until no other klto builds in `output`, and says for which; keeps others waiting as long as the
/// result lives. `None` where klto has never built.
///
/// # Errors
/// The directory cannot be locked.
pub fn hold_output(output: &Path) -> anyhow::Result<Option<Scratch>> {
    let is_there = output.join(SCRATCH_NAME).is_dir();
    is_there.then(|| Scratch::open(output)).transpose()
}

/// Removes the scratch directory of `output`, as `clean`, `mrproper` and `distclean` do.
pub fn remove_scratch(output: &Path) -> std::io::Result<()> {
    match fs_err::remove_dir_all(output.join(SCRATCH_NAME)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
