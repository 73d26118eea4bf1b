//! What is decoded from a bitcode object; the unit's manifest remembers it by the object's content.
//!
//! In: bitcode. Out: the files that its assembler texts name, and digests of the definitions that another
//! object may import without the rest.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use anyhow::Context as _;
use klto_core::{Digest, KeyBuilder};
use klto_formats::bitcode::definitions;
use klto_kbuild::link::VMLINUX_INDEX_LIST;
use serde::{Deserialize, Serialize};

use super::assembler::{self, Names};
use super::manifest::Manifest;
use crate::session::{Session, lock};

/// What has been decoded in one build, and for the last kernel.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    decoded: Mutex<HashMap<Digest, Content>>,
    /// The manifests of the last vmlinux, once they are asked for.
    vmlinux: OnceLock<[Manifest; 2]>,
}

impl Contents {
    /// What is decoded from the bitcode at `path`, of this digest.
    pub(super) fn read(&self, path: &Path, bitcode: Digest) -> anyhow::Result<Content> {
        if let Some(content) = lock(&self.decoded).get(&bitcode) {
            return Ok(content.clone());
        }
        let content = Content::read(path)?;
        lock(&self.decoded).insert(bitcode, content.clone());
        Ok(content)
    }

    /// Whether the assembler reads nothing for the bitcode at `path`, of this digest.
    pub fn names_no_files(&self, path: &Path, bitcode: Digest) -> anyhow::Result<bool> {
        let names = self.read(path, bitcode)?.assembler_names;
        Ok(names.is_some_and(|names| names.is_empty()))
    }

    /// The same as [`Contents::read`], where the last vmlinux was made of this bitcode.
    pub(super) fn of_vmlinux(
        &self,
        session: &Session,
        member: &Path,
        bitcode: Digest,
    ) -> Option<Content> {
        let manifests = self.vmlinux.get_or_init(|| {
            ["vmlinux.o", VMLINUX_INDEX_LIST].map(|unit| {
                let place = session.scratch.path("units").join(unit);
                Manifest::read(&place.join("manifest"))
            })
        });
        let mut manifests = manifests.iter();
        manifests.find_map(|manifest| manifest.content(member, bitcode).cloned())
    }
}

/// See the head of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Content {
    /// What the assembler reads.
    pub assembler_names: Names,
    /// `None` where the whole object counts.
    definitions: Option<Definitions>,
}

/// [`klto_formats::bitcode::Definitions`] as bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Definitions {
    module: [u8; 32],
    /// By identifier, in the order of the module.
    variables: Vec<(u64, [u8; 32])>,
}

impl Content {
    /// Decodes the object at `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bitcode = fs_err::read(path)?;
        let context = || format!("reading {}", path.display());
        // What cannot be told apart counts whole.
        let definitions = definitions(&bitcode).ok().flatten();
        let definitions = definitions.map(|definitions| Definitions {
            module: *definitions.module.as_bytes(),
            variables: definitions
                .order
                .iter()
                .filter_map(|identifier| {
                    let digest = definitions.variables.get(identifier)?;
                    Some((*identifier, *digest.as_bytes()))
                })
                .collect(),
        });
        Ok(Self {
            assembler_names: assembler::names(&bitcode).with_context(context)?,
            definitions,
        })
    }

    /// Digest of what a backend sees that imports these variables and nothing else; `None` where that is not
    /// known.
    pub fn imported_variables(&self, identifiers: &BTreeSet<u64>) -> Option<Digest> {
        let definitions = self.definitions.as_ref()?;
        let mut key = KeyBuilder::new("imported-variables", 2);
        key.field("module", &definitions.module);
        let mut missing = identifiers.clone();
        for (identifier, digest) in &definitions.variables {
            if missing.remove(identifier) {
                key.field("identifier", &identifier.to_le_bytes());
                key.field("variable", digest);
            }
        }
        missing.is_empty().then(|| key.finish())
    }
}
