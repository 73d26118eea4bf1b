//! The journal: what the hooks saw of this output tree, kept across builds.
//!
//! In: compiles, recipes, objects made native, symbol versions, files of the assembler, files of which lines
//! count. Out: the latest of each by object name. It knows nothing of what the records are used for.
//!
//! Its identifier goes into the mode marker on kbuild's command lines: when the journal is lost or
//! damaged, every command line changes, kbuild makes every object again, and the journal is whole again.
//! So it is when a tree was moved or copied, for what is recorded has absolute paths.

mod bytes;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use klto_core::{Digest, publish_private};
use serde::{Deserialize, Serialize};

use crate::archives::ArchiveRecord;
use crate::recipe::Recipe;
use crate::sub_makes::MakeCall;
use bytes::{MAGIC, entries, frame};

/// One compile that made bitcode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileRecord {
    /// The compiler.
    pub program: PathBuf,
    /// Arguments as kbuild wrote them.
    pub arguments: Vec<OsString>,
    /// The working directory.
    pub directory: PathBuf,
}

/// Symbol versions of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsRecord {
    /// genksyms' linker script.
    pub script: Vec<u8>,
    /// Options of the link that applies it.
    pub options: Vec<OsString>,
    /// BLAKE3 digest of the bitcode that exports these symbols; other bitcode has other versions.
    pub bitcode: [u8; 32],
}

/// What kbuild did to one object after its compile, where klto does it to the native instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsRecord {
    /// objtool.
    pub objtool: Option<ObjtoolRecord>,
    /// Whether recordmcount made its table of traced functions.
    pub records_entry_calls: bool,
}

/// objtool as kbuild ran it on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjtoolRecord {
    /// The program, absolute.
    pub program: PathBuf,
    /// Arguments without the object.
    pub arguments: Vec<OsString>,
}

/// A [`Recipe`] whose environment stands in an entry of its own: many recipes share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RecipeRecord {
    arguments: Vec<OsString>,
    directory: PathBuf,
    environment: [u8; 32],
}

type Variables = Vec<(OsString, OsString)>;
/// A file by its absolute name, and the digest of its content.
pub(crate) type FileRead = (PathBuf, [u8; 32]);

/// Files of the source tree, by their path there.
pub(crate) type SourceFiles = BTreeSet<PathBuf>;
/// By object, the files on whose lines it depends.
pub(crate) type LinesRead = BTreeMap<PathBuf, SourceFiles>;

#[derive(Serialize, Deserialize)]
enum Entry {
    /// And where the trees were when the journal was begun.
    Identifier(String, Vec<u8>),
    Compile(PathBuf, CompileRecord),
    Versions(PathBuf, Option<VersionsRecord>),
    Native(PathBuf, String),
    Steps(PathBuf, StepsRecord),
    Environment(Variables),
    Recipe(PathBuf, RecipeRecord),
    Makes(PathBuf, Option<Vec<MakeCall>>),
    Archive(PathBuf, ArchiveRecord),
    Agreement([u8; 32]),
    AssemblerFiles(PathBuf, Vec<FileRead>),
    LinesRead(PathBuf, Option<SourceFiles>),
}

/// The journal of one output tree.
#[derive(Debug)]
pub struct Journal {
    file: fs_err::File,
    records: Records,
}

/// The latest entries.
#[derive(Debug, Default)]
struct Records {
    identifier: String,
    place: Vec<u8>,
    compiles: BTreeMap<PathBuf, CompileRecord>,
    versions: BTreeMap<PathBuf, VersionsRecord>,
    natives: BTreeMap<PathBuf, String>,
    steps: BTreeMap<PathBuf, StepsRecord>,
    environments: BTreeMap<[u8; 32], Variables>,
    recipes: BTreeMap<PathBuf, RecipeRecord>,
    makes: BTreeMap<PathBuf, Vec<MakeCall>>,
    archives: BTreeMap<PathBuf, ArchiveRecord>,
    agreements: BTreeSet<[u8; 32]>,
    assembler_files: BTreeMap<PathBuf, Vec<FileRead>>,
    lines_read: LinesRead,
}

impl Journal {
    /// Reads the journal at `path`, or begins one with a fresh identifier, as where it was begun with another
    /// `place` of the trees; one in which much is outdated is rewritten.
    pub fn open(path: &Path, place: &[u8]) -> io::Result<Self> {
        let bytes = match fs_err::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result?,
        };
        let (entries, whole) = entries(&bytes);
        let count = entries.len();
        let mut records = Records::of(entries);
        let is_lost = !whole || !records.are_of(place);
        if is_lost {
            records = Records {
                identifier: fresh_identifier()?,
                place: place.to_owned(),
                ..Records::default()
            };
        }
        if is_lost || count > records.count() + records.count() / 4 {
            // Recipes hold whole environments.
            publish_private(path, &records.compact()?)?;
        }
        let file = fs_err::OpenOptions::new().append(true).open(path)?;
        Ok(Self { file, records })
    }

    /// The identifier of the journal at `path`, without changing it; `None` where a session would
    /// begin a new one.
    pub fn read_identifier(path: &Path, place: &[u8]) -> Option<String> {
        let (records, whole) = Records::read(&fs_err::read(path).ok()?);
        (whole && records.are_of(place)).then_some(records.identifier)
    }

    /// Reads the objects that are compiled native and who reads each, without changing the journal.
    pub fn read_natives(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
        let (records, _) = Records::read(&fs_err::read(path)?);
        Ok(records.natives.into_iter().collect())
    }

    /// Reads the recipe that makes `object`, without changing the journal.
    pub fn read_recipe(path: &Path, object: &Path) -> io::Result<Option<Recipe>> {
        let (records, _) = Records::read(&fs_err::read(path)?);
        Ok(records.recipe(object))
    }

    /// Reads on the lines of which files objects depend, without changing the journal; one that is missing may
    /// depend on those of any. And the objects that are bitcode.
    pub(crate) fn read_lines_read(path: &Path) -> io::Result<(LinesRead, BTreeSet<PathBuf>)> {
        let (records, whole) = Records::read(&fs_err::read(path)?);
        match whole {
            true => Ok((records.lines_read, records.compiles.into_keys().collect())),
            false => Err(io::Error::other("the journal is damaged")),
        }
    }

    /// Eight hexadecimal digits that change when the journal is lost.
    pub fn identifier(&self) -> &str {
        &self.records.identifier
    }

    /// The compile that made an object.
    pub fn compile(&self, object: &Path) -> Option<&CompileRecord> {
        self.records.compiles.get(object)
    }

    /// Every compile, by its object.
    pub fn compiles(&self) -> impl Iterator<Item = (&Path, &CompileRecord)> {
        let compiles = self.records.compiles.iter();
        compiles.map(|(object, record)| (object.as_path(), record))
    }

    /// The symbol versions of an object whose bitcode has this digest. Those of its former content do
    /// not count: an EXPORT_SYMBOL that moved would otherwise have two CRCs.
    pub fn versions(&self, object: &Path, bitcode: Digest) -> Option<&VersionsRecord> {
        let record = self.records.versions.get(object)?;
        (record.bitcode == *bitcode.as_bytes()).then_some(record)
    }

    /// Who reads an object as ELF, if something does.
    pub fn native_reader(&self, object: &Path) -> Option<&str> {
        self.records.natives.get(object).map(String::as_str)
    }

    /// What was done to an object after its last compile.
    pub fn steps(&self, object: &Path) -> StepsRecord {
        self.records.steps.get(object).cloned().unwrap_or_default()
    }

    /// A compile begins. What followed the last one does not count any more: kbuild does it again.
    pub fn begin_compile(&mut self, object: &Path, record: CompileRecord) -> io::Result<()> {
        if self.records.steps.contains_key(object) {
            self.record(Entry::Steps(object.to_owned(), StepsRecord::default()))?;
        }
        if self.records.versions.contains_key(object) {
            self.record(Entry::Versions(object.to_owned(), None))?;
        }
        self.set_lines_read(object, None)?;
        match self.records.compiles.get(object) == Some(&record) {
            true => Ok(()),
            false => self.record(Entry::Compile(object.to_owned(), record)),
        }
    }

    /// The files on whose lines an object depends that has been compiled; `None` where those of any file may count.
    pub(crate) fn set_lines_read(
        &mut self,
        object: &Path,
        files: Option<SourceFiles>,
    ) -> io::Result<()> {
        match self.records.lines_read.get(object) == files.as_ref() {
            true => Ok(()),
            false => self.record(Entry::LinesRead(object.to_owned(), files)),
        }
    }

    /// Something else is made of the same source for an object, and depends on the lines of these files.
    pub(crate) fn add_lines_read(
        &mut self,
        object: &Path,
        files: Option<SourceFiles>,
    ) -> io::Result<()> {
        let known = self.records.lines_read.get(object);
        let both = known.zip(files).map(|(known, files)| known | &files);
        self.set_lines_read(object, both)
    }

    /// The objects of which it is known on the lines of which files they depend.
    pub(crate) fn objects_with_lines_read(&self) -> impl Iterator<Item = &Path> {
        self.records.lines_read.keys().map(PathBuf::as_path)
    }

    /// The versions that kbuild would link into an object.
    pub fn set_versions(&mut self, object: &Path, record: VersionsRecord) -> io::Result<()> {
        self.record(Entry::Versions(object.to_owned(), Some(record)))
    }

    /// A step that followed the compile of an object.
    pub fn add_step(
        &mut self,
        object: &Path,
        add: impl FnOnce(&mut StepsRecord),
    ) -> io::Result<()> {
        let mut steps = self.steps(object);
        add(&mut steps);
        self.record(Entry::Steps(object.to_owned(), steps))
    }

    /// Something reads an object as ELF: from now on it is compiled native.
    pub fn set_native(&mut self, object: &Path, reader: &str) -> io::Result<()> {
        self.record(Entry::Native(object.to_owned(), reader.to_owned()))
    }

    /// [`Journal::set_native`] unless it is known.
    pub fn set_native_once(&mut self, object: &Path, reader: &str) -> io::Result<()> {
        match self.records.natives.contains_key(object) {
            true => Ok(()),
            false => self.set_native(object, reader),
        }
    }

    /// Makes the journal safe from a power cut.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The recipe that makes an object, as it was when it last did.
    pub fn recipe(&self, object: &Path) -> Option<Recipe> {
        self.records.recipe(object)
    }

    /// The recipe that makes an object.
    pub fn set_recipe(&mut self, object: &Path, recipe: &Recipe) -> io::Result<()> {
        if self.records.recipe(object).as_ref() == Some(recipe) {
            return Ok(());
        }
        let environment = digest_of(&recipe.environment)?;
        if !self.records.environments.contains_key(&environment) {
            self.record(Entry::Environment(recipe.environment.clone()))?;
        }
        let record = RecipeRecord {
            arguments: recipe.arguments.clone(),
            directory: recipe.directory.clone(),
            environment,
        };
        self.record(Entry::Recipe(object.to_owned(), record))
    }

    /// The makes above the recipe that makes an object, the nearest first; `None` where they are not known.
    pub(crate) fn makes(&self, object: &Path) -> Option<&[MakeCall]> {
        self.records.makes.get(object).map(Vec::as_slice)
    }

    /// The makes under which an object has just been made.
    pub(crate) fn set_makes(
        &mut self,
        object: &Path,
        makes: Option<Vec<MakeCall>>,
    ) -> io::Result<()> {
        match self.makes(object) == makes.as_deref() {
            true => Ok(()),
            false => self.record(Entry::Makes(object.to_owned(), makes)),
        }
    }

    /// The archives as klto left them, by name.
    pub(crate) fn archives(&self) -> &BTreeMap<PathBuf, ArchiveRecord> {
        &self.records.archives
    }

    /// An archive has been made.
    pub(crate) fn set_archive(&mut self, archive: &Path, record: ArchiveRecord) -> io::Result<()> {
        self.record(Entry::Archive(archive.to_owned(), record))
    }

    /// Whether klto once did what a tool does, which the digest stands for, and both gave the same.
    pub(crate) fn knows_agreement(&self, digest: Digest) -> bool {
        self.records.agreements.contains(digest.as_bytes())
    }

    /// klto and a tool have given the same.
    pub(crate) fn add_agreement(&mut self, digest: Digest) -> io::Result<()> {
        match self.knows_agreement(digest) {
            true => Ok(()),
            false => self.record(Entry::Agreement(*digest.as_bytes())),
        }
    }

    /// What the assembler read for objects when they were last lowered; those for which it read nothing
    /// apart.
    pub(crate) fn assembler_files(&self) -> &BTreeMap<PathBuf, Vec<FileRead>> {
        &self.records.assembler_files
    }

    /// What the assembler reads for an object that is lowered now.
    pub(crate) fn set_assembler_files(
        &mut self,
        object: &Path,
        files: Vec<FileRead>,
    ) -> io::Result<()> {
        let known = self.records.assembler_files.get(object);
        match known.map_or(&[][..], Vec::as_slice) == files {
            true => Ok(()),
            false => self.record(Entry::AssemblerFiles(object.to_owned(), files)),
        }
    }

    fn record(&mut self, entry: Entry) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&frame(&entry)?) {
            // Half a frame hides what follows it: an empty journal has the next build begin anew.
            let _ = self.file.file().set_len(0);
            return Err(error);
        }
        self.records.apply(entry);
        Ok(())
    }
}

impl Records {
    /// What `bytes` hold up to the first damage, and whether there is none.
    fn read(bytes: &[u8]) -> (Self, bool) {
        let (entries, whole) = entries(bytes);
        (Self::of(entries), whole)
    }

    /// What holds after all of `entries`.
    fn of(entries: Vec<Entry>) -> Self {
        let mut records = Self::default();
        entries.into_iter().for_each(|entry| records.apply(entry));
        records
    }

    /// Whether they were begun where the trees are.
    fn are_of(&self, place: &[u8]) -> bool {
        !self.identifier.is_empty() && self.place == place
    }

    /// The number of entries that hold.
    fn count(&self) -> usize {
        let alone = 1 + self.agreements.len();
        let of_objects = self.compiles.len()
            + self.versions.len()
            + self.natives.len()
            + self.steps.len()
            + self.recipes.len()
            + self.makes.len()
            + self.assembler_files.len()
            + self.lines_read.len();
        alone + of_objects + self.environments.len() + self.archives.len()
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Identifier(identifier, place) => {
                (self.identifier, self.place) = (identifier, place);
            }
            Entry::Compile(object, record) => drop(self.compiles.insert(object, record)),
            Entry::Versions(object, Some(record)) => drop(self.versions.insert(object, record)),
            Entry::Versions(object, None) => drop(self.versions.remove(&object)),
            Entry::Native(object, reader) => drop(self.natives.insert(object, reader)),
            Entry::Steps(object, record) if record == StepsRecord::default() => {
                drop(self.steps.remove(&object));
            }
            Entry::Steps(object, record) => drop(self.steps.insert(object, record)),
            Entry::Recipe(object, record) => drop(self.recipes.insert(object, record)),
            Entry::Makes(object, Some(makes)) => drop(self.makes.insert(object, makes)),
            Entry::Makes(object, None) => drop(self.makes.remove(&object)),
            Entry::Archive(archive, record) => drop(self.archives.insert(archive, record)),
            Entry::Agreement(digest) => drop(self.agreements.insert(digest)),
            Entry::AssemblerFiles(object, files) if files.is_empty() => {
                drop(self.assembler_files.remove(&object));
            }
            Entry::AssemblerFiles(object, files) => {
                drop(self.assembler_files.insert(object, files))
            }
            Entry::LinesRead(object, Some(names)) => drop(self.lines_read.insert(object, names)),
            Entry::LinesRead(object, None) => drop(self.lines_read.remove(&object)),
            Entry::Environment(variables) => {
                // What was read from bytes can be written to bytes.
                if let Ok(digest) = digest_of(&variables) {
                    self.environments.insert(digest, variables);
                }
            }
        }
    }

    fn recipe(&self, object: &Path) -> Option<Recipe> {
        let record = self.recipes.get(object)?;
        Some(Recipe {
            arguments: record.arguments.clone(),
            directory: record.directory.clone(),
            environment: self.environments.get(&record.environment)?.clone(),
        })
    }

    fn compact(&self) -> io::Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        let (identifier, place) = (self.identifier.clone(), self.place.clone());
        bytes.extend(frame(&Entry::Identifier(identifier, place))?);
        for (object, record) in &self.compiles {
            bytes.extend(frame(&Entry::Compile(object.clone(), record.clone()))?);
        }
        for (object, record) in &self.versions {
            bytes.extend(frame(&Entry::Versions(
                object.clone(),
                Some(record.clone()),
            ))?);
        }
        for (object, reader) in &self.natives {
            bytes.extend(frame(&Entry::Native(object.clone(), reader.clone()))?);
        }
        for (object, record) in &self.steps {
            bytes.extend(frame(&Entry::Steps(object.clone(), record.clone()))?);
        }
        let recipes = self.recipes.values();
        let used: BTreeSet<[u8; 32]> = recipes.map(|recipe| recipe.environment).collect();
        for (digest, variables) in &self.environments {
            if used.contains(digest) {
                bytes.extend(frame(&Entry::Environment(variables.clone()))?);
            }
        }
        for (object, record) in &self.recipes {
            bytes.extend(frame(&Entry::Recipe(object.clone(), record.clone()))?);
        }
        for (object, makes) in &self.makes {
            bytes.extend(frame(&Entry::Makes(object.clone(), Some(makes.clone())))?);
        }
        for (archive, record) in &self.archives {
            bytes.extend(frame(&Entry::Archive(archive.clone(), record.clone()))?);
        }
        for digest in &self.agreements {
            bytes.extend(frame(&Entry::Agreement(*digest))?);
        }
        for (object, files) in &self.assembler_files {
            let entry = Entry::AssemblerFiles(object.clone(), files.clone());
            bytes.extend(frame(&entry)?);
        }
        for (object, names) in &self.lines_read {
            let entry = Entry::LinesRead(object.clone(), Some(names.clone()));
            bytes.extend(frame(&entry)?);
        }
        Ok(bytes)
    }
}

fn digest_of(variables: &Variables) -> io::Result<[u8; 32]> {
    let bytes = postcard::to_stdvec(variables).map_err(io::Error::other)?;
    Ok(*Digest::of_bytes(&bytes).as_bytes())
}

fn fresh_identifier() -> io::Result<String> {
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut fs_err::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:08x}", u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests;
