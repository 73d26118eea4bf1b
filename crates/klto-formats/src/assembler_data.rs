//! Assembler sources that are mostly numbers, as the table of kernel symbols: the numbers as bytes in a file
//! of their own, and the rest with `.incbin` where they stood. The assembler makes the same object of it, in
//! a fraction of the time.
//!
//! In: the source, and the path of the other file. Out: both texts. Only lines that hold nothing but numbers
//! move.

use std::path::Path;

/// Lines that are worth a directive of their own.
const FEWEST_LINES: usize = 8;

/// A source in two parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// The source, with `.incbin` for runs of numbers.
    pub source: Vec<u8>,
    /// The numbers, least significant byte first.
    pub data: Vec<u8>,
}

/// Folds a source; `file` is where its data will be. `None` where the path cannot be written in a source.
pub fn fold(source: &[u8], file: &Path) -> Option<Folded> {
    let path = file.to_str()?;
    if path.contains(['"', '\\', '\n']) {
        return None;
    }
    let mut folded = Folded::default();
    let mut run = Run::default();
    for line in source.split_inclusive(|byte| *byte == b'\n') {
        match numbers(line) {
            Some(bytes) => run.add(line, &bytes),
            None => {
                run.end(path, &mut folded);
                folded.source.extend_from_slice(line);
            }
        }
    }
    run.end(path, &mut folded);
    Some(folded)
}

/// Lines that follow one another, and their numbers.
#[derive(Default)]
struct Run {
    count: usize,
    lines: Vec<u8>,
    data: Vec<u8>,
}

impl Run {
    fn add(&mut self, line: &[u8], data: &[u8]) {
        self.count += 1;
        self.lines.extend_from_slice(line);
        self.data.extend_from_slice(data);
    }

    fn end(&mut self, path: &str, folded: &mut Folded) {
        let run = std::mem::take(self);
        if run.count < FEWEST_LINES {
            folded.source.extend(run.lines);
            return;
        }
        let (start, length) = (folded.data.len(), run.data.len());
        let directive = format!("\t.incbin \"{path}\", {start}, {length}\n");
        folded.source.extend(directive.into_bytes());
        folded.data.extend(run.data);
    }
}

/// The bytes of a line that has a directive, numbers and at most a comment behind them, as scripts/kallsyms.c
/// writes it.
fn numbers(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\n")?.trim_ascii();
    let end = line.iter().position(|byte| byte.is_ascii_whitespace())?;
    let (directive, operands) = line.split_at(end);
    let size = match directive {
        b".byte" => 1,
        b".short" => 2,
        b".long" => 4,
        _ => return None,
    };
    let mut bytes = Vec::new();
    for operand in without_comment(operands)?.split(|byte| *byte == b',') {
        let number = number(operand.trim_ascii())?;
        let all = number.to_le_bytes();
        let (low, high) = all.split_at(size);
        if high.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(low);
    }
    Some(bytes)
}

fn without_comment(operands: &[u8]) -> Option<&[u8]> {
    let Some(start) = operands.windows(2).position(|pair| pair == b"/*") else {
        return Some(operands);
    };
    let (operands, comment) = operands.split_at(start);
    // The comment ends with the line, and nowhere before.
    let end = comment.windows(2).position(|pair| pair == b"*/")?;
    (end + 2 == comment.len()).then_some(operands)
}

/// Decimal or hexadecimal. A leading zero would be octal.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if text == "0" || !text.starts_with(['0', '+', '-']) => text.parse().ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold_text(source: &str) -> (String, Vec<u8>) {
        let folded = fold(source.as_bytes(), Path::new("/d")).unwrap();
        (String::from_utf8(folded.source).unwrap(), folded.data)
    }

    #[test]
    fn runs_of_numbers_are_folded() {
        let bytes = "\t.byte 0x01, 0xff\t/* T_text */\n".repeat(8);
        let longs = "\t.long\t7\n\t.short\t0x102\n".repeat(4);
        let (source, data) = fold_text(&format!("a:\n{bytes}\nb:\n{longs}\tPTR\t_text + 0\n"));
        let expected =
            "a:\n\t.incbin \"/d\", 0, 16\n\nb:\n\t.incbin \"/d\", 16, 24\n\tPTR\t_text + 0\n";
        assert_eq!(source, expected);
        assert_eq!(data[..4], [1, 255, 1, 255]);
        assert_eq!(data[16..22], [7, 0, 0, 0, 2, 1]);
    }

    #[test]
    fn everything_else_stays() {
        for line in [
            "\t.long\t_text + 4\n",
            "\t.long\t-1\n",
            "\t.long\t0x100000000\n",
            "\t.byte 256\n",
            "\t.byte 010\n",
            "\t.byte 1 + 1\n",
            "\t.byte 1 /* a */ + 1\n",
            "\t.byte 1 /* a\n",
            "\t.byte 1 \\\n",
            "\t.byte\n",
            "\t.quad 1\n",
            "\t.asciz \"1\"\n",
            "#define A .byte 1\n",
        ] {
            let source = line.repeat(20);
            assert_eq!(fold_text(&source), (source.clone(), vec![]), "{line:?}");
        }
        let few = "\t.byte 1\n".repeat(FEWEST_LINES - 1);
        assert_eq!(fold_text(&few), (few.clone(), vec![]));
        assert_eq!(fold(b"", Path::new("/a\"b")), None);
    }
}
