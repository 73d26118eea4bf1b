//! Files that the assembler reads for an object: `.incbin` and `.include` in its asm texts.
//!
//! LLVM's own ThinLTO cache missed them, and the kernel dropped that cache for it ("kbuild: remove support
//! for Clang's ThinLTO caching"). The texts are in the bitcode, not visible in its raw bytes, so it is
//! decoded; what a bitcode of known content reads is remembered in the unit's manifest.
//!
//! kbuild does not look at these files either, and make would link nothing again when only they have changed:
//! the journal has them by object, so that the next build removes the object and make makes it, and what is
//! made of it, again.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Action, Input, Storable, normalize};
use klto_formats::assembler::{FilesRead, files_read};
use klto_formats::bitcode;
use klto_store::StatMemo;

use crate::journal::FileRead;
use crate::session::{Session, lock};

/// File names in the assembler texts of one object; `None` when a directive's file is not a plain
/// string, or a text is included that may name further files.
pub(super) type Names = Option<Vec<Vec<u8>>>;

/// What the assembler reads for one object.
#[derive(Debug, Clone)]
pub(super) struct AssemblerFiles {
    /// Role `asm-file`, in the order of the texts.
    pub files: Vec<Input>,
    /// `No` when a file cannot be followed.
    pub storable: Storable,
}

/// Decodes bitcode for the names in its texts.
pub(super) fn names(bitcode: &[u8]) -> anyhow::Result<Names> {
    let texts = bitcode::assembly(bitcode).context("reading assembler texts")?;
    let mut names = Vec::new();
    for text in texts {
        match files_read(&text) {
            FilesRead::Literal(_)
                if text
                    .windows(8)
                    .any(|word| word.eq_ignore_ascii_case(b".include")) =>
            {
                return Ok(None);
            }
            FilesRead::Literal(literal) => names.extend(literal),
            FilesRead::Unknown => return Ok(None),
        }
    }
    Ok(Some(names))
}

/// Finds the files as the assembler does: from the working directory, then in each include directory.
pub(super) fn find(
    names: &Names,
    include_directories: &[PathBuf],
    directory: &Path,
    memo: &StatMemo,
) -> anyhow::Result<AssemblerFiles> {
    let mut found = AssemblerFiles {
        files: Vec::new(),
        storable: Storable::Yes,
    };
    let Some(names) = names else {
        let reason = "its assembler text includes a file that klto cannot follow";
        found.storable = Storable::No(reason.to_owned());
        return Ok(found);
    };
    for name in names {
        let name = PathBuf::from(OsString::from_vec(name.clone()));
        let mut candidates = std::iter::once(name.clone()).chain(
            include_directories
                .iter()
                .map(|include| include.join(&name)),
        );
        match candidates.find(|path| directory.join(path).is_file()) {
            Some(path) => {
                let digest = memo.digest(&directory.join(&path))?;
                found.files.push(Input {
                    role: "asm-file",
                    path,
                    digest,
                });
            }
            None => {
                let reason = format!("the assembler's file {} was not found", name.display());
                found.storable = Storable::No(reason);
            }
        }
    }
    Ok(found)
}

impl Session {
    /// What others than the build's own actions write is still what the key says. The digests are older than
    /// the action: a thin-link, or the wait for memory, came between.
    pub(super) fn check_inputs(&self, action: &Action) -> Result<(), String> {
        for input in &action.inputs {
            if !matches!(
                input.role,
                "asm-file" | "script" | "archive" | "member" | "object"
            ) {
                continue;
            }
            let now = self.memo.digest(&action.directory.join(&input.path));
            if now.map_err(|error| error.to_string())? != input.digest {
                let path = input.path.display();
                return Err(format!(
                    "{path} has changed since the build read it; build again"
                ));
            }
        }
        Ok(())
    }

    /// Remembers what the assembler reads for the object at `path`, as tools in `directory` name it.
    pub(super) fn note_assembler_files(
        &self,
        directory: &Path,
        path: &Path,
        found: &AssemblerFiles,
    ) -> anyhow::Result<()> {
        let object = self.scratch.object_name(directory, path);
        let files = found.files.iter();
        let files = files.map(|file| {
            let place = normalize(&directory.join(&file.path));
            (place, *file.digest.as_bytes())
        });
        Ok(lock(&self.journal).set_assembler_files(&object, files.collect())?)
    }

    /// Removes the objects for which the assembler would read something else than when they were last
    /// lowered.
    pub(crate) fn remove_objects_with_changed_assembler_files(&self) -> anyhow::Result<()> {
        let known = lock(&self.journal).assembler_files().clone();
        for (object, files) in known {
            let is_same = |file: &&FileRead| {
                let now = self.memo.digest(&file.0);
                now.is_ok_and(|now| *now.as_bytes() == file.1)
            };
            let Some((file, _)) = files.iter().find(|file| !is_same(file)) else {
                continue;
            };
            match fs_err::remove_file(self.scratch.output().join(&object)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    lock(&self.journal).set_assembler_files(&object, Vec::new())?;
                    continue;
                }
                removed => removed?,
            }
            self.log.line(&format!(
                "removed {}: {}, which the assembler reads for it, has changed",
                object.display(),
                file.display()
            ));
        }
        Ok(())
    }
}
