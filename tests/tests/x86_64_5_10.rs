//! Linux 5.10 for x86_64, where objtool and recordmcount work on each object right after its compile:
//! built with ThinLTO, booted, held against plain kbuild.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod external;
mod prepared;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use klto_formats::elf;
use klto_tests::{
    Build, Outcome, Shared, assert_like_reference, cache, fresh_directory, reference, step,
};
use klto_verify::Comparison;
use xtask::boot::{Booted, boot, boot_with, verdict};
use xtask::kernel::warnings_of_reference;

struct Thin {
    build: Build,
    first: Outcome,
}

fn thin() -> &'static Thin {
    static THIN: Shared<Thin> = Shared::new();
    THIN.get(|| {
        let build = Build::new("5.10-x86_64", "5.10-x86_64-thin")?.empty_store()?;
        build.configure_fresh()?;
        let first = step("thin build of 5.10 x86_64 from nothing", || build.succeed());
        Ok(Thin { build, first })
    })
}

fn output() -> &'static Path {
    thin().build.output_directory()
}

fn booted() -> &'static Booted {
    static BOOTED: Shared<Booted> = Shared::new();
    BOOTED.get(|| step("boot", || boot(thin().build.tree(), output())))
}

#[test]
fn boots() {
    verdict(booted()).unwrap();
}

#[test]
fn equals_the_reference() {
    let reference = reference(thin().build.tree()).unwrap();
    let report = Comparison::of(&reference, output()).unwrap();
    eprintln!("{report}");
    assert_like_reference(&report);
}

/// Warnings of objtool: the object, and the text without offsets and promoted names' suffixes.
fn objtool_warnings(text: &str) -> BTreeSet<(String, String)> {
    let warning = |line: &str| {
        let (object, text) = line.split_once(": warning: objtool: ")?;
        let function = text.split(['+', '(', '.']).next().unwrap_or_default();
        let what = text.rsplit_once(": ").map_or(text, |(_, what)| what);
        Some((object.to_owned(), format!("{function}: {what}")))
    };
    text.lines().filter_map(warning).collect()
}

/// The bytes of `object`'s section `.text` before `function`+`offset`, and from there on.
fn code_at(object: &Path, function: &str, offset: u64) -> (Vec<u8>, Vec<u8>) {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    let bytes = fs_err::read(object).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(function));
    let symbol = symbol.unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap());
    let code = section.unwrap().data().unwrap().to_vec();
    let (before, after) = code.split_at((symbol.address() + offset) as usize);
    (before.to_vec(), after.to_vec())
}

/// LLVM may put its check of the stack protector between the two inline assembler texts of a WARN, for both
/// are marked as tail calls; objtool then takes what follows the first, `ud2`, for unreachable. Plain kbuild
/// has that warning in nine functions of this configuration. Any other that the reference lacks is an error.
#[test]
fn objtool_warns_of_nothing_that_the_reference_does_not() {
    reference(thin().build.tree()).unwrap();
    let of_reference = warnings_of_reference(cache(), thin().build.tree()).unwrap();
    let of_reference = objtool_warnings(&fs_err::read_to_string(of_reference).unwrap());
    assert!(of_reference.len() > 4, "{of_reference:?}");
    let found = objtool_warnings(&thin().first.stderr);
    // Those of code that LTO leaves as it is.
    assert!(!found.is_disjoint(&of_reference), "{found:?}");
    let new: Vec<_> = found.difference(&of_reference).collect();
    eprintln!(
        "    {} warnings, {} in the reference, new: {new:?}",
        found.len(),
        of_reference.len()
    );
    for line in thin().first.stderr.lines() {
        let Some((object, text)) = line.split_once(": warning: objtool: ") else {
            continue;
        };
        if !new.iter().any(|(known, _)| known == object) {
            continue;
        }
        let place = text.strip_suffix(": unreachable instruction").expect(line);
        let (function, offset) = place.split_once("()+0x").expect(line);
        let offset = u64::from_str_radix(offset, 16).unwrap();
        let native = output().join(".klto/units/vmlinux.o/raw").join(object);
        let (before, after) = code_at(&native, function, offset);
        assert!(before.ends_with(&[0x0f, 0x0b]), "{line}: not after a ud2");
        let load_of_canary = [0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0];
        assert!(after.starts_with(&load_of_canary), "{line}");
    }
    assert!(new.len() <= 3, "{new:?}");
}

/// The names in init's line about its own kernel stack.
fn stack(booted: &Booted) -> &str {
    let line = booted
        .console
        .lines()
        .find_map(|line| line.strip_prefix("klto-init: stack "));
    line.unwrap()
}

/// Functions on the stack of the task that the kernel killed, without those that are only guesses.
fn trace(booted: &Booted) -> Vec<&str> {
    let lines = booted.console.lines();
    let trace = lines.skip_while(|line| *line != "Call Trace:").skip(1);
    let frames = trace
        .take_while(|line| line.starts_with(' '))
        .map(str::trim);
    let frames = frames.filter(|frame| !frame.starts_with('?'));
    frames
        .map(|frame| frame.split('+').next().unwrap_or_default())
        .collect()
}

#[test]
fn stacks_unwind_through_natives_to_the_reference_s_functions() {
    let reference = reference(thin().build.tree()).unwrap();
    let of_reference = step("boot of the reference", || {
        boot(thin().build.tree(), &reference).unwrap()
    });
    assert_eq!(stack(booted()), stack(&of_reference));
    assert!(stack(booted()).ends_with("entry_SYSCALL_64_after_hwframe"));
    let frames = trace(booted());
    assert!(frames.len() > 4, "{frames:?}");
    assert_eq!(frames, trace(&of_reference));
}

/// A function with a static call is imported: its new object gets the key's symbol, without which
/// objtool could not list the call, and the kernel would not change it.
#[test]
fn a_static_call_that_another_object_imports_is_changed() {
    let place = fresh_directory("5.10-x86_64-static-call").unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-a")
        .arg(xtask::kernel::fragments().join("static-call"));
    xtask::command::run(copy.arg(&place)).unwrap();
    let place = place.join("static-call");
    let word = format!("M={}", place.display());
    thin()
        .build
        .clone()
        .word(word)
        .goals(&["modules"])
        .succeed();
    let names = |step: &str| -> BTreeSet<Vec<u8>> {
        // kbuild names an external module's objects by their whole path.
        let object = place.join("second.o");
        let unit = place.join(".klto/units/klto_calls.o").join(step);
        let native = unit.join(object.strip_prefix("/").unwrap());
        let symbols = elf::symbols(&fs_err::read(native).unwrap()).unwrap();
        symbols.into_iter().map(|symbol| symbol.name).collect()
    };
    let (call, key) = (b"__SCT__klto_call".to_vec(), b"__SCK__klto_call".to_vec());
    let raw = names("raw");
    assert!(
        raw.contains(&call) && !raw.contains(&key),
        "nothing was imported"
    );
    assert!(names("objtool").contains(&key));
    let booted = boot_with(
        thin().build.tree(),
        output(),
        &[place.join("klto_calls.ko")],
    )
    .unwrap();
    verdict(&booted).unwrap();
    assert!(
        booted.console.contains("klto_calls: 41 then 42"),
        "{}",
        booted.console
    );
}

/// Objects of the reference that recordmcount gave a table.
fn recorded_objects(reference: &Path) -> Vec<PathBuf> {
    let mut find = Command::new("find");
    find.arg(reference).args(["-name", "*.o"]);
    let found = xtask::command::output(&mut find).unwrap();
    let has_table = |object: &PathBuf| {
        let bytes = fs_err::read(object).unwrap();
        elf::is_elf(&bytes) && elf::recorded_entries(&bytes).is_ok_and(|list| !list.is_empty())
    };
    // Links of several objects hold several tables; they are made of objects with one.
    let is_compiled = |object: &PathBuf| {
        let mut source = object.strip_prefix(reference).unwrap().to_owned();
        source.set_extension("c");
        let source = xtask::sources::fetch(cache(), thin().build.tree())
            .unwrap()
            .join(source);
        source.is_file()
    };
    let objects = found.lines().map(PathBuf::from);
    objects.filter(is_compiled).filter(has_table).collect()
}

#[test]
fn klto_records_what_recordmcount_records() {
    let reference = reference(thin().build.tree()).unwrap();
    let objects = recorded_objects(&reference);
    assert!(objects.len() > 300, "{} objects", objects.len());
    let directory = tempfile::tempdir().unwrap();
    let bare = directory.path().join("bare.o");
    let mut entries = 0;
    for object in &objects {
        let mut objcopy = Command::new("llvm-objcopy-22");
        objcopy.args([
            "--remove-section=__mcount_loc",
            "--remove-section=.rela__mcount_loc",
        ]);
        xtask::command::run(objcopy.arg(object).arg(&bare)).unwrap();
        let bytes = fs_err::read(&bare).unwrap();
        assert_eq!(elf::recorded_entries(&bytes).unwrap(), []);
        let recorded = elf::record_entry_calls(&bytes).unwrap();
        let expected = elf::recorded_entries(&fs_err::read(object).unwrap()).unwrap();
        let found = elf::recorded_entries(&recorded).unwrap();
        assert_eq!(found, expected, "{}", object.display());
        entries += found.len();
    }
    eprintln!("    {} objects, {entries} entries", objects.len());
}

/// The address of a symbol of vmlinux.
fn address(name: &str) -> u64 {
    let map = fs_err::read_to_string(output().join("System.map")).unwrap();
    let line = map.lines().find(|line| line.ends_with(&format!(" {name}")));
    let address = line.unwrap().split(' ').next().unwrap();
    u64::from_str_radix(address, 16).unwrap()
}

#[test]
fn every_traceable_function_of_the_natives_has_an_entry() {
    let mut calls = 0;
    for object in &thin().first.log.inputs["vmlinux.o"] {
        let final_native = output().join(".klto/units/vmlinux.o/final").join(object);
        if !final_native.is_file() {
            continue;
        }
        let bytes = fs_err::read(&final_native).unwrap();
        let of_code = elf::entry_calls(&bytes).unwrap();
        assert_eq!(of_code, elf::recorded_entries(&bytes).unwrap(), "{object}");
        calls += of_code.len() as u64;
    }
    let entries = (address("__stop_mcount_loc") - address("__start_mcount_loc")) / 8;
    eprintln!("    {calls} calls in natives, {entries} entries in vmlinux");
    assert!(calls > 5000);
    assert_eq!(calls, entries);
    // The kernel itself counts what it finds.
    let said = format!("ftrace: allocating {entries} entries");
    assert!(booted().console.contains(&said), "no {said:?}");
}

#[test]
fn modules_have_tables_of_their_own() {
    let mut traced = 0;
    for module in klto_verify::modules(output()).unwrap() {
        let bytes = fs_err::read(output().join(&module)).unwrap();
        let of_code = elf::entry_calls(&bytes).unwrap();
        let entries: BTreeSet<_> = elf::recorded_entries(&bytes).unwrap().into_iter().collect();
        let calls: BTreeSet<_> = of_code.into_iter().collect();
        assert_eq!(calls, entries, "{}", module.display());
        traced += calls.len();
    }
    // Nothing below lib is traced.
    assert!(traced > 100, "{traced}");
}

/// A machine without klto gets the headers' package: its plain make builds a module without LTO, and objtool
/// comes with it.
#[test]
fn the_package_of_headers_serves_a_machine_without_klto() {
    let build = &thin().build;
    let root = external::make_and_unpack_debian_packages(build, "deb-5.10");
    external::build_without_klto(build, &root);
}

/// Changes two options in `.config`, or changes them back.
fn change_options(back: bool) {
    let path = output().join(".config");
    let mut config = fs_err::read_to_string(&path).unwrap();
    for (one, other) in [
        (
            "# CONFIG_PRINTK_TIME is not set\n",
            "CONFIG_PRINTK_TIME=y\n",
        ),
        ("CONFIG_LOG_BUF_SHIFT=17\n", "CONFIG_LOG_BUF_SHIFT=16\n"),
    ] {
        let (from, to) = if back { (other, one) } else { (one, other) };
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    fs_err::write(path, config).unwrap();
}

/// Runs after all others: tests run in the order of their names.
#[test]
fn z_a_configuration_changed_and_changed_back_leaves_no_trace() {
    let build = &thin().build;
    let mut files = ["vmlinux", "System.map", build.tree().image]
        .map(PathBuf::from)
        .to_vec();
    files.extend(klto_verify::modules(output()).unwrap());
    let first = fresh_directory("5.10-x86_64-first").unwrap();
    for file in &files {
        let copy = first.join(file);
        fs_err::create_dir_all(copy.parent().unwrap()).unwrap();
        fs_err::copy(output().join(file), copy).unwrap();
    }
    change_options(false);
    step("the same with another .config", || build.succeed());
    let report = klto_verify::bit_equal(&first, output(), &files).unwrap();
    assert!(!report.equal(), "the options change nothing");
    change_options(true);
    step("the same with the first .config", || build.succeed());
    let report = klto_verify::bit_equal(&first, output(), &files).unwrap();
    assert!(report.equal(), "{report}");
}

/// Runs last. The calls of objtool that were seen name it where the tree was.
#[test]
fn zz_a_moved_output_tree_is_built_where_it_is() {
    const MODULE: &str = "fs/autofs/autofs4.ko";
    let moved = fresh_directory("5.10-x86_64-moved").unwrap().join("out");
    let before = fs_err::read(output().join(MODULE)).unwrap();
    fs_err::rename(output(), &moved).unwrap();
    let build = thin().build.clone().output(&moved).goals(&[MODULE]);
    let outcome = step("a module of a moved output tree", || build.succeed());
    let after = fs_err::read(moved.join(MODULE)).unwrap();
    fs_err::rename(&moved, output()).unwrap();
    assert!(before == after);
    assert!(!outcome.log.objects("hit", "compile").is_empty());
}
