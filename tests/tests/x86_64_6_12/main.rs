//! Linux 6.12 for x86_64, whose kbuild has ThinLTO of its own: built by klto, compared with a build
//! without LTO, edited, booted.
//!
//! The tests share one output directory, made from nothing at the first test; each leaves it as it
//! found it. Names order them: what changes the configuration comes last.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

#[path = "../external/mod.rs"]
mod external;
mod packages;
#[path = "../prepared/mod.rs"]
mod prepared;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use klto_formats::archive;
use klto_tests::{
    Build, Outcome, PrivateSource, Shared, assert_ambiguous, promoted_names_of_vmlinux, reference,
    step, test_directory,
};
use klto_verify::Comparison;
use xtask::boot::{boot, verdict};

struct Thin {
    build: Build,
    source: PrivateSource,
    clean: Outcome,
}

static THIN: Shared<Thin> = Shared::new();

fn thin() -> &'static Thin {
    THIN.get(|| {
        let build = Build::new("6.12", "6.12-thin")?.empty_store()?;
        let source = PrivateSource::of(build.tree(), "6.12-source")?;
        let build = build.source(source.path());
        build.configure_fresh()?;
        let clean = step("6.12 x86_64: clean ThinLTO build", || build.succeed());
        Ok(Thin {
            build,
            source,
            clean,
        })
    })
}

fn file(path: impl AsRef<Path>) -> PathBuf {
    thin().build.output_directory().join(path)
}

/// The bitcode objects that `vmlinux.a` names, in order.
fn bitcode_of_vmlinux() -> Result<Vec<String>> {
    let archive_path = file("vmlinux.a");
    let bytes = fs_err::read(&archive_path)?;
    let mut objects = Vec::new();
    for member in archive::members(&bytes)? {
        let path = archive::thin_member_path(Path::new("vmlinux.a"), &member.name);
        if fs_err::read(file(&path))?.starts_with(b"BC\xc0\xde") {
            objects.push(path.display().to_string());
        }
    }
    Ok(objects)
}

#[test]
fn a1_a_clean_build_boots_and_loads_every_module() {
    let booted = boot(thin().build.tree(), thin().build.output_directory()).unwrap();
    verdict(&booted).unwrap();
}

#[test]
fn a2_initcalls_fixups_exports_and_modules_equal_the_reference() {
    let reference = reference(thin().build.tree()).unwrap();
    let report = Comparison::of(&reference, thin().build.output_directory()).unwrap();
    for what in [
        "initcalls",
        "PCI fixups",
        "Module.symvers",
        "modules",
        "modinfo",
        "__versions",
        "left-over sections",
    ] {
        let row = report
            .row(what)
            .with_context(|| format!("no row {what}"))
            .unwrap();
        assert!(row.equal && row.count > 0, "{what}: {report}");
    }
}

#[test]
fn a3_the_inputs_of_the_thin_link_are_the_bitcode_objects_in_link_order() {
    let expected = bitcode_of_vmlinux().unwrap();
    assert!(
        expected.len() > 500,
        "only {} bitcode objects",
        expected.len()
    );
    let inputs = &thin().clean.log.inputs["vmlinux.o"];
    assert_eq!(inputs.get(..expected.len()), Some(expected.as_slice()));
    // What follows is lib.a, where it is linked whole.
    assert!(
        inputs[expected.len()..]
            .iter()
            .all(|object| object.contains("lib/"))
    );
    let modules = thin()
        .clean
        .log
        .inputs
        .keys()
        .filter(|unit| *unit != "vmlinux.o")
        .count();
    let order = fs_err::read_to_string(file("modules.order")).unwrap();
    assert_eq!(modules, order.lines().count(), "one unit for each module");
}

#[test]
fn a4_promoted_names_stay_only_where_their_base_is_not_unique() {
    let output = thin().build.output_directory();
    let left = promoted_names_of_vmlinux(output).unwrap();
    let listed = &thin().clean.log.promoted["vmlinux.o"];
    let unlisted: Vec<&String> = left.difference(listed).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    assert_ambiguous(output, listed, &[], "arch/x86/kernel/vmlinux.lds").unwrap();
}

/// What kbuild's own script prints for the objects that are there now.
fn initcalls_by_the_script() -> String {
    let mut perl = Command::new("perl");
    let script = thin()
        .source
        .path()
        .join("scripts/generate_initcall_order.pl");
    perl.arg(script).arg("vmlinux.a");
    perl.current_dir(thin().build.output_directory());
    perl.envs([("objtree", "."), ("NM", "llvm-nm-22")]);
    xtask::command::output(&mut perl).unwrap()
}

/// klto's linker script gives what kbuild's gives.
const SAME_WITH_FEWER_PATTERNS: &str = "vmlinux.o with fewer patterns is the same";

#[test]
fn a5_initcalls_are_in_the_order_that_kbuild_s_script_finds() {
    let lines = &thin().clean.log.lines;
    let has = |known: &str| lines.iter().any(|line| line == known);
    assert!(has("initcalls by klto and the script agree"), "{lines:?}");
    assert!(has(SAME_WITH_FEWER_PATTERNS), "{lines:?}");
}

/// What kbuild's recorded call of the compiler makes of an object without LTO.
fn made_by_kbuild(object: &str) -> Result<Vec<u8>> {
    const LTO: [&str; 3] = ["-flto=thin", "-fsplit-lto-unit", "-fvisibility=hidden"];
    let (directory, name) = object.rsplit_once('/').unwrap_or((".", object));
    let recorded = fs_err::read_to_string(file(directory).join(format!(".{name}.cmd")))?;
    let command = recorded.lines().next().context("an empty .cmd")?;
    let (_, command) = command.split_once(" := ").context("no command")?;
    // Other steps stand behind it.
    let (command, _) = command.split_once(" ; ").unwrap_or((command, ""));
    let place = tempfile::tempdir()?;
    let made = place.path().join("object");
    let words = command.split(' ').filter(|word| !LTO.contains(word));
    let words = words.map(|word| match word.strip_prefix("-Wp,-MMD,") {
        Some(_) => format!("-Wp,-MMD,{}/depfile", place.path().display()),
        None if word == object => made.display().to_string(),
        None => word.to_owned(),
    });
    let command = words.collect::<Vec<_>>().join(" ");
    let mut shell = Command::new("sh");
    let status = shell
        .args(["-c", &command])
        .current_dir(file(""))
        .status()?;
    anyhow::ensure!(status.success(), "{command}");
    Ok(fs_err::read(&made)?)
}

/// klto has them compiled in the source tree with relative paths.
#[test]
fn a6_machine_code_is_what_kbuild_s_own_call_makes() {
    let natives = thin().clean.log.objects("ran", "native-compile");
    let is_module_part = |object: &&String| object.ends_with(".mod.o");
    assert!(natives.iter().filter(is_module_part).count() > 3);
    assert!(natives.len() > 30, "{natives:?}");
    for object in natives {
        let made = fs_err::read(file(&object)).unwrap();
        assert!(made == made_by_kbuild(&object).unwrap(), "{object}");
    }
}

#[test]
fn b1_a_second_build_runs_nothing() {
    // Another variable, so that make runs.
    let with_make = thin().build.clone().environment("KLTO_OF_THE_TEST", "1");
    let again = step("6.12 x86_64: nothing to do", || with_make.succeed());
    assert!(again.log.why_make_ran.is_some());
    assert!(again.log.actions.is_empty(), "{:?}", again.log.actions);
    assert!(
        again
            .kbuild_lines()
            .iter()
            .all(|(word, _)| word != "CC" && word != "LD")
    );
}

#[test]
fn b2_a_recompile_that_gives_the_same_bitcode_ends_there() {
    let text = fs_err::read_to_string(thin().source.path().join("init/main.c")).unwrap();
    let write = |text: &str| thin().source.write("init/main.c", text).unwrap();
    // The last build had another environment.
    thin().build.succeed();
    write(&text);
    let touched = step("6.12 x86_64: touch init/main.c", || thin().build.succeed());
    assert!(
        touched.stdout.contains("nothing has changed"),
        "{}",
        touched.describe()
    );
    let modified = |name: &str| {
        let metadata = fs_err::metadata(file(name)).unwrap();
        metadata.modified().unwrap()
    };
    let names = ["vmlinux.a", "vmlinux.o", "vmlinux", "arch/x86/boot/bzImage"];
    let before = names.map(modified);
    write(&format!("{text}extern int klto_of_the_test;\n"));
    let touched = step("6.12 x86_64: a declaration at its end", || {
        thin().build.succeed()
    });
    write(&text);
    let compiled = ("CC".into(), "init/main.o".into());
    assert!(touched.kbuild_lines().contains(&compiled));
    let line = "same archive init/built-in.a";
    assert!(
        touched.log.lines.iter().any(|found| found == line),
        "{:?}",
        touched.log.lines
    );
    // Nothing was linked.
    assert_eq!(names.map(modified), before);
    assert_eq!(touched.log.backends_run(), BTreeSet::new());
}

/// Objects whose import list names `object`.
fn importers(object: &str) -> Result<BTreeSet<String>> {
    let index = file(".klto/units/vmlinux.o/index");
    let all = bitcode_of_vmlinux()?;
    let imports = |importer: &String| {
        let list =
            fs_err::read_to_string(index.join(format!("{importer}.imports"))).unwrap_or_default();
        list.lines().any(|line| line == object)
    };
    Ok(all.into_iter().filter(imports).collect())
}

#[test]
fn b3_an_edit_runs_the_backends_that_see_it() {
    let text = thin()
        .source
        .edit(
            "init/main.c",
            "pr_notice(\"%s\", linux_banner);",
            "pr_notice(\"%s.\", linux_banner);",
        )
        .unwrap();
    let edited = step("6.12 x86_64: edit init/main.c", || thin().build.succeed());
    thin().source.write("init/main.c", &text).unwrap();
    // Many import its variables, none its functions.
    let ran = edited.log.backends_run();
    assert_eq!(ran, BTreeSet::from(["init/main.o".to_owned()]));
    let left_out = edited.log.makes_left_out.map(|(_, left_out)| left_out);
    assert!(left_out.is_some_and(|count| count > 20), "{left_out:?}");
    let line = "why backend init/main.o: its bitcode has changed";
    assert!(edited.log.lines.iter().any(|known| known == line));
    let units: Vec<_> = edited
        .log
        .lines
        .iter()
        .filter(|line| line.starts_with("ran thin-link"))
        .collect();
    assert_eq!(units.len(), 1, "{units:?}");
    let named = edited
        .log
        .actions
        .iter()
        .filter(|action| action.kind == "backend")
        .count();
    assert_eq!(
        named,
        edited.log.inputs["vmlinux.o"].len(),
        "the log names every backend"
    );

    let has = |known: &str| edited.log.lines.iter().any(|line| line.starts_with(known));
    assert!(has("initcalls by klto"));
    // Unless that is the one that is checked.
    let fewer = "vmlinux.o is linked with fewer patterns";
    assert!(has(fewer) || has(SAME_WITH_FEWER_PATTERNS));
    let initcalls = fs_err::read_to_string(file(".tmp_initcalls.lds")).unwrap();
    assert_eq!(initcalls, initcalls_by_the_script());

    let reverted = step("6.12 x86_64: revert init/main.c", || thin().build.succeed());
    assert_eq!(reverted.log.objects("ran", "backend"), BTreeSet::new());
    assert!(reverted.log.backends_found().contains("init/main.o"));
}

#[test]
fn b4_an_edit_of_a_variable_is_seen_by_its_importers() {
    let from = "unsigned long loops_per_jiffy = (1<<12);";
    let source = &thin().source;
    let text = source
        .edit("init/main.c", from, &from.replace("12", "13"))
        .unwrap();
    let edited = step("6.12 x86_64: edit a variable of init/main.c", || {
        thin().build.succeed()
    });
    let ran = edited.log.backends_run();
    let importers = importers("init/main.o").unwrap();
    source.write("init/main.c", &text).unwrap();
    let others: BTreeSet<String> = &ran - &BTreeSet::from(["init/main.o".to_owned()]);
    assert!(ran.contains("init/main.o"), "{ran:?}");
    assert!(others.contains("arch/x86/lib/delay.o"), "{ran:?}");
    assert!(others.is_subset(&importers), "{ran:?} and {importers:?}");
    thin().build.succeed();
}

#[test]
fn b5_the_boot_image_is_made_when_it_can_differ() {
    let (build, source) = (&thin().build, &thin().source);
    // Its makefile says so with every run.
    let is_made = |outcome: &Outcome| outcome.stdout.contains("arch/x86/boot/bzImage is ready");
    let image = || fs_err::read(file("arch/x86/boot/bzImage")).unwrap();
    let append = |path: &str, more: &str| {
        let text = fs_err::read_to_string(source.path().join(path)).unwrap();
        source.write(path, &format!("{text}{more}")).unwrap();
        let edited = step(&format!("6.12 x86_64: edit {path}"), || build.succeed());
        (edited, text)
    };
    build.succeed();
    let first = image();

    let (of_module, module) = append("fs/autofs/waitq.c", "int klto_of_module;\n");
    assert!(of_module.log.makes_left_out.is_some());
    assert!(!is_made(&of_module), "{}", of_module.describe());

    let setup = "arch/x86/boot/version.c";
    let (of_setup, text) = append(setup, "int klto_of_setup __attribute__((used)) = 1;\n");
    assert!(is_made(&of_setup), "{}", of_setup.describe());
    assert_ne!(image(), first);
    source.write(setup, &text).unwrap();
    let reverted = step("6.12 x86_64: revert it", || build.succeed());
    assert!(is_made(&reverted), "{}", reverted.describe());
    assert_eq!(image(), first);

    // What is no part of a module may be in the boot image without vmlinux.
    let vmlinux_of = || {
        fs_err::metadata(file("vmlinux"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = vmlinux_of();
    let (of_kernel, text) = append("init/main.c", "extern int klto_of_nothing;\n");
    assert!(of_kernel.log.makes_left_out.is_some());
    assert!(is_made(&of_kernel), "{}", of_kernel.describe());
    assert_eq!((vmlinux_of(), image()), (before, first.clone()));
    source.write("init/main.c", &text).unwrap();

    // Whoever touches vmlinux may have changed it: every make runs.
    let vmlinux = fs_err::OpenOptions::new()
        .append(true)
        .open(file("vmlinux"))
        .unwrap();
    let now = std::time::SystemTime::now();
    vmlinux.file().set_modified(now).unwrap();
    source.write("fs/autofs/waitq.c", &module).unwrap();
    let touched = step("6.12 x86_64: touch vmlinux", || build.succeed());
    assert_eq!(touched.log.makes_left_out, None);
    assert!(is_made(&touched), "{}", touched.describe());
    assert_eq!(image(), first);
}

/// Each time the tool is asked too, and the build fails where it says something else.
#[test]
fn b6_what_klto_does_for_a_tool_is_what_the_tool_does() {
    let (build, source) = (&thin().build, &thin().source);
    let banner = "pr_notice(\"%s\", linux_banner);";
    let told = format!("{banner}\n\tpr_notice(\"klto was here\");");
    let text = source.edit("init/main.c", banner, &told).unwrap();
    let checked = step("6.12 x86_64: an edit, all checked", || {
        build.clone().verify(100).succeed()
    });
    source.write("init/main.c", &text).unwrap();
    let of = |what| checked.log.objects("checked", what);
    let kernels: BTreeSet<String> = [".tmp_vmlinux1", ".tmp_vmlinux2", "vmlinux"]
        .map(str::to_owned)
        .into();
    assert!(of("symbols").is_superset(&kernels), "{:?}", of("symbols"));
    let tables = [1, 2].map(|pass| format!(".tmp_vmlinux{pass}.kallsyms.o"));
    let tables = BTreeSet::from(tables);
    assert!(of("assembly").is_superset(&tables), "{:?}", of("assembly"));
    let archives = ["vmlinux.a", "init/built-in.a"].map(str::to_owned);
    let archives = BTreeSet::from(archives);
    assert!(of("archive").is_superset(&archives), "{:?}", of("archive"));
    let mut lines = checked.log.lines.iter();
    assert!(lines.any(|line| line == SAME_WITH_FEWER_PATTERNS));
    build.succeed();
}

/// The key that signs modules is random in each output directory, and in the kernel.
fn copy_signing_key(to: &Path) {
    let certs = to.join("certs");
    fs_err::create_dir_all(&certs).unwrap();
    for name in ["x509.genkey", "signing_key.pem", ".signing_key.pem.cmd"] {
        let mut copy = Command::new("cp");
        copy.arg("-p").arg(file("certs").join(name));
        xtask::command::run(copy.arg(certs.join(name))).unwrap();
    }
}

#[test]
fn c2_another_output_directory_finds_everything_and_gives_the_same_kernel() {
    let first = &thin().build;
    first.succeed();
    let other = first
        .clone()
        .output(&test_directory("6.12-elsewhere").unwrap());
    let other = other.verify(0);
    other.configure_fresh().unwrap();
    copy_signing_key(other.output_directory());
    let found = step("6.12 x86_64: another output directory, full store", || {
        other.succeed()
    });
    let (hit, ran) = ["hit", "ran"]
        .map(|how| found.log.objects(how, "compile").len())
        .into();
    let backends = found.log.backends_run();
    eprintln!(
        "    {hit} compiles found, {ran} run; {} backends run",
        backends.len()
    );
    assert!(
        hit > 500 && ran < 10,
        "{:?}",
        found.log.objects("ran", "compile")
    );
    assert!(backends.len() < 10, "{backends:?}");
    let again = found.log.objects("ran", "native-compile");
    // With debug information an object shows its directory.
    let is_other = |object: &String| !object.starts_with("arch/x86/boot/");
    let again: Vec<String> = again.into_iter().filter(is_other).collect();
    assert!(again.len() < 5, "{again:?}");
    let mut files = ["vmlinux", "System.map", "arch/x86/boot/bzImage"]
        .map(PathBuf::from)
        .to_vec();
    files.extend(klto_verify::modules(first.output_directory()).unwrap());
    let report = klto_verify::bit_equal(first.output_directory(), other.output_directory(), &files);
    let report = report.unwrap();
    assert!(report.equal(), "{report}");
}

#[test]
fn d1_external_modules_build_load_and_are_found_again() {
    external::build_load_and_find_again(&thin().build, "external-6.12");
}

/// A build of other goals in the same output directory.
fn goals(goals: &[&str]) -> Outcome {
    thin().build.clone().goals(goals).succeed()
}

#[test]
fn d2_single_objects_and_directories_are_made_as_kbuild_makes_them() {
    let objects = ["fs/autofs/inode.o", "fs/proc/inode.o", "init/main.o"];
    let before = objects.map(|object| fs_err::read(file(object)).unwrap());
    for object in objects {
        fs_err::remove_file(file(object)).unwrap();
    }
    goals(&["init/main.o", "fs/autofs/", "fs/proc/inode.o"]);
    let after = objects.map(|object| fs_err::read(file(object)).unwrap());
    assert!(before == after);
    for made in ["init/main.i", "init/main.s", "lib/crc7.ko"] {
        goals(&[made]);
        assert!(file(made).is_file(), "{made}");
    }
}

#[test]
fn d3_clangd_accepts_compile_commands() {
    goals(&["compile_commands.json"]);
    let output = thin().build.output_directory().display();
    let source = thin().source.path().join("init/main.c");
    let mut clangd = Command::new("clangd-22");
    clangd.arg(format!("--compile-commands-dir={output}"));
    // The whole file is parsed; what clangd offers at each word is tried on the first lines.
    clangd.arg("--check-lines=1-20");
    let checked = prepared::run(clangd.arg(format!("--check={}", source.display())));
    let found = "Compile command from CDB is";
    let all = "All checks completed, 0 errors";
    checked.expect(0, &[found, "init/main.o", all]);
}

#[test]
fn z1_a_changed_incbin_file_is_seen() {
    let config = file(".config");
    let old = fs_err::read_to_string(&config).unwrap();
    assert!(old.contains("CONFIG_DEFAULT_HOSTNAME=\"(none)\"\n"));
    let new = old.replace(
        "CONFIG_DEFAULT_HOSTNAME=\"(none)\"",
        "CONFIG_DEFAULT_HOSTNAME=\"changed\"",
    );
    fs_err::write(&config, new).unwrap();
    let changed = step("6.12 x86_64: another host name", || thin().build.succeed());
    let ran = changed.log.backends_run();
    assert!(ran.contains("kernel/configs.o"), "{ran:?}");
    assert!(ran.len() < 20, "{ran:?}");
    // The boot compares /proc/config.gz with the build's own config_data.gz.
    let booted = boot(thin().build.tree(), thin().build.output_directory()).unwrap();
    verdict(&booted).unwrap();
    assert!(
        fs_err::read_to_string(&config)
            .unwrap()
            .contains("\"changed\"")
    );
}
