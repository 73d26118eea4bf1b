//! What a unit's natives were made from, kept beside them.
//!
//! A manifest is trusted only together with digests of the files that it names; a missing, damaged or
//! foreign one is an empty one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use klto_core::{Digest, publish};
use klto_lower::split_dwarf_beside;
use klto_store::StatMemo;
use serde::{Deserialize, Serialize};

use super::Lowering;
use super::backends::Raw;
use super::content::Content;
use super::steps::Stepped;

const MAGIC: &[u8; 8] = b"kltouni4";

type Bytes32 = [u8; 32];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Member {
    path: PathBuf,
    bitcode: Bytes32,
    content: Content,
    key: Bytes32,
    raw: Bytes32,
    /// Split debug information beside the backend's native, if the object has it.
    split_dwarf: Option<Bytes32>,
    /// Key and result of each step between the backend and the native.
    steps: Vec<(Bytes32, Bytes32)>,
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

    /// Every native, if the unit is made from the same and each native is as it was left; `raw` says
    /// where a member's backend wrote.
    pub fn whole_unit(
        &self,
        unit_key: Digest,
        directory: &Path,
        raw: &dyn Fn(&Path) -> PathBuf,
        memo: &StatMemo,
    ) -> Option<Vec<PathBuf>> {
        if self.body.unit_key != Some(*unit_key.as_bytes()) || self.body.members.is_empty() {
            return None;
        }
        let whole = |member: &&Member| {
            let native = directory.join(&member.native);
            is_of(memo, &native, &member.native_digest)
                && member.has_split_dwarf(&raw(&member.path), memo)
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

    /// Each member's native that is as it was left, with the bitcode that it was made from.
    pub fn natives<'a>(
        &'a self,
        directory: &'a Path,
        memo: &'a StatMemo,
    ) -> impl Iterator<Item = (&'a Path, Digest, &'a Path)> {
        let whole = move |member: &&Member| {
            let native = directory.join(&member.native);
            is_of(memo, &native, &member.native_digest)
        };
        let members = self.body.members.iter().filter(whole);
        members.map(|member| {
            let bitcode = Digest::from_bytes(member.bitcode);
            (member.path.as_path(), bitcode, member.native.as_path())
        })
    }

    /// What was decoded from a bitcode of this digest.
    pub fn content(&self, path: &Path, bitcode: Digest) -> Option<&Content> {
        let member = self
            .member(path)
            .filter(|member| member.bitcode == *bitcode.as_bytes())?;
        Some(&member.content)
    }

    /// The bitcode that a member's native was made from.
    pub fn bitcode(&self, path: &Path) -> Option<Digest> {
        let member = self.member(path)?;
        Some(Digest::from_bytes(member.bitcode))
    }

    /// Whether the step of this key made the file that is in place now.
    pub fn has_step(&self, path: &Path, key: Digest, file: &Path, memo: &StatMemo) -> bool {
        let Some(member) = self.member(path) else {
            return false;
        };
        let mut steps = member.steps.iter();
        let known = steps.find(|(known, _)| known == key.as_bytes());
        known.is_some_and(|(_, result)| is_of(memo, file, result))
    }

    /// Whether the action of this key made the native that is in place now.
    pub fn has_raw(&self, path: &Path, key: Digest, native: &Path, memo: &StatMemo) -> bool {
        self.member(path).is_some_and(|member| {
            member.key == *key.as_bytes()
                && is_of(memo, native, &member.raw)
                && member.has_split_dwarf(native, memo)
        })
    }
}

/// Whether the file at `path` has the content of this digest.
fn is_of(memo: &StatMemo, path: &Path, expected: &Bytes32) -> bool {
    memo.digest(path)
        .is_ok_and(|digest| digest.as_bytes() == expected)
}

impl Member {
    /// Whether the debug information beside `native` is as it was left, if there was any.
    fn has_split_dwarf(&self, native: &Path, memo: &StatMemo) -> bool {
        let expected = self.split_dwarf.as_ref();
        expected.is_none_or(|expected| is_of(memo, &split_dwarf_beside(native), expected))
    }
}

impl Lowering<'_> {
    pub(super) fn new_manifest(
        &self,
        unit_key: Option<Digest>,
        raws: &[Raw],
        stepped: &[Stepped],
        natives: &[PathBuf],
    ) -> anyhow::Result<Manifest> {
        let mut members = Vec::new();
        let results = raws.iter().zip(stepped).zip(natives);
        for (member, ((raw, stepped), native)) in self.members.iter().zip(results) {
            let bytes = |digest: &Digest| *digest.as_bytes();
            let steps = stepped.results.iter();
            let native_digest = self
                .session
                .memo
                .digest(&self.link.directory.join(native))?;
            members.push(Member {
                path: member.path.clone(),
                bitcode: *member.digest.as_bytes(),
                content: member.content.clone(),
                key: *raw.key.as_bytes(),
                raw: *raw.digest.as_bytes(),
                split_dwarf: raw.split_dwarf.as_ref().map(bytes),
                steps: steps
                    .map(|(key, digest)| (bytes(key), bytes(digest)))
                    .collect(),
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
