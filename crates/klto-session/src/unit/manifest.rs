//! What a unit's natives were made from, kept beside them.
//!
//! A manifest is trusted only together with digests of the files that it names; a missing, damaged or
//! foreign one is an empty one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use klto_core::{Digest, publish};
use klto_store::StatMemo;
use serde::{Deserialize, Serialize};

use super::Lowering;
use super::backends::Raw;

const MAGIC: &[u8; 8] = b"kltouni1";

type Bytes32 = [u8; 32];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Member {
    path: PathBuf,
    bitcode: Bytes32,
    /// `None`: a text that klto cannot follow.
    assembler_names: Option<Vec<Vec<u8>>>,
    key: Bytes32,
    raw: Bytes32,
    native: PathBuf,
    native_digest: Bytes32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Body {
    /// `None` when a backend must run each time.
    unit_key: Option<Bytes32>,
    members: Vec<Member>,
}

/// The manifest of one unit.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    body: Body,
    places: HashMap<PathBuf, usize>,
}

impl Manifest {
    /// Reads a manifest; an empty one if there is none that can be read.
    pub fn read(path: &Path) -> Self {
        let body = fs_err::read(path).ok().and_then(|bytes| {
            let (checksum, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
            let whole = Digest::of_bytes(payload).as_bytes() == checksum;
            whole
                .then(|| postcard::from_bytes::<Body>(payload).ok())
                .flatten()
        });
        let body = body.unwrap_or_default();
        let places = body
            .members
            .iter()
            .enumerate()
            .map(|(place, member)| (member.path.clone(), place))
            .collect();
        Self { body, places }
    }

    /// Publishes the manifest.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let payload = postcard::to_stdvec(&self.body)?;
        let bytes = [MAGIC, &Digest::of_bytes(&payload).as_bytes()[..], &payload].concat();
        Ok(publish(path, &bytes)?)
    }

    fn member(&self, path: &Path) -> Option<&Member> {
        self.body.members.get(*self.places.get(path)?)
    }

    /// Every native, if the unit is made from the same and each native is as it was left.
    pub fn whole_unit(
        &self,
        unit_key: Digest,
        directory: &Path,
        memo: &StatMemo,
    ) -> Option<Vec<PathBuf>> {
        if self.body.unit_key != Some(*unit_key.as_bytes()) || self.body.members.is_empty() {
            return None;
        }
        let whole = |member: &&Member| {
            let digest = memo.digest(&directory.join(&member.native));
            digest.is_ok_and(|digest| *digest.as_bytes() == member.native_digest)
        };
        let natives: Vec<PathBuf> = self
            .body
            .members
            .iter()
            .filter(whole)
            .map(|member| member.native.clone())
            .collect();
        (natives.len() == self.body.members.len()).then_some(natives)
    }

    /// The file names in the assembler texts of a bitcode of this content.
    pub fn assembler_names(&self, path: &Path, bitcode: Digest) -> Option<&Option<Vec<Vec<u8>>>> {
        let member = self
            .member(path)
            .filter(|member| member.bitcode == *bitcode.as_bytes())?;
        Some(&member.assembler_names)
    }

    /// Whether the action of this key made the native that is in place now.
    pub fn has_raw(&self, path: &Path, key: Digest, native: &Path, memo: &StatMemo) -> bool {
        self.member(path).is_some_and(|member| {
            let same = || {
                memo.digest(native)
                    .is_ok_and(|digest| *digest.as_bytes() == member.raw)
            };
            member.key == *key.as_bytes() && same()
        })
    }
}

impl Lowering<'_> {
    pub(super) fn new_manifest(
        &self,
        unit_key: Option<Digest>,
        raws: &[Raw],
        natives: &[PathBuf],
    ) -> anyhow::Result<Manifest> {
        let mut members = Vec::new();
        for ((member, raw), native) in self.members.iter().zip(raws).zip(natives) {
            let native_digest = self
                .session
                .memo
                .digest(&self.link.directory.join(native))?;
            members.push(Member {
                path: member.path.clone(),
                bitcode: *member.digest.as_bytes(),
                assembler_names: member.assembler.names.clone(),
                key: *raw.key.as_bytes(),
                raw: *raw.digest.as_bytes(),
                native: native.clone(),
                native_digest: *native_digest.as_bytes(),
            });
        }
        Ok(Manifest {
            body: Body {
                unit_key: unit_key.map(|key| *key.as_bytes()),
                members,
            },
            places: HashMap::new(),
        })
    }
}
