//! The bitcode that a compile replaces: it is put back where the new one is the same code.
//!
//! In: an object before and after its compile. Out: the object, new in time. Without this each object that
//! includes a header would be other bitcode after a line was added there, for it notes where inline assembly
//! stands; every backend would run, and write the same. The store gets it too, so that another output tree
//! with the same sources finds its natives.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use klto_formats::bitcode::differ_only_in_assembly_places;

use crate::inputs::is_bitcode_file;
use crate::session::Session;

/// An object and its former bitcode, if it has any.
pub(super) struct Previous {
    object: PathBuf,
    kept: Option<PathBuf>,
}

impl Previous {
    /// Keeps the bitcode at `object`, which has the name `label`.
    pub fn keep(session: &Session, object: &Path, label: &str) -> Self {
        let place = session.scratch.path("previous");
        let place = place.join(label.trim_start_matches('/'));
        let link = || {
            fs_err::create_dir_all(place.parent().unwrap_or(&place))?;
            // A build that was killed may have left one.
            let _ = std::fs::remove_file(&place);
            fs_err::hard_link(object, &place)
        };
        // Whoever writes the object makes a new file. If not, both are the new one, and nothing is put back.
        let is_file = std::fs::symlink_metadata(object).is_ok_and(|metadata| metadata.is_file());
        let kept = is_file && is_bitcode_file(object) && link().is_ok();
        Self {
            object: object.to_owned(),
            kept: kept.then_some(place),
        }
    }

    /// The former bitcode at `object`, for what is made at `new` before make asks. `object` keeps its times,
    /// by which make goes: this is a copy in `place`.
    pub fn copied(object: &Path, new: &Path, place: &Path) -> Self {
        let kept = place.join("previous");
        let is_kept = is_bitcode_file(object) && fs_err::copy(object, &kept).is_ok();
        Self {
            object: new.to_owned(),
            kept: is_kept.then_some(kept),
        }
    }

    /// The object has been made: puts the former one in its place if it is the same code. Whether it was;
    /// what cannot be done costs time.
    pub fn put_back(mut self) -> bool {
        let kept = self.kept.take();
        kept.is_some_and(|kept| {
            let is_back = put_back(&kept, &self.object).unwrap_or(false);
            let _ = std::fs::remove_file(kept);
            is_back
        })
    }
}

impl Drop for Previous {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            let _ = std::fs::remove_file(kept);
        }
    }
}

fn put_back(kept: &Path, object: &Path) -> io::Result<bool> {
    let (old, new) = (fs_err::read(kept)?, fs_err::read(object)?);
    if old == new || !differ_only_in_assembly_places(&old, &new).unwrap_or(false) {
        return Ok(false);
    }
    let file = fs_err::OpenOptions::new().write(true).open(kept)?;
    file.file().set_modified(SystemTime::now())?;
    fs_err::rename(kept, object)?;
    Ok(true)
}
