//! Command lines and MAKEFLAGS texts, checked against what make 4.3 does with them.

use super::*;

fn parse(words: &[&str]) -> MakeArguments {
    MakeArguments::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
}

fn text(arguments: &MakeArguments) -> String {
    arguments
        .words()
        .join(OsStr::new("|"))
        .into_string()
        .unwrap()
}

fn value(arguments: &MakeArguments, option: MakeOption) -> Option<&str> {
    arguments.values(option).last().and_then(OsStr::to_str)
}

#[test]
fn every_spelling_of_an_option_gives_its_value() {
    use MakeOption::*;
    let cases: &[(&[&str], MakeOption, Option<&str>)] = &[
        (&["-C", "dir"], Directory, Some("dir")),
        (&["-Cdir"], Directory, Some("dir")),
        (&["--directory=dir"], Directory, Some("dir")),
        (&["--directory", "dir"], Directory, Some("dir")),
        (&["--dir=dir"], Directory, Some("dir")),
        (&["-kC", "dir"], Directory, Some("dir")),
        (&["-f", "M"], File, Some("M")),
        (&["--makefile=M"], File, Some("M")),
        (&["-l", "2.5"], LoadAverage, Some("2.5")),
        (&["-l", "all"], LoadAverage, None),
        (&["-Oline"], OutputSync, Some("line")),
        (&["-O", "line"], OutputSync, None),
        (&["--output-sync=line"], OutputSync, Some("line")),
        (&["--eval=X=1"], Eval, Some("X=1")),
        (&["-o", "x", "-W", "y"], NewFile, Some("y")),
        (&["-Idir"], IncludeDirectory, Some("dir")),
        (&["all", "-j8"], Jobs, Some("8")),
        (&["--jobs"], Jobs, None),
    ];
    for (words, option, expected) in cases {
        let arguments = parse(words);
        assert!(arguments.has(*option), "{words:?}");
        assert_eq!(value(&arguments, *option), *expected, "{words:?}");
        assert_eq!(arguments.unknown().count(), 0, "{words:?}");
    }
}

#[test]
fn letters_may_stand_in_one_word() {
    let arguments = parse(&["-kswBinqtp", "--trace", "--no-print-directory"]);
    let options: Vec<_> = arguments.options().map(|used| used.option).collect();
    use MakeOption::*;
    let expected = [
        KeepGoing,
        Silent,
        PrintDirectory,
        AlwaysMake,
        IgnoreErrors,
        JustPrint,
        Question,
        Touch,
        PrintDataBase,
        Trace,
        NoPrintDirectory,
    ];
    assert_eq!(options, expected);
}

#[test]
fn jobs_take_the_next_word_only_if_it_is_a_number() {
    let four = Jobs::Number(NonZeroU32::new(4).unwrap());
    for (words, jobs, goals) in [
        (&["-j", "4", "all"][..], Some(four), "all"),
        (&["-j", "all"], Some(Jobs::Unlimited), "all"),
        (&["-kj", "4"], Some(four), ""),
        (&["-j8", "--jobs=4"], Some(four), ""),
        (&["-j", "4k"], Some(Jobs::Unlimited), "4k"),
        (&["all"], None, "all"),
    ] {
        let arguments = parse(words);
        assert_eq!(arguments.jobs(), jobs, "{words:?}");
        let found: Vec<_> = arguments.goals().collect();
        assert_eq!(found.join(OsStr::new(" ")), goals, "{words:?}");
    }
}

#[test]
fn jobs_go_and_all_else_stays() {
    for (words, expected) in [
        (&["-j8", "LLVM=1", "all"][..], "LLVM=1|all"),
        (&["-kj4", "x"], "-k|x"),
        (&["-kj", "4", "x"], "-k|x"),
        (&["-j", "x", "--jobs", "3", "-C", "d"], "x|-C|d"),
        (
            &["--jobserver-auth=3,4", "-s", "--", "-j4=3"],
            "-s|--|-j4=3",
        ),
        (&["-C", "-j4"], "-C|-j4"),
    ] {
        assert_eq!(text(&parse(words).without_jobs()), expected, "{words:?}");
    }
}

#[test]
fn operands_are_assignments_or_goals() {
    use Operator::*;
    for (word, expected) in [
        ("A=b", Some(("A", Set, "b"))),
        ("A:=b=c", Some(("A", Set, "b=c"))),
        ("A::=b", Some(("A", Set, "b"))),
        ("A+=b c", Some(("A", Append, "b c"))),
        ("A?=", Some(("A", SetIfUndefined, ""))),
        ("A ?= 2  x ", Some(("A", SetIfUndefined, "2  x "))),
        ("A!=date", Some(("A", Shell, "date"))),
        ("a:b=c", None),
        ("=c", None),
        ("vmlinux", None),
    ] {
        let arguments = parse(&[word]);
        let found = arguments.assignments().next();
        let found = found.map(|found| {
            (
                found.name.to_str().unwrap(),
                found.operator,
                found.value.to_str().unwrap(),
            )
        });
        assert_eq!(found, expected, "{word}");
        assert_eq!(
            arguments.goals().count(),
            usize::from(expected.is_none()),
            "{word}"
        );
    }
}

#[test]
fn unknown_options_are_kept_and_listed() {
    let arguments = parse(&["--frobnicate", "-kZ", "--trace=1", "all", "-C"]);
    let unknown: Vec<_> = arguments.unknown().collect();
    assert_eq!(unknown, ["--frobnicate", "-kZ", "--trace=1", "-C"]);
    assert_eq!(text(&arguments), "--frobnicate|-kZ|--trace=1|all|-C");
}

#[test]
fn a_variable_is_replaced_in_place_or_added() {
    let arguments = parse(&["CC=gcc", "all", "CC+=-x", "O=out"]);
    let replaced = arguments.with_variable("CC", OsStr::new("clang $x"));
    assert_eq!(text(&replaced), "CC=clang $$x|all|O=out");
    let added = arguments.with_variable("LD", OsStr::new("ld.lld"));
    assert_eq!(text(&added), "CC=gcc|all|CC+=-x|O=out|LD=ld.lld");
}

#[test]
fn makeflags_are_read_as_make_reads_them() {
    let flags = MakeFlags::parse(OsStr::new(
        r"kw -j2 --jobserver-auth=3,4 -- B=x\ y A=a\\$$c",
    ));
    assert!(flags.arguments().has(MakeOption::KeepGoing));
    assert_eq!(flags.jobserver(), Some(OsStr::new("3,4")));
    assert_eq!(
        flags.jobs(),
        Some(Jobs::Number(NonZeroU32::new(2).unwrap()))
    );
    let values: Vec<_> = flags
        .arguments()
        .assignments()
        .map(|a| a.value.clone())
        .collect();
    assert_eq!(values, ["x y", r"a\$c"]);
    let first_is_variable = MakeFlags::parse(OsStr::new("A=b k"));
    assert_eq!(first_is_variable.arguments().goals().count(), 0);
    assert_eq!(first_is_variable.arguments().assignments().count(), 1);
}

#[test]
fn makeflags_get_another_jobserver() {
    let eight = NonZeroU32::new(8).unwrap();
    for (before, without, with) in [
        ("", "", "-j8 --jobserver-auth=5,6"),
        ("kw", "kw", "kw -j8 --jobserver-auth=5,6"),
        (" -j4 --jobserver-fds=3,4", "", "-j8 --jobserver-auth=5,6"),
        (
            "kj4 -- A=b",
            "k -- A=b",
            "k -j8 --jobserver-auth=5,6 -- A=b",
        ),
        (
            r"s -j --jobserver-auth=fifo:/t/x --trace -- A=b\ c B=$$$$x",
            r"s --trace -- A=b\ c B=$$$$x",
            r"s --trace -j8 --jobserver-auth=5,6 -- A=b\ c B=$$$$x",
        ),
        ("A=b", "A=b", "-j8 --jobserver-auth=5,6 A=b"),
    ] {
        let flags = MakeFlags::parse(OsStr::new(before));
        assert_eq!(flags.without_jobserver(), *without, "{before}");
        assert_eq!(flags.with_jobserver(eight, "5,6"), *with, "{before}");
    }
}

#[test]
fn both_flag_variables_are_read() {
    let environment: crate::Environment = [("GNUMAKEFLAGS", "k -- A=g"), ("MAKEFLAGS", "s -- A=m")]
        .into_iter()
        .collect();
    let flags = MakeFlags::of_environment(&environment);
    assert_eq!(flags.without_jobserver(), "k A=g -s -- A=m");
    assert!(flags.arguments().has(MakeOption::Silent));
}
