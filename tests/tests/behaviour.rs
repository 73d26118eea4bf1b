//! What is around a build behaves as in plain make: options of make, goals that build nothing, and
//! each object's own flags.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use klto_tests::{Build, Shared, step};
use object::{Object as _, ObjectSection as _};

use prepared::tools::real_program;
use prepared::{
    JBD2_OBJECTS, directory, files_below, jbd2, jbd2_of_6_12, prepare_again, private_jbd2_of_6_12,
    run, with_private_source,
};

/// The same build through klto and by plain make, each in an output tree of its own.
fn both(name: &str) -> (Build, Build) {
    let plain = jbd2(&format!("{name}-plain")).plain().mode(None);
    (jbd2(name), plain)
}

/// The same, both clean builds, which tests share. One of them damages `fs/jbd2/jbd2.o`; the others look at
/// compiles alone.
fn both_built() -> &'static (Build, Build) {
    static BUILT: Shared<(Build, Build)> = Shared::new();
    BUILT.get(|| {
        let (build, plain) = both("built");
        step("a clean build of jbd2.ko", || build.succeed());
        step("the same by plain make", || plain.succeed());
        Ok((build, plain))
    })
}

/// A clean build of 6.12, which tests share: none builds there again.
fn built_of_6_12() -> &'static Build {
    static BUILT: Shared<Build> = Shared::new();
    BUILT.get(|| {
        let build = jbd2_of_6_12("built-6.12").verify(0);
        step("a clean build of jbd2.ko", || build.succeed());
        Ok(build)
    })
}

fn with_word(build: &Build, word: &str) -> prepared::Ended {
    run(&mut build.clone().word(word).command())
}

fn objects(build: &Build) -> Vec<PathBuf> {
    let output = build.output_directory();
    let files = files_below(&output.join("fs/jbd2")).into_iter();
    let objects = files.filter(|file| file.extension().is_some_and(|end| end == "o"));
    objects
        .map(|file| file.strip_prefix(output).unwrap().to_owned())
        .collect()
}

/// What kbuild says that it makes, sorted, without klto's own lines.
fn made(text: &str) -> Vec<String> {
    let is_line = |line: &&str| line.starts_with("  ") && !line.starts_with("  KLTO ");
    let mut lines: Vec<String> = text.lines().filter(is_line).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn asking_what_would_be_done_does_nothing() {
    let (build, plain) = both("dry");
    for word in ["-n", "-q"] {
        let (ours, theirs) = (with_word(&build, word), with_word(&plain, word));
        assert_eq!(
            ours.code, theirs.code,
            "{word}: {}{}",
            ours.stderr, theirs.stderr
        );
        assert_eq!(objects(&build), [] as [&Path; 0], "{word}");
    }
}

/// make compares command lines: they must be those of the build.
#[test]
fn what_was_built_needs_nothing() {
    let (build, _) = both_built();
    let compiles = |words: &[&str]| {
        let all = words
            .iter()
            .fold(build.clone(), |build, word| build.word(word));
        let printed = run(&mut all.command()).stdout;
        JBD2_OBJECTS
            .iter()
            .filter(|name| printed.contains(&format!("-o fs/jbd2/{name}.o")))
            .count()
    };
    assert_eq!(compiles(&["-n"]), 0);
    assert_eq!(compiles(&["-n", "KCFLAGS=-DOTHER"]), JBD2_OBJECTS.len());
}

#[test]
fn touching_compiles_nothing() {
    let (build, plain) = both_built();
    let objects = [build, plain].map(|build| build.output_directory().join("fs/jbd2/jbd2.o"));
    for object in &objects {
        fs::write(object, "marked").unwrap();
    }
    let (ours, theirs) = (with_word(build, "-t"), with_word(plain, "-t"));
    assert_eq!(ours.code, theirs.code, "{}{}", ours.stderr, theirs.stderr);
    for object in &objects {
        assert_eq!(fs::read_to_string(object).unwrap(), "marked");
    }
}

#[test]
fn keep_going_makes_all_that_can_be_made() {
    let (build, plain) = both("keep-going");
    let (build, source) = with_private_source(build);
    let plain = plain.source(source.path());
    prepare_again(&plain, &source);
    let text = fs::read_to_string(source.path().join("fs/jbd2/transaction.c")).unwrap();
    source
        .write("fs/jbd2/transaction.c", &format!("{text}\n#error here\n"))
        .unwrap();
    let (ours, theirs) = (with_word(&build, "-k"), with_word(&plain, "-k"));
    assert_eq!((ours.code, theirs.code), (2, 2));
    assert_eq!(objects(&build), objects(&plain));
    assert!(objects(&build).len() >= 5);
}

/// `-B` makes `.config` anew, which kbuild refuses to do.
#[test]
fn always_make_ends_as_in_make() {
    let (build, plain) = both_built();
    let (ours, theirs) = (with_word(build, "-B"), with_word(plain, "-B"));
    assert_eq!((ours.code, &ours.stderr), (theirs.code, &theirs.stderr));
    assert_eq!(made(&ours.stdout), made(&theirs.stdout));
}

#[test]
fn a_silent_build_prints_what_a_silent_make_prints() {
    let (build, plain) = both("silent");
    let (ours, theirs) = (with_word(&build, "-s"), with_word(&plain, "-s"));
    assert_eq!((ours.code, theirs.code), (0, 0));
    assert_eq!(ours.stdout, theirs.stdout);
    assert_eq!(ours.stderr, theirs.stderr);
}

#[test]
fn a_verbose_build_shows_the_commands_with_the_tools_own_names() {
    let (build, _) = both("verbose");
    let ended = with_word(&build, "V=1");
    ended.expect(0, &[]);
    for object in JBD2_OBJECTS {
        let is_compile = |line: &&str| {
            line.contains("clang-22 ") && line.ends_with(&format!("/fs/jbd2/{object}.c"))
        };
        assert!(
            ended
                .stdout
                .lines()
                .any(|line| is_compile(&line.trim_end())),
            "{object}"
        );
    }
    assert!(!ended.stdout.contains("/.klto/shims/"));
}

/// What a build prints on a terminal.
fn on_a_terminal(build: &Build) -> String {
    let command = build.command();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command"]);
    script.arg(xtask::command::words(&command)).arg("/dev/null");
    prepared::copy_environment(&command, &mut script);
    script.env("TERM", "xterm");
    let ended = run(&mut script);
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    ended.stdout
}

#[test]
fn a_terminal_shows_how_far_backends_are() {
    let build = jbd2("progress");
    let line = "\r\x1b[K  KLTO    fs/jbd2/jbd2.o: ";
    let summary = "  KLTO    fs/jbd2/jbd2.o (6 bitcode objects: ";
    let printed = on_a_terminal(&build);
    let shown = printed.split(line).nth(1).expect(&printed);
    assert!(
        shown.starts_with("0 of 6 backends done, 0 reused, "),
        "{shown}"
    );
    // Nothing of it is left where kbuild's own lines go on.
    assert!(printed.contains(&format!("\r\x1b[K{summary}")), "{printed}");
    // As words, see above, or as make and kbuild find them in the environment.
    for (name, value) in [("MAKEFLAGS", "s"), ("KBUILD_VERBOSE", "1")] {
        fs::remove_dir_all(build.output_directory().join(".klto/units")).unwrap();
        let other = build.clone().empty_store().unwrap();
        fs::remove_file(build.output_directory().join("fs/jbd2/jbd2.o")).unwrap();
        let printed = on_a_terminal(&other.environment(name, value));
        assert!(!printed.contains("\x1b[K"), "{name}: {printed}");
        let is_silent = name == "MAKEFLAGS";
        assert_eq!(printed.contains(summary), !is_silent, "{name}: {printed}");
    }
}

#[test]
fn goals_that_build_nothing_leave_no_trace_of_klto() {
    let build = jbd2("goals");
    let output = build.output_directory();
    fs::remove_dir_all(output.join(".klto")).unwrap();
    for goal in [
        "help",
        "kernelversion",
        "olddefconfig",
        "savedefconfig",
        "clean",
    ] {
        let ended = run(&mut build.clone().goals(&[goal]).command());
        ended.expect(0, &[]);
        assert!(!output.join(".klto").exists(), "{goal}");
    }
    assert_eq!(files_below(build.store_directory()), [] as [&Path; 0]);
    let version = run(&mut build.clone().goals(&["kernelversion"]).word("-s").command());
    assert!(version.stdout.contains("5.10."), "{}", version.stdout);
}

#[test]
fn mrproper_leaves_nothing_of_klto() {
    let build = jbd2("mrproper").goals(&["lib/crc16.ko"]);
    build.succeed();
    assert!(build.output_directory().join(".klto").exists());
    build.clone().goals(&["mrproper"]).succeed();
    assert!(!build.output_directory().join(".klto").exists());
}

const MAKEFILE: &str = "obj-m += flags.o\n\
    flags-y := first.o second.o\n\
    CFLAGS_second.o := -mstack-alignment=16 -fno-stack-protector -ffunction-sections\n";

/// A function with an array that wants 16 bytes of alignment and a stack protector.
fn source_of(name: &str, more: &str) -> String {
    format!(
        "#include <linux/module.h>\n\
         noinline void klto_fill(char *bytes);\n\
         noinline int klto_{name}(void);\n\
         noinline int klto_{name}(void)\n\
         {{\n\tchar bytes[64] __aligned(16);\n\n\tklto_fill(bytes);\n\treturn bytes[5];\n}}\n\
         EXPORT_SYMBOL(klto_{name});\n{more}"
    )
}

/// Name and disassembly of each object's function, and the names of its sections.
fn look_at(native: &Path, function: &str) -> (String, Vec<String>) {
    let mut objdump = Command::new(real_program("llvm-objdump-22"));
    objdump.args(["-d", "-r", "--no-show-raw-insn"]);
    objdump.arg(format!("--disassemble-symbols={function}"));
    let ended = run(objdump.arg(native));
    let bytes = fs::read(native).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let names = file
        .sections()
        .filter_map(|section| Some(section.name().ok()?.to_owned()));
    (ended.stdout, names.collect())
}

#[test]
fn each_native_has_its_own_object_s_flags() {
    let build = jbd2_of_6_12("flags").goals(&["lib/klto_flags/flags.ko"]);
    let (build, source) = with_private_source(build);
    let lib = fs::read_to_string(source.path().join("lib/Makefile")).unwrap();
    source
        .write("lib/Makefile", &format!("{lib}\nobj-m += klto_flags/\n"))
        .unwrap();
    fs::create_dir_all(source.path().join("lib/klto_flags")).unwrap();
    // Not inlined, so not imported: LLVM imports nothing between different stack alignments.
    let fill = "noinline void klto_fill(char *bytes)\n{\n\tget_random_bytes(bytes, 64);\n}\n";
    let fill = format!("#include <linux/random.h>\n{fill}MODULE_LICENSE(\"GPL\");\n");
    for (file, text) in [
        ("Makefile", MAKEFILE.to_owned()),
        ("first.c", source_of("first", &fill)),
        ("second.c", source_of("second", "")),
    ] {
        source
            .write(&format!("lib/klto_flags/{file}"), &text)
            .unwrap();
    }
    let outcome = build.succeed();
    let unit = &outcome.log.inputs["lib/klto_flags/flags.o"];
    assert_eq!(unit, &["lib/klto_flags/first.o", "lib/klto_flags/second.o"]);
    let natives = build.output_directory();
    let natives = natives.join(".klto/units/lib/klto_flags/flags.o/raw/lib/klto_flags");
    let (first, first_sections) = look_at(&natives.join("first.o"), "klto_first");
    let (second, second_sections) = look_at(&natives.join("second.o"), "klto_second");
    let aligns =
        |text: &str| text.contains("andq\t$-16, %rsp") || text.contains("andq\t$-0x10, %rsp");
    assert!(
        first.contains("__stack_chk_fail") && aligns(&first),
        "{first}"
    );
    assert!(
        !second.contains("__stack_chk_fail") && !aligns(&second),
        "{second}"
    );
    let own = |name: &String| name == ".text.klto_second";
    assert!(second_sections.iter().any(own), "{second_sections:?}");
    assert!(!first_sections.iter().any(|name| name == ".text.klto_first"));
}

/// The same clang, the same version string, another libLLVM: nothing is found.
#[test]
fn another_libllvm_under_the_same_version_finds_nothing() {
    let place = directory("llvm");
    let ldd = run(Command::new("ldd").arg(real_program("clang-22")));
    let line = ldd
        .stdout
        .lines()
        .find(|line| line.contains("libLLVM"))
        .unwrap();
    let mut words = line.split_whitespace();
    let (name, path) = (words.next().unwrap(), words.nth(1).unwrap());
    let copy = place.join(name);
    fs::copy(path, &copy).unwrap();
    let with_copy = |name: &str| {
        let build = jbd2(name).goals(&["lib/crc16.ko"]).verify(0);
        build.environment("LD_LIBRARY_PATH", &place)
    };
    let first = with_copy("llvm-first");
    first.succeed();
    let again = with_copy("llvm-again")
        .store(first.store_directory())
        .succeed();
    assert_eq!(again.log.backends_found().len(), 1, "{}", again.describe());
    change_debug_link(&copy);
    let other = with_copy("llvm-other")
        .store(first.store_directory())
        .succeed();
    assert_eq!(
        other.log.backends_found(),
        [].into(),
        "{}",
        other.describe()
    );
    assert_eq!(other.log.backends_run().len(), 1);
}

/// Changes one byte of a file name that only debuggers read.
fn change_debug_link(library: &Path) {
    let mut bytes = fs::read(library).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".gnu_debuglink").unwrap();
    let (start, _) = section.file_range().unwrap();
    let start = usize::try_from(start).unwrap();
    bytes[start] ^= 1;
    fs::remove_file(library).unwrap();
    fs::write(library, bytes).unwrap();
}

/// Bitcode as text, without the path of the source, what is made of it, and places in the preprocessed text.
fn code_of(object: &Path) -> Vec<String> {
    let mut dis = Command::new("llvm-dis-22");
    let text = run(dis.arg("-o").arg("-").arg(object)).stdout;
    let varies = |line: &&str| {
        let starts = ["; ModuleID", "source_filename", "^"];
        let is_place = line.starts_with('!') && line.contains(" = !{i64 ");
        is_place || starts.iter().any(|start| line.starts_with(start))
    };
    let lines = text.lines().filter(|line| !varies(line));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(lines.len() > 100, "{lines:?}");
    lines
}

/// kbuild's own LTO flags are in the recipe of 6.12, so that it gives the same without a session.
#[test]
fn a_recipe_that_klto_saw_makes_the_object_again() {
    let build = built_of_6_12();
    let output = build.output_directory();
    let explain = |object: &str| {
        let mut klto = Command::new(klto_tests::klto_binary());
        klto.args(["explain", "--recipe", object, "-O"]).arg(output);
        run(&mut klto)
    };
    let object = "fs/jbd2/commit.o";
    let path = output.join(object);
    let before = code_of(&path);
    fs::remove_file(&path).unwrap();
    let script = explain(object);
    script.expect(0, &[]);
    let made = run(Command::new("sh").arg("-c").arg(&script.stdout));
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    assert!(code_of(&path) == before);
    assert!(explain("fs/jbd2/jbd2.o").stdout.contains("ld.lld"));
    explain("fs/jbd2/none.o").expect(2, &["klto saw no recipe for fs/jbd2/none.o"]);
}

/// What `klto explain` says of the build, or of one of its objects.
fn explained(build: &Build, object: Option<&str>) -> String {
    let mut explain = Command::new(build.command().get_program());
    explain
        .args(["explain", "-O"])
        .arg(build.output_directory());
    let ended = run(explain.args(object));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout
}

#[test]
fn what_a_build_did_is_explained() {
    let (build, source) = private_jbd2_of_6_12("explained");
    let build = build.verify(0);
    build.succeed();
    let text = fs::read_to_string(source.path().join("fs/jbd2/commit.c")).unwrap();
    source
        .write("fs/jbd2/commit.c", &format!("{text}int klto_told;\n"))
        .unwrap();
    build.succeed();
    let told = explained(&build, None);
    for (start, end) in [
        ("make ran: source fs/jbd2/commit.c has changed", ""),
        (
            "ran     compile fs/jbd2/commit.o: ",
            "fs/jbd2/commit.c is newer",
        ),
        (
            "ran     backend fs/jbd2/commit.o: its bitcode has changed",
            "",
        ),
    ] {
        let is_told = |line: &str| line.starts_with(start) && line.ends_with(end);
        assert!(told.lines().any(is_told), "{start}:\n{told}");
    }
    assert!(!told.contains("fs/jbd2/journal.o"), "{told}");
    let kept = explained(&build, Some("fs/jbd2/journal.o"));
    let line = "kept    backend fs/jbd2/journal.o";
    assert!(kept.lines().any(|found| found == line), "{kept}");

    // Twice, and not as the tests build, who remove the log of the build before.
    for _ in 0..2 {
        run(&mut build.command()).expect(0, &[]);
        let after = "make did not run after that: nothing has changed since the last build\n";
        assert_eq!(explained(&build, None), format!("{told}{after}"));
    }
}

#[test]
fn stats_trace_and_cache_tell_of_the_last_build() {
    let build = built_of_6_12();
    let klto = |words: &[&str]| {
        let mut klto = Command::new(klto_tests::klto_binary());
        klto.args(words).env("KLTO_CACHE", build.store_directory());
        run(&mut klto)
    };
    let output = build.output_directory().display().to_string();
    let table = klto(&["stats", "-O", &output]).stdout;
    let row = |kind: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("backend")[1..4], ["6", "0", "0"], "{table}");
    assert_eq!(row("thin-link")[1..4], ["1", "0", "0"], "{table}");
    assert!(table.contains("  compile fs/jbd2/"), "{table}");
    let trace = klto(&["trace", "-O", &output]).stdout;
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let is_link = |event: &&serde_json::Value| event["cat"] == "thin-link";
    let link = events.iter().find(is_link).unwrap();
    assert_eq!(link["name"], "fs/jbd2/jbd2.o");
    assert!(link["dur"].as_u64().unwrap() > 0);
    // Two jobs, and what waits for a job of theirs.
    let lanes = events.iter().map(|event| event["tid"].as_u64().unwrap());
    assert!(lanes.max().unwrap() <= 6, "{trace}");

    assert!(
        klto(&["cache"])
            .stdout
            .contains("backend            0 % found (0 of 6)")
    );
    assert_eq!(klto(&["cache", "verify"]).code, 0);
    let blob = &files_below(&build.store_directory().join("v1/blobs"))[0];
    fs::remove_file(blob).unwrap();
    fs::write(blob, "damaged").unwrap();
    let verified = klto(&["cache", "verify"]);
    assert_eq!(verified.code, 1);
    assert!(
        verified.stdout.contains("1 damaged and removed"),
        "{}",
        verified.stdout
    );
    assert_eq!(klto(&["cache", "gc"]).code, 0);
    assert_eq!(klto(&["cache", "clear"]).code, 0);
    assert_eq!(
        files_below(&build.store_directory().join("v1/blobs")),
        [] as [&Path; 0]
    );
    let nowhere = directory("no-timeline").display().to_string();
    let refused = klto(&["stats", "-O", &nowhere]);
    refused.expect(
        2,
        &[
            "has no timeline of a build",
            "hint: name the output tree with -O",
        ],
    );
}
