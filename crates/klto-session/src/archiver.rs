//! Calls of the archiver that klto answers itself: of thin archives, which kbuild makes in each directory
//! and, from 6.1 on, of all objects of vmlinux.
//!
//! In: a call. Out: the archive that `llvm-ar` would write, byte for byte, or the list that it would print;
//! nothing where the call or a file is of another kind.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use klto_core::normalize;
use klto_formats::archive::{self, ThinMember};
use klto_formats::{bitcode, elf};
use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

/// The answer to a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The content of the archive.
    Archive(Vec<u8>),
    /// What is printed.
    List(Vec<u8>),
}

/// The answer to a call with these arguments in `directory`; `None` where the tool must say.
pub(crate) fn answered(arguments: &[OsString], directory: &Path) -> Option<Answered> {
    let (operation, rest) = arguments.split_first()?;
    match (operation.as_bytes(), rest) {
        // A new archive without a symbol table.
        (b"cDPrST", [archive, members @ ..]) => create(Path::new(archive), members, directory),
        (b"t", [archive]) => list(Path::new(archive), directory),
        // Members go before another one, and the archive gets a symbol table.
        (b"mPiT" | b"mPi", [before, archive, members @ ..]) => {
            move_before(Path::new(archive), (before, members), directory)
        }
        _ => None,
    }
}

fn create(archive: &Path, members: &[OsString], directory: &Path) -> Option<Answered> {
    if archive.is_absolute() || directory.join(archive).exists() {
        return None;
    }
    let mut objects = Vec::with_capacity(members.len());
    for member in members {
        let path = Path::new(member);
        match is_thin_archive(&directory.join(path))? {
            true => objects.extend(members_of(path, directory)?),
            false => objects.push(normalize(path)),
        }
    }
    let sized = thin_members(archive, &objects, false, directory)?;
    archive::thin(&sized).map(Answered::Archive)
}

/// Members of an archive that lies in the directory of the call itself: others are printed with its path.
fn list(archive: &Path, directory: &Path) -> Option<Answered> {
    if archive.parent() != Some(Path::new("")) || !is_thin_archive(&directory.join(archive))? {
        return None;
    }
    let bytes = fs_err::read(directory.join(archive)).ok()?;
    let mut list = Vec::new();
    for member in archive::members(&bytes).ok()? {
        list.extend(member.name);
        list.push(b'\n');
    }
    Some(Answered::List(list))
}

fn move_before(
    archive: &Path,
    (before, moved): (&OsStr, &[OsString]),
    directory: &Path,
) -> Option<Answered> {
    if !is_thin_archive(&directory.join(archive))? {
        return None;
    }
    let all = members_of(archive, directory)?;
    let moved: HashSet<PathBuf> = moved
        .iter()
        .map(|path| normalize(Path::new(path)))
        .collect();
    let before = normalize(Path::new(before));
    let (mut first, mut others) = (Vec::new(), Vec::new());
    let mut place = None;
    for object in all {
        if object == before {
            place = Some(others.len());
        }
        match moved.contains(&object) {
            true => first.push(object),
            false => others.push(object),
        }
    }
    if first.len() != moved.len() {
        // The tool says that one is missing.
        return None;
    }
    others.splice(place?..place?, first);
    let sized = thin_members(archive, &others, true, directory)?;
    archive::thin(&sized).map(Answered::Archive)
}

/// The members of the thin archive at `archive`, as paths from `directory`.
fn members_of(archive: &Path, directory: &Path) -> Option<Vec<PathBuf>> {
    let bytes = fs_err::read(directory.join(archive)).ok()?;
    let members = archive::members(&bytes).ok()?.into_iter();
    Some(
        members
            .map(|member| archive::thin_member_path(archive, &member.name))
            .collect(),
    )
}

/// Whether the file is a thin archive; `None` where it is none and no object either.
fn is_thin_archive(path: &Path) -> Option<bool> {
    let mut head = Vec::new();
    let file = fs_err::File::open(path).ok()?;
    file.take(8).read_to_end(&mut head).ok()?;
    let is_object = bitcode::is_bitcode(&head) || elf::is_elf(&head);
    match archive::is_thin(&head) {
        true => Some(true),
        false => is_object.then_some(false),
    }
}

/// The members, with what a table of symbols has of each, if there is to be one. `None` where one of them has
/// an absolute path, is no object or is there twice: of such the tool makes more than a list.
fn thin_members(
    archive: &Path,
    objects: &[PathBuf],
    with_symbols: bool,
    directory: &Path,
) -> Option<Vec<ThinMember>> {
    let different: HashSet<&PathBuf> = objects.iter().collect();
    if different.len() != objects.len() {
        return None;
    }
    let member = |object: &PathBuf| {
        let place = directory.join(object);
        if object.is_absolute() || is_thin_archive(&place)? {
            return None;
        }
        let (size, symbols) = match with_symbols {
            true => {
                let bytes = fs_err::read(&place).ok()?;
                (bytes.len() as u64, archive::defined_globals(&bytes).ok()?)
            }
            false => (fs_err::metadata(&place).ok()?.len(), Vec::new()),
        };
        let name = archive::thin_member_name(archive, object);
        Some(ThinMember {
            name: name.into_os_string().into_encoded_bytes(),
            size,
            symbols,
        })
    };
    objects.par_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with objects and an archive of one of them; nothing but their first bytes is of interest.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs_err::create_dir(root.join("fs")).unwrap();
        for (name, content) in [
            ("fs/a.o", &b"BC\xc0\xde"[..]),
            ("fs/b.o", b"\x7fELF and more"),
            ("text", b"text"),
        ] {
            fs_err::write(root.join(name), content).unwrap();
        }
        let made = made(root, "cDPrST fs/built-in.a fs/a.o");
        fs_err::write(root.join("fs/built-in.a"), made.unwrap()).unwrap();
        directory
    }

    fn made(root: &Path, call: &str) -> Option<Vec<u8>> {
        let arguments: Vec<OsString> = call.split(' ').map(OsString::from).collect();
        match answered(&arguments, root)? {
            Answered::Archive(bytes) | Answered::List(bytes) => Some(bytes),
        }
    }

    #[test]
    fn archives_in_archives_are_spelled_out() {
        let directory = directory();
        let root = directory.path();
        let all = made(root, "cDPrST all.a fs/built-in.a fs/b.o").unwrap();
        fs_err::write(root.join("all.a"), &all).unwrap();
        assert_eq!(made(root, "t all.a").unwrap(), b"fs/a.o\nfs/b.o\n");
        let members = archive::members(&all).unwrap();
        assert_eq!(members.len(), 2);
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_tool() {
        let directory = directory();
        let root = directory.path();
        let absolute = format!("cDPrST all.a {}/fs/a.o", root.display());
        for call in [
            "cDPrST fs/built-in.a fs/b.o",
            "cDPrST all.a fs/missing.o",
            "cDPrST all.a text",
            "cDPrST all.a fs/a.o ./fs/a.o",
            "cDPrsT lib.a fs/a.o",
            "t fs/built-in.a",
            "mPiT fs/a.o fs/built-in.a fs/b.o",
            &absolute,
        ] {
            assert_eq!(made(root, call), None, "{call}");
        }
    }
}
