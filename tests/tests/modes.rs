//! A change of mode or of the configuration in one output directory: what is made then is what a clean
//! build makes, bit for bit.
//!
//! Modes are switched for a module and some objects of both trees; the matrix does it for whole kernels. The
//! configuration of a whole kernel of 5.10 is changed and changed back. It is the smallest that arm64 has, without
//! modules: members of `lib.a` that nothing needs must stay out of it.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use klto_formats::elf;
use klto_tests::{
    Build, Outcome, Shared, archives, fresh_directory, is_bitcode, natives_without_reason, step,
    variant,
};
use xtask::kernel::{Configuration, Lto, Tree};

use prepared::{files_below, jbd2, jbd2_of_6_12};

/// Files that are compared.
const PRODUCTS: [&str; 3] = ["vmlinux", "System.map", "arch/arm64/boot/Image"];

/// The builds of the whole kernel, one after the other in one directory.
struct Kernels {
    build: Build,
    /// A clean build, from an empty store.
    first: PathBuf,
    outcome: Outcome,
    /// Objects of C in vmlinux that are not bitcode then.
    not_bitcode: Vec<PathBuf>,
    /// Another `.config`, and the one before it again.
    reconfigured: PathBuf,
    configured_back: PathBuf,
}

fn small() -> Result<Build> {
    let tree = Tree::named("5.10")?;
    let tree = variant(tree, "5.10-small", &["5.10-arm64-small.config"]);
    let configuration = Configuration {
        lto: Lto::None,
        modules: false,
        trim: false,
    };
    Build::of(tree, "modes")?
        .configuration(configuration)
        .empty_store()
}

/// Copies the products of a build to `builds/test-modes-NAME`.
fn keep(build: &Build, name: &str) -> Result<PathBuf> {
    let target = fresh_directory(&format!("modes-{name}"))?;
    for file in PRODUCTS {
        let path = target.join(file);
        fs_err::create_dir_all(path.parent().unwrap_or(&target))?;
        fs_err::copy(build.output_directory().join(file), path)?;
    }
    Ok(target)
}

fn kernels() -> &'static Kernels {
    static KERNELS: Shared<Kernels> = Shared::new();
    KERNELS.get(|| {
        let build = small()?;
        build.configure_fresh()?;
        let outcome = step("clean thin build", || build.succeed());
        let first = keep(&build, "first")?;
        let output = build.output_directory();
        let objects = archives(output)?.into_iter().flatten().collect();
        let bitcode = |object: &Path| is_bitcode(&output.join(object));
        let not_bitcode = natives_without_reason(output, &objects, &BTreeSet::new(), &bitcode)?;
        change_options(&build, false)?;
        step("the same with another .config", || build.succeed());
        let reconfigured = keep(&build, "reconfigured")?;
        change_options(&build, true)?;
        step("the same with the first .config", || build.succeed());
        Ok(Kernels {
            first,
            outcome,
            not_bitcode,
            reconfigured,
            configured_back: keep(&build, "configured-back")?,
            build,
        })
    })
}

/// Changes two options in `.config`, or changes them back.
fn change_options(build: &Build, back: bool) -> Result<()> {
    let path = build.output_directory().join(".config");
    let mut config = fs_err::read_to_string(&path)?;
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
    Ok(fs_err::write(path, config)?)
}

#[test]
fn every_object_of_c_is_bitcode() {
    let kernels = kernels();
    assert!(kernels.outcome.log.inputs["vmlinux.o"].len() > 200);
    assert_eq!(kernels.not_bitcode, [] as [PathBuf; 0]);
}

#[test]
fn a_configuration_changed_and_changed_back_leaves_no_trace() {
    let kernels = kernels();
    assert!(vmlinux(&kernels.reconfigured) != vmlinux(&kernels.first));
    let files = PRODUCTS.map(PathBuf::from);
    let report = klto_verify::bit_equal(&kernels.first, &kernels.configured_back, &files);
    let report = report.unwrap();
    assert!(report.equal(), "{report}");
}

fn vmlinux(directory: &Path) -> Vec<u8> {
    fs_err::read(directory.join("vmlinux")).unwrap()
}

/// Names that an object of the plain tree defines for others.
fn exported_names(object: &Path) -> BTreeSet<String> {
    let symbols = elf::symbols(&fs_err::read(object).unwrap()).unwrap();
    let global = symbols.iter().filter(|symbol| {
        symbol.place == elf::Place::Defined && symbol.binding != elf::Binding::Local
    });
    global
        .map(|symbol| String::from_utf8_lossy(&symbol.name).into_owned())
        .collect()
}

fn names_of_map(directory: &Path) -> BTreeSet<String> {
    let map = fs_err::read_to_string(directory.join("System.map")).unwrap();
    let name = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    map.lines().filter_map(name).collect()
}

#[test]
fn members_of_lib_that_nothing_needs_stay_out() {
    let Kernels {
        build,
        first,
        outcome,
        ..
    } = kernels();
    let left_out = &outcome.log.left_out["vmlinux.o"];
    let taken: BTreeSet<&String> = outcome.log.inputs["vmlinux.o"].iter().collect();
    assert!(left_out.iter().all(|object| object.starts_with("lib/")));
    assert!(left_out.iter().all(|object| !taken.contains(object)));
    let names = names_of_map(first);
    let mut missing = 0;
    for object in left_out {
        // What the object defines is asked of its native.
        let native = build.output_directory().join(".klto/units/vmlinux.o/raw");
        for name in exported_names(&native.join(object)) {
            assert!(!names.contains(&name), "{object} is in the kernel: {name}");
            missing += 1;
        }
    }
    eprintln!("    {} objects of lib.a are left out", left_out.len());
    assert!(missing > 0);
}

/// What is compared when the mode is switched.
const GOALS: [&str; 2] = ["init/", "fs/jbd2/jbd2.ko"];

/// The objects of those directories and the module, by path below the output directory.
fn made(output: &Path) -> Vec<PathBuf> {
    let directories = ["init", "fs/jbd2"].map(|directory| files_below(&output.join(directory)));
    let mut files: Vec<PathBuf> = directories.into_iter().flatten().collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|end| end == "o" || end == "ko")
    });
    let below = files.iter().map(|file| file.strip_prefix(output).unwrap());
    below.map(Path::to_owned).collect()
}

fn assert_equal(one: &Build, other: &Build) {
    let (one, other) = (one.output_directory(), other.output_directory());
    let files = made(one);
    assert!(files.len() > 15, "{files:?}");
    assert_eq!(files, made(other));
    let report = klto_verify::bit_equal(one, other, &files).unwrap();
    assert!(report.equal(), "{report}");
}

/// Goes from thin to none, back and again; `clean` has a clean build of each.
fn switch(build: &Build, [thin, none]: [&Build; 2], choose: impl Fn(&Build, Lto) -> Build) {
    for (lto, clean) in [(Lto::None, none), (Lto::Thin, thin), (Lto::None, none)] {
        let chosen = choose(build, lto);
        step("the other mode in the same directory", || chosen.succeed());
        assert_equal(clean, build);
    }
}

#[test]
fn each_mode_of_5_10_makes_what_a_clean_build_makes() {
    let modules = |build: Build| {
        // Without vmlinux modpost knows no exports.
        build.goals(&GOALS).environment("KBUILD_MODPOST_WARN", "1")
    };
    let thin = modules(jbd2("5.10-thin"));
    thin.succeed();
    let none = modules(Build::new("5.10", "modes-5.10-none").unwrap());
    none.configure_fresh().unwrap();
    none.clone().plain().mode(None).succeed();
    let build = modules(jbd2("5.10"));
    switch(&build, [&thin, &none], |build, lto| {
        let mode = match lto {
            Lto::None => "none",
            Lto::Thin => "thin",
        };
        build.clone().mode(Some(mode))
    });
}

#[test]
fn each_choice_of_6_12_makes_what_a_clean_build_makes() {
    let configuration = |lto| Configuration {
        lto,
        ..Configuration::default()
    };
    let thin = jbd2_of_6_12("6.12-thin").goals(&GOALS);
    thin.succeed();
    let none = Build::new("6.12", "modes-6.12-none").unwrap();
    let none = none.configuration(configuration(Lto::None));
    none.configure_fresh().unwrap();
    let none = none.goals(&GOALS).environment("KBUILD_MODPOST_WARN", "1");
    none.clone().plain().succeed();
    let build = jbd2_of_6_12("6.12").goals(&GOALS);
    switch(&build, [&thin, &none], |build, lto| {
        let chosen = build.clone().configuration(configuration(lto));
        chosen.configure().unwrap();
        chosen
    });
}
