//! The names that a linker script mentions.
//!
//! In: the text of a script. Out: a superset of the symbols in it; keywords, section names and
//! file names are among them. Scripts that it includes are not opened.

use std::collections::BTreeSet;

/// Every token of the form `[A-Za-z_.$][A-Za-z0-9_.$]*`, comments skipped, and the whole content
/// of every quoted name.
pub fn identifiers(text: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(after) = after_comment(rest) {
            rest = after;
        } else if is_part(*first) {
            let length = rest.iter().take_while(|byte| is_part(**byte)).count();
            let (token, after) = rest.split_at(length);
            if !first.is_ascii_digit() {
                found.insert(token.to_vec());
            }
            rest = after;
        } else if *first == b'"' {
            // Comments do not start in quotes; an open quote quotes nothing.
            let length = tail.iter().position(|byte| matches!(byte, b'"' | b'\n'));
            let (name, after) = tail.split_at(length.unwrap_or(0));
            if !name.is_empty() {
                found.insert(name.to_vec());
                let tokens = name.split(|byte| !is_part(*byte));
                found.extend(tokens.filter(|token| is_name(token)).map(<[u8]>::to_vec));
            }
            rest = after.strip_prefix(b"\"").unwrap_or(after);
        } else {
            rest = tail;
        }
    }
    found
}

/// The text after the comment that starts here. A comment without an end is no comment, so that
/// the names in it count.
fn after_comment(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"/*")?;
    let end = inside.windows(2).position(|pair| pair == b"*/")?;
    inside.get(end + 2..)
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')
}

fn is_name(token: &[u8]) -> bool {
    token.first().is_some_and(|byte| !byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(script: &str) -> Vec<String> {
        let text = |name| String::from_utf8(name).unwrap();
        identifiers(script.as_bytes())
            .into_iter()
            .map(text)
            .collect()
    }

    #[test]
    fn names_are_found_and_comments_are_not() {
        let script = "jiffies = jiffies_64; /* old_name */ ASSERT(. == 0x1f, 2b)\n_e$1=_etext-4;";
        let expected = [".", "ASSERT", "_e$1", "_etext", "jiffies", "jiffies_64"];
        assert_eq!(names(script), expected);
    }

    #[test]
    fn quoted_names_count_whole_and_in_parts() {
        assert_eq!(names("\"a-b/*\" = c; /* d */"), ["a", "a-b/*", "b", "c"]);
    }

    #[test]
    fn open_comments_and_quotes_hide_nothing() {
        assert_eq!(names("a /* b"), ["a", "b"]);
        assert_eq!(names("a \"b"), ["a", "b"]);
        assert_eq!(names("a \"b\nc\" d"), ["a", "b", "c", "d"]);
        assert_eq!(names("/*/ a */ b"), ["b"]);
    }
}
