//! Files that the assembler reads for an object: `.incbin` and `.include` in its asm texts.
//!
//! LLVM's own ThinLTO cache missed them, and the kernel dropped that cache for it (commit
//! 0fe96e3b2d5e). The texts are in the bitcode, not visible in its raw bytes, so it is decoded; what a
//! bitcode of known content reads is remembered in the unit's manifest.

use std::path::PathBuf;

use anyhow::Context as _;
use klto_core::{Input, Storable};
use klto_formats::assembler::{FilesRead, files_read};
use klto_formats::bitcode;

use super::{BitcodeMember, Lowering};

/// What the assembler reads for one object.
pub(super) struct AssemblerFiles {
    /// Role `asm-file`, in the order of the texts.
    pub files: Vec<Input>,
    /// `No` when a text names a file in a way that klto cannot follow.
    pub storable: Storable,
}

impl Lowering<'_> {
    /// The texts' file names: from the manifest if the bitcode is the same, else decoded.
    ///
    /// `None` stands for a directive whose file is not a plain string.
    pub(super) fn assembler_names(
        &self,
        member: &BitcodeMember,
    ) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        if let Some(names) = self.old.assembler_names(&member.path, member.digest) {
            return Ok(names.clone());
        }
        let bytes = fs_err::read(self.link.directory.join(&member.path))?;
        let texts = bitcode::assembly(&bytes)
            .with_context(|| format!("reading the assembler texts of {}", member.path.display()))?;
        let mut names = Vec::new();
        for text in texts {
            match files_read(&text) {
                FilesRead::Literal(literal) => names.extend(literal),
                FilesRead::Unknown => return Ok(None),
            }
        }
        Ok(Some(names))
    }

    /// The files of `member`'s own texts, found as the assembler finds them: from the working
    /// directory, then in each include directory.
    pub(super) fn assembler_files(&self, member: &BitcodeMember) -> anyhow::Result<AssemblerFiles> {
        let mut found = AssemblerFiles {
            files: Vec::new(),
            storable: Storable::Yes,
        };
        let Some(names) = self.assembler_names(member)? else {
            found.storable =
                Storable::No("its assembler text includes a file that klto cannot name".into());
            return Ok(found);
        };
        for name in names {
            use std::os::unix::ffi::OsStringExt as _;
            let name = PathBuf::from(std::ffi::OsString::from_vec(name));
            let directories = &member.flags.include_directories;
            let candidates = std::iter::once(PathBuf::new()).chain(directories.iter().cloned());
            let mut candidates = candidates.map(|directory| directory.join(&name));
            match candidates.find(|path| self.link.directory.join(path).is_file()) {
                Some(path) => {
                    let digest = self.session.memo.digest(&self.link.directory.join(&path))?;
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
}
