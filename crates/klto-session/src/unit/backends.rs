//! The backends of a unit: one action for each bitcode member.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use klto_core::{Action, Digest, Failure, Input, Outcome, Storable};
use klto_exec::{Completed, How, Progress};
use klto_formats::bitcode::{imported_modules, index_digest};
use klto_lower::{
    BackendParts, Before, backend_action, check_native, imports_of, split_dwarf_beside,
};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::assembler::AssemblerFiles;
use super::{BitcodeMember, Lowering};
use crate::log::pass_on;

/// A backend's native.
pub(super) struct Raw {
    /// Key of the action that made it.
    pub key: Digest,
    /// Where it is, as tools name it.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
    /// Content of its split debug information, if there is any.
    pub split_dwarf: Option<Digest>,
}

impl Lowering<'_> {
    /// Runs, finds or keeps every backend; the natives in member order.
    pub(super) fn run_backends(&self) -> anyhow::Result<Vec<Raw>> {
        let begin = Instant::now();
        let digests = self.digests();
        let by_path: HashMap<&Path, &BitcodeMember> = self
            .members
            .iter()
            .map(|member| (member.path.as_path(), member))
            .collect();
        let actions = self.members.par_iter();
        let actions = actions.map(|member| self.action(member, &digests, &by_path));
        let actions = actions.collect::<anyhow::Result<Vec<Action>>>()?;
        let keys: Vec<Digest> = actions.iter().map(Action::key).collect();
        let mut pending = Vec::new();
        let mut sources = Vec::new();
        let mut kept = 0;
        for ((member, action), key) in self.members.iter().zip(actions).zip(&keys) {
            let native = self.link.directory.join(&action.outputs[0]);
            let storable = action.storable == Storable::Yes;
            if storable
                && self
                    .old
                    .has_raw(&member.path, *key, &native, &self.session.memo)
            {
                let session = self.session;
                session.log.line(&format!("kept backend {}", action.label));
                let (now, label) = (Instant::now(), &action.label);
                session
                    .timeline
                    .add(now, Duration::ZERO, "backend", "kept", label);
                kept += 1;
            } else {
                let why = self.why_backend(member, &action);
                let line = format!("why backend {}: {why}", action.label);
                self.session.log.line(&line);
                pending.push(action);
                sources.push(member.source());
            }
        }
        let session = self.session;
        let (slots, progress) = (&session.slots, Progress::default());
        let check = |action: &Action, bytes: &[u8]| {
            check_native(action, bytes)?;
            session.check_inputs(action)
        };
        let run = || session.engine.run(&pending, slots, &check, &progress);
        let display = session.log.display();
        let completed = display.show_while(&self.link.unit.name, &progress, run);
        self.report((&pending, &sources), &completed, (kept, begin.elapsed()))?;
        self.members
            .iter()
            .zip(keys)
            .map(|(member, key)| self.raw(member, key))
            .collect()
    }

    /// Why the native that is there will not do.
    fn why_backend(&self, member: &BitcodeMember, action: &Action) -> String {
        let Some(bitcode) = self.old.bitcode(&member.path) else {
            return "it has no native yet".to_owned();
        };
        if bitcode != member.digest {
            return "its bitcode has changed".to_owned();
        }
        let mut imports = action.inputs.iter().filter(|input| input.role == "import");
        let other = |input: &&Input| self.old.bitcode(&input.path) != Some(input.digest);
        match (imports.find(other), &action.storable) {
            (Some(import), _) => {
                let from = self.label(&import.path);
                format!("it imports from {from}, which has changed")
            }
            (None, Storable::No(reason)) => reason.clone(),
            (None, Storable::Yes) => {
                "what it imports, its flags or its compiler has changed".to_owned()
            }
        }
    }

    fn raw(&self, member: &BitcodeMember, key: Digest) -> anyhow::Result<Raw> {
        let path = self.place_of("raw", &member.path);
        let digest = |path: &Path| self.session.memo.digest(&self.link.directory.join(path));
        let split_dwarf = member.flags.split_dwarf.as_ref();
        Ok(Raw {
            key,
            digest: digest(&path)?,
            split_dwarf: split_dwarf
                .map(|_| digest(&split_dwarf_beside(&path)))
                .transpose()?,
            path,
        })
    }

    /// Where the native of `member` lies after a step: below its directory, wherever the member is.
    pub(super) fn place_of(&self, step: &str, member: &Path) -> PathBuf {
        self.root.join(step).join(below(member))
    }

    fn action(
        &self,
        member: &BitcodeMember,
        digests: &HashMap<&Path, Digest>,
        by_path: &HashMap<&Path, &BitcodeMember>,
    ) -> anyhow::Result<Action> {
        let object = self
            .session
            .scratch
            .object_name(self.link.directory, &member.path);
        let identity = self
            .session
            .identity(&member.record.program, self.link.environment)?;
        let read = match member.linked {
            true => self.read_with_index(member, digests, by_path)?,
            false => ReadByBackend {
                before: Before::LeftOut,
                imports: Vec::new(),
                assembler: member.assembler.clone(),
            },
        };
        let storable = match &identity.storable {
            Storable::No(reason) => Storable::No(reason.clone()),
            Storable::Yes => overridden(self.link.environment).unwrap_or(read.assembler.storable),
        };
        Ok(backend_action(BackendParts {
            label: object.display().to_string(),
            program: member.record.program.clone(),
            tool_identity: identity.digest,
            flags: &member.flags,
            link_options: &self.link_options,
            bitcode: Input {
                role: "bitcode",
                path: member.path.clone(),
                digest: member.digest,
            },
            before: read.before,
            imports: read.imports,
            assembler_files: read.assembler.files,
            native: self.place_of("raw", &member.path),
            directory: self.link.directory.to_owned(),
            environment: self.action_environment(),
            storable,
        }))
    }

    /// What the backend of a member reads that took part in the thin-link.
    fn read_with_index(
        &self,
        member: &BitcodeMember,
        digests: &HashMap<&Path, Digest>,
        by_path: &HashMap<&Path, &BitcodeMember>,
    ) -> anyhow::Result<ReadByBackend> {
        let mut assembler = member.assembler.clone();
        let mut imports = Vec::new();
        let path = self.place.index(&member.path);
        let bytes = fs_err::read(self.link.directory.join(&path))?;
        let mut only_variables = only_variables(&bytes);
        let list = fs_err::read(self.link.directory.join(self.place.imports(&member.path)))?;
        let mut unhashed = BTreeSet::new();
        for path in imports_of(&list) {
            let missing = || {
                Failure::bug(format!(
                    "{} imports {}, which is not in its unit",
                    member.path.display(),
                    path.display()
                ))
            };
            let digest = *digests.get(path.as_path()).ok_or_else(missing)?;
            let imported = by_path.get(path.as_path()).ok_or_else(missing)?;
            let variables = only_variables.remove(path.as_os_str().as_bytes());
            let variables =
                variables.and_then(|identifiers| imported.content.imported_variables(&identifiers));
            if let Some(digest) = variables {
                unhashed.insert(path.as_os_str().as_bytes().to_vec());
                imports.push(Input {
                    role: "imported-variables",
                    path,
                    digest,
                });
                continue;
            }
            // Inline assembly comes along with an imported function.
            let theirs = &imported.assembler;
            assembler.files.extend(theirs.files.iter().cloned());
            if theirs.storable != Storable::Yes {
                assembler.storable = theirs.storable.clone();
            }
            imports.push(Input {
                role: "import",
                path,
                digest,
            });
        }
        let index = Input {
            role: "index",
            digest: index_digest(&bytes, &unhashed)
                .with_context(|| format!("reading {}", path.display()))?,
            path,
        };
        Ok(ReadByBackend {
            before: Before::Index(index),
            imports,
            assembler,
        })
    }

    /// What the tool of an action is given. Not PATH: klto's shims are in it, and so the name of the
    /// output tree. Where its shared objects are is part of its identity, and no other
    /// variable of the build reaches it.
    pub(super) fn action_environment(&self) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        let wanted = |name: &std::ffi::OsStr| name != "PATH";
        self.link
            .environment
            .iter()
            .filter(|(name, _)| wanted(name))
            .cloned()
            .collect()
    }

    fn report(
        &self,
        (actions, sources): (&[Action], &[PathBuf]),
        completed: &[Completed],
        (kept, elapsed): (usize, Duration),
    ) -> anyhow::Result<()> {
        let (mut ran, mut hit) = (0, 0);
        for over in completed {
            let (Some(action), Some(source)) = (actions.get(over.index), sources.get(over.index))
            else {
                continue;
            };
            let how = over.how.name();
            let (start, duration) = (over.start, over.duration);
            let timeline = &self.session.timeline;
            timeline.add(start, duration, "backend", how, &action.label);
            let note = match &action.storable {
                Storable::Yes => String::new(),
                Storable::No(reason) => format!(": not stored: {reason}"),
            };
            self.session
                .log
                .line(&format!("{how} backend {}{note}", action.label));
            match &over.outcome {
                Outcome::Done { stderr } => {
                    ran += usize::from(over.how != How::Hit);
                    hit += usize::from(over.how == How::Hit);
                    pass_on(&with_source(stderr, source));
                }
                Outcome::Failed { stderr, reason } => {
                    pass_on(&with_source(stderr, source));
                    return Err(
                        Failure::build(format!("backend of {}: {reason}", action.label)).into(),
                    );
                }
            }
        }
        if completed.len() < actions.len() {
            return Err(
                Failure::build(format!("{}: the build was stopped", self.link.unit.name)).into(),
            );
        }
        let total = self.members.len();
        self.session.log.show(&format!(
            "{} ({total} bitcode objects: {ran} backends run, {hit} from the store, {kept} unchanged) {:.1} s",
            self.link.unit.name,
            elapsed.as_secs_f64()
        ));
        Ok(())
    }
}

/// What a backend reads besides its bitcode.
struct ReadByBackend {
    before: Before,
    imports: Vec<Input>,
    assembler: AssemblerFiles,
}

/// The modules from which an index has nothing but variables that can be imported by themselves, by path, and
/// these variables. An index that cannot be read has none.
fn only_variables(index: &[u8]) -> HashMap<Vec<u8>, BTreeSet<u64>> {
    let modules = imported_modules(index).unwrap_or_default().into_iter();
    modules
        .filter_map(|module| Some((module.path, module.variables?)))
        .collect()
}

/// Names the source where clang knows no place, as in warnings of large stack frames without debug
/// information.
fn with_source(printed: &[u8], source: &Path) -> Vec<u8> {
    const NOWHERE: &[u8] = b"<unknown>:0:0";
    let mut named = Vec::with_capacity(printed.len());
    let mut rest = printed;
    while let Some(place) = rest.windows(NOWHERE.len()).position(|part| part == NOWHERE) {
        let (before, after) = rest.split_at(place);
        named.extend_from_slice(before);
        named.extend_from_slice(source.as_os_str().as_bytes());
        rest = after.get(NOWHERE.len()..).unwrap_or_default();
    }
    named.extend_from_slice(rest);
    named
}

/// `CCC_OVERRIDE_OPTIONS` changes the driver's arguments after klto has written them.
pub(super) fn overridden(
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Option<Storable> {
    let set = environment
        .iter()
        .any(|(name, _)| name == "CCC_OVERRIDE_OPTIONS");
    set.then(|| Storable::No("CCC_OVERRIDE_OPTIONS is set".into()))
}

/// A path as one that leads nowhere else: without the root, and up as a name.
fn below(path: &Path) -> PathBuf {
    let parts = path.components().filter_map(|part| match part {
        Component::ParentDir => Some(OsStr::new("up")),
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_lies_below_the_step_wherever_it_is() {
        for (member, place) in [
            ("fs/a.o", "fs/a.o"),
            ("./fs/a.o", "fs/a.o"),
            ("/o/fs/a.o", "o/fs/a.o"),
            ("../mod/a.o", "up/mod/a.o"),
        ] {
            assert_eq!(below(Path::new(member)), Path::new(place));
        }
    }

    #[test]
    fn a_warning_without_a_place_names_the_source() {
        let printed = b"warning: <unknown>:0:0: stack frame size (3000) exceeds limit\n1 warning\n";
        let named = with_source(printed, Path::new("fs/a.c"));
        let expected = b"warning: fs/a.c: stack frame size (3000) exceeds limit\n1 warning\n";
        assert_eq!(named, expected);
    }
}
