//! Archives of kbuild's directories: one whose members are what they were keeps its time, so that make links
//! nothing again for an edit that changes no code.
//!
//! In: calls of the archiver. Out: the archive as the tool makes it; with the time of the one before, where
//! everything that a link takes of its members is the same: their bytes, what klto's backends and steps make
//! natives of, and kbuild's own records beside each (`.cmd`, `.symversions`), in which newer trees keep the
//! symbol versions.
//!
//! The time says when the content was last new. Whatever was linked after it has that content: so the time
//! of the archive before counts only if klto made that archive and nobody else has replaced it since, and
//! not for one that this build makes a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use klto_core::{Digest, Failure, KeyBuilder, Storable};
use klto_formats::archive;
use klto_wire::{Finished, Reply, Request};
use serde::{Deserialize, Serialize};

use crate::archiver::{self, Answered};
use crate::inputs::is_bitcode_file;
use crate::journal::Journal;
use crate::session::{
    Answer, Run, Session, as_called, ended, lock, printed_by_tool, tool_environment,
};
use crate::unchanged::stamp;

/// An archive as klto left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Digest of all that a link takes of it.
    pub content: [u8; 32],
    /// Since when it has that content.
    pub since: SystemTime,
    /// Digest of the archive's own stat.
    pub stamp: [u8; 32],
}

/// The archives of one build.
#[derive(Debug, Default)]
pub(crate) struct Archives {
    /// Those that were there when make began, as klto had left them.
    before: Mutex<BTreeMap<PathBuf, ArchiveRecord>>,
    /// Those that this build has begun.
    begun: Mutex<BTreeSet<PathBuf>>,
}

impl Archives {
    /// make begins: archives in `output` that are as their records say count.
    pub fn begin(&self, journal: &Journal, output: &Path) {
        let records = journal.archives().iter();
        let is_as_left =
            |(path, record): &(&PathBuf, &ArchiveRecord)| stamp(&output.join(path)) == record.stamp;
        let as_left = records.filter(is_as_left);
        *lock(&self.before) = as_left
            .map(|(path, record)| (path.clone(), record.clone()))
            .collect();
        lock(&self.begun).clear();
    }
}

impl Archives {
    /// A build makes an archive, or changes it. Whether its record is kept: one of archives alone is made only
    /// when one of those is new, and there is nothing to compare.
    fn begin_one(&self, name: &Path, is_of_archives: bool, is_new: bool) -> bool {
        let mut begun = lock(&self.begun);
        let is_known = begun.contains(name);
        if is_new == is_known {
            // A link may have taken the one that this build made first, or one that it changes now.
            lock(&self.before).remove(name);
        }
        let keeps_record = !is_of_archives && (is_new || is_known);
        if keeps_record {
            begun.insert(name.to_owned());
        }
        keeps_record
    }
}

impl Session {
    /// Where a result is to be checked, fails unless the archiver lists the same members.
    fn check_list(&self, request: &Request, list: &[u8]) -> anyhow::Result<()> {
        let digest = Digest::of_bytes(list);
        if !self.engine.is_chosen_for_verification(digest) {
            return Ok(());
        }
        if printed_by_tool(request)? != list {
            let what = format!(
                "klto lists other members than {}",
                request.program.display()
            );
            return Err(Failure::bug(what).into());
        }
        self.log.line("checked list of members");
        Ok(())
    }

    /// Answers a call of the archiver.
    pub(crate) fn archiver(&self, request: Request) -> anyhow::Result<Answer> {
        let own = archiver::answered(&request.arguments, &request.directory);
        let Some((archive, is_of_archives)) = archive_of(&request) else {
            let Some(Answered::List(list)) = own else {
                return Ok(as_called(request));
            };
            self.check_list(&request, &list)?;
            return Ok(Answer::Reply(Reply::prints(list)));
        };
        let own = own.and_then(|answered| match answered {
            Answered::Archive(bytes) => Some(bytes),
            Answered::List(_) => None,
        });
        let name = self.scratch.object_name(&request.directory, &archive);
        let shown = name.display().to_string();
        let place = request.directory.join(&archive);
        let keeps_record = self
            .archives
            .begin_one(&name, is_of_archives, !place.exists());
        let settle = move |session: &Session, request: &Request| {
            if keeps_record && let Err(error) = session.settle_archive(request, &archive, &name) {
                // It has its new time, and no record.
                let name = name.display();
                let line = format!("warning archive {name}: {error:#}");
                session.log.line(&line);
            }
        };
        match own {
            Some(bytes)
                if !self
                    .engine
                    .is_chosen_for_verification(Digest::of_bytes(&bytes)) =>
            {
                klto_core::publish(&place, &bytes)?;
                settle(self, &request);
                return Ok(ended(0));
            }
            None if !keeps_record => return Ok(as_called(request)),
            _ => {}
        }
        let run = Run::with_arguments(&request, request.arguments.clone());
        let is_checked = own.is_some();
        let next = move |session: &Session, finished: Finished| {
            if finished.code != 0 {
                return Ok(ended(finished.code));
            }
            if let Some(own) = own
                && fs_err::read(&place)? != own
            {
                let what = format!("klto makes another {} than the archiver", place.display());
                return Err(Failure::bug(what).into());
            }
            if is_checked {
                session.log.line(&format!("checked archive {shown}"));
            }
            settle(session, &request);
            Ok(ended(0))
        };
        Ok(Answer::Then {
            run,
            next: Box::new(next),
        })
    }

    /// An archive has been made: it gets its time, and its record.
    fn settle_archive(&self, request: &Request, archive: &Path, name: &Path) -> anyhow::Result<()> {
        let Some(content) = self.content_of_archive(request, archive)? else {
            return Ok(());
        };
        let place = request.directory.join(archive);
        let content = *content.as_bytes();
        let before = lock(&self.archives.before).get(name).cloned();
        let since = match before.filter(|before| before.content == content) {
            Some(before) => {
                let file = fs_err::OpenOptions::new().write(true).open(&place)?;
                file.file().set_modified(before.since)?;
                self.log.line(&format!("same archive {}", name.display()));
                before.since
            }
            None => fs_err::metadata(&place)?.modified()?,
        };
        let record = ArchiveRecord {
            content,
            since,
            stamp: stamp(&place),
        };
        anyhow::ensure!(place.exists(), "it is gone");
        Ok(lock(&self.journal).set_archive(name, record)?)
    }

    /// Digest of all that a link takes of a thin archive; `None` where that is not known.
    fn content_of_archive(&self, request: &Request, path: &Path) -> anyhow::Result<Option<Digest>> {
        let bytes = fs_err::read(request.directory.join(path))?;
        if !archive::is_thin(&bytes) {
            return Ok(None);
        }
        let environment = tool_environment(&request.environment);
        let linker = self.identity(&self.linker_program()?, &environment)?;
        if linker.storable != Storable::Yes {
            return Ok(None);
        }
        let mut key = KeyBuilder::new("archive", 1);
        key.field("klto", env!("CARGO_PKG_VERSION").as_bytes())
            .digest("linker", linker.digest)
            .field("bytes", &bytes);
        for (name, value) in &environment {
            key.field("variable", name.as_encoded_bytes())
                .field("value", value.as_encoded_bytes());
        }
        for member in archive::members(&bytes)? {
            let member = archive::thin_member_path(path, &member.name);
            match self.content_of_member(&request.directory, &member, &environment)? {
                Some(content) => key.digest("member", content),
                None => return Ok(None),
            };
        }
        Ok(Some(key.finish()))
    }

    fn content_of_member(
        &self,
        directory: &Path,
        member: &Path,
        environment: &[(OsString, OsString)],
    ) -> anyhow::Result<Option<Digest>> {
        let place = directory.join(member);
        let mut key = KeyBuilder::new("archive-member", 1);
        key.digest("bytes", self.memo.digest(&place)?);
        for beside in [record_beside(&place), versions_beside(&place)] {
            if beside.exists() {
                key.field("beside", beside.as_os_str().as_bytes())
                    .digest("content", self.memo.digest(&beside)?);
            }
        }
        let is_known = !is_bitcode_file(&place)
            || self.add_bitcode_member(&mut key, directory, member, environment)?;
        Ok(is_known.then(|| key.finish()))
    }
}

/// The archive that a call adds members to, or puts in another order, and whether all of these are archives:
/// `ar cDPrST ARCHIVE MEMBER …`, `ar mPiT MEMBER ARCHIVE MEMBER …`, `ar cDPrS --thin ARCHIVE MEMBER …`.
fn archive_of(request: &Request) -> Option<(PathBuf, bool)> {
    let (operation, rest) = request.arguments.split_first()?;
    let operation = operation.as_bytes();
    let rest = match rest {
        [thin, rest @ ..] if thin == "--thin" => rest,
        rest => rest,
    };
    let has = |letter| operation.contains(letter);
    // The member before or after which others go stands first.
    let place = usize::from(has(&b'a') || has(&b'b') || has(&b'i'));
    let changes = has(&b'r') || has(&b'm');
    let (archive, members) = rest.get(place..)?.split_first()?;
    let is_archive = |member: &OsString| member.as_bytes().ends_with(b".a");
    let is_of_archives = !members.is_empty() && members.iter().all(is_archive);
    changes.then(|| (archive.into(), is_of_archives))
}

/// kbuild's record of how a target was made.
pub(crate) fn record_beside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".cmd");
    target.with_file_name(name)
}

/// Where trees with LTO from 5.12 to 5.18 keep the symbol versions of an object.
fn versions_beside(object: &Path) -> PathBuf {
    let mut path = object.as_os_str().to_owned();
    path.push(".symversions");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use klto_wire::ShimRole;

    fn archive(arguments: &[&str]) -> Option<(PathBuf, bool)> {
        archive_of(&Request {
            role: ShimRole::Archiver,
            program: "llvm-ar".into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            directory: "/out".into(),
            environment: Vec::new(),
        })
    }

    #[test]
    fn the_archive_is_told_from_members() {
        let made = |is_of_archives| Some(("fs/built-in.a".into(), is_of_archives));
        let objects = ["cDPrST", "fs/built-in.a", "fs/a.o", "fs/b/built-in.a"];
        assert_eq!(archive(&objects), made(false));
        let order = ["mPiT", "fs/a.o", "fs/built-in.a", "fs/b.o"];
        assert_eq!(archive(&order), made(false));
        assert_eq!(archive(&objects[..2]), made(false));
        let archives = ["cDPrST", "fs/built-in.a", "fs/b/built-in.a"];
        assert_eq!(archive(&archives), made(true));
        assert_eq!(archive(&["t", "fs/built-in.a"]), None);
        assert_eq!(archive(&["cDPrST"]), None);
    }

    #[test]
    fn the_record_lies_beside_its_target() {
        let record = record_beside(Path::new("/out/fs/a.o"));
        assert_eq!(record, Path::new("/out/fs/.a.o.cmd"));
    }

    #[test]
    fn what_somebody_else_has_replaced_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&directory.path().join("journal"), b"").unwrap();
        let name = Path::new("built-in.a");
        let place = directory.path().join(name);
        let known = |journal: &Journal| {
            let archives = Archives::default();
            archives.begin(journal, directory.path());
            lock(&archives.before).contains_key(name)
        };
        fs_err::write(&place, "!<thin>\n").unwrap();
        let record = ArchiveRecord {
            content: [1; 32],
            since: SystemTime::UNIX_EPOCH,
            stamp: stamp(&place),
        };
        journal.set_archive(name, record).unwrap();
        assert!(known(&journal));
        fs_err::remove_file(&place).unwrap();
        assert!(!known(&journal));
        fs_err::write(&place, "!<thin>\n").unwrap();
        assert!(!known(&journal));
    }
}
