//! ThinLTO of vmlinux as kbuild distributes it (CONFIG_LTO_CLANG_THIN_DIST, scripts/Makefile.vmlinux_a and
//! Makefile.thinlto): a link that writes an index for each object, then a compiler call for each native that
//! is older than its object or its index.
//!
//! In: those calls. Out: indexes, natives. The unit is lowered at the link, as at every other; a compiler
//! call is given its native. Indexes of objects whose natives are the same keep their time: no index asks for
//! a native that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klto_core::{Failure, normalize, publish};
use klto_formats::archive::defined_globals;
use klto_kbuild::link::{LinkCall, VMLINUX_INDEX_LIST, index_and_native};
use klto_wire::Request;
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use crate::inputs::{LinkInput, LinkInputs, read_input};
use crate::recipe::Caller;
use crate::session::{Answer, Session, ended, lock, tool_environment};
use crate::unit::UnitLink;

/// Names the archives that are linked beside what is distributed (Makefile).
const LIBRARIES: &str = "KBUILD_VMLINUX_LIBS";

impl Session {
    /// Answers the link that writes indexes alone, and their list.
    pub(crate) fn distributed_link(
        &self,
        request: &Request,
        (call, inputs): (&LinkCall, &LinkInputs),
        list: &Path,
    ) -> anyhow::Result<Answer> {
        let directory = request.directory.as_path();
        let name = self.scratch.object_name(directory, list);
        let unit = inputs.unit(name.display().to_string(), call);
        let environment = tool_environment(&request.environment);
        let mut reserved = self.script_names(request, call)?;
        reserved.extend(library_names(request)?);
        let link = UnitLink {
            unit: &unit,
            call,
            linker: request.program.clone(),
            directory,
            environment: &environment,
            reserved: &reserved,
        };
        let natives = self.lower_unit(&link)?;
        let objects: Vec<&Path> = unit
            .bitcode()
            .map(|(_, member)| member.path.as_path())
            .collect();
        let pairs: Vec<_> = objects.iter().zip(natives).collect();
        let publish_changed = |(object, native): &(&&Path, Option<PathBuf>)| {
            let native = native
                .as_deref()
                .ok_or_else(|| Failure::bug("an object has no native"))?;
            self.publish_index(&unit.name, directory, (object, native))
        };
        pairs.par_iter().try_for_each(publish_changed)?;
        let mut text = Vec::new();
        for object in objects {
            text.extend_from_slice(object.as_os_str().as_encoded_bytes());
            text.push(b'\n');
        }
        publish(&directory.join(list), &text)?;
        Ok(ended(0))
    }

    /// Puts the index beside the object, where make has a native to ask for.
    fn publish_index(
        &self,
        unit: &str,
        directory: &Path,
        (object, native): (&Path, &Path),
    ) -> anyhow::Result<()> {
        let (index, made) = index_and_native(object);
        let (index, made) = (directory.join(index), directory.join(made));
        let is_made =
            made.exists() && self.memo.digest(&made)? == self.digest(directory, native)?;
        if is_made && index.exists() {
            return Ok(());
        }
        let bytes = fs_err::read(self.index_of(unit, directory, object))?;
        Ok(publish(&index, &bytes)?)
    }

    fn digest(&self, directory: &Path, file: &Path) -> std::io::Result<klto_core::Digest> {
        self.memo.digest(&directory.join(file))
    }

    /// Answers the call that compiles `object` by its index to `output`.
    pub(crate) fn distributed_native(
        &self,
        request: &Request,
        caller: Caller,
        object: &Path,
        output: &Path,
    ) -> anyhow::Result<Answer> {
        let directory = request.directory.as_path();
        self.keep_recipe(&self.scratch.object_name(directory, output), caller)?;
        let place = normalize(&directory.join(object));
        let digest = self.memo.digest(&place)?;
        let known = || {
            let native = lock(&self.natives).get(&place).cloned();
            native.filter(|native| native.digest == digest)?.path
        };
        // The link had nothing to do in this build.
        let native = known().or_else(|| {
            self.know_unit(VMLINUX_INDEX_LIST, directory);
            known()
        });
        let Some(native) = native else {
            // So that make links again.
            let _ = fs_err::remove_file(directory.join(VMLINUX_INDEX_LIST));
            let message = format!("the native of {} is gone", object.display());
            let failure = Failure::build(message).hint("build again");
            return Err(failure.into());
        };
        let bytes = fs_err::read(directory.join(native))?;
        publish(&directory.join(output), &bytes)?;
        Ok(ended(0))
    }
}

/// Global symbols of the libraries of vmlinux.
fn library_names(request: &Request) -> anyhow::Result<BTreeSet<Vec<u8>>> {
    let mut variables = request.environment.iter();
    let libraries = variables.find(|(name, _)| name == LIBRARIES);
    let libraries = libraries.and_then(|(_, value)| value.to_str());
    let mut names = BTreeSet::new();
    for library in libraries.unwrap_or_default().split_whitespace() {
        if let LinkInput::Archive(members) = read_input(Path::new(library), &request.directory)? {
            for member in members {
                let bytes = fs_err::read(request.directory.join(&member.path))?;
                names.extend(defined_globals(&bytes)?);
            }
        }
    }
    Ok(names)
}
