//! Files outside of both trees that a build read or could have read.
//!
//! In: kbuild's records and makefiles, after a build. Out: files with their stamps.

use std::io;
use std::path::{Path, PathBuf};

use super::named::{NamedElsewhere, named_elsewhere};
use super::readers::read_elsewhere;
use super::trees::{Roots, of_file};
use super::{TICK, Watch};
use crate::compile::last_change;
use crate::session::{Session, lock};

/// What is known of files after a build.
pub(super) enum FilesElsewhere {
    Known(Vec<(PathBuf, [u8; 32])>),
    /// This one changed during the build: nobody knows which of the two was read.
    Changed(PathBuf),
}

impl Watch {
    /// Files outside of both trees that count for the next build.
    pub(super) fn files_elsewhere(&self, session: &Session) -> io::Result<FilesElsewhere> {
        let Roots { source, output, .. } = &self.roots;
        // With the same makefiles and variables.
        let state = self
            .state
            .as_ref()
            .filter(|_| self.changed_sources().is_ok());
        let mut files = read_elsewhere(source, output, state.map(|_| self.begun))?;
        match state {
            Some(state) => files.extend(state.elsewhere.iter().map(|(file, _)| file.clone())),
            None => {
                let NamedElsewhere { included, named } =
                    named_elsewhere(&self.roots, &self.makefiles, &self.variables);
                files.extend(included);
                // What the build itself has written is not read.
                let named = named.into_iter();
                files.extend(named.filter(|file| !self.may_have_changed(file)));
            }
        }
        files.extend(self.read_by_assembler(session));
        if let Some(changed) = files.iter().find(|file| self.may_have_changed(file)) {
            return Ok(FilesElsewhere::Changed(changed.clone()));
        }
        let stamped = files.into_iter().map(|file| {
            let stamp = of_file(&file);
            (file, stamp)
        });
        Ok(FilesElsewhere::Known(stamped.collect()))
    }

    /// Files outside of both trees that the assembler read for objects.
    fn read_by_assembler(&self, session: &Session) -> Vec<PathBuf> {
        let journal = lock(&session.journal);
        let files = journal.assembler_files().values().flatten();
        let files = files.map(|(file, _)| file);
        let elsewhere = files.filter(|file| self.roots.is_elsewhere(file));
        elsewhere.cloned().collect()
    }

    /// Whether a file may have changed since the build began.
    fn may_have_changed(&self, file: &Path) -> bool {
        let changed = std::fs::metadata(file).and_then(|metadata| last_change(&metadata));
        changed.is_ok_and(|changed| changed + TICK > self.begun)
    }
}
