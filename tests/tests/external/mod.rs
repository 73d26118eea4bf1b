//! External modules against a kernel that klto built: `M=`, from a read-only build directory, with
//! symbols of another external module, as DKMS calls make; a module of a Debian package; and by plain make on
//! the headers' package of such a kernel.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use klto_tests::{Build, Log, cache, fresh_directory, is_bitcode, step};
use xtask::boot::{boot_with, verdict};
use xtask::{command, kernel};

use crate::prepared::{after_mounts, copy_tree, run};

const SWITCH: &str = "CONFIG_KLTO_SAMPLE_TEXT=y";

/// Copies of the sources, below a directory of the test's own.
fn sources(name: &str) -> (PathBuf, PathBuf) {
    let root = fresh_directory(name).unwrap();
    let place = |name: &str| {
        let to = root.join(name);
        copy_tree(&kernel::fragments().join(name), &to).unwrap();
        to
    };
    (place("external"), place("external-user"))
}

fn of_module(build: &Build, module: &Path) -> Build {
    let word = format!("M={}", module.display());
    build.clone().word(word).goals(&["modules"])
}

fn objects(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("{name}.o")).collect()
}

/// All of it, on the tree that `build` has built already.
pub fn build_load_and_find_again(build: &Build, name: &str) {
    let (sample, user) = sources(name);
    let with_switch = of_module(build, &sample).word(SWITCH);
    step("an external module", || with_switch.succeed());
    for object in ["sample.o", "sum.o", "text.o"] {
        assert!(is_bitcode(&sample.join(object)), "{object}");
    }
    let three = objects(&["sample", "sum", "text"]);
    assert_eq!(Log::read(&sample).objects("ran", "backend"), three);
    let module = fs_err::read(sample.join("klto_sample.ko")).unwrap();

    let symbols = sample.join("Module.symvers");
    let symbols = format!("KBUILD_EXTRA_SYMBOLS={}", symbols.display());
    of_module(build, &user).word(symbols).succeed();
    let modules = ["external/klto_sample.ko", "external-user/klto_user.ko"];
    let root = sample.parent().unwrap();
    let modules = modules.map(|module| root.join(module));
    let booted = boot_with(build.tree(), build.output_directory(), &modules).unwrap();
    verdict(&booted).unwrap();
    for line in ["klto_sample: sum 5, text switched on", "klto_user: sum 42"] {
        assert!(booted.console.contains(line), "{line}\n{}", booted.console);
    }

    with_switch.clone().goals(&["clean"]).succeed();
    assert!(!sample.join(".klto").exists() && !sample.join("sum.o").exists());
    with_switch.succeed();
    assert_eq!(Log::read(&sample).backends_found(), three);
    assert!(fs_err::read(sample.join("klto_sample.ko")).unwrap() == module);

    // Without the switch the bitcode of sum.c is the same.
    of_module(build, &sample).succeed();
    let one = objects(&["sample"]);
    assert_eq!(Log::read(&sample).objects("ran", "backend"), one);

    read_only_build_directory(&with_switch, &sample, &module);
    as_dkms_does(build, &sample, &module);
    by_a_relative_path(build, &sample, &module);
}

/// kbuild takes it from the output tree. Nothing is found in a store: each step of each native runs.
fn by_a_relative_path(build: &Build, sample: &Path, module: &[u8]) {
    of_module(build, sample).goals(&["clean"]).succeed();
    let builds = build.output_directory().parent().unwrap();
    let place = Path::new("..").join(sample.strip_prefix(builds).unwrap());
    let name = format!("external-store-{}", build.tree().name);
    let store = fresh_directory(&name).unwrap();
    of_module(build, &place)
        .word(SWITCH)
        .environment("KLTO_CACHE", &store)
        .succeed();
    assert!(fs_err::read(sample.join("klto_sample.ko")).unwrap() == module);
}

fn read_only_build_directory(build: &Build, sample: &Path, module: &[u8]) {
    let output = build.output_directory().display().to_string();
    let mounts = format!("mount --bind {output} {output}; mount -o remount,ro,bind {output}");
    run(&mut after_mounts(&mounts, &build.command())).expect(0, &[]);
    assert!(fs_err::read(sample.join("klto_sample.ko")).unwrap() == module);
}

/// `make -C /lib/modules/VERSION/build M=DIRECTORY`: the output directory's own Makefile.
fn as_dkms_does(build: &Build, sample: &Path, module: &[u8]) {
    fs_err::remove_file(sample.join("klto_sample.ko")).unwrap();
    let build = of_module(build, sample)
        .word(SWITCH)
        .started_in(sample)
        .word("-C")
        .word(build.output_directory());
    build.succeed();
    assert!(fs_err::read(sample.join("klto_sample.ko")).unwrap() == module);
}

/// A module of a Debian `-dkms` package, built by the line of its dkms.conf, loads.
pub fn build_and_load_dkms_package(build: &Build, package: &str, name: &str) {
    let deb = xtask::sources::package(cache(), package).unwrap();
    let root = fresh_directory(name).unwrap();
    command::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root)).unwrap();
    let mut sources = fs_err::read_dir(root.join("usr/src")).unwrap();
    let source = sources.next().unwrap().unwrap().path();
    let conf = fs_err::read_to_string(source.join("dkms.conf")).unwrap();
    let make = "MAKE[0]=\"make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build\"";
    assert!(conf.contains(make), "{conf}");
    let build = build
        .clone()
        .started_in(&source)
        .word("-C")
        .word(build.output_directory())
        .word(format!("M={}", source.display()))
        .goals(&["modules"]);
    step(&format!("the module of {package}"), || build.succeed());
    let log = Log::read(&source);
    assert!(!log.objects("ran", "backend").is_empty());
    let files = fs_err::read_dir(&source).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let is_module = |path: &PathBuf| path.extension().is_some_and(|end| end == "ko");
    let modules: Vec<PathBuf> = files.filter(is_module).collect();
    assert_eq!(modules.len(), 1, "{modules:?}");
    let booted = boot_with(build.tree(), build.output_directory(), &modules).unwrap();
    verdict(&booted).unwrap();
}

/// `klto make bindeb-pkg` on what `build` has built; returns the directory into which the packages of the
/// kernel and of the headers are unpacked.
pub fn make_and_unpack_debian_packages(build: &Build, name: &str) -> PathBuf {
    let root = fresh_directory(name).unwrap();
    let release = build
        .output_directory()
        .join("include/config/kernel.release");
    let release = fs_err::read_to_string(release).unwrap();
    // Other builds lie there too.
    let packages = || {
        let listed = fs_err::read_dir(cache().builds().unwrap()).unwrap();
        let files = listed.map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file() && name_of(path).contains(release.trim()))
    };
    packages().for_each(|path| fs_err::remove_file(path).unwrap());
    let build = build.clone().environment("KDEB_COMPRESS", "none");
    let build = build.goals(&["bindeb-pkg"]);
    step("klto make bindeb-pkg", || build.succeed());
    // dpkg-buildpackage writes beside the output directory.
    for start in ["linux-image-", "linux-headers-"] {
        let is_it = |path: &PathBuf| {
            let name = name_of(path);
            name.starts_with(start) && name.ends_with(".deb")
        };
        let package = packages().find(is_it).unwrap();
        command::run(Command::new("dpkg-deb").arg("-x").args([&package, &root])).unwrap();
    }
    packages().for_each(|path| fs_err::remove_file(path).unwrap());
    root
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Builds the sample module by plain make on the headers below `root`, and loads it into the kernel that
/// `build` has built.
pub fn build_without_klto(build: &Build, root: &Path) {
    let mut headers = fs_err::read_dir(root.join("usr/src")).unwrap();
    let headers = headers.next().unwrap().unwrap().path();
    let place = root.join("module");
    copy_tree(&kernel::fragments().join("external"), &place).unwrap();
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(&headers)
        .arg(format!("M={}", place.display()));
    make.args(build.tree().variables).arg("modules");
    run(&mut make).expect(0, &[]);
    let module = [place.join("klto_sample.ko")];
    let booted = boot_with(build.tree(), build.output_directory(), &module).unwrap();
    verdict(&booted).unwrap();
    let line = "klto_sample: sum 5, text none";
    assert!(booted.console.contains(line), "{}", booted.console);
}
