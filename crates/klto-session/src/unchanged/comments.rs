//! When nothing but comments and blanks of sources has changed, and nothing shows them, make has nothing to
//! do. It would not know: it goes by times. So all that was made becomes newer than those sources, in the
//! order in which it was made; what has equal times keeps them equal.
//!
//! In: the trees before a build. Out: new times, and the state for the next build. What comments are is in
//! `klto-formats/src/c_source.rs`.
//!
//! What make would make again, if it were asked for it, keeps its time: a build of other goals, or with other
//! options, may have left that behind. So do files of which nobody knows what they are made of, and what is older
//! than one of them and is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use klto_store::StatMemo;

use super::makefiles::Makefiles;
use super::readers::{
    Written, WrittenFiles, is_on_demand, older_targets, targets_that_read,
    why_more_than_tokens_show,
};
use super::trees::{Change, ChangedSource};
use super::{State, TICK, Watch};
use crate::archives::record_beside;
use crate::compile::Sources;
use crate::scratch::SCRATCH_NAME;

/// Directories of the output tree with makes of their own, which may have built more than kbuild asks for:
/// what is there is an input of the kernel's build, and stays older.
const WITH_OWN_MAKES: [&str; 2] = ["tools", "Documentation"];

/// Files of the output tree that remake objects and that their records need not name (5.10, scripts/Makefile.build).
const PREREQUISITES_OF_OBJECTS: [&str; 3] = [
    "tools/objtool/objtool",
    "include/config/orc/unwinder.h",
    "include/config/stack/validation.h",
];

impl Watch {
    /// Why comments and blanks of these sources may show in what is made of them, or cannot be told from the
    /// rest.
    pub(super) fn why_comments_count(&self, sources: &[PathBuf]) -> Option<String> {
        if self.is_unfinished() || !self.ahead.is_empty() {
            return Some("the last build is not as make left it".to_owned());
        }
        if let Some(why) = self.checks_comments {
            return Some(why.to_owned());
        }
        let mut readers = sources.iter();
        let reader = readers.find_map(|source| self.config.reader_of_comments(source));
        if let Some(option) = reader {
            return Some(format!("CONFIG_{option} reads them"));
        }
        if self.config.is_set("LOCALVERSION_AUTO") && !self.keeps_version() {
            return Some("the version says whether a source has changed".to_owned());
        }
        let makefile = self.is_read_otherwise(sources, Makefiles::Kernel);
        let found = makefile.and_then(|found| match found {
            None => why_more_than_tokens_show(&self.roots.output, sources),
            some => Ok(some),
        });
        found.unwrap_or_else(|error| Some(error.to_string()))
    }

    /// Whether the kernel's version stays what it is: without git, or where it says `-dirty` and still would
    /// (scripts/setlocalversion).
    fn keeps_version(&self) -> bool {
        let repositories = [".git", ".hg", ".svn"].map(|name| self.roots.source.join(name));
        if !repositories.iter().any(|place| place.exists()) {
            return true;
        }
        let release = self.roots.output.join("include/config/kernel.release");
        let was_dirty = fs_err::read_to_string(release).is_ok_and(|text| text.contains("-dirty"));
        let mut git = Command::new("git");
        git.args(["--no-optional-locks", "status", "-uno", "--porcelain"])
            .current_dir(&self.roots.source);
        let status = klto_core::die_with_parent(&mut git).output();
        was_dirty && status.is_ok_and(|status| !status.stdout.is_empty())
    }

    /// Makes all that was made newer than the sources that have changed, and writes down that nothing is to
    /// do.
    ///
    /// # Errors
    ///
    /// Why that cannot be done; make finds things to do then, though they were made already.
    pub fn make_outputs_newer(mut self, memo: &StatMemo) -> Result<(), String> {
        let changed = self.changed_sources()?;
        if changed
            .iter()
            .any(|source| source.change == Change::Content)
        {
            return Err("a source is being changed".to_owned());
        }
        let unread = |error: io::Error| error.to_string();
        let sources = Sources::default();
        let mut latest = SystemTime::UNIX_EPOCH;
        for source in &changed {
            let path = self.roots.source.join(&source.file);
            // Read here, so that the stock below knows its essence.
            sources.get(&path, memo).map_err(unread)?;
            let modified = fs_err::metadata(&path).and_then(|metadata| metadata.modified());
            latest = latest.max(modified.map_err(unread)?);
        }
        let mut made = Made::find(&self.roots.source, &self.roots.output).map_err(unread)?;
        made.of_others.extend(self.files_elsewhere_by_time());
        let Some(oldest) = made.renewable.keys().next() else {
            return Err("nothing was made".to_owned());
        };
        let written = written(&self.roots.source, &changed, *oldest).map_err(unread)?;
        let files: Vec<PathBuf> = changed.into_iter().map(|source| source.file).collect();
        let read = targets_that_read(&self.roots.output, &files).map_err(unread)?;
        let readers = read.into_iter().map(|(target, _)| target).collect();
        let made = up_to_date(&self.roots.output, made, written, &readers).map_err(unread)?;
        // What is written from now on has a later time, by the argument at `StatMemo`.
        let until = self.begun.checked_sub(TICK).unwrap_or(self.begun);
        renew(&made, latest, until)?;
        std::thread::sleep(TICK);
        let stock = self.look_again(memo, &sources).map_err(unread)?;
        if self.is_changed_since(&stock) {
            return Err("the source tree or the configuration is being changed".to_owned());
        }
        let state = self.state.take().unwrap_or_default();
        self.facts.extend(stock.0.facts);
        let state = State {
            facts: self.facts,
            contents: stock.0.contents,
            ..state
        };
        state.write(&self.file).map_err(unread)
    }

    /// Files outside of both trees that were read, with their times.
    fn files_elsewhere_by_time(&self) -> Vec<(SystemTime, PathBuf)> {
        let state = self.state.iter();
        let files = state.flat_map(|state| &state.elsewhere);
        let known = files.filter_map(|(file, _)| {
            let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
            Some((modified.ok()?, std::fs::canonicalize(file).ok()?))
        });
        known.collect()
    }
}

/// What gets new times, where `readers` are the targets that read a source that has changed: these, and all that was
/// made after the first of them. But not what is older than a file that keeps its time and that its record names; nor,
/// of what has no record, all that is older than any source or any file of others.
fn up_to_date(
    output: &Path,
    made: Made,
    mut written: WrittenFiles,
    readers: &BTreeSet<PathBuf>,
) -> io::Result<ByTime> {
    let Made {
        mut renewable,
        mut kept,
        of_others,
    } = made;
    let below = |file: &Path| file.strip_prefix(output).unwrap_or(file).to_owned();
    let reads = |files: &Vec<PathBuf>| files.iter().any(|file| readers.contains(&below(file)));
    let first = renewable.iter().find(|(_, files)| reads(files));
    let first = first.map(|(time, _)| *time);
    let unnamed = PREREQUISITES_OF_OBJECTS.iter().filter_map(|file| {
        let metadata = std::fs::metadata(output.join(file)).ok()?;
        metadata.modified().ok()
    });
    let unnamed = unnamed.max();
    let sources = written.values().flatten().map(|file| file.time);
    let last = sources.chain(of_others.iter().map(|(time, _)| *time)).max();
    kept.extend(of_others);
    kept.extend(take(&mut renewable, |time, file| {
        let is_object = || file.extension().is_some_and(|extension| extension == "o");
        Some(time) < first
            || Some(time) < unnamed && is_object()
            || Some(time) <= last && !record_beside(file).exists()
    }));
    while let Some(oldest) = renewable.keys().next().copied() {
        for (time, path) in kept {
            let name = path.file_name().unwrap_or_default().to_owned();
            let file = Written {
                path,
                ending: None,
                time,
            };
            written.entry(name).or_default().push(file);
        }
        written.retain(|_, files| {
            files.retain(|file| file.time > oldest);
            !files.is_empty()
        });
        if written.is_empty() {
            break;
        }
        let older = older_targets(output, &written)?;
        kept = take(&mut renewable, |_, file| older.contains(&below(file)));
        // What is older than one of these is taken.
        written.clear();
    }
    Ok(renewable)
}

/// Files by the time at which they were made.
type ByTime = BTreeMap<SystemTime, Vec<PathBuf>>;

/// Takes those files out of `files` of which `is_taken` says so.
fn take(
    files: &mut ByTime,
    is_taken: impl Fn(SystemTime, &Path) -> bool,
) -> Vec<(SystemTime, PathBuf)> {
    let mut taken = Vec::new();
    for (time, files) in files.iter_mut() {
        let of_time = files.extract_if(.., |file| is_taken(*time, file));
        taken.extend(of_time.map(|file| (*time, file)));
    }
    files.retain(|_, files| !files.is_empty());
    taken
}

/// The files of the output tree, without what kbuild notes of targets and what is made only when a user asks for it.
#[derive(Debug, Default)]
struct Made {
    /// What builds of the kernel have made: of the root, where a user's files are too, what has a record, and all
    /// below directories that the source tree has.
    renewable: ByTime,
    /// The rest of the root.
    kept: Vec<(SystemTime, PathBuf)>,
    /// What has a make of its own, and files elsewhere.
    of_others: Vec<(SystemTime, PathBuf)>,
}

impl Made {
    /// Without other output trees, and directories that the source tree does not have.
    fn find(source: &Path, output: &Path) -> io::Result<Self> {
        let mut made = Self::default();
        let mut directories = vec![(output.to_owned(), false)];
        while let Some((directory, has_own_make)) = directories.pop() {
            let is_root = directory == output;
            let entries: Vec<_> = fs_err::read_dir(&directory)?.collect::<Result<_, _>>()?;
            let is_tree = |entry: &fs_err::DirEntry| {
                let name = entry.file_name();
                name == ".config" || name == SCRATCH_NAME
            };
            if !is_root && entries.iter().any(is_tree) {
                continue;
            }
            for entry in entries {
                let (path, kind, name) = (entry.path(), entry.file_type()?, entry.file_name());
                if kind.is_dir() {
                    if !is_root || source.join(&name).is_dir() {
                        let is_other = WITH_OWN_MAKES.iter().any(|other| name == *other);
                        directories.push((path, has_own_make || is_root && is_other));
                    }
                    continue;
                }
                let bytes = name.as_encoded_bytes();
                // With genksyms a dependency file stays, and is newer than its object.
                let is_note = bytes.starts_with(b".")
                    && [&b".cmd"[..], b".d"].iter().any(|end| bytes.ends_with(end));
                if !kind.is_file() || is_note || is_on_demand(&directory, bytes) {
                    continue;
                }
                let modified = entry.metadata()?.modified()?;
                match is_root && !record_beside(&path).exists() {
                    _ if has_own_make => made.of_others.push((modified, path)),
                    true => made.kept.push((modified, path)),
                    false => made.renewable.entry(modified).or_default().push(path),
                }
            }
        }
        Ok(made)
    }
}

/// The files of the source tree that are newer than `oldest`, those that have changed with the time that they
/// had before.
fn written(
    source: &Path,
    changed: &BTreeSet<ChangedSource>,
    oldest: SystemTime,
) -> io::Result<WrittenFiles> {
    let mut written = WrittenFiles::new();
    let mut note = |path: &Path, time| {
        if let (true, Some(name)) = (time > oldest, path.file_name()) {
            let of_name = written.entry(name.to_owned()).or_default();
            of_name.push(Written {
                path: source.join(path),
                ending: Some(path.to_owned()),
                time,
            });
        }
    };
    // make goes by the time of what a link leads to.
    let now = |path: &Path| {
        let own = fs_err::symlink_metadata(path)?.modified()?;
        let target = std::fs::metadata(path).and_then(|found| found.modified());
        io::Result::Ok(target.map_or(own, |target| target.max(own)))
    };
    let names: BTreeSet<&Path> = changed.iter().map(|one| one.file.as_path()).collect();
    for one in changed {
        let before = one.before.map_or_else(|| now(&source.join(&one.file)), Ok);
        note(&one.file, before?);
    }
    let mut directories = vec![source.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory)? {
            let (path, kind) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?)
            };
            let is_git = || path.file_name().is_some_and(|name| name == ".git");
            if kind.is_dir() {
                if !is_git() && !path.join(SCRATCH_NAME).exists() {
                    directories.push(path);
                }
                continue;
            }
            let below = path.strip_prefix(source).unwrap_or(&path);
            if !names.contains(below) {
                note(below, now(&path)?);
            }
        }
    }
    Ok(written)
}

/// Gives the files times that are later than all that they have, and than `after`, and not later than
/// `until`, in the order of the times that they have. The last ones come first: when this is interrupted,
/// what has new times is what was newest.
fn renew(made: &ByTime, after: SystemTime, until: SystemTime) -> Result<(), String> {
    let newest = made.keys().next_back().copied();
    let after = newest.map_or(after, |newest| newest.max(after));
    let room = until.duration_since(after).unwrap_or_default();
    let count = u32::try_from(made.len()).unwrap_or(u32::MAX);
    let step = (room / count.saturating_add(1)).min(Duration::from_micros(1));
    if step.is_zero() {
        return Err("the sources were changed this very moment".to_owned());
    }
    let ranked = made.values().zip(1u32..).collect::<Vec<_>>();
    for (files, rank) in ranked.into_iter().rev() {
        for file in files {
            let set = |file: fs_err::File| file.file().set_modified(after + step * rank);
            let opened = fs_err::File::open(file).and_then(set);
            opened.map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_made_becomes_newer_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let (source, output) = (
            directory.path().join("source"),
            directory.path().join("output"),
        );
        for name in ["init", "tools"] {
            fs_err::create_dir_all(source.join(name)).unwrap();
        }
        let files = [
            (".config", 1),
            (".vmlinux.cmd", 9),
            ("init/main.o", 5),
            ("init/version.o", 5),
            ("init/built-in.a", 7),
            ("vmlinux", 9),
            ("other/x.o", 5),
            ("init/tree/.config", 5),
            ("init/tree/x.o", 5),
            ("init/.main.o.cmd", 5),
            ("init/main.i", 5),
            ("tools/x", 5),
        ];
        for (file, time) in files {
            let path = output.join(file);
            klto_core::publish(&path, b"").unwrap();
            fs_err::File::open(path)
                .unwrap()
                .file()
                .set_modified(at(time))
                .unwrap();
        }
        let found = || Made::find(&source, &output).unwrap();
        renew(&found().renewable, at(100), at(200)).unwrap();
        let time = |file: &str| {
            fs_err::metadata(output.join(file))
                .unwrap()
                .modified()
                .unwrap()
        };
        for (file, before) in files {
            let is_kept = time(file) == at(before);
            let is_users =
                file.contains(".cmd") || file.contains(".config") || file.contains("tree");
            let is_no_target = ["other/x.o", "init/main.i", "tools/x"].contains(&file);
            assert_eq!(is_kept, is_users || is_no_target, "{file}");
        }
        assert!(at(100) < time("init/main.o") && time("vmlinux") < at(200));
        assert_eq!(time("init/main.o"), time("init/version.o"));
        assert!(time("init/main.o") < time("init/built-in.a"));
        assert!(time("init/built-in.a") < time("vmlinux"));
        // Never back in time.
        let again = found().renewable;
        assert!(renew(&again, at(200), at(200)).is_err());
        renew(&again, at(1), at(200)).unwrap();
        assert!(at(100) < time("init/main.o"));
    }

    #[test]
    fn sources_that_changed_have_the_time_that_they_had() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path();
        for (name, time) in [("a.h", 50), ("b.h", 50), ("old.h", 5)] {
            klto_core::publish(&source.join(name), b"").unwrap();
            let file = fs_err::File::open(source.join(name)).unwrap();
            file.file().set_modified(at(time)).unwrap();
        }
        let changed = BTreeSet::from([ChangedSource {
            file: "a.h".into(),
            change: Change::Comments,
            before: Some(at(20)),
        }]);
        let found = written(source, &changed, at(10)).unwrap();
        let of = |name: &str, time| {
            let file = Written {
                path: source.join(name),
                ending: Some(name.into()),
                time: at(time),
            };
            (name.into(), vec![file])
        };
        assert_eq!(found, WrittenFiles::from([of("a.h", 20), of("b.h", 50)]));
    }

    #[test]
    fn what_was_left_behind_stays_older_than_what_it_is_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs_err::canonicalize(directory.path()).unwrap();
        let (source, output) = (root.join("source"), root.join("output"));
        for name in ["fs", "include", "tools"] {
            fs_err::create_dir_all(source.join(name)).unwrap();
        }
        let header = root.join("sdk/reg.h");
        let config = "  $(wildcard include/config/FOO) \\\n";
        for (file, time, record) in [
            ("include/config/FOO", 20, None),
            ("include/generated/x.h", 45, None),
            ("tools/objtool/objtool", 15, None),
            ("Module.symvers", 50, None),
            // What was made before all that read a source that has changed.
            ("fs/before.h", 12, Some(String::new())),
            ("fs/table.h", 16, Some(String::new())),
            ("fs/checked.o", 14, Some(String::new())),
            ("fs/left.o", 19, Some(config.to_owned())),
            ("fs/left.ko", 18, Some("cmd := ld fs/left.o\n".to_owned())),
            ("fs/sdk.o", 22, Some(format!("  {} \\\n", header.display()))),
            ("fs/new.o", 40, Some(config.to_owned())),
            ("fs/new.ko", 41, Some("cmd := ld fs/new.o\n".to_owned())),
        ] {
            let path = output.join(file);
            klto_core::publish(&path, b"").unwrap();
            let opened = fs_err::File::open(&path).unwrap();
            opened.file().set_modified(at(time)).unwrap();
            if let Some(record) = record {
                klto_core::publish(&record_beside(&path), record.as_bytes()).unwrap();
            }
        }
        let mut made = Made::find(&source, &output).unwrap();
        made.of_others.push((at(24), header));
        let readers = BTreeSet::from(["fs/checked.o".into(), "fs/new.o".into()]);
        let renewed = up_to_date(&output, made, WrittenFiles::new(), &readers).unwrap();
        let expected = [
            ("fs/table.h", 16),
            ("fs/new.o", 40),
            ("fs/new.ko", 41),
            ("include/generated/x.h", 45),
        ];
        let expected = expected.map(|(file, time)| (at(time), vec![output.join(file)]));
        assert_eq!(renewed, ByTime::from(expected));
    }
}
