//! Dependency files as clang writes them for make: a target and the files that were read.
//!
//! In: bytes of one rule. Out: the target and the paths; and back. It opens none of the files.

use crate::FormatError;

/// One rule: what was made, and what was read for it, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depfile {
    /// The target, as the compiler was told it.
    pub target: Vec<u8>,
    /// The source first, then each header when it was first read.
    pub files: Vec<Vec<u8>>,
}

impl Depfile {
    /// Reads one rule. clang writes a blank in a path as `\ `, `#` as `\#` and `$` as `$$`
    /// (`PrintFilename` in clang/lib/Frontend/DependencyFile.cpp).
    ///
    /// # Errors
    /// There is no rule with a target.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut words = words(bytes).into_iter();
        let target = words.next().unwrap_or_default();
        let Some(target) = target.strip_suffix(b":").filter(|name| !name.is_empty()) else {
            return Err(FormatError::new(
                "dependency file",
                0,
                "a target and a colon",
            ));
        };
        Ok(Self {
            target: target.to_vec(),
            files: words.collect(),
        })
    }

    /// The rule, a line for each file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = escaped(&self.target);
        bytes.push(b':');
        for file in &self.files {
            bytes.extend_from_slice(b" \\\n  ");
            bytes.extend(escaped(file));
        }
        bytes.push(b'\n');
        bytes
    }
}

fn escaped(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b' ' | b'#' => bytes.push(b'\\'),
            b'$' => bytes.push(b'$'),
            _ => {}
        }
        bytes.push(*byte);
    }
    bytes
}

fn words(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match (byte, rest.peek()) {
            (b'\\', Some(b'\n')) => {
                rest.next();
                end_word(&mut words, &mut word);
            }
            (b'\\', Some(escaped @ (b' ' | b'#'))) => {
                word.push(*escaped);
                rest.next();
            }
            (b'$', Some(b'$')) => {
                word.push(b'$');
                rest.next();
            }
            (b' ' | b'\t' | b'\n' | b'\r', _) => end_word(&mut words, &mut word),
            _ => word.push(byte),
        }
    }
    end_word(&mut words, &mut word);
    words
}

fn end_word(words: &mut Vec<Vec<u8>>, word: &mut Vec<u8>) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_clang_writes_is_read() {
        let text = b"fs/a.o: /src/fs/a.c \\\n  include/linux/x\\ y.h include/a$$b.h \\\n  c\\#.h\n";
        let depfile = Depfile::read(text).unwrap();
        assert_eq!(depfile.target, b"fs/a.o");
        let files: [&[u8]; 4] = [
            b"/src/fs/a.c",
            b"include/linux/x y.h",
            b"include/a$b.h",
            b"c#.h",
        ];
        assert_eq!(depfile.files, files);
    }

    #[test]
    fn a_text_without_a_target_is_refused() {
        for text in [&b""[..], b"a.c b.h", b":", b" : a"] {
            assert!(Depfile::read(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            target in "[a-z/.]{1,9}",
            files in proptest::collection::vec("[a-z/.$# _-]{0,9}[a-z]", 0..6),
        ) {
            let files = files.into_iter().map(String::into_bytes).collect();
            let depfile = Depfile { target: target.into_bytes(), files };
            prop_assert_eq!(Depfile::read(&depfile.to_bytes()).unwrap(), depfile);
        }
    }
}
