//! Unix archives in the GNU format, regular and thin: the names and places of their members.
//!
//! In: the bytes of the archive. Out: its members in order; or a thin archive of given members. A thin
//! archive names its members and holds none of their bytes; kbuild makes such (`ar cDPrST`), and `ar`
//! flattens nested ones.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use object::read::archive::{ArchiveFile, ArchiveMember};

use crate::{FormatError, bitcode, elf};

const MAGIC: &[u8] = b"!<arch>\n";
const THIN_MAGIC: &[u8] = b"!<thin>\n";

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name; in a thin archive the path from the archive's directory.
    pub name: Vec<u8>,
    /// Where the bytes of the member are in the archive; `None` in a thin archive.
    pub data: Option<Range<usize>>,
}

/// Whether `bytes` start as an archive does, regular or thin.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || is_thin(bytes)
}

/// Whether `bytes` start as a thin archive does.
pub fn is_thin(bytes: &[u8]) -> bool {
    bytes.starts_with(THIN_MAGIC)
}

/// The members in order, without the symbol table and the table of long names.
///
/// # Errors
/// The bytes are not an archive, or a header, a name or a member reaches past its bounds.
pub fn members(bytes: &[u8]) -> Result<Vec<Member>, FormatError> {
    if !is_archive(bytes) {
        return Err(error(0, "the archive magic"));
    }
    let after_magic = MAGIC.len() as u64;
    let archive = ArchiveFile::parse(bytes)
        .map_err(|_| error(after_magic, "the special members of an archive"))?;
    let mut members = Vec::new();
    let mut last_end = after_magic;
    for member in archive.members() {
        let member = member.map_err(|_| error(last_end, "a member header and its name"))?;
        let member = read_member(bytes, &member)?;
        if let Some(data) = &member.data {
            last_end = data.end as u64;
        }
        members.push(member);
    }
    Ok(members)
}

fn read_member(bytes: &[u8], member: &ArchiveMember<'_>) -> Result<Member, FormatError> {
    let name = member.name().to_vec();
    if member.is_thin() {
        return Ok(Member { name, data: None });
    }
    let (offset, size) = member.file_range();
    let start = usize::try_from(offset).ok();
    let range = start
        .zip(usize::try_from(size).ok())
        .and_then(|(start, size)| Some(start..start.checked_add(size)?));
    match range {
        Some(range) if bytes.get(range.clone()).is_some() => Ok(Member {
            name,
            data: Some(range),
        }),
        _ => Err(error(offset, "a member that ends in the archive")),
    }
}

/// A member of a thin archive that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinMember {
    /// The path from the archive's directory.
    pub name: Vec<u8>,
    /// Bytes of the file.
    pub size: u64,
    /// The global symbols that it defines, in the order of its table. The archive has a table of symbols if
    /// any member has one.
    pub symbols: Vec<Vec<u8>>,
}

/// The global symbols that an object defines, as the table of an archive has them: of bitcode and ELF; none
/// of other files.
///
/// # Errors
/// As [`bitcode::symbols`] and [`elf::symbols`].
pub fn defined_globals(object: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
    if bitcode::is_bitcode(object) {
        let symbols = bitcode::symbols(object)?.into_iter();
        let defined = symbols.filter(|symbol| symbol.global && !symbol.undefined);
        return Ok(defined.map(|symbol| symbol.name).collect());
    }
    if elf::is_elf(object) {
        let symbols = elf::symbols(object)?.into_iter();
        let defined = symbols.filter(|symbol| {
            symbol.binding != elf::Binding::Local && symbol.place != elf::Place::Undefined
        });
        return Ok(defined.map(|symbol| symbol.name).collect());
    }
    Ok(Vec::new())
}

/// A thin archive, byte for byte as `llvm-ar` writes it with `D` and `T`; `None` if it has 4 GiB of symbols.
pub fn thin(members: &[ThinMember]) -> Option<Vec<u8>> {
    let (mut names, mut headers) = (Vec::new(), Vec::new());
    let mut places = Vec::with_capacity(members.len());
    for member in members {
        let place = format!("/{}", names.len());
        names.extend_from_slice(&member.name);
        names.extend_from_slice(b"/\n");
        places.push(headers.len());
        headers.extend(header(&place, 644, member.size as usize));
    }
    pad(&mut names, b'\n');
    let mut after_symbols = Vec::new();
    if !members.is_empty() {
        let head = format!("{:<48}{:<10}`\n", "//", names.len());
        after_symbols.extend(head.into_bytes());
        after_symbols.extend(names);
    }
    let mut bytes = THIN_MAGIC.to_vec();
    let mut symbols = Vec::new();
    for (member, place) in members.iter().zip(&places) {
        symbols.extend(member.symbols.iter().map(|symbol| (symbol, *place)));
    }
    if !symbols.is_empty() {
        let mut text: Vec<u8> = Vec::new();
        for (symbol, _) in &symbols {
            text.extend_from_slice(symbol);
            text.push(0);
        }
        let size = (4 + 4 * symbols.len() + text.len()).next_multiple_of(2);
        let head = header("/", 0, size);
        let first = bytes.len() + head.len() + size + after_symbols.len();
        bytes.extend(head);
        // Big-endian: the number of symbols, and for each where its member's header is.
        bytes.extend(u32::try_from(symbols.len()).ok()?.to_be_bytes());
        for (_, place) in &symbols {
            bytes.extend(u32::try_from(first + place).ok()?.to_be_bytes());
        }
        bytes.extend(text);
        pad(&mut bytes, 0);
    }
    bytes.extend(after_symbols);
    bytes.extend(headers);
    Some(bytes)
}

/// A member's header; time, user and group are zero.
fn header(name: &str, mode: u32, size: usize) -> Vec<u8> {
    format!("{name:<16}{:<12}{:<6}{:<6}{mode:<8}{size:<10}`\n", 0, 0, 0).into_bytes()
}

/// Makes the number of bytes even.
fn pad(bytes: &mut Vec<u8>, with: u8) {
    bytes.resize(bytes.len().next_multiple_of(2), with);
}

/// The name by which the thin archive at `archive` has the member at `path`; both from the same directory, or
/// both absolute.
pub fn thin_member_name(archive: &Path, path: &Path) -> PathBuf {
    let archive = klto_core::normalize(archive);
    let path = klto_core::normalize(path);
    let directory = archive.parent().unwrap_or(Path::new(""));
    let (mut from, mut to) = (
        directory.components().peekable(),
        path.components().peekable(),
    );
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let up = from.map(|_| Component::ParentDir);
    up.chain(to).collect()
}

/// The path of the member `name` of the thin archive at `archive`.
///
/// `.` and `name/..` are removed as text; links are not followed. A relative archive path gives a
/// path relative to the same directory.
pub fn thin_member_path(archive: &Path, name: &[u8]) -> PathBuf {
    let directory = archive.parent().unwrap_or(Path::new(""));
    klto_core::normalize(&directory.join(OsStr::from_bytes(name)))
}

const fn error(offset: u64, expected: &'static str) -> FormatError {
    FormatError::new("archive", offset, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, size: usize) -> Vec<u8> {
        super::header(name, 644, size)
    }

    fn special(name: &str, data: &[u8]) -> Vec<u8> {
        let mut member = header(name, data.len());
        member.extend(data);
        if data.len() % 2 == 1 {
            member.push(b'\n');
        }
        member
    }

    #[test]
    fn regular_members_have_names_and_places() {
        let long = b"a_name_that_is_longer_than_fifteen.o/\n";
        let bytes = [
            MAGIC,
            &special("/", &[0; 4]),
            &special("//", long),
            &special("/0", b"long"),
            &special("short.o/", b"odd"),
            &special("b.o/", b""),
        ]
        .concat();
        assert!(is_archive(&bytes) && !is_thin(&bytes));
        let members = members(&bytes).unwrap();
        let read = |member: &Member| bytes[member.data.clone().unwrap()].to_vec();
        assert_eq!(members[0].name, b"a_name_that_is_longer_than_fifteen.o");
        assert_eq!(read(&members[0]), b"long");
        assert_eq!(members[1].name, b"short.o");
        assert_eq!(read(&members[1]), b"odd");
        assert_eq!(members[2].name, b"b.o");
        assert_eq!(members.len(), 3);
    }

    #[test]
    fn thin_members_are_paths_without_data() {
        let bytes = [
            THIN_MAGIC,
            &special("//", b"sub/a.o/\nb.o/\n"),
            &header("/0", 1000),
            &header("/9", 2000),
        ]
        .concat();
        let members = members(&bytes).unwrap();
        let names: Vec<&[u8]> = members.iter().map(|member| &member.name[..]).collect();
        assert_eq!(names, [&b"sub/a.o"[..], b"b.o"]);
        assert!(members.iter().all(|member| member.data.is_none()));
    }

    #[test]
    fn an_empty_archive_has_no_members() {
        assert_eq!(members(THIN_MAGIC), Ok(vec![]));
        assert_eq!(members(MAGIC), Ok(vec![]));
    }

    #[test]
    fn wrong_bytes_are_an_error() {
        assert!(members(b"").is_err());
        assert!(members(b"<bigaf>\n").is_err());
        let cut = [MAGIC, &header("a.o/", 10), b"123"].concat();
        assert!(members(&cut).is_err());
        let no_name = [THIN_MAGIC, &header("/7", 1)].concat();
        assert!(members(&no_name).is_err());
    }

    #[test]
    fn a_thin_member_is_named_from_the_directory_of_its_archive() {
        let name =
            |archive: &str, path: &str| thin_member_name(Path::new(archive), Path::new(path));
        assert_eq!(name("vmlinux.a", "./init/main.o"), Path::new("init/main.o"));
        assert_eq!(
            name("fs/built-in.a", "fs/ext4/inode.o"),
            Path::new("ext4/inode.o")
        );
        assert_eq!(name("fs/a/built-in.a", "fs/b/c.o"), Path::new("../b/c.o"));
        assert_eq!(
            name("/out/fs/a.a", "/out/init/b.o"),
            Path::new("../init/b.o")
        );
    }

    #[test]
    fn thin_member_paths_start_at_the_directory_of_the_archive() {
        let path = |archive: &str, name: &[u8]| thin_member_path(Path::new(archive), name);
        assert_eq!(path("built-in.a", b"init/main.o"), Path::new("init/main.o"));
        assert_eq!(path("a/b/built-in.a", b"../c.o"), Path::new("a/c.o"));
        assert_eq!(path("./x/lib.a", b"./y.o"), Path::new("x/y.o"));
        assert_eq!(path("x/lib.a", b"/abs/y.o"), Path::new("/abs/y.o"));
    }
}
