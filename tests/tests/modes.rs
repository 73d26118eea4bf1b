//! A change of mode or of the configuration in one output directory: what is made then is what a clean
//! build makes, bit for bit.
//!
//! The kernel of 5.10 is the smallest that arm64 has, without modules: members of `lib.a` that nothing
//! needs must stay out of it. Of 6.12, whose `.config` has the choice, some objects and a module are made.

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

use prepared::{files_below, jbd2_of_6_12};

/// Files that are compared.
const PRODUCTS: [&str; 3] = ["vmlinux", "System.map", "arch/arm64/boot/Image"];

/// The builds of 5.10, one after the other in one directory.
struct Modes {
    build: Build,
    /// A clean build by plain make.
    plain: PathBuf,
    /// Thin after it, from an empty store.
    thin: PathBuf,
    thin_outcome: Outcome,
    /// Objects of C in vmlinux that are not bitcode then.
    not_bitcode: Vec<PathBuf>,
    /// Another `.config`, and the one before it again.
    reconfigured: PathBuf,
    configured_back: PathBuf,
    /// `--lto=none` at the end.
    none: PathBuf,
}

fn small() -> Result<Build> {
    let tree = Tree::named("5.10")?;
    let tree = variant(tree, "5.10-small", "5.10-arm64-small.config");
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

fn modes() -> &'static Modes {
    static MODES: Shared<Modes> = Shared::new();
    MODES.get(|| {
        let build = small()?;
        build.configure_fresh()?;
        step("clean build by plain make", || {
            build.clone().plain().mode(None).succeed()
        });
        let plain = keep(&build, "plain")?;
        let thin_outcome = step("thin in the same directory", || build.succeed());
        let thin = keep(&build, "thin")?;
        let output = build.output_directory();
        let objects = archives(output)?.into_iter().flatten().collect();
        let bitcode = |object: &Path| is_bitcode(&output.join(object));
        let not_bitcode = natives_without_reason(output, &objects, &BTreeSet::new(), &bitcode)?;
        change_options(&build, false)?;
        step("the same with another .config", || build.succeed());
        let reconfigured = keep(&build, "reconfigured")?;
        change_options(&build, true)?;
        step("the same with the first .config", || build.succeed());
        let configured_back = keep(&build, "configured-back")?;
        step("--lto=none in the same directory", || {
            build.clone().mode(Some("none")).succeed()
        });
        Ok(Modes {
            plain,
            thin,
            thin_outcome,
            not_bitcode,
            reconfigured,
            configured_back,
            none: keep(&build, "none")?,
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

fn assert_equal(one: &Path, other: &Path) {
    let files = PRODUCTS.map(PathBuf::from);
    let report = klto_verify::bit_equal(one, other, &files).unwrap();
    assert!(report.equal(), "{report}");
}

/// Whether it equals a clean build is for the matrix to show.
#[test]
fn thin_after_plain_keeps_no_object_of_the_plain_build() {
    let modes = modes();
    assert!(modes.thin_outcome.log.inputs["vmlinux.o"].len() > 200);
    assert_eq!(modes.not_bitcode, [] as [PathBuf; 0]);
    assert!(vmlinux(&modes.plain) != vmlinux(&modes.thin));
}

#[test]
fn lto_none_after_thin_equals_plain_make() {
    let modes = modes();
    assert_equal(&modes.plain, &modes.none);
}

#[test]
fn a_configuration_changed_and_changed_back_leaves_no_trace() {
    let modes = modes();
    assert!(vmlinux(&modes.reconfigured) != vmlinux(&modes.thin));
    assert_equal(&modes.thin, &modes.configured_back);
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
    let modes = modes();
    let left_out = &modes.thin_outcome.log.left_out["vmlinux.o"];
    let taken: BTreeSet<&String> = modes.thin_outcome.log.inputs["vmlinux.o"].iter().collect();
    assert!(left_out.iter().all(|object| object.starts_with("lib/")));
    assert!(left_out.iter().all(|object| !taken.contains(object)));
    let plain = names_of_map(&modes.plain);
    let thin = names_of_map(&modes.thin);
    let mut missing = 0;
    for object in left_out {
        // The last build was one without LTO, so the object tells its names.
        let object = modes.build.output_directory().join(object);
        for name in exported_names(&object) {
            let object = object.display();
            assert!(
                !thin.contains(&name),
                "{object} is in the thin kernel: {name}"
            );
            missing += usize::from(!plain.contains(&name));
        }
    }
    eprintln!("    {} objects of lib.a are left out", left_out.len());
    assert!(missing > 0, "plain kbuild links all of them");
}

/// What is compared of 6.12.
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

#[test]
fn each_choice_of_6_12_makes_what_a_clean_build_makes() {
    let configuration = |lto| Configuration {
        lto,
        ..Configuration::default()
    };
    let [thin, none] = [Lto::Thin, Lto::None].map(configuration);
    let clean_thin = jbd2_of_6_12("6.12-thin").goals(&GOALS);
    clean_thin.succeed();
    let clean_none = Build::new("6.12", "modes-6.12-none").unwrap();
    let clean_none = clean_none.empty_store().unwrap().configuration(none);
    clean_none.configure_fresh().unwrap();
    let clean_none = clean_none
        .goals(&GOALS)
        .environment("KBUILD_MODPOST_WARN", "1");
    step("6.12 without LTO by plain make", || {
        clean_none.clone().plain().succeed()
    });
    let build = jbd2_of_6_12("6.12").goals(&GOALS);
    for (configuration, clean) in [
        (none, &clean_none),
        (thin, &clean_thin),
        (none, &clean_none),
    ] {
        let build = build.clone().configuration(configuration);
        build.configure().unwrap();
        step("6.12 with the other choice", || build.succeed());
        let files = made(clean.output_directory());
        assert!(files.len() > 15, "{files:?}");
        assert_eq!(files, made(build.output_directory()));
        let report =
            klto_verify::bit_equal(clean.output_directory(), build.output_directory(), &files);
        let report = report.unwrap();
        assert!(report.equal(), "{report}");
    }
}
