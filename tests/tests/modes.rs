//! A change of mode in one output directory: plain, thin, plain; and a change of the configuration.
//! Each time vmlinux and Image are those of a clean build, bit for bit.
//!
//! The kernel is the smallest that arm64 has, without modules: members of `lib.a` that nothing
//! needs must stay out of it. Clean builds use the same output path, for paths can be in a binary.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use klto_formats::elf;
use klto_tests::{Build, Outcome, Shared, fresh_directory, step, variant};
use xtask::kernel::{Configuration, Lto, Tree};

/// Files that are compared.
const PRODUCTS: [&str; 3] = ["vmlinux", "System.map", "arch/arm64/boot/Image"];

/// All builds of this file: products by step, and the outcome of the clean thin build.
struct Modes {
    clean_thin: PathBuf,
    first_thin: Outcome,
    /// Natives of the clean thin build.
    natives: PathBuf,
    /// The clean thin build with another `.config`, and a clean build of that with an empty store.
    reconfigured: [PathBuf; 2],
    clean_plain: PathBuf,
    /// In the directory of the plain build: thin, then `--lto=none`.
    switched: [PathBuf; 2],
}

fn build() -> Build {
    let tree = Tree::named("5.10").unwrap();
    let tree = variant(tree, "5.10-small", "5.10-arm64-small.config");
    let configuration = Configuration {
        lto: Lto::None,
        modules: false,
        trim: false,
    };
    Build::of(tree, "modes")
        .unwrap()
        .configuration(configuration)
}

/// Copies the products and the objects of `lib` of a build to `builds/test-modes-NAME`.
fn keep(build: &Build, name: &str) -> PathBuf {
    let target = fresh_directory(&format!("modes-{name}")).unwrap();
    for file in PRODUCTS {
        let path = target.join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::copy(build.output_directory().join(file), path).unwrap();
    }
    target
}

fn modes() -> &'static Modes {
    static MODES: Shared<Modes> = Shared::new();
    MODES.get(|| {
        let build = build();
        // The clean thin build; its store is empty, and the later ones find its backends.
        let build = build.store(&fresh_directory("modes-store")?);
        build.configure_fresh()?;
        let first_thin = step("clean thin build", || build.succeed());
        let clean_thin = keep(&build, "clean-thin");
        let natives = keep_natives(&build)?;
        let reconfigured = reconfigure(&build)?;

        build.configure_fresh()?;
        step("clean build by plain make", || {
            build.clone().plain().succeed()
        });
        let clean_plain = keep(&build, "clean-plain");
        let switch = |mode: &'static str, name: &str| {
            let step_name = format!("--lto={mode} in the same directory");
            step(&step_name, || build.clone().mode(Some(mode)).succeed());
            keep(&build, name)
        };
        Ok(Modes {
            clean_thin,
            first_thin,
            natives,
            reconfigured,
            clean_plain,
            switched: [switch("thin", "thin"), switch("none", "none")],
        })
    })
}

/// Copies the backends' natives of vmlinux.
fn keep_natives(build: &Build) -> Result<PathBuf> {
    let target = fresh_directory("modes-natives")?.join("raw");
    let raw = build.output_directory().join(".klto/units/vmlinux.o/raw");
    xtask::command::run(Command::new("cp").arg("-a").arg(raw).arg(&target))?;
    Ok(target)
}

/// The build goes on with two options changed.
fn reconfigure(build: &Build) -> Result<[PathBuf; 2]> {
    let change = || -> Result<()> {
        let path = build.output_directory().join(".config");
        let mut config = fs_err::read_to_string(&path)?;
        for (from, to) in [
            (
                "# CONFIG_PRINTK_TIME is not set\n",
                "CONFIG_PRINTK_TIME=y\n",
            ),
            ("CONFIG_LOG_BUF_SHIFT=17\n", "CONFIG_LOG_BUF_SHIFT=16\n"),
        ] {
            assert!(config.contains(from), "{from}");
            config = config.replace(from, to);
        }
        Ok(fs_err::write(path, config)?)
    };
    change()?;
    step("the same with another .config", || build.succeed());
    let changed = keep(build, "reconfigured");
    let clean = build.clone().empty_store()?;
    clean.configure_fresh()?;
    change()?;
    step("a clean build of that .config", || clean.succeed());
    Ok([changed, keep(build, "reconfigured-clean")])
}

fn assert_equal(one: &Path, other: &Path) {
    let files = PRODUCTS.map(PathBuf::from);
    let report = klto_verify::bit_equal(one, other, &files).unwrap();
    assert!(report.equal(), "{report}");
}

#[test]
fn thin_after_plain_equals_a_clean_thin_build() {
    let modes = modes();
    assert_equal(&modes.clean_thin, &modes.switched[0]);
}

#[test]
fn lto_none_after_thin_equals_plain_make() {
    let modes = modes();
    assert_equal(&modes.clean_plain, &modes.switched[1]);
}

#[test]
fn a_changed_configuration_equals_a_clean_build_of_it() {
    let [changed, clean] = &modes().reconfigured;
    assert_equal(clean, changed);
    let vmlinux = |directory: &Path| fs_err::read(directory.join("vmlinux")).unwrap();
    assert!(vmlinux(clean) != vmlinux(&modes().clean_thin));
}

#[test]
fn the_two_modes_are_two_kernels() {
    let modes = modes();
    let vmlinux = |directory: &Path| fs_err::read(directory.join("vmlinux")).unwrap();
    assert!(vmlinux(&modes.clean_plain) != vmlinux(&modes.clean_thin));
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
    let left_out = &modes.first_thin.log.left_out["vmlinux.o"];
    let taken: BTreeSet<&String> = modes.first_thin.log.inputs["vmlinux.o"].iter().collect();
    assert!(left_out.iter().all(|object| object.starts_with("lib/")));
    assert!(left_out.iter().all(|object| !taken.contains(object)));
    // What the objects define is asked of their natives.
    let plain = names_of_map(&modes.clean_plain);
    let thin = names_of_map(&modes.clean_thin);
    let mut missing = 0;
    for object in left_out {
        let native = modes.natives.join(object);
        for name in exported_names(&native) {
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
