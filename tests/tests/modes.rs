//! A change of mode in one output directory: what is made then is what a clean build makes, bit for bit.
//!
//! Modes are switched for a module and some objects of both trees; the matrix does it for whole kernels.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod prepared;

use std::path::{Path, PathBuf};

use klto_tests::{Build, step};
use xtask::kernel::Lto;

use prepared::{copy_output, files_below, jbd2, jbd2_of_6_12};

/// What is compared when the mode is switched.
const GOALS: [&str; 2] = ["fs/ramfs/", "fs/jbd2/jbd2.ko"];

/// The objects of those directories and the module, by path below the output directory.
fn made(output: &Path) -> Vec<PathBuf> {
    let directories = ["fs/ramfs", "fs/jbd2"].map(|directory| files_below(&output.join(directory)));
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
    assert!(files.len() > 10, "{files:?}");
    assert_eq!(files, made(other));
    let report = klto_verify::bit_equal(one, other, &files).unwrap();
    assert!(report.equal(), "{report}");
}

/// Goes from thin to none and back, in a copy of the clean build with thin.
fn switch(build: &Build, [thin, none]: [&Build; 2], choose: impl Fn(&Build, Lto) -> Build) {
    copy_output(thin.output_directory(), build.output_directory()).unwrap();
    for (lto, clean) in [(Lto::None, none), (Lto::Thin, thin)] {
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
    let none = Build::new("5.10", "modes-5.10-none").unwrap();
    let none = modules(none.ext4());
    none.configure_fresh().unwrap();
    none.clone().plain().mode(None).succeed();
    let build = modules(jbd2("5.10"));
    switch(&build, [&thin, &none], |build, lto| {
        let mode = match lto {
            Lto::None => "none",
            Lto::Thin | Lto::ThinDist | Lto::Full => "thin",
        };
        build.clone().mode(Some(mode))
    });
}

#[test]
fn each_choice_of_6_12_makes_what_a_clean_build_makes() {
    let thin = jbd2_of_6_12("6.12-thin").goals(&GOALS);
    thin.succeed();
    let none = Build::new("6.12", "modes-6.12-none").unwrap();
    let none = none.ext4().lto(Lto::None);
    none.configure_fresh().unwrap();
    let none = none.goals(&GOALS).environment("KBUILD_MODPOST_WARN", "1");
    none.clone().plain().succeed();
    let build = jbd2_of_6_12("6.12").goals(&GOALS);
    switch(&build, [&thin, &none], |build, lto| {
        let chosen = build.clone().lto(lto);
        chosen.configure().unwrap();
        chosen
    });
}
