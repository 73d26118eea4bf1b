//! Builds for which no answer does without make, or for which comments count.
//!
//! In: a build and its environment. Out: why. It looks at make's words, and at no file but one script.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use klto_kbuild::{Environment, LtoBuild, MakeOption};

/// Whether checkers run, as `C` says too, and its value for all sources, also those that are made already
/// (scripts/Makefile.build).
const CHECKS: &str = "KBUILD_CHECKSRC";
const CHECKS_ALL: &str = "2";

/// Options that name files by lists, or below a directory that another option names.
const NAMES_FILES: [&str; 5] = [
    "INITRAMFS_SOURCE",
    "EXTRA_FIRMWARE",
    "BOOT_CONFIG_EMBED_FILE",
    "SYSTEM_TRUSTED_KEYS",
    "SYSTEM_REVOCATION_KEYS",
];

/// Variables by which git finds its files elsewhere than in the tree or where the tree says.
const OF_GIT: [&str; 5] = [
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_WORK_TREE",
];

/// Why no answer for this build can do without make.
pub(super) fn refuse(build: &LtoBuild, environment: &Environment) -> Result<(), String> {
    use MakeOption::{
        AlwaysMake, Debug, Eval, File, IgnoreErrors, IncludeDirectory, NewFile, OldFile,
        PrintDataBase, Trace,
    };
    let both = [&build.arguments, build.make_flags.arguments()];
    for option in [
        AlwaysMake,
        Debug,
        Eval,
        File,
        IgnoreErrors,
        IncludeDirectory,
        NewFile,
        OldFile,
        PrintDataBase,
        Trace,
    ] {
        if both.iter().any(|arguments| arguments.has(option)) {
            return Err("make's options ask for more than what has changed".into());
        }
    }
    let mut assignments = both.iter().flat_map(|arguments| arguments.assignments());
    let is_check = |name: &OsStr| name == "C" || name == CHECKS;
    let by_word = assignments.any(|word| is_check(&word.name) && word.value == CHECKS_ALL);
    let by_variable = environment
        .get(CHECKS)
        .is_some_and(|value| value == CHECKS_ALL);
    if by_word || by_variable {
        return Err("make checks all sources".into());
    }
    if let Some(name) = OF_GIT.iter().find(|name| environment.get(name).is_some()) {
        return Err(format!("{name} is set"));
    }
    if build.tree.external_module.is_some() {
        return Err("an external module is built".into());
    }
    if adjusts_exports(build) {
        return Err("what is exported changes while make runs".into());
    }
    if let Some(goal) = build.arguments.goals().find(|goal| !only_makes_files(goal)) {
        return Err(format!(
            "the goal {} may do more than make files",
            goal.display()
        ));
    }
    let is_set = |option: &&&str| {
        build
            .config
            .value(option)
            .is_some_and(|value| !value.is_empty())
    };
    match NAMES_FILES.iter().find(is_set) {
        Some(option) => Err(format!("CONFIG_{option} names files that may be elsewhere")),
        None => Ok(()),
    }
}

/// Why a build looks at comments of every source: kernel-doc and checkers (Makefile, scripts/Makefile.build).
pub(super) fn checks_comments(build: &LtoBuild, environment: &Environment) -> Option<&'static str> {
    // Of the environment kbuild takes the long ones alone.
    const LONG: [&str; 2] = ["KBUILD_EXTRA_WARN", CHECKS];
    let both = [&build.arguments, build.make_flags.arguments()];
    let mut assignments = both.into_iter().flat_map(|words| words.assignments());
    let by_word = assignments.any(|assignment| {
        let mut names = ["W", "C"].iter().chain(&LONG);
        names.any(|name| assignment.name == *name)
    });
    let by_variable = LONG.iter().any(|name| environment.get(name).is_some());
    (by_word || by_variable).then_some("make checks sources, comments too")
}

/// Whether a make within make compiles objects again after modpost has said which exports are used, on trees
/// before 6.3 (scripts/adjust_autoksyms.sh). The outer one does not see that: when it ends, more may be to
/// do.
pub(crate) fn adjusts_exports(build: &LtoBuild) -> bool {
    let script = build.tree.source.join("scripts/adjust_autoksyms.sh");
    build.config.value("TRIM_UNUSED_KSYMS") == Some("y") && script.exists()
}

/// Goals of kbuild after which there are files and nothing else, and files by their name.
fn only_makes_files(goal: &OsStr) -> bool {
    let known = [
        "all", "vmlinux", "modules", "bzImage", "Image", "Image.gz", "zImage",
    ];
    let endings: [&[u8]; 3] = [b".o", b".ko", b"/"];
    let goal = goal.as_bytes();
    known.iter().any(|name| name.as_bytes() == goal)
        || endings.into_iter().any(|end| goal.ends_with(end))
}
