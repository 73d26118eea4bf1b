//! git's own files. kbuild asks git for one thing, which version a tree is (scripts/setlocalversion); so a
//! change of them counts where it is a change of the kernel's release.
//!
//! In: the source tree. Out: where they are, for a worktree or a submodule, and facts of them
//! (gitrepository-layout(5)); whether the release has changed. A repository in the source tree itself is part of
//! that tree's facts.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klto_core::{KeyBuilder, die_with_parent};
use klto_kbuild::LtoBuild;

use super::trees::{Facts, of_file};
use crate::build::Settings;
use crate::tools::{MAKE, find_program};

/// Of the directory of the tree alone: contents by their names, the past, and what belongs to other trees.
const WITHOUT_VERSION: [&str; 4] = ["objects", "logs", "worktrees", "modules"];
/// What worktrees share and the version depends on.
const SHARED: [&str; 6] = [
    "config",
    "info",
    "packed-refs",
    "refs",
    "reftable",
    "shallow",
];

/// How the names of facts end that are of files elsewhere.
const ELSEWHERE: &str = ", where git keeps the version,";

/// Whether a fact is of git's files.
pub(super) fn is_of_repository(name: &str) -> bool {
    let in_tree = name.strip_prefix("source ").map(Path::new);
    in_tree.is_some_and(|place| place.starts_with(".git")) || name.ends_with(ELSEWHERE)
}

/// Whether kbuild says the same release as in the last build: it is asked, and only reads.
pub(super) fn keeps_release(build: &LtoBuild, settings: &Settings) -> bool {
    let program = find_program(MAKE, settings).unwrap_or_else(|| MAKE.into());
    let goal = [OsStr::new("kernelrelease")];
    let mut make = Command::new(program);
    make.current_dir(&settings.directory)
        .args(["--silent", "--no-print-directory"])
        .args(build.arguments.with_goals(goal).words())
        .env_clear()
        .envs(settings.environment.iter())
        .env("MAKEFLAGS", build.make_flags.without_jobserver())
        .stdin(Stdio::null());
    let said = die_with_parent(&mut make).output();
    let known = std::fs::read(build.tree.output.join("include/config/kernel.release"));
    match (said, known) {
        (Ok(said), Ok(known)) => said.status.success() && said.stdout == known,
        _ => false,
    }
}

/// Where git keeps its files of a tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repository {
    own: PathBuf,
    /// That of all worktrees together, for one of them.
    shared: Option<PathBuf>,
}

impl Repository {
    /// That of the tree `source`; `None` where it is below it, or there is none.
    ///
    /// # Errors
    /// The files that lead there cannot be read.
    pub fn elsewhere(source: &Path) -> io::Result<Option<Self>> {
        let file = source.join(".git");
        if !file.is_file() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&file)?;
        let place = text.trim_end().strip_prefix("gitdir: ");
        let unknown = || {
            let text = format!("{} does not say where git keeps its files", file.display());
            io::Error::other(text)
        };
        let own = fs_err::canonicalize(source.join(place.ok_or_else(unknown)?))?;
        let shared = own.join("commondir");
        let shared = match shared.exists() {
            true => {
                let place = fs_err::read_to_string(shared)?;
                Some(fs_err::canonicalize(own.join(place.trim_end()))?)
            }
            false => None,
        };
        Ok(Some(Self { own, shared }))
    }

    /// Its directories.
    pub fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.own).chain(&self.shared)
    }

    /// A fact for each directory.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn facts(&self) -> io::Result<Facts> {
        let mut facts = Facts::new();
        let of_own = |name: &str| !WITHOUT_VERSION.contains(&name);
        let of_shared = |name: &str| SHARED.contains(&name);
        look(&self.own, &of_own, &mut facts)?;
        if let Some(shared) = &self.shared {
            look(shared, &of_shared, &mut facts)?;
        }
        Ok(facts)
    }
}

/// Takes stock of the files in a directory whose names count, and of all in its directories.
fn look(directory: &Path, counts: &dyn Fn(&str) -> bool, facts: &mut Facts) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !counts(&name.to_string_lossy()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => look(&entry.path(), &|_| true, facts)?,
            false => files.push((name.as_encoded_bytes().to_vec(), of_file(&entry.path()))),
        }
    }
    files.sort();
    let mut key = KeyBuilder::new("repository", 1);
    for (name, stat) in files {
        key.field("name", &name).field("stat", &stat);
    }
    let name = format!("{}{ELSEWHERE}", directory.display());
    facts.insert(name, *key.finish().as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_git_are_known_by_their_names() {
        for name in [
            "source .git",
            "source .git/refs/heads",
            "/x/.git, where git keeps the version,",
        ] {
            assert!(is_of_repository(name), "{name}");
        }
        for name in ["source ", "source .github", "source fs/.git", "output .git"] {
            assert!(!is_of_repository(name), "{name}");
        }
    }

    #[test]
    fn a_worktree_has_a_directory_of_its_own_and_shares_another() {
        let place = tempfile::tempdir().unwrap();
        let root = fs_err::canonicalize(place.path()).unwrap();
        let (own, shared) = (
            root.join("main/.git/worktrees/tree"),
            root.join("main/.git"),
        );
        let write = |path: PathBuf, text: &str| klto_core::publish(&path, text.as_bytes()).unwrap();
        let tree = root.join("tree");
        fs_err::create_dir(&tree).unwrap();
        assert_eq!(Repository::elsewhere(&tree).unwrap(), None);
        write(tree.join(".git"), "gitdir: ../main/.git/worktrees/tree\n");
        write(own.join("commondir"), "../..\n");
        write(shared.join("refs/heads/main"), "0123\n");
        let found = Repository::elsewhere(&tree).unwrap().unwrap();
        let before = found.facts().unwrap();
        assert_eq!(before.len(), 4, "{before:?}");
        for file in ["objects/ab/cd", "index", "HEAD", "worktrees/other/HEAD"] {
            write(shared.join(file), "");
            assert_eq!(found.facts().unwrap(), before, "{file}");
        }
        for file in [
            shared.join("refs/heads/main"),
            shared.join("packed-refs"),
            own.join("HEAD"),
        ] {
            let before = found.facts().unwrap();
            write(file.clone(), "4567\n");
            assert_ne!(found.facts().unwrap(), before, "{}", file.display());
        }
        write(tree.join(".git"), "something else\n");
        assert!(Repository::elsewhere(&tree).is_err());
    }
}
