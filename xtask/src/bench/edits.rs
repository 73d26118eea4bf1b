//! What a row changes in the source before the clock starts.
//!
//! In: a text and a line of it. Out: the text with something there that no build has seen. An edit
//! replaces the one before, so that a text does not grow. It does not know what is built.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

/// Begins what an edit puts in; its number follows.
const MARK: &str = "klto's measurement ";

/// A change of one source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Below the source tree.
    pub file: &'static str,
    /// The whole line at which the change is.
    pub at: &'static str,
    pub kind: Kind,
}

/// What happens at the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file is written as it is.
    Touch,
    /// A statement before it that prints.
    Statement,
    /// A comment before it, of one line or of two in turn, so that each edit moves what follows.
    CommentLine,
    /// A comment at its end. Lines that another kind put in stay, so that it moves none.
    CommentAtEnd,
}

impl Edit {
    /// Changes the file below `source`, which must have an inode of its own.
    pub fn apply(self, source: &Path) -> Result<()> {
        let path = source.join(self.file);
        let text = fs::read_to_string(&path)?;
        let changed = self.changed(&text).ok_or_else(|| {
            Failure::bad_input(format!("{} has no line {:?}", self.file, self.at))
        })?;
        Ok(fs::write(&path, changed)?)
    }

    /// `None` where the text has no such line.
    fn changed(self, text: &str) -> Option<String> {
        if self.kind == Kind::Touch {
            return Some(text.to_owned());
        }
        let number = last_number(text) + 1;
        let comment = format!("/* {MARK}{number} */");
        let standing = text
            .lines()
            .filter(|line| line.starts_with("/* ") && line.contains(MARK));
        let lines = if standing.count() == 1 { 2 } else { 1 };
        let mut changed = String::with_capacity(text.len() + comment.len());
        let mut found = false;
        for line in text.lines() {
            let original = match line.split_once(MARK) {
                Some((before, _)) => before.strip_suffix(" /* "),
                None => Some(line),
            };
            let Some(original) = original.filter(|text| !text.is_empty() || line.is_empty()) else {
                // A line that an edit put in whole.
                if self.kind == Kind::CommentAtEnd {
                    changed += line;
                    changed.push('\n');
                }
                continue;
            };
            let is_there = !found && original == self.at;
            found |= is_there;
            changed += &match self.kind {
                Kind::Statement if is_there => {
                    format!("\tpr_notice(\"{MARK}{number}\\n\");\n{original}\n")
                }
                Kind::CommentLine if is_there => {
                    format!("{}{original}\n", format!("{comment}\n").repeat(lines))
                }
                Kind::CommentAtEnd if is_there => format!("{original} {comment}\n"),
                _ => format!("{original}\n"),
            };
        }
        found.then_some(changed)
    }
}

/// The largest number of an edit in the text; zero in one without.
fn last_number(text: &str) -> u64 {
    let numbers = text.split(MARK).skip(1).filter_map(|after| {
        let digits = after
            .split(|letter: char| !letter.is_ascii_digit())
            .next()?;
        digits.parse().ok()
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#include <a.h>\n\nint f(void)\n{\n\treturn 1;\n}\n";

    fn edit(at: &'static str, kind: Kind) -> Edit {
        Edit {
            file: "f.c",
            at,
            kind,
        }
    }

    #[test]
    fn an_edit_replaces_the_one_before() {
        let statement = edit("\treturn 1;", Kind::Statement);
        let first = statement.changed(TEXT).unwrap();
        assert_eq!(
            first,
            TEXT.replace(
                "\treturn",
                "\tpr_notice(\"klto's measurement 1\\n\");\n\treturn"
            )
        );
        let second = statement.changed(&first).unwrap();
        assert_eq!(
            second,
            first.replace('1', "2").replace("return 2", "return 1")
        );
        let line = edit("int f(void)", Kind::CommentLine)
            .changed(&second)
            .unwrap();
        let before = |text: &str, lines: &str| text.replace("int f", &format!("{lines}int f"));
        assert_eq!(line, before(TEXT, "/* klto's measurement 3 */\n"));
        assert_eq!(edit("", Kind::Touch).changed(&line).unwrap(), line);
    }

    #[test]
    fn comments_move_lines_each_time_or_never() {
        let line = edit("int f(void)", Kind::CommentLine);
        let end = edit("int f(void)", Kind::CommentAtEnd);
        let count = |text: &str| text.lines().count();
        let first = line.changed(TEXT).unwrap();
        assert_eq!(count(&first), count(TEXT) + 1);
        let at_end = end.changed(&first).unwrap();
        let once_more = end.changed(&at_end).unwrap();
        for text in [&at_end, &once_more] {
            assert_eq!(count(text), count(&first), "{text}");
        }
        assert_eq!(once_more, at_end.replace("measurement 2", "measurement 3"));
        let second = line.changed(&once_more).unwrap();
        assert_eq!(count(&second), count(TEXT) + 2, "{second}");
        assert_eq!(count(&line.changed(&second).unwrap()), count(TEXT) + 1);
    }

    #[test]
    fn a_line_that_is_not_there_is_no_edit() {
        assert_eq!(edit("int g(void)", Kind::CommentLine).changed(TEXT), None);
    }
}
