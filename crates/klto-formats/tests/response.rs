//! The response file reader and writer against clang.
#![allow(clippy::unwrap_used)]

mod common;

use common::run;
use klto_formats::response;

/// The macros on the command line of the compiler proper that clang shows for a response file.
fn definitions_seen_by_clang(text: &[u8]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), text).unwrap();
    let arguments = ["-###", "-c", "-x", "c", "/dev/null", "@file"];
    let shown = String::from_utf8(run("clang", directory.path(), &arguments)).unwrap();
    let mut parts = shown.split(" \"-D\" \"");
    parts.next();
    parts.map(shown_argument).collect()
}

/// The text up to the closing quote; clang writes a backslash before `"`, `\` and `$`.
fn shown_argument(text: &str) -> String {
    let mut argument = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next().unwrap() {
            '"' => return argument,
            '\\' => argument.push(characters.next().unwrap()),
            other => argument.push(other),
        }
    }
}

fn definitions(arguments: Vec<Vec<u8>>) -> Vec<String> {
    let text = |argument| String::from_utf8(argument).unwrap();
    let arguments = arguments.into_iter().map(text);
    arguments
        .map(|argument| argument.strip_prefix("-D").unwrap().to_owned())
        .collect()
}

#[test]
fn clang_and_klto_read_the_same_arguments() {
    let texts = [
        "-DA=1 -DB=2\n-DC=3\r\n\t-DD=4",
        "-DA='a b' '-DB=\"x\"' \"-DC='y'\"",
        r"-DA=a\ b -DB=\'x\' -DC=\\n -DD=\n",
        r#"-DA='x\'y' -DB="x\"y" -DC='x\\y' -DD="\x""#,
        "'' -DA=1 \"\" -DB=''",
        "-DA=x\\\ny -DB=2",
        "-DA=a'b c'd\"e f\"",
        "-DA='open quote",
        "-DA=end\\",
    ];
    for text in texts {
        let parsed = definitions(response::parse(text.as_bytes()));
        assert_eq!(parsed, definitions_seen_by_clang(text.as_bytes()), "{text}");
    }
}

#[test]
fn clang_reads_what_klto_writes() {
    let arguments = [
        "-DA=a b",
        "-DB=\"x\" 'y'",
        "-DC=\\",
        "-DD=tab\tend",
        "-DE=$x",
        "-DF=@y",
    ];
    let expected = arguments.map(|argument| argument.strip_prefix("-D").unwrap());
    assert_eq!(
        definitions_seen_by_clang(&response::quote(arguments)),
        expected
    );
}
