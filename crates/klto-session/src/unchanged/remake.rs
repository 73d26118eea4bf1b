//! What is to be made again when nothing has changed but some sources, and which makes have nothing to do
//! then.
//!
//! In: the sources, the journal, the trees before and after the build. Out: targets, makes to leave out;
//! after the build, whether that was right.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use klto_core::normalize;
use klto_kbuild::compile::CompileCall;
use klto_kbuild::is_made_with_vmlinux;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::makefiles::{Makefiles, may_list, names};
use super::readers::targets_that_read;
use super::{Stock, Watch};
use crate::journal::{CompileRecord, Journal};
use crate::old_time::make_old;
use crate::session::lock;
use crate::sub_makes::{KeptFile, LeaveOut, MakeCall};

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
    /// What `sources` have to be made again for, and what a build has left unfinished.
    pub fn targets(&self, sources: &[PathBuf]) -> io::Result<BTreeSet<PathBuf>> {
        let pairs = targets_that_read(&self.roots.output, sources)?;
        let unfinished = self.state.iter().flat_map(|state| &state.unfinished);
        let targets = pairs.into_iter().map(|(target, _)| target);
        Ok(targets.chain(unfinished.cloned()).collect())
    }

    /// What `sources` have to be made again for, and which makes can be left out: those that are above none
    /// of it. make itself would start each of them, to find nothing to do.
    pub fn remake(&self, sources: &[PathBuf], journal: &Mutex<Journal>) -> io::Result<Remake> {
        let pairs = targets_that_read(&self.roots.output, sources)?;
        let is_recorded = |source: &PathBuf| {
            let is_read = pairs.iter().any(|(_, read)| read == source);
            is_read && source.extension().is_some_and(|end| end == "c")
        };
        let read_anywhere = match sources.iter().find(|source| !is_recorded(source)) {
            Some(other) => Some(format!("{} may be read anywhere", other.display())),
            None => match self.is_read_otherwise(sources, Makefiles::OtherDirectories)? {
                None => self.is_listed_twice(&pairs),
                why => why,
            },
        };
        let state = self.state.iter();
        let unfinished = state.flat_map(|state| &state.unfinished);
        let mut taken_for_made: BTreeSet<PathBuf> = unfinished.cloned().collect();
        let mut targets = taken_for_made.clone();
        for (target, source) in &pairs {
            targets.insert(target.clone());
            if self.is_taken_for_made(target, source)? {
                taken_for_made.insert(target.clone());
            }
        }
        let leave_out = match read_anywhere {
            Some(why) => Err(why),
            None => {
                let without_tools = !self.is_read_by_tools(sources)?;
                // Not before: whatever make calls needs the journal too.
                self.leave_out(&targets, &lock(journal), without_tools)
            }
        };
        Ok(Remake {
            targets,
            taken_for_made,
            leave_out,
        })
    }

    /// Objects that compiles of the last complete build made of these sources.
    pub fn compiled_from(
        &self,
        sources: &[PathBuf],
        journal: &Mutex<Journal>,
    ) -> BTreeSet<PathBuf> {
        let calls = self.known_calls();
        let journal = lock(journal);
        let compiles = sources.iter().flat_map(|source| {
            let path = self.roots.source.join(source);
            let is_of_source = move |record: &CompileRecord| {
                // By its name first: few records are to be read as calls.
                let name = path.file_name().unwrap_or_default();
                let mut words = record.arguments.iter().rev();
                words.any(|word| word.as_bytes().ends_with(name.as_bytes()))
                    && CompileCall::parse(&record.arguments)
                        .is_some_and(|call| normalize(&record.directory.join(call.source)) == path)
            };
            let compiles = journal.compiles();
            compiles.filter(move |(_, record)| is_of_source(record))
        });
        let is_made = |object: &Path| {
            let makes = journal.makes(object).unwrap_or_default();
            !makes.is_empty() && makes.iter().all(|make| calls.contains(make))
        };
        let objects = compiles.map(|(object, _)| object);
        let made = objects.filter(|object| is_made(object));
        made.map(Path::to_owned).collect()
    }

    /// How the makes of the last complete build were called.
    fn known_calls(&self) -> BTreeSet<MakeCall> {
        let makes = self.state.iter().flat_map(|state| state.makes.values());
        makes.map(|make| make.call).collect()
    }

    fn is_taken_for_made(&self, target: &Path, source: &Path) -> io::Result<bool> {
        let source = fs_err::metadata(self.roots.source.join(source))?.modified()?;
        match fs_err::metadata(self.roots.output.join(target)) {
            Ok(target) => Ok(source <= target.modified()?),
            Err(_) => Ok(false),
        }
    }

    /// Why a source may be read by what leaves no record beside a target: a makefile names it, or a link
    /// leads to it.
    pub(super) fn is_read_otherwise(
        &self,
        sources: &[PathBuf],
        makefiles: Makefiles,
    ) -> io::Result<Option<String>> {
        for source in sources {
            let path = self.roots.source.join(source);
            if let Some(link) = path.ancestors().find(|place| self.linked.contains(*place)) {
                let why = format!("a link leads to {}", link.display());
                return Ok(Some(why));
            }
        }
        let look = |makefile: &PathBuf| -> io::Result<Option<String>> {
            let place = makefile.strip_prefix(&self.roots.source);
            let place = place.unwrap_or(makefile);
            if !makefiles.includes(place) {
                return Ok(None);
            }
            let text = match fs_err::read(makefile) {
                Ok(text) => text,
                // A link that leads nowhere, which is not read by make either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Ok(Some(error.to_string())),
            };
            let mut sources = sources.iter();
            let named = sources.find(|source| names(&text, place, source, makefiles));
            Ok(named.map(|source| format!("{} names {}", place.display(), source.display())))
        };
        let found: io::Result<Vec<_>> = self.makefiles.par_iter().map(look).collect();
        Ok(found?.into_iter().flatten().next())
    }

    /// Why a make of another directory may link what is made: its makefile lists it, and so may that of the
    /// target's own directory, or a third one.
    fn is_listed_twice(&self, pairs: &BTreeSet<(PathBuf, PathBuf)>) -> Option<String> {
        let targets: BTreeSet<&PathBuf> = pairs.iter().map(|(target, _)| target).collect();
        let others = Makefiles::OtherDirectories;
        let lists = |makefile: &PathBuf| -> Vec<(&Path, PathBuf)> {
            let place = makefile.strip_prefix(&self.roots.source);
            let place = place.unwrap_or(makefile);
            let text = match others.includes(place) {
                true => std::fs::read(makefile).unwrap_or_default(),
                false => return Vec::new(),
            };
            let targets = targets.iter();
            let listed = targets.filter(|target| names(&text, place, target, others));
            listed
                .map(|target| (target.as_path(), place.to_owned()))
                .collect()
        };
        let mut listed: Vec<_> = self.makefiles.par_iter().flat_map_iter(lists).collect();
        listed.sort();
        let has_own = |target: &Path| {
            let directory = self.roots.source.join(target.parent().unwrap_or(target));
            let makefiles = ["Kbuild", "Makefile"].map(|name| directory.join(name));
            let texts = makefiles.iter().filter_map(|file| std::fs::read(file).ok());
            texts.into_iter().any(|text| may_list(&text, target))
        };
        let count = |target: &Path| listed.iter().filter(|(other, _)| *other == target).count();
        let twice = listed
            .iter()
            .find(|(target, _)| has_own(target) || count(target) > 1);
        let why = |(target, makefile): &(&Path, PathBuf)| {
            format!("{} lists {}", makefile.display(), target.display())
        };
        twice.map(why)
    }

    /// Whether a make of tools looks at a source: it is one of theirs, which the kernel includes
    /// (kernel/bpf/btf_iter.c), their makefile names it, or compares the tools' copy with it
    /// (tools/objtool/sync-check.sh).
    fn is_read_by_tools(&self, sources: &[PathBuf]) -> io::Result<bool> {
        let tools = self.roots.source.join("tools");
        let mut all = sources.iter();
        let is_copied =
            all.any(|source| source.starts_with("tools") || tools.join(source).exists());
        Ok(is_copied || self.is_read_otherwise(sources, Makefiles::Tools)?.is_some())
    }

    fn leave_out(
        &self,
        targets: &BTreeSet<PathBuf>,
        journal: &Journal,
        without_tools: bool,
    ) -> Result<LeaveOut, String> {
        let known = self.state.as_ref().map(|state| state.makes.clone());
        let known = known.unwrap_or_default();
        let calls = self.known_calls();
        let is_module_part = |target: &PathBuf| {
            let record = journal.compile(target);
            let call = record.and_then(|record| CompileCall::parse(&record.arguments));
            call.is_some_and(|call| call.module_part)
        };
        let mut needed = BTreeSet::new();
        for target in targets {
            let makes = journal.makes(target).unwrap_or_default();
            if makes.is_empty() || makes.iter().any(|make| !calls.contains(make)) {
                return Err(format!("it is not known what makes {}", target.display()));
            }
            needed.extend(makes);
        }
        // A build that failed may have linked it, and then made no boot image of it. What is no part of a
        // module may be in the boot image without vmlinux, as the stub for EFI.
        let is_kept = !self.is_unfinished() && targets.iter().all(is_module_part);
        let vmlinux = self.roots.output.join("vmlinux");
        let vmlinux = is_kept.then(|| KeptFile::now(vmlinux));
        Ok(LeaveOut {
            known,
            needed,
            vmlinux,
            without_tools,
        })
    }

    /// Makes a target older than every source, so that make makes it; what a user may have put there stays.
    pub fn make_old(&self, target: &Path) -> io::Result<()> {
        match make_old(&self.roots.output.join(target)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            made_old => made_old,
        }
    }

    /// A place in the output tree where a build has changed something that makes which were left out may
    /// read: anything but the directories above `targets`, those of modules, and what is made of all
    /// directories together.
    pub fn unexpected(&self, stock: &Stock, targets: &BTreeSet<PathBuf>) -> Option<String> {
        let mut expected: BTreeSet<PathBuf> = BTreeSet::new();
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
            is_made_with_vmlinux(place) || place.as_os_str().is_empty() || expected.contains(place)
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
