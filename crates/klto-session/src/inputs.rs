//! What the files on a link line are: bitcode, archives that hold bitcode, anything else.
//!
//! Only the first bytes of an object are read; archives are read whole, for the names of members.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klto_core::{Failure, normalize};
use klto_formats::{archive, bitcode};
use klto_kbuild::link::{LinkCall, LinkItem};
use klto_lower::{LinkUnit, MemberKind, UnitMember};

/// One object, as the linker names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectInput {
    pub path: PathBuf,
    pub bitcode: bool,
}

/// An input file of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkInput {
    /// Bitcode.
    Bitcode,
    /// A thin archive.
    Archive(Vec<ObjectInput>),
    /// Anything that the linker takes as it is.
    Plain,
}

/// The inputs of a link by path.
#[derive(Debug, Default)]
pub(crate) struct LinkInputs(HashMap<PathBuf, LinkInput>);

/// Whether the file begins as bitcode does; `false` for what is no regular file.
pub(crate) fn is_bitcode_file(path: &Path) -> bool {
    let mut head = [0; 4];
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file
        && fs_err::File::open(path)
            .and_then(|mut file| file.read_exact(&mut head))
            .is_ok()
        && bitcode::is_bitcode(&head)
}

/// The bitcode at `path`: the file itself, or members of a thin archive.
pub(crate) fn bitcode_of(path: &Path, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(match read_input(path, directory)? {
        LinkInput::Bitcode => vec![path.to_owned()],
        LinkInput::Archive(members) => members
            .into_iter()
            .filter(|member| member.bitcode)
            .map(|member| member.path)
            .collect(),
        LinkInput::Plain => Vec::new(),
    })
}

impl LinkInputs {
    /// Looks at every file of a link that runs in `directory`.
    pub fn read(call: &LinkCall, directory: &Path) -> anyhow::Result<Self> {
        let mut inputs = HashMap::new();
        for path in call.files() {
            if !inputs.contains_key(path) {
                inputs.insert(path.to_owned(), read_input(path, directory)?);
            }
        }
        Ok(Self(inputs))
    }

    /// What stands at `path`.
    pub fn get(&self, path: &Path) -> &LinkInput {
        self.0.get(path).unwrap_or(&LinkInput::Plain)
    }

    /// Every bitcode object of the link, archive members too.
    pub fn bitcode(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().flat_map(|(path, input)| match input {
            LinkInput::Bitcode => vec![path.as_path()],
            LinkInput::Archive(members) => members
                .iter()
                .filter(|member| member.bitcode)
                .map(|member| member.path.as_path())
                .collect(),
            LinkInput::Plain => Vec::new(),
        })
    }

    /// The link unit that this link makes, members in link order.
    pub fn unit(&self, name: String, call: &LinkCall) -> LinkUnit {
        let mut members = Vec::new();
        for item in &call.items {
            let LinkItem::File {
                path,
                whole_archive,
                in_lib,
            } = item
            else {
                continue;
            };
            match self.get(path) {
                LinkInput::Archive(objects) => {
                    let lazy = !whole_archive || *in_lib;
                    members.extend(
                        objects
                            .iter()
                            .map(|object| member(&object.path, object.bitcode, lazy)),
                    );
                }
                input => members.push(member(path, *input == LinkInput::Bitcode, *in_lib)),
            }
        }
        LinkUnit { name, members }
    }
}

fn member(path: &Path, bitcode: bool, lazy: bool) -> UnitMember {
    let kind = if bitcode {
        MemberKind::Bitcode
    } else {
        MemberKind::Native
    };
    UnitMember {
        path: path.to_owned(),
        kind,
        lazy,
    }
}

/// What stands at `path`, named from `directory`.
pub(crate) fn read_input(path: &Path, directory: &Path) -> anyhow::Result<LinkInput> {
    let place = directory.join(path);
    let mut head = Vec::new();
    match fs_err::File::open(&place) {
        Ok(file) => drop(file.take(8).read_to_end(&mut head)?),
        // The linker says it better, and looks in its own directories.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LinkInput::Plain),
        Err(error) => return Err(error.into()),
    }
    if bitcode::is_bitcode(&head) {
        return Ok(LinkInput::Bitcode);
    }
    if !archive::is_archive(&head) {
        return Ok(LinkInput::Plain);
    }
    let bytes = fs_err::read(&place)?;
    let members =
        archive::members(&bytes).with_context(|| format!("reading {}", path.display()))?;
    if !archive::is_thin(&bytes) {
        let holds_bitcode = members
            .iter()
            .filter_map(|member| bytes.get(member.data.clone()?))
            .any(bitcode::is_bitcode);
        return match holds_bitcode {
            true => Err(Failure::bad_input(format!(
                "{} holds bitcode in a regular archive; klto can link only thin archives",
                path.display()
            ))
            .hint("build that archive with `ar T`, or without LTO")
            .into()),
            false => Ok(LinkInput::Plain),
        };
    }
    let objects: Vec<ObjectInput> = members
        .iter()
        .map(|member| {
            let path = normalize(&archive::thin_member_path(path, &member.name));
            let bitcode = is_bitcode_file(&directory.join(&path));
            ObjectInput { path, bitcode }
        })
        .collect();
    Ok(LinkInput::Archive(objects))
}
