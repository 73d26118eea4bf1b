//! What is to be made again when nothing has changed but some sources, and which makes have nothing to do then.
//!
//! In: the sources, the journal, the trees before and after the build. Out: targets, makes to leave out; after
//! the build, whether that was right.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

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
            if self.is_taken_for_made(target, source)? {
                taken_for_made.insert(target.clone());
            }
        }
        let leave_out = match sources.iter().find(|source| {
            source.extension().is_none_or(|end| end != "c")
                || pairs.iter().all(|(_, read)| read != *source)
        }) {
            Some(other) => Err(format!("{} may be read anywhere", other.display())),
            None => self.leave_out(&targets, journal),
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
        let names = self.facts.keys().chain(stock.facts.keys());
        let mut places = names.filter_map(|name| {
            let place = name.strip_prefix("output ")?;
            (self.facts.get(name) != stock.facts.get(name)).then_some(place)
        });
        places
            .find(|place| !is_expected(Path::new(place)))
            .map(str::to_owned)
    }
}
