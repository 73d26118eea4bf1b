//! What is to be made again when nothing has changed but some sources, and which makes have nothing to do then.
//!
//! In: the sources, the journal, the trees before and after the build. Out: targets, makes to leave out; after
//! the build, whether that was right.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::readers::targets_that_read;
use super::{Stock, Watch};
use crate::journal::Journal;
use crate::sub_makes::{LeaveOut, MakeCall};

/// What a build has to make again after some sources have changed.
#[derive(Debug)]
pub(crate) struct Remake {
    /// Targets that read one of the sources, below the output tree.
    pub targets: BTreeSet<PathBuf>,
    /// Those of them that make would take for made, because the source is not newer.
    pub taken_for_made: BTreeSet<PathBuf>,
    /// The makes that have nothing to do, or why none can be told.
    pub leave_out: Result<LeaveOut, String>,
}

impl Watch {
    /// What `sources` have to be made again for, and which makes can be left out: those that are above none of
    /// it. make itself would start each of them, to find nothing to do.
    pub fn remake(&self, sources: &[PathBuf], journal: &Journal) -> io::Result<Remake> {
        let pairs = targets_that_read(&self.roots.output, sources)?;
        let state = self.state.as_ref();
        let unfinished = state.map(|state| &state.unfinished);
        let mut taken_for_made: BTreeSet<PathBuf> =
            unfinished.into_iter().flatten().cloned().collect();
        let mut targets = taken_for_made.clone();
        for (target, source) in &pairs {
            targets.insert(target.clone());
            // Others may be files of the user's.
            let is_known = journal.makes(target).is_some();
            if is_known && self.is_taken_for_made(target, source)? {
                taken_for_made.insert(target.clone());
            }
        }
        let is_recorded = |source: &PathBuf| {
            let is_read = pairs.iter().any(|(_, read)| read == source);
            is_read && source.extension().is_some_and(|end| end == "c")
        };
        let leave_out = match sources.iter().find(|source| !is_recorded(source)) {
            Some(other) => Err(format!("{} may be read anywhere", other.display())),
            None => match self.is_read_otherwise(sources)? {
                Some(why) => Err(why),
                None => self.leave_out(&targets, journal),
            },
        };
        Ok(Remake {
            targets,
            taken_for_made,
            leave_out,
        })
    }

    fn is_taken_for_made(&self, target: &Path, source: &Path) -> io::Result<bool> {
        let source = fs_err::metadata(self.roots.source.join(source))?.modified()?;
        match fs_err::metadata(self.roots.output.join(target)) {
            Ok(target) => Ok(source <= target.modified()?),
            Err(_) => Ok(false),
        }
    }

    /// Why a source may be read by what leaves no record beside a target: a makefile of another directory names
    /// it, or a link leads to it.
    fn is_read_otherwise(&self, sources: &[PathBuf]) -> io::Result<Option<String>> {
        for source in sources {
            let path = self.roots.source.join(source);
            if let Some(link) = path.ancestors().find(|place| self.linked.contains(*place)) {
                let why = format!("a link leads to {}", link.display());
                return Ok(Some(why));
            }
        }
        let names = sources.iter().filter_map(|source| {
            let name = source.file_name()?.as_bytes();
            Some((source.parent()?, Finder::new(name)))
        });
        let names: Vec<_> = names.collect();
        let look = |makefile: &PathBuf| -> io::Result<Option<String>> {
            let text = fs_err::read(makefile)?;
            let place = makefile
                .strip_prefix(&self.roots.source)
                .unwrap_or(makefile);
            let mut names = names.iter();
            let named = names.any(|(directory, name)| {
                place.parent() != Some(directory) && has_word(&text, name)
            });
            Ok(named.then(|| format!("{} names one of the sources", place.display())))
        };
        let found: io::Result<Vec<_>> = self.makefiles.par_iter().map(look).collect();
        Ok(found?.into_iter().flatten().next())
    }

    fn leave_out(
        &self,
        targets: &BTreeSet<PathBuf>,
        journal: &Journal,
    ) -> Result<LeaveOut, String> {
        let known = self.state.as_ref().map(|state| state.makes.clone());
        let known = known.unwrap_or_default();
        let calls: BTreeSet<MakeCall> = known.values().map(|make| make.call).collect();
        let mut needed = BTreeSet::new();
        for target in targets {
            let makes = journal.makes(target).unwrap_or_default();
            if makes.is_empty() || makes.iter().any(|make| !calls.contains(make)) {
                return Err(format!("it is not known what makes {}", target.display()));
            }
            needed.extend(makes);
        }
        Ok(LeaveOut { known, needed })
    }

    /// Removes a target, so that make makes it.
    pub fn remove(&self, target: &Path) -> io::Result<()> {
        match fs_err::remove_file(self.roots.output.join(target)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// A place in the output tree where a build has changed something that makes which were left out may read:
    /// anything but the directories above `targets`, those of modules, and what is made of all directories
    /// together.
    pub fn unexpected(&self, stock: &Stock, targets: &BTreeSet<PathBuf>) -> Option<String> {
        let mut expected: BTreeSet<PathBuf> = BTreeSet::from(["init".into()]);
        let modules = std::fs::read_to_string(self.roots.output.join("modules.order"));
        let modules = modules.unwrap_or_default();
        expected.extend(
            modules
                .lines()
                .filter_map(|module| Some(Path::new(module).parent()?.to_owned())),
        );
        for target in targets {
            expected.extend(target.ancestors().skip(1).map(Path::to_owned));
        }
        let is_expected = |place: &Path| {
            let parts: Vec<&OsStr> = place.iter().take(3).collect();
            let is_of_boot_image =
                matches!(parts[..], [arch, _, boot] if arch == "arch" && boot == "boot");
            is_of_boot_image || place.as_os_str().is_empty() || expected.contains(place)
        };
        let now = &stock.0.facts;
        let names = self.facts.keys().chain(now.keys());
        let mut places = names.filter_map(|name| {
            let place = name.strip_prefix("output ")?;
            (self.facts.get(name) != now.get(name)).then_some(place)
        });
        places
            .find(|place| !is_expected(Path::new(place)))
            .map(str::to_owned)
    }
}

/// Whether a text has this name of a file, and not only as the end of another.
fn has_word(text: &[u8], name: &Finder<'_>) -> bool {
    name.find_iter(text).any(|place| {
        let before = place.checked_sub(1).and_then(|before| text.get(before));
        let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !before.is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_makefile_names_a_file_by_its_whole_name() {
        let has = |text: &str| has_word(text.as_bytes(), &Finder::new("a.c"));
        assert!(has("$(shell grep -q x $(srctree)/fs/a.c)"));
        assert!(has("a.c"));
        assert!(!has("gen_a.c"));
    }
}
