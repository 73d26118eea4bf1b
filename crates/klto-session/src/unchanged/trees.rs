//! Stock of the two trees: for each directory one digest over the names and stats in it; and the content of
//! those sources whose content is known, so that one with a new stamp alone is told from one that changed.
//!
//! In: the roots. Out: facts by name, as `source fs/ext4`. It does not know what a build is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use klto_core::{Digest, KeyBuilder};
use klto_kbuild::link::is_of_distributed_link;
use klto_store::StatMemo;
use rayon::Scope;
use serde::{Deserialize, Serialize};

use super::repository::Repository;
use crate::compile::{Essence, Sources};
use crate::scratch::SCRATCH_NAME;
use crate::session::lock;

/// The files of source directories, by the facts' names.
pub(super) type Contents = BTreeMap<String, Vec<KnownFile>>;

/// A file or directory in a source directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownFile {
    /// Digest of name and stat, cut off: it only says which file to look at.
    stamp: [u8; 12],
    /// Digest of the name, cut off.
    name: [u8; 12],
    /// git says that a source has changed with its mode too.
    mode: u32,
    /// The content of a C source or header that a compile read.
    content: Option<[u8; 32]>,
    /// What of that content is no comment and no blank to any reader.
    essence: Option<KnownEssence>,
    /// When that content was written, where its essence is known.
    modified: Option<SystemTime>,
}

/// An [`Essence`], its digests cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct KnownEssence {
    lines: [u8; 12],
    tokens: [u8; 12],
}

impl From<Essence> for KnownEssence {
    fn from(essence: Essence) -> Self {
        Self {
            lines: cut(*essence.lines.as_bytes()),
            tokens: cut(*essence.tokens.as_bytes()),
        }
    }
}

/// What is known of the contents of sources without reading them.
pub(super) struct Knowledge<'a> {
    pub memo: &'a StatMemo,
    /// Those that compiles of this build read.
    pub sources: &'a Sources,
    /// What the last build knew.
    pub before: Option<&'a Contents>,
}

impl KnownFile {
    fn of(entry: &Entry, known: Option<(&Knowledge, &[Self])>) -> Self {
        let mut file = Self {
            stamp: cut(digest(&[&entry.name[..], &entry.stat].concat())),
            name: cut(digest(&entry.name)),
            mode: entry.metadata.as_ref().map_or(0, Metadata::mode),
            content: None,
            essence: None,
            modified: None,
        };
        let is_source = entry.name.ends_with(b".c") || entry.name.ends_with(b".h");
        if let (Some((knowledge, before)), true) = (known, is_source) {
            file.learn(entry, knowledge, before);
        }
        file
    }

    fn learn(&mut self, entry: &Entry, knowledge: &Knowledge, before: &[Self]) {
        let before = before.iter().find(|file| file.name == self.name);
        let now = entry.metadata.as_ref();
        let now = now.and_then(|metadata| knowledge.memo.remembered(metadata));
        let same = before.filter(|file| file.stamp == self.stamp);
        self.content = now
            .map(|digest| *digest.as_bytes())
            .or_else(|| same?.content);
        let Some(content) = self.content else { return };
        let read = knowledge.sources.essence(Digest::from_bytes(content));
        let same = before.filter(|file| file.content == self.content);
        self.essence = read.map(KnownEssence::from).or_else(|| same?.essence);
        let modified = || entry.metadata.as_ref()?.modified().ok();
        self.modified = self.essence.and_then(|_| modified());
    }
}

fn cut(digest: [u8; 32]) -> [u8; 12] {
    digest.first_chunk().copied().unwrap_or_default()
}

/// A source whose stat is another one than after the last build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangedSource {
    /// Below the source tree.
    pub file: PathBuf,
    pub change: Change,
    /// When the content was written that the last build knew.
    pub before: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// The same bytes.
    Touched,
    /// The same but for comments and blanks.
    Comments,
    /// The same but for comments and blanks, and tokens are on other lines.
    Lines,
    Content,
}

/// Facts by name, as digests: `the arguments`, `source fs/ext4`.
pub(super) type Facts = BTreeMap<String, [u8; 32]>;

/// The fact of the content of `.config`.
pub(super) const CONFIGURATION: &str = "the configuration";

/// Whether a fact of this name comes from [`Roots::facts`].
pub(super) fn is_of_tree(name: &str) -> bool {
    is_of_output(name) || is_input(name)
}

/// Whether it is of the output tree.
pub(super) fn is_of_output(name: &str) -> bool {
    name.starts_with("output ")
}

/// Whether it is of what the user writes, not of what a build makes.
pub(super) fn is_input(name: &str) -> bool {
    name.starts_with("source ") || name == CONFIGURATION
}

/// The two trees, and the configuration.
pub(super) struct Roots {
    pub source: PathBuf,
    pub output: PathBuf,
    /// Where git keeps the version of the source tree, if that is elsewhere.
    pub repository: Option<Repository>,
    /// The `.config`, wherever it is.
    pub config: PathBuf,
}

/// What there is in the two trees.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Every directory of both trees, and the content of `.config`.
    pub facts: Facts,
    /// Source files whose content is known.
    pub contents: Contents,
    /// Makefiles of the source tree.
    pub makefiles: Vec<PathBuf>,
    /// Directories to which a link of the source tree leads, without links.
    pub linked: BTreeSet<PathBuf>,
    /// Files of the output tree whose time is still to come.
    pub ahead: Vec<PathBuf>,
}

/// Files that a link of vmlinux writes anew, and of which that link and the boot image alone make anything
/// (init/Makefile, scripts/mkcompile_h): that they are there counts, not their stamps.
/// So it is with indexes and natives of a distributed link ([`is_of_distributed_link`]).
const WRITTEN_BY_LINK: [&str; 2] = ["compile.h", "utsversion.h"];

impl Roots {
    /// Looks at both trees.
    pub fn look(&self, knowledge: Option<&Knowledge>) -> io::Result<Looked> {
        let looked = Mutex::default();
        let failure = Mutex::new(None);
        let walk = |name: &'static str, root: &Path| -> io::Result<()> {
            let tree = Walk {
                name,
                root: root.to_owned(),
                device: fs_err::metadata(root)?.dev(),
                roots: self,
                looked: &looked,
                knowledge,
                failure: &failure,
            };
            rayon::scope(|scope| tree.enter(scope, root.to_owned()));
            Ok(())
        };
        walk("output", &self.output)?;
        walk("source", &self.source)?;
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(error);
        }
        let mut looked: Looked = looked.into_inner().unwrap_or_default();
        let config = fs_err::read(&self.config)?;
        looked.facts.insert(CONFIGURATION.into(), digest(&config));
        Ok(looked)
    }

    /// The sources of a source directory, by the name of its fact, that have another stat than `known` says.
    ///
    /// # Errors
    /// What has changed besides: a file whose content is not known, or which files there are.
    pub fn changed_sources(
        &self,
        fact: &str,
        known: &[KnownFile],
    ) -> Result<Vec<ChangedSource>, String> {
        let place = Path::new(fact.strip_prefix("source ").unwrap_or(fact));
        let unread = |error: io::Error| format!("{fact} ({error})");
        let entries = self.entries(&self.source.join(place)).map_err(unread)?;
        let now = entries.iter().map(|entry| KnownFile::of(entry, None));
        let now: Vec<KnownFile> = now.collect();
        let names =
            |files: &[KnownFile]| -> Vec<_> { files.iter().map(|file| file.name).collect() };
        if names(&now) != names(known) {
            return Err(fact.to_owned());
        }
        let mut changed = Vec::new();
        for ((entry, now), known) in entries.iter().zip(&now).zip(known) {
            if now.stamp == known.stamp {
                continue;
            }
            let file = place.join(OsStr::from_bytes(&entry.name));
            let is_file = entry.metadata.as_ref().is_some_and(Metadata::is_file);
            let has_same_mode = is_file && now.mode == known.mode;
            let Some(content) = known.content.filter(|_| has_same_mode) else {
                return Err(format!("source {}", file.display()));
            };
            let bytes = fs_err::read(self.source.join(&file)).map_err(unread)?;
            let change = match content == digest(&bytes) {
                true => Change::Touched,
                false => change(known.essence, Essence::of_text(&bytes).into()),
            };
            changed.push(ChangedSource {
                file,
                change,
                before: known.modified,
            });
        }
        Ok(changed)
    }

    /// The sources of a source directory, by the name of its fact, that have another content than `known`
    /// says and a time that is not after `time`, whatever else has changed there.
    pub(super) fn changed_contents(
        &self,
        fact: &str,
        known: &[KnownFile],
        time: SystemTime,
    ) -> io::Result<Vec<PathBuf>> {
        let place = Path::new(fact.strip_prefix("source ").unwrap_or(fact));
        let mut changed = Vec::new();
        for entry in self.entries(&self.source.join(place))? {
            let now = KnownFile::of(&entry, None);
            let mut known = known.iter();
            let before = known.find(|known| known.name == now.name && known.stamp != now.stamp);
            let content = before.and_then(|before| before.content);
            let is_old_file = entry.metadata.as_ref().is_some_and(|metadata| {
                metadata.is_file() && metadata.modified().is_ok_and(|modified| modified <= time)
            });
            let Some(content) = content.filter(|_| is_old_file) else {
                continue;
            };
            let file = place.join(OsStr::from_bytes(&entry.name));
            if digest(&fs_err::read(self.source.join(&file))?) != content {
                changed.push(file);
            }
        }
        Ok(changed)
    }
}

/// How a source has changed that had another essence, if that is known.
fn change(before: Option<KnownEssence>, now: KnownEssence) -> Change {
    match before {
        Some(before) if before.lines == now.lines => Change::Comments,
        Some(before) if before.tokens == now.tokens => Change::Lines,
        _ => Change::Content,
    }
}

/// A name in a directory.
struct Entry {
    name: Vec<u8>,
    /// Digest of the stat; zero for a directory, of which stock is taken by itself.
    stat: [u8; 32],
    /// `None` for a directory and a link.
    metadata: Option<Metadata>,
    directory: bool,
    /// The directory that a link leads to.
    leads_to: Option<PathBuf>,
}

fn is_makefile(name: &[u8]) -> bool {
    name.starts_with(b"Makefile") || name.starts_with(b"Kbuild") || name.ends_with(b".mk")
}

impl Roots {
    /// What is in a directory, by name.
    fn entries(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let is_generated = *directory == self.output.join("include/generated");
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name().into_vec();
            if kind.is_dir() {
                if !self.is_left_out(&entry.path()) {
                    entries.push(Entry {
                        name,
                        stat: [0; 32],
                        metadata: None,
                        directory: true,
                        leads_to: None,
                    });
                }
                continue;
            }
            let metadata = entry.metadata()?;
            let written_by_link = is_of_distributed_link(&name)
                || is_generated && WRITTEN_BY_LINK.iter().any(|known| name == known.as_bytes());
            let stat = of_metadata(&metadata);
            let mut stat = digest(if written_by_link { &[] } else { &stat });
            let mut leads_to = None;
            if kind.is_symlink()
                && let Ok(target) = std::fs::metadata(entry.path())
            {
                match target.is_dir() {
                    true => leads_to = Some(self.inside(&entry.path())?),
                    false => stat = digest(&[&stat[..], &of_metadata(&target)].concat()),
                }
            }
            entries.push(Entry {
                name,
                stat,
                metadata: (!kind.is_symlink()).then_some(metadata),
                directory: false,
                leads_to,
            });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// klto's own files; an output tree inside the source tree; and what git stores without naming
    /// a version (kbuild asks git for the version only).
    fn is_left_out(&self, directory: &Path) -> bool {
        let is_output = *directory == *self.output;
        let name = directory.file_name().unwrap_or_default();
        let in_git = directory
            .parent()
            .is_some_and(|parent| parent.ends_with(".git"));
        is_output || name == SCRATCH_NAME || in_git && (name == "objects" || name == "logs")
    }

    /// The directory that a link leads to; fails for one of which nobody here takes stock.
    fn inside(&self, link: &Path) -> io::Result<PathBuf> {
        let target = fs_err::canonicalize(link)?;
        match target.starts_with(&self.source) || target.starts_with(&self.output) {
            true => Ok(target),
            false => {
                let text = format!("{} leads out of the tree", link.display());
                Err(io::Error::other(text))
            }
        }
    }
}

/// A walk over one tree.
struct Walk<'a> {
    name: &'static str,
    root: PathBuf,
    /// The file system whose stamps are trusted.
    device: u64,
    roots: &'a Roots,
    looked: &'a Mutex<Looked>,
    knowledge: Option<&'a Knowledge<'a>>,
    failure: &'a Mutex<Option<io::Error>>,
}

impl Walk<'_> {
    fn enter<'s>(&'s self, scope: &Scope<'s>, directory: PathBuf) {
        if let Err(error) = self.look(scope, &directory) {
            *lock(self.failure) = Some(error);
        }
    }

    /// Takes stock of a directory; its directories are walks of their own.
    fn look<'s>(&'s self, scope: &Scope<'s>, directory: &Path) -> io::Result<()> {
        if std::fs::metadata(directory)?.dev() != self.device {
            let text = format!("{} is on another file system", directory.display());
            return Err(io::Error::other(text));
        }
        let entries = self.roots.entries(directory)?;
        let mut key = KeyBuilder::new("directory", 1);
        for entry in &entries {
            key.field("name", &entry.name).field("stat", &entry.stat);
            if entry.directory {
                let path = directory.join(OsStr::from_bytes(&entry.name));
                scope.spawn(move |scope| self.enter(scope, path));
            }
        }
        let place = directory.strip_prefix(&self.root).unwrap_or(directory);
        let name = format!("{} {}", self.name, place.display());
        let is_input = is_input(&name);
        let knowledge = self.knowledge.filter(|_| is_input);
        let known = knowledge.map(|knowledge| {
            let before = knowledge.before.and_then(|before| before.get(&name));
            let before = before.map_or(&[][..], Vec::as_slice);
            let entries = entries.iter();
            let known = entries.map(|entry| KnownFile::of(entry, Some((knowledge, before))));
            known.collect::<Vec<_>>()
        });
        let mut looked = lock(self.looked);
        if let Some(known) = known {
            looked.contents.insert(name.clone(), known);
        }
        let now = SystemTime::now();
        let is_ahead = |entry: &&Entry| {
            let metadata = entry.metadata.as_ref();
            let time = metadata.and_then(|metadata| metadata.modified().ok());
            time.is_some_and(|time| time > now)
        };
        let ahead = entries.iter().filter(|_| !is_input).filter(is_ahead);
        let ahead = ahead.map(|entry| directory.join(OsStr::from_bytes(&entry.name)));
        looked.ahead.extend(ahead);
        for entry in entries.into_iter().filter(|_| is_input) {
            let is_text =
                !entry.directory && entry.leads_to.is_none() && !place.starts_with(".git");
            if is_text && is_makefile(&entry.name) {
                let path = directory.join(OsStr::from_bytes(&entry.name));
                looked.makefiles.push(path);
            }
            looked.linked.extend(entry.leads_to);
        }
        looked.facts.insert(name, *key.finish().as_bytes());
        Ok(())
    }
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    *Digest::of_bytes(bytes).as_bytes()
}

/// The digest of a stat; that of nothing for a file that is not there.
pub(crate) fn of_file(path: &Path) -> [u8; 32] {
    match std::fs::metadata(path) {
        Ok(metadata) => digest(&of_metadata(&metadata)),
        Err(_) => digest(&[]),
    }
}

fn of_metadata(metadata: &Metadata) -> [u8; 64] {
    let numbers = [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        i64::from(metadata.mode()),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    let mut bytes = [0; 64];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}
