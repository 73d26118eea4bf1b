//! Comes in: two output directories and the files to compare. Goes out: whether they are equal
//! byte for byte, and where they first differ.
//!
//! Does not know which files a build makes: see [`crate::build_products`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use object::{Object as _, ObjectSection as _};

use crate::differences::Differences;
use crate::report::{Report, Row};

/// Compares `files`, paths relative to both directories, byte for byte.
///
/// One row a file; its count is the number of bytes in `a_dir`. A file that is missing on one side
/// or on both is a difference.
///
/// # Errors
/// A file that is there cannot be read.
pub fn bit_equal(a_dir: &Path, b_dir: &Path, files: &[PathBuf]) -> Result<Report> {
    let rows = files.iter().map(|file| {
        let a = read(&a_dir.join(file))?;
        let b = read(&b_dir.join(file))?;
        let mut differences = Differences::default();
        match (&a, &b) {
            (Some(a), Some(b)) => describe(a, b, &mut differences),
            (None, Some(_)) => differences.push(format!("missing in {}", a_dir.display())),
            (Some(_), None) => differences.push(format!("missing in {}", b_dir.display())),
            (None, None) => differences.push("missing in both directories"),
        }
        let count = a.map_or(0, |bytes| bytes.len());
        Ok(Row::new(file.display().to_string(), count, differences))
    });
    Ok(Report {
        rows: rows.collect::<Result<_>>()?,
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn describe(a: &[u8], b: &[u8], differences: &mut Differences) {
    let Some(offset) = first_difference(a, b) else {
        return;
    };
    if let (Ok(a_file), Ok(b_file)) = (object::File::parse(a), object::File::parse(b)) {
        differences.push(format!("first at {}", place(&a_file, offset)));
        let sections = differing_sections(&a_file, &b_file);
        if !sections.is_empty() {
            differences.push(format!("sections that differ: {}", sections.join(" ")));
        }
    } else if let (Some(a), Some(b)) = (line_at(a, offset), line_at(b, offset)) {
        differences.push(format!("first in line {}: {:?} and {:?}", a.0, a.1, b.1));
    } else {
        differences.push(format!("first at offset {offset:#x}"));
    }
    if a.len() != b.len() {
        differences.push(format!("{} and {} bytes long", a.len(), b.len()));
    }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    common.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

/// The section that holds `offset`, and the offset within it.
fn place(file: &object::File<'_>, offset: usize) -> String {
    let found = file.sections().find_map(|section| {
        let (start, size) = section.file_range()?;
        let within = u64::try_from(offset).ok()?.checked_sub(start)?;
        (within < size).then(|| format!("{}+{within:#x}", name(&section)))
    });
    match found {
        Some(place) => format!("{place} (file offset {offset:#x})"),
        None => format!("file offset {offset:#x}, outside all sections"),
    }
}

/// The sections that differ, by position in the file; at most eight.
fn differing_sections(a: &object::File<'_>, b: &object::File<'_>) -> Vec<String> {
    let pairs = a.sections().zip(b.sections());
    pairs
        .filter(|(a, b)| name(a) != name(b) || a.data().ok() != b.data().ok())
        .map(|(a, _)| name(&a))
        .take(8)
        .collect()
}

fn name<'data>(section: &impl object::ObjectSection<'data>) -> String {
    let bytes = section.name_bytes().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number and text of the line that holds `offset`, if the file is a text.
fn line_at(bytes: &[u8], offset: usize) -> Option<(usize, &str)> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))?;
    let before = bytes.get(..offset)?;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let number = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    Some((number, text.get(start..)?.lines().next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(a: &[u8], b: &[u8]) -> Vec<String> {
        let mut differences = Differences::default();
        describe(a, b, &mut differences);
        differences.first
    }

    #[test]
    fn a_text_differs_by_line_and_other_bytes_by_offset() {
        assert!(differences(b"same", b"same").is_empty());
        assert_eq!(
            differences(b"one\ntwo\nx", b"one\ntoo\nx"),
            [r#"first in line 2: "two" and "too""#]
        );
        assert_eq!(
            differences(b"one\n", b"one\ntwo\n"),
            [r#"first in line 2: "" and "two""#, "4 and 8 bytes long"]
        );
        assert_eq!(differences(b"\0ab", b"\0ac"), ["first at offset 0x2"]);
    }

    #[test]
    fn a_file_that_neither_directory_has_is_not_equal() {
        let directory = tempfile::tempdir().unwrap();
        let files = [PathBuf::from("vmlinux")];
        let report = bit_equal(directory.path(), directory.path(), &files).unwrap();
        assert!(!report.equal());
    }
}
