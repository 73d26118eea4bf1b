//! Response files (`@file`) in the GNU style, as clang, lld and the LLVM tools read them.
//!
//! In: the text of the file. Out: its arguments; and the inverse. An argument that is again
//! `@file` is not opened. Facts: LLVM's `cl::TokenizeGNUCommandLine`.

/// The arguments in the text of a response file.
///
/// Blanks and newlines separate. A backslash takes the next byte as it is, also in quotes; at the
/// end of the text it stands for itself. Single and double quotes are alike. An empty argument
/// (`""`) is dropped, as in LLVM up to 22.
pub fn parse(text: &[u8]) -> Vec<Vec<u8>> {
    let mut arguments = Vec::new();
    let mut argument = Vec::new();
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', _) => argument.push(bytes.next().unwrap_or(byte)),
            (_, Some(open)) if byte == open => quote = None,
            (b'\'' | b'"', None) => quote = Some(byte),
            (b' ' | b'\t' | b'\r' | b'\n', None) => {
                if !argument.is_empty() {
                    arguments.push(std::mem::take(&mut argument));
                }
            }
            _ => argument.push(byte),
        }
    }
    if !argument.is_empty() {
        arguments.push(argument);
    }
    arguments
}

/// The text of a response file that gives `arguments`, one a line.
///
/// An empty argument is written as `""`, which LLVM drops up to 22.
pub fn quote<A: AsRef<[u8]>>(arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
    let mut text = Vec::new();
    for argument in arguments {
        let argument = argument.as_ref();
        let plain = !argument.is_empty() && argument.iter().all(|byte| is_plain(*byte));
        if plain {
            text.extend(argument);
        } else {
            text.push(b'"');
            for byte in argument {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
            text.push(b'"');
        }
        text.push(b'\n');
    }
    text
}

fn is_plain(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\'' | b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(arguments: &[Vec<u8>]) -> Vec<&str> {
        let text = |argument| std::str::from_utf8(argument).unwrap();
        arguments.iter().map(|argument| text(argument)).collect()
    }

    #[test]
    fn quotes_and_backslashes_are_taken_off() {
        let arguments = parse(b" -o a\\ b\t'x\\'y'\r\n\"p \\\"q\\z\" c'd e'f \\\\ end\\");
        let expected = ["-o", "a b", "x'y", "p \"qz", "cd ef", "\\", "end\\"];
        assert_eq!(text(&arguments), expected);
    }

    #[test]
    fn empty_arguments_are_dropped_and_open_quotes_end_with_the_text() {
        assert_eq!(text(&parse(b"'' a \"\" 'b c")), ["a", "b c"]);
        assert!(parse(b" \n").is_empty());
    }

    #[test]
    fn plain_arguments_are_written_without_quotes() {
        assert_eq!(
            quote(["-r", "a b", "c\"\\"]),
            b"-r\n\"a b\"\n\"c\\\"\\\\\"\n"
        );
    }

    proptest! {
        #[test]
        fn quoted_arguments_parse_to_themselves(
            arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 0..8)
        ) {
            prop_assert_eq!(parse(&quote(&arguments)), arguments);
        }

        #[test]
        fn hard_arguments_parse_to_themselves(
            arguments in prop::collection::vec("[ \t\n\\\\'\"ab@]{1,8}", 0..8)
        ) {
            let arguments: Vec<Vec<u8>> = arguments.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(parse(&quote(&arguments)), arguments);
        }
    }
}
