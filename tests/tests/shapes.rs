//! Modules of unusual shape and builds with unusual flags: an object in two modules, one listed twice,
//! files that the assembler reads, objects of another compiler, temporary files, debug information,
//! warnings that come from backends.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use klto_formats::elf;
use klto_tests::{Build, Log};
use object::{Object as _, ObjectSymbol as _};

use prepared::tools::{path_with, real_program};
use prepared::{
    JBD2_OBJECTS, directory, jbd2, jbd2_of_6_12, run, with_private_source, write_program,
};

/// An external module's directory with these files, and its build on a prepared tree.
fn module(build: Build, name: &str, files: &[(&str, &str)]) -> (Build, PathBuf) {
    let place = directory(&format!("module-{name}"));
    for (file, text) in files {
        let path = place.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let word = format!("M={}", place.display());
    // Without a vmlinux modpost knows no symbol that the kernel exports.
    let build = build.environment("KBUILD_MODPOST_WARN", "1");
    (build.word(word).goals(&["modules"]), place)
}

/// Builds of jbd2.ko on prepared trees of both versions, each in a directory of its own.
fn both(name: &str) -> [(Build, &'static str); 2] {
    [
        (jbd2(&format!("{name}-5.10")), "5.10"),
        (jbd2_of_6_12(&format!("{name}-6.12")), "6.12"),
    ]
}

/// The same on 5.10, which has no LTO of its own, and on 6.12.
fn on_both(name: &str, files: &[(&str, &str)], check: impl Fn(&Build, &Path)) {
    for (build, tree) in both(name) {
        let (build, place) = module(build, &format!("{name}-{tree}"), files);
        build.succeed();
        check(&build, &place);
    }
}

fn defines(object: &Path, name: &str) -> bool {
    let bytes = fs::read(object).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    file.symbols()
        .any(|symbol| symbol.name() == Ok(name) && !symbol.is_undefined())
}

fn source(name: &str, body: &str) -> String {
    format!(
        "#include <linux/module.h>\nint klto_shared(int);\nint {name}(int);\n\
         int {name}(int x) {{ {body} }}\nMODULE_LICENSE(\"GPL\");\n"
    )
}

#[test]
fn an_object_in_two_modules_is_in_both() {
    let kbuild = "obj-m := one.o two.o\none-y := first.o shared.o\ntwo-y := second.o shared.o\n";
    let files = [
        ("Kbuild", kbuild),
        ("first.c", &source("klto_first", "return klto_shared(x);")),
        (
            "second.c",
            &source("klto_second", "return klto_shared(x) + 1;"),
        ),
        ("shared.c", &source("klto_shared", "return x * 3;")),
    ];
    on_both("shared", &files, |_, place| {
        for module in ["one.ko", "two.ko"] {
            assert!(defines(&place.join(module), "klto_shared"), "{module}");
        }
        let log = Log::read(place);
        for unit in ["one.o", "two.o"] {
            assert!(log.inputs[unit].contains(&"shared.o".to_owned()), "{log:?}");
        }
    });
}

#[test]
fn an_object_that_is_listed_twice_is_linked_once() {
    let files = [
        ("Kbuild", "obj-m := twice.o\ntwice-y := a.o b.o a.o\n"),
        ("a.c", &source("klto_a", "return x;")),
        ("b.c", &source("klto_b", "return x + 1;")),
    ];
    on_both("twice", &files, |_, place| {
        assert!(defines(&place.join("twice.ko"), "klto_a"));
        assert_eq!(Log::read(place).inputs["twice.o"], ["a.o", "b.o"]);
    });
}

/// A directory without objects: kbuild makes an empty `built-in.a` of it, or nothing.
#[test]
fn a_directory_without_objects_is_no_fault() {
    let files = [
        ("Kbuild", "obj-m := alone.o\nobj-y += empty/\n"),
        ("empty/Kbuild", ""),
        ("alone.c", &source("klto_alone", "return x;")),
    ];
    on_both("empty", &files, |_, place| {
        assert!(defines(&place.join("alone.ko"), "klto_alone"));
    });
}

/// An assembler source that includes a file's bytes, as a prerequisite that the Kbuild file names.
#[test]
fn a_file_that_an_assembler_source_includes_is_seen() {
    let text = "\t.section .rodata\n\t.globl klto_bytes\nklto_bytes:\n\t.incbin \"FILE\"\n";
    let files = [
        (
            "Kbuild",
            "obj-m := bytes.o\nbytes-y := code.o data.o\n$(obj)/data.o: $(src)/data.bin\n\
             AFLAGS_data.o := -I$(src)\n",
        ),
        ("code.c", &source("klto_code", "return x;")),
        ("data.S", &text.replace("FILE", "data.bin")),
        ("data.bin", "the first bytes"),
    ];
    on_both("incbin", &files, |build, place| {
        let holds = |wanted: &str| {
            let bytes = fs::read(place.join("bytes.ko")).unwrap();
            bytes
                .windows(wanted.len())
                .any(|part| part == wanted.as_bytes())
        };
        assert!(holds("the first bytes"));
        fs::write(place.join("data.bin"), "the second bytes").unwrap();
        build.succeed();
        assert!(holds("the second bytes") && !holds("the first bytes"));
    });
}

const RUST: &str = "#![no_std]\n\
    #[unsafe(no_mangle)]\npub extern \"C\" fn klto_of_rust(x: i32) -> i32 { x ^ 5 }\n\
    #[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n";

/// A Rust object is native: it is linked where it stands, and its bytes are not changed.
#[test]
fn an_object_of_rustc_is_passed_through() {
    let rule = "obj-m := mixed.o\nmixed-y := c.o rust.o\ntargets += rust.o\n\
        cmd_klto_rustc = $(KLTO_RUSTC) --edition=2024 --crate-type=lib --emit=obj -Cpanic=abort \
        -Copt-level=2 -Crelocation-model=static -Ccode-model=kernel -o $@ $<\n\
        $(obj)/rust.o: $(src)/rust.rs FORCE\n\t$(call if_changed,klto_rustc)\n";
    let files = [
        ("Kbuild", rule),
        (
            "c.c",
            &source(
                "klto_c",
                "extern int klto_of_rust(int); return klto_of_rust(x);",
            ),
        ),
        ("rust.rs", RUST),
    ];
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let (build, place) = module(jbd2_of_6_12("rust"), "rust", &files);
    let build = build.word(format!("KLTO_RUSTC={rustc}"));
    build.succeed();
    assert!(defines(&place.join("mixed.ko"), "klto_of_rust"));
    assert_eq!(Log::read(&place).inputs["mixed.o"], ["c.o"]);
    assert!(!Log::read(&place).natives.contains_key("rust.o"));
}

#[test]
fn temporary_files_are_left_and_change_nothing() {
    let build = jbd2_of_6_12("temps").word("KCFLAGS=-save-temps=obj");
    let outcome = build.succeed();
    let output = build.output_directory();
    assert!(output.join("fs/jbd2/commit.i").is_file());
    assert_eq!(outcome.log.backends_run().len(), JBD2_OBJECTS.len());
    let module = output.join("fs/jbd2/jbd2.ko");
    assert!(defines(&module, "jbd2_journal_commit_transaction"));
}

/// Changes `.config` by the tree's own script, and lets Kconfig settle the rest.
fn configure(build: &Build, options: &[&str]) {
    let output = build.output_directory();
    let source = xtask::sources::fetch(klto_tests::cache(), build.tree()).unwrap();
    let mut script = Command::new(source.join("scripts/config"));
    script.arg("--file").arg(output.join(".config"));
    for option in options {
        script.args(["--enable", option]);
    }
    xtask::command::run(&mut script).unwrap();
    build.clone().goals(&["olddefconfig"]).succeed();
    let config = fs::read_to_string(output.join(".config")).unwrap();
    for option in options {
        let line = format!("CONFIG_{option}=y\n");
        assert!(config.contains(&line), "Kconfig drops {option}");
    }
}

const FUNCTIONS: [(&str, &str); 3] = [
    ("jbd2_journal_commit_transaction", "fs/jbd2/commit.c"),
    ("jbd2_journal_revoke", "fs/jbd2/revoke.c"),
    ("jbd2_log_start_commit", "fs/jbd2/journal.c"),
];

/// Where addr2line says that `function` of `object` begins: a file and a line.
fn line_of(object: &Path, function: &str) -> (String, usize) {
    let bytes = fs::read(object).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(function));
    let address = format!("{:#x}", symbol.unwrap().address());
    let mut addr2line = Command::new("llvm-addr2line-22");
    addr2line.arg("-e").arg(object).arg(address);
    let text = xtask::command::output(&mut addr2line).unwrap();
    let (file, line) = text.trim().rsplit_once(':').unwrap();
    (file.to_owned(), line.parse().unwrap_or(0))
}

/// Each function begins on the line of its name, or the one that opens its body.
fn assert_lines(build: &Build, native: impl Fn(&str) -> PathBuf) {
    let tree = xtask::sources::fetch(klto_tests::cache(), build.tree()).unwrap();
    for (function, source) in FUNCTIONS {
        let stem = Path::new(source).file_stem().unwrap().to_str().unwrap();
        let (file, line) = line_of(&native(stem), function);
        assert!(file.ends_with(source), "{function} in {file}");
        let text = fs::read_to_string(tree.join(source)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let near = lines[line.saturating_sub(3)..line].join("\n");
        assert!(near.contains(&format!("{function}(")), "{function}: {near}");
    }
}

#[test]
fn debug_information_of_natives_names_files_and_lines() {
    let build = jbd2_of_6_12("dwarf");
    configure(&build, &["DEBUG_INFO_DWARF5"]);
    build.succeed();
    let output = build.output_directory();
    let natives = output.join(".klto/units/fs/jbd2/jbd2.o/raw/fs/jbd2");
    assert_lines(&build, |object| natives.join(format!("{object}.o")));
    assert_lines(&build, |_| output.join("fs/jbd2/jbd2.ko"));
}

#[test]
fn split_debug_information_lies_beside_each_object() {
    let build = jbd2_of_6_12("split");
    configure(&build, &["DEBUG_INFO_DWARF5", "DEBUG_INFO_SPLIT"]);
    build.succeed();
    let output = build.output_directory();
    let natives = output.join(".klto/units/fs/jbd2/jbd2.o/raw/fs/jbd2");
    assert_lines(&build, |object| natives.join(format!("{object}.o")));
    let dwo = output.join("fs/jbd2/commit.dwo");
    let first = fs::read(&dwo).unwrap();
    assert!(elf::is_elf(&first));
    // As after an edit of another object: it is put back from what klto has.
    fs::remove_file(&dwo).unwrap();
    fs::remove_file(output.join("fs/jbd2/jbd2.o")).unwrap();
    let again = build.succeed();
    assert_eq!(again.log.backends_run(), [].into());
    assert!(fs::read(&dwo).unwrap() == first);
}

/// clang checks the size of stack frames in the backend, where it knows no place in the source.
#[test]
fn a_warning_of_a_backend_names_the_source_and_fails_under_werror() {
    let flag = "-Wframe-larger-than=64";
    let build = jbd2("frames");
    let warned = build.clone().word(format!("KCFLAGS={flag}")).succeed();
    let is_warning = |line: &&str| line.contains("stack frame size");
    let lines: Vec<&str> = warned.stderr.lines().filter(is_warning).collect();
    assert!(lines.len() > 2, "{}", warned.stderr);
    for line in &lines {
        assert!(line.contains("fs/jbd2/") && line.contains(".c"), "{line}");
    }
    let failing = jbd2_of_6_12("frames-werror").word(format!("KCFLAGS={flag} -Werror"));
    let failed = run(&mut failing.command());
    failed.expect(2, &["error: ", "fs/jbd2/", "backend of fs/jbd2/"]);
}

#[test]
fn more_warnings_are_shown_as_in_plain_make() {
    let (build, source) = with_private_source(jbd2_of_6_12("w1"));
    let build = build.goals(&["fs/jbd2/revoke.o"]);
    let begin = "void jbd2_journal_switch_revoke_table(journal_t *journal)\n{\n";
    let told = format!("{begin}\tint unread;\n\n\tunread = 1;\n");
    source.edit("fs/jbd2/revoke.c", begin, &told).unwrap();
    let plain = build.clone().plain();
    let warnings = |build: Build| {
        let text = build.word("W=1").succeed().stderr;
        // Programs of the host are compiled once.
        let of_compiler = |line: &&str| line.contains("fs/jbd2/") && line.contains(": warning: ");
        let mut lines: Vec<String> = text
            .lines()
            .filter(of_compiler)
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let shown = warnings(build);
    let is_of_compiler = |line: &String| line.contains("revoke.c") && line.contains("unread");
    assert!(shown.iter().any(is_of_compiler), "{shown:?}");
    assert_eq!(shown, warnings(plain));
}

/// Functions of up to 100 instructions are imported: more of them, and a larger module.
#[test]
fn the_limit_of_imports_can_be_set() {
    use object::ObjectSection as _;
    let size = |object: &Path| {
        let bytes = fs::read(object).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        file.section_by_name(".text").unwrap().size()
    };
    let build = jbd2("limit");
    build.succeed();
    let module = build.output_directory().join("fs/jbd2/jbd2.ko");
    let five = size(&module);
    let more = build.environment("KLTO_IMPORT_LIMIT", "100");
    // Another mode: kbuild makes all objects again.
    let outcome = more.succeed();
    let compiled = outcome.kbuild_lines();
    let compiled = compiled
        .iter()
        .filter(|(_, object)| object.starts_with("fs/jbd2/"));
    assert!(compiled.count() >= JBD2_OBJECTS.len());
    let hundred = size(&module);
    eprintln!("    .text of jbd2.ko: {five} at 5, {hundred} at 100");
    assert!(hundred > five, "{five} and {hundred}");
    let wrong = more.environment("KLTO_IMPORT_LIMIT", "many");
    run(&mut wrong.command()).expect(2, &["KLTO_IMPORT_LIMIT is \"many\""]);
}

/// A compiler that cannot write the table of traced functions itself, as clang before 10.
fn without_patchable_entries() -> std::ffi::OsString {
    let place = directory("old-compiler");
    let script = format!(
        "#!/bin/sh\nfor word; do case $word in -fpatchable-function-entry=*)\n\
         echo \"unknown argument $word\" >&2; exit 1;; esac; done\nexec {} \"$@\"\n",
        real_program("clang-22").display()
    );
    write_program(&place.join("clang-22"), &script);
    path_with(&place)
}

/// The table of arm64 without patchable entries: klto's on natives, and on plain objects the same as
/// recordmcount's.
#[test]
fn tables_of_traced_functions_without_patchable_entries_are_klto_s() {
    let path = without_patchable_entries();
    let prepare = |build: Build| {
        let build = build.environment("PATH", &path);
        build.clone().goals(&["olddefconfig"]).succeed();
        let config = fs::read_to_string(build.output_directory().join(".config")).unwrap();
        assert!(config.contains("CONFIG_FTRACE_MCOUNT_RECORD=y\n"));
        assert!(!config.contains("CONFIG_DYNAMIC_FTRACE_WITH_REGS=y\n"));
        build.succeed();
        build.output_directory().to_owned()
    };
    let thin = prepare(jbd2("mcount"));
    let plain = prepare(jbd2("mcount-plain").plain().mode(None));
    let bare = directory("mcount-bare").join("bare.o");
    for object in JBD2_OBJECTS {
        let native = fs::read(thin.join(format!(
            ".klto/units/fs/jbd2/jbd2.o/final/fs/jbd2/{object}.o"
        )))
        .unwrap();
        let calls = elf::entry_calls(&native).unwrap();
        assert!(!calls.is_empty(), "{object}");
        assert_eq!(elf::recorded_entries(&native).unwrap(), calls, "{object}");

        let recorded = plain.join(format!("fs/jbd2/{object}.o"));
        let mut objcopy = Command::new("llvm-objcopy-22");
        objcopy.args([
            "--remove-section=__mcount_loc",
            "--remove-section=.rela__mcount_loc",
        ]);
        xtask::command::run(objcopy.arg(&recorded).arg(&bare)).unwrap();
        let ours = elf::record_entry_calls(&fs::read(&bare).unwrap()).unwrap();
        let theirs = elf::recorded_entries(&fs::read(&recorded).unwrap()).unwrap();
        assert!(!theirs.is_empty(), "{object}");
        assert_eq!(elf::recorded_entries(&ours).unwrap(), theirs, "{object}");
    }
}

/// Nothing names such an object: that objcopy reads it makes it native, wherever it is.
#[test]
fn an_object_that_objcopy_reads_is_native_wherever_it_is() {
    let kbuild = "obj-m := copied.o\ncopied-y := main.o some/where/copy.o\n\
        OBJCOPYFLAGS_copy.o := --rename-section .rodata=.klto_data,alloc,readonly,load,contents\n\
        targets += some/where/data.o some/where/copy.o\n\
        $(obj)/some/where/copy.o: $(obj)/some/where/data.o FORCE\n\t$(call if_changed,objcopy)\n";
    let main = "#include <linux/module.h>\nextern const int klto_data[4];\nint klto_first(void);\n\
        int klto_first(void) { return klto_data[1]; }\nMODULE_LICENSE(\"GPL\");\n";
    let data = "extern const int klto_data[4];\nconst int klto_data[4] = { 1, 2, 3, 4 };\n";
    let files = [
        ("Kbuild", kbuild),
        ("main.c", main),
        ("some/where/data.c", data),
    ];
    on_both("copied", &files, |build, place| {
        let mut klto = Command::new(klto_tests::klto_binary());
        let explained = run(klto.args(["explain", "--native", "-O"]).arg(place)).stdout;
        let line = "some/where/data.o\tllvm-objcopy-22 for ";
        assert!(explained.contains(line), "{explained}");
        let module = fs::read(place.join("copied.ko")).unwrap();
        let file = object::File::parse(&*module).unwrap();
        assert!(file.section_by_name(".klto_data").is_some());
        assert!(defines(&place.join("copied.ko"), "klto_data"));
        build.succeed();
        assert!(fs::read(place.join("copied.ko")).unwrap() == module);
    });
}
