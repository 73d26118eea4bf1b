//! What is made again and what is found: after nothing, an edit, a clean, in another directory; and
//! what plain make does with the result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use klto_tests::{Build, Outcome, step};

use crate::{Thin, module_units, thin};

/// Lines of kbuild for work that changes an output; checks that only look are left out.
fn work(outcome: &Outcome) -> Vec<(String, String)> {
    let mut lines = outcome.kbuild_lines();
    lines.retain(|(word, object)| {
        let looks = ["CALL", "CHK", "DESCEND"].contains(&word.as_str());
        !looks && (word.as_str(), object.as_str()) != ("GEN", "Makefile")
    });
    lines
}

fn modified(output: &Path, file: &str) -> SystemTime {
    let metadata = fs_err::metadata(output.join(file)).unwrap();
    metadata.modified().unwrap()
}

#[test]
fn second_build_runs_nothing() {
    let thin = thin();
    let output = thin.build.output_directory();
    let before = modified(output, "vmlinux");
    // Another variable, so that make runs.
    let with_make = thin.build.clone().environment("KLTO_OF_THE_TEST", "1");
    let second = step("second build", || with_make.succeed());
    assert!(second.log.why_make_ran.is_some());
    assert_eq!(work(&second), []);
    assert!(second.log.actions.is_empty(), "{:?}", second.log.actions);
    assert_eq!(modified(output, "vmlinux"), before);
}

/// `init/main.o` and the objects of vmlinux that import from it, by the import lists.
fn importers_of_main(output: &Path, inputs: &[String]) -> BTreeSet<String> {
    let index = output.join(".klto/units/vmlinux.o/index");
    let imports_main = |object: &&String| {
        let list = fs_err::read_to_string(index.join(format!("{object}.imports"))).unwrap();
        list.lines().any(|line| line == "init/main.o")
    };
    let mut set: BTreeSet<String> = inputs.iter().filter(imports_main).cloned().collect();
    set.insert("init/main.o".to_owned());
    set
}

#[test]
fn an_edit_runs_the_backends_that_read_the_object_and_no_other() {
    let Thin {
        build,
        source,
        first,
    } = thin();
    let output = build.output_directory();
    let original = source
        .edit(
            "init/main.c",
            "\"Kernel command line: %s",
            "\"The kernel's command line: %s",
        )
        .unwrap();
    let edited = step("build after an edit of init/main.c", || build.succeed());
    let importers = importers_of_main(output, &first.log.inputs["vmlinux.o"]);
    let image = fs_err::read(output.join(build.tree().image)).unwrap();
    source.write("init/main.c", &original).unwrap();
    let back = step("build after taking the edit back", || build.succeed());
    let compiled = |outcome: &Outcome| -> Vec<String> {
        let lines = work(outcome).into_iter();
        let compiled = lines.filter(|(word, _)| word == "CC");
        compiled.map(|(_, object)| object).collect()
    };
    assert_eq!(compiled(&edited), ["init/main.o"]);
    let ran = edited.log.backends_run();
    assert!(ran.contains("init/main.o"), "{ran:?}");
    // Most import variables of it, which are the same.
    assert!(
        ran.is_subset(&importers) && ran.len() < importers.len() / 2,
        "{ran:?}"
    );
    assert_eq!(edited.log.backends_found(), BTreeSet::new());
    let all: BTreeSet<String> = first.log.inputs["vmlinux.o"].iter().cloned().collect();
    let kept: BTreeSet<String> = all.difference(&ran).cloned().collect();
    assert_eq!(edited.log.objects("kept", "backend"), kept);
    let thin_links = edited.log.objects("ran", "thin-link");
    assert_eq!(thin_links, ["vmlinux.o".to_owned()].into());
    let text = b"The kernel's command line";
    assert!(image.windows(text.len()).any(|window| window == text));
    // What the first build made is found again.
    assert_eq!(back.log.backends_run(), BTreeSet::new());
    assert_eq!(back.log.backends_found(), ran);
}

/// Goals that need little besides the preparation of the tree.
const MODULE_GOALS: [&str; 2] = ["fs/autofs/autofs4.ko", "lib/crc7.ko"];

/// Files and directories below `directory` of a name that `find` matches.
fn find(directory: &Path, pattern: &str) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(directory)
        .args(["-mindepth", "1", "-name", pattern]);
    let found = xtask::command::output(&mut find).unwrap();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn another_directory_and_a_cleaned_one_find_the_same_results() {
    let thin = thin();
    let other = Build::new("5.10", "arm64-other")
        .unwrap()
        .source(thin.source.path())
        .store(thin.build.store_directory())
        // Without vmlinux modpost knows no exports.
        .word("KBUILD_MODPOST_WARN=1")
        .verify(0)
        .goals(&MODULE_GOALS);
    other.configure_fresh().unwrap();
    let output = other.output_directory();
    let expected: BTreeSet<String> = ["fs/autofs/autofs4.o", "lib/crc7.o"]
        .iter()
        .flat_map(|unit| thin.first.log.inputs[*unit].iter().cloned())
        .collect();
    let first = step("two modules in another directory", || other.succeed());
    assert_eq!(first.log.backends_run(), BTreeSet::new());
    assert_eq!(first.log.backends_found(), expected);
    assert!(first.log.objects("hit", "compile").is_superset(&expected));

    let clean = other.clone().goals(&["clean"]);
    let natives = || {
        let found = find(&output.join(".klto"), "*.o");
        found
            .iter()
            .filter(|path| Path::new(path).is_file())
            .count()
    };
    assert!(natives() > 0);
    step("plain make clean", || clean.clone().plain().succeed());
    assert_eq!(natives(), 0, "make clean takes klto's natives along");
    let rebuilt = step("the modules after make clean", || other.succeed());
    assert_eq!(rebuilt.log.backends_run(), BTreeSet::new());
    assert_eq!(rebuilt.log.backends_found(), expected);

    step("klto make clean", || clean.succeed());
    let rebuilt = step("the modules after klto make clean", || other.succeed());
    assert_eq!(rebuilt.log.backends_run(), BTreeSet::new());
    assert_eq!(rebuilt.log.backends_found(), expected);

    step("klto make mrproper", || {
        other.clone().goals(&["mrproper"]).succeed()
    });
    assert_eq!(find(output, "*klto*"), Vec::<String>::new());
}

/// Every file of `output` with its time, apart from those that installing writes.
fn times(output: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut times = BTreeMap::new();
    let mut directories = vec![output.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let metadata = entry.metadata().unwrap();
                times.insert(entry.path(), metadata.modified().unwrap());
            }
        }
    }
    times
}

#[test]
fn plain_make_installs_what_klto_built() {
    let thin = thin();
    let output = thin.build.output_directory();
    let target = tempfile::tempdir().unwrap();
    let install = thin
        .build
        .clone()
        .plain()
        .word(format!("INSTALL_MOD_PATH={}", target.path().display()))
        .word(format!("INSTALL_PATH={}", target.path().display()))
        // The kernel's own script copies; the machine's would run its hooks.
        .word("INSTALLKERNEL=no-such-installkernel");
    let before = times(output);
    let modules = install.clone().goals(&["modules_install"]);
    step("plain make modules_install", || modules.succeed());
    step("plain make install", || {
        install.goals(&["install"]).succeed()
    });
    let mut changed = times(output);
    changed.retain(|path, time| before.get(path) != Some(time));
    assert_eq!(changed, BTreeMap::new());
    let installed = find(target.path(), "*.ko").len();
    assert_eq!(installed, module_units(output).len());
    let image = fs_err::read(output.join(thin.build.tree().image)).unwrap();
    let copied = fs_err::read_dir(target.path()).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.is_file() && fs_err::read(path).unwrap() == image
    });
    assert!(copied, "no image was installed");
}
