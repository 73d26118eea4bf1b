//! What a goal of a kernel Makefile asks for.
//!
//! In: goals. Out: their class, and the stages in which kbuild makes a mixture of them. The names
//! come from the `clean-targets`, `no-dot-config-targets` and `no-sync-config-targets` lists and the
//! rules of the top Makefile; a goal that is not known is a build.

use std::ffi::OsStr;

use crate::make_arguments::MakeArguments;

/// What a goal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoalClass {
    /// Writes the configuration.
    Configure,
    /// Removes files that a build made.
    Clean,
    /// Neither compiles nor links kernel code.
    Plain,
    /// Compiles or links.
    Build,
}

/// Goals by their whole name.
const PLAIN_NAMES: [&str; 36] = [
    "TAGS",
    "archheaders",
    "archscripts",
    "cscope",
    "dt_binding_check",
    "dt_binding_schemas",
    "dt_compatible_check",
    "dtbs",
    "dtbs_check",
    "export_report",
    "gtags",
    "headerdep",
    "headers",
    "image_name",
    "includecheck",
    "include/generated/uapi/linux/version.h",
    "kernelrelease",
    "kernelversion",
    "kselftest",
    "kselftest-merge",
    "misc-check",
    "modules_sign",
    "outputmakefile",
    "run-command",
    "rust-analyzer",
    "rustavailable",
    "rustfmt",
    "rustfmtcheck",
    "tags",
    "versioncheck",
    "coccicheck",
    "checkstack",
    "help",
    "scripts_basic",
    "scripts_unifdef",
    "scripts_dtc",
];
const PLAIN_BEGINNINGS: [&str; 5] = ["help", "check", "headers_", "kselftest-", "tools/"];
const PLAIN_ENDINGS: [&str; 6] = ["docs", "install", "asm-generic", "src-pkg", ".dtb", ".dtbo"];

/// The class of one goal.
pub(crate) fn classify(goal: &OsStr) -> GoalClass {
    // A name that is not UTF-8 is none of kbuild's own.
    let Some(goal) = goal.to_str() else {
        return GoalClass::Build;
    };
    let plain = PLAIN_NAMES.contains(&goal)
        || PLAIN_BEGINNINGS
            .iter()
            .any(|beginning| goal.starts_with(beginning))
        || PLAIN_ENDINGS.iter().any(|ending| goal.ends_with(ending));
    match goal {
        "kselftest-clean" => GoalClass::Plain,
        "mrproper" | "cleandocs" => GoalClass::Clean,
        _ if goal.ends_with("clean") => GoalClass::Clean,
        _ if goal.ends_with("config") => GoalClass::Configure,
        _ if plain => GoalClass::Plain,
        _ => GoalClass::Build,
    }
}

/// Whether the goal removes every object, so that nothing that klto keeps of them has a use.
pub(crate) fn removes_objects(goal: &OsStr) -> bool {
    goal == "clean" || goal == "mrproper" || goal == "distclean"
}

/// Whether the goal removes the configuration too.
pub(crate) fn removes_configuration(goal: &OsStr) -> bool {
    goal == "mrproper" || goal == "distclean"
}

/// The commands that stand for this one where it mixes goals that change what a build reads
/// (configuration, cleaning) with others: kbuild makes such goals one by one, in order.
pub(crate) fn stages(arguments: &MakeArguments) -> Vec<MakeArguments> {
    let changes = |goal: &&OsStr| matches!(classify(goal), GoalClass::Configure | GoalClass::Clean);
    let goals: Vec<&OsStr> = arguments.goals().collect();
    let groups: Vec<&[&OsStr]> = goals.chunk_by(|a, b| changes(a) == changes(b)).collect();
    if groups.len() < 2 {
        return vec![arguments.clone()];
    }
    let stage = |group: &[&OsStr]| arguments.with_goals(group.iter().copied());
    groups.into_iter().map(stage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn goals_have_the_class_that_kbuild_gives_them() {
        use GoalClass::*;
        for (class, goals) in [
            (
                Configure,
                "config menuconfig olddefconfig x_defconfig foo.config tinyconfig",
            ),
            (
                Clean,
                "clean mrproper distclean cleandocs archclean vmlinuxclean",
            ),
            (
                Plain,
                "help help-boards modules_install install vdso_install dtbs_install zinstall \
                 headers headers_install kernelversion kernelrelease image_name tags TAGS cscope \
                 gtags checkstack coccicheck kselftest kselftest-all kselftest-clean htmldocs \
                 dtbs tools/perf deb-src-pkg",
            ),
            (
                Build,
                "all vmlinux modules bzImage Image.gz prepare modules_prepare drivers/net/ \
                 init/main.o a/b.ko bindeb-pkg compile_commands.json nsdeps unheard-of",
            ),
        ] {
            for goal in goals.split_whitespace() {
                assert_eq!(classify(OsStr::new(goal)), class, "{goal}");
            }
        }
    }

    #[test]
    fn mixed_goals_are_made_in_stages() {
        let words = [
            "-k",
            "mrproper",
            "defconfig",
            "LLVM=1",
            "vmlinux",
            "modules",
            "clean",
        ];
        let arguments = MakeArguments::parse(&words.map(OsString::from));
        let texts: Vec<_> = stages(&arguments)
            .iter()
            .map(|stage| stage.words().join(OsStr::new(" ")))
            .collect();
        let expected = [
            "-k LLVM=1 mrproper defconfig",
            "-k LLVM=1 vmlinux modules",
            "-k LLVM=1 clean",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn goals_that_change_nothing_are_made_together() {
        let words = ["vmlinux", "headers", "j"].map(OsString::from);
        let arguments = MakeArguments::parse(&words);
        assert_eq!(stages(&arguments), [arguments]);
    }
}
