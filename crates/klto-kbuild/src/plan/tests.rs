//! Whole invocations: what would be run, and what the user is told.

use super::*;
use crate::make_arguments::Jobs;
use crate::steps::Step;
use crate::testing::{FakeVersion, V5_10, V6_12, fake_kernel, script};
use crate::toolchain::Role;
use std::num::NonZeroU32;

struct Setting {
    directory: tempfile::TempDir,
    request: Option<LtoRequest>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Setting {
    fn new(version: FakeVersion, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("src");
        fake_kernel(&source, version);
        fs_err::write(source.join(".config"), config).unwrap();
        let bin = directory.path().join("bin");
        fs_err::create_dir(&bin).unwrap();
        for name in [
            "clang-22",
            "ld.lld-22",
            "llvm-ar-22",
            "llvm-nm-22",
            "llvm-objcopy-22",
            "llvm-objdump-22",
        ] {
            script(
                &bin.join(name),
                "clang version 22.1.8\\nLLD 22.1.8\\nLLVM version 22.1.8",
            );
        }
        Self {
            directory,
            request: None,
            environment: Vec::new(),
        }
    }

    fn resolve(&self, words: &str) -> Result<Plan> {
        Plan::resolve(&self.invocation(words))
    }

    /// The conflicts that `klto doctor` finds, the temporary directory left out of them.
    fn conflicts(&self, words: &str) -> Vec<String> {
        let diagnosis = Diagnosis::of(&self.invocation(words)).unwrap();
        let root = self.directory.path().canonicalize().unwrap();
        let root = format!("{}/", root.display());
        let conflicts = diagnosis.conflicts.into_iter();
        conflicts
            .map(|conflict| conflict.message.replace(&root, ""))
            .collect()
    }

    fn invocation(&self, words: &str) -> Invocation {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let path = self.directory.path().join("bin").display().to_string();
        let pairs = self
            .environment
            .iter()
            .copied()
            .chain([("PATH", path.as_str())]);
        Invocation {
            request: self.request,
            arguments: MakeArguments::parse(&words),
            environment: pairs.collect(),
            directory: self.directory.path().join("src"),
            machine: "x86_64".into(),
        }
    }

    fn plain(&self, words: &str) -> PlainMake {
        match self.resolve(words).unwrap() {
            Plan::PlainMake(plain) => plain,
            other => panic!("{words}: {other:?}"),
        }
    }

    fn lto(&self, words: &str) -> LtoBuild {
        match self.resolve(words).unwrap() {
            Plan::Lto(build) => *build,
            other => panic!("{words}: {other:?}"),
        }
    }

    fn failure(&self, words: &str) -> String {
        let (text, status) = klto_core::report(&self.resolve(words).unwrap_err());
        assert_eq!(status, klto_core::ExitStatus::BadInput, "{text}");
        text
    }
}

fn text(arguments: &MakeArguments) -> String {
    arguments
        .words()
        .join(OsStr::new(" "))
        .into_string()
        .unwrap()
}

const THIN: &str = "CONFIG_LTO_CLANG=y\nCONFIG_LTO_CLANG_THIN=y\n";

#[test]
fn goals_that_build_nothing_get_no_session() {
    let setting = Setting::new(V6_12, THIN);
    for words in [
        "modules_install",
        "-j4 help",
        "menuconfig",
        "foo.config x_defconfig",
    ] {
        let plain = setting.plain(words);
        assert_eq!(plain.why, PlainReason::NothingIsBuilt, "{words}");
        assert_eq!(
            (text(&plain.arguments).as_str(), plain.remove_scratch),
            (words, None)
        );
    }
}

#[test]
fn removing_everything_removes_what_klto_keeps() {
    let setting = Setting::new(V6_12, THIN);
    let source = fs_err::canonicalize(setting.directory.path().join("src")).unwrap();
    assert_eq!(
        setting.plain("distclean").remove_scratch,
        Some(source.clone())
    );
    assert_eq!(
        setting.plain("mrproper O=o").remove_scratch,
        Some(source.join("o"))
    );
}

#[test]
fn runs_that_run_nothing_or_are_not_understood_are_makes_own() {
    let setting = Setting::new(V6_12, THIN);
    for words in [
        "--version",
        "-h -n",
        "-n clean all",
        "-n clean",
        "-q mrproper",
    ] {
        assert_eq!(
            setting.plain(words).why,
            PlainReason::NothingIsRun,
            "{words}"
        );
    }
    let unknown = PlainReason::UnknownArgument("--frob".into());
    let plain = setting.plain("--frob -j4 all");
    assert!(plain.why.is_surprising());
    assert_eq!(
        (plain.why, text(&plain.arguments).as_str()),
        (unknown, "--frob -j4 all")
    );
    fs_err::remove_file(setting.directory.path().join("src/Makefile")).unwrap();
    assert_eq!(setting.plain("-n").why, PlainReason::NothingIsRun);
}

#[test]
fn a_dry_run_has_the_variables_of_a_build() {
    let mut setting = Setting::new(V6_12, THIN);
    for words in ["LLVM=-22 -n", "LLVM=-22 -kq all", "LLVM=-22 --touch"] {
        assert!(setting.lto(words).is_dry(), "{words}");
    }
    assert!(!setting.lto("LLVM=-22 all").is_dry());
    setting.environment = vec![("MAKEFLAGS", "n")];
    assert!(setting.lto("LLVM=-22 all").is_dry());
}

#[test]
fn goals_that_change_the_configuration_come_first() {
    let setting = Setting::new(V6_12, THIN);
    let Plan::Stages(stages) = setting.resolve("-j2 mrproper defconfig vmlinux").unwrap() else {
        panic!("one stage")
    };
    let texts: Vec<_> = stages.iter().map(text).collect();
    assert_eq!(texts, ["-j2 mrproper defconfig", "-j2 vmlinux"]);
}

#[test]
fn without_lto_make_is_left_alone() {
    let setting = Setting::new(V6_12, "CONFIG_LTO_NONE=y\n");
    let plain = setting.plain("CC=gcc -j3 all");
    assert_eq!(
        (plain.why, text(&plain.arguments).as_str()),
        (PlainReason::NoLto, "CC=gcc -j3 all")
    );
}

#[test]
fn a_tree_with_the_option_is_built_as_configured() {
    let setting = Setting::new(V6_12, THIN);
    let build = setting.lto("-kj4 LLVM=-22 vmlinux");
    assert_eq!(text(&build.arguments), "-k LLVM=-22 vmlinux");
    assert_eq!(build.upstream, UpstreamLto::Thin);
    let four = Jobs::Number(NonZeroU32::new(4).unwrap());
    assert_eq!(build.parallelism, Parallelism::Jobs(four));
    assert_eq!(build.llvm.major, 22);
    assert_eq!(build.notes, [] as [String; 0]);
}

#[test]
fn a_tree_without_the_option_gets_what_it_needs() {
    let mut setting = Setting::new(V5_10, "CONFIG_MODULES=y\n");
    setting.request = Some(LtoRequest::Thin);
    let build = setting.lto("LLVM=-22 ARCH=arm64");
    let words = text(&build.arguments);
    assert!(
        words.starts_with("LLVM=-22 ARCH=arm64 CC=clang-22 LD=ld.lld-22 "),
        "{words}"
    );
    assert!(
        words.ends_with(" CROSS_COMPILE=aarch64-linux-gnu- LLVM_IAS=1"),
        "{words}"
    );
    assert_eq!(build.notes.len(), 2);
    let configured = text(&setting.plain("LLVM=-22 ARCH=arm64 defconfig").arguments);
    assert_eq!(
        configured.replace(" defconfig", ""),
        words,
        "configuring sees the same tools"
    );
    setting.request = None;
    assert_eq!(setting.plain("LLVM=-22").why, PlainReason::NoLto);
}

#[test]
fn variables_and_hooks_are_added_to_what_the_user_gave() {
    let mut setting = Setting::new(V6_12, THIN);
    setting.environment = vec![("KCFLAGS", "-g")];
    let compiler = setting.directory.path().join("bin/clang-22");
    let words = format!("LLVM=-22 CC={}", compiler.display());
    let mut build = setting.lto(&words);
    build.append_variable("KCFLAGS", "-D__KLTO=thin").unwrap();
    build.append_variable("KCFLAGS", "-DX").unwrap();
    build.hook_by_path(std::path::Path::new("/s"));
    let words = build.arguments.words();
    assert_eq!(
        words,
        ["LLVM=-22", "CC=/s/clang-22", "KCFLAGS=-g -D__KLTO=thin -DX"]
    );
    assert!(build.hooks.iter().any(|(role, _)| *role == Role::Linker));
}

#[test]
fn jobs_come_from_the_command_line_or_the_parent() {
    let mut setting = Setting::new(V6_12, THIN);
    setting.environment = vec![("MAKEFLAGS", "k -j8 --jobserver-auth=3,4 -- LLVM=-22")];
    let inherited = Parallelism::Inherited("3,4".into());
    assert_eq!(setting.lto("").parallelism, inherited);
    assert_eq!(
        setting.lto("-j").parallelism,
        Parallelism::Jobs(Jobs::Unlimited)
    );
    assert_eq!(
        setting.lto("").make_flags.without_jobserver(),
        "k -- LLVM=-22"
    );
    setting.environment = vec![];
    let one = Parallelism::Jobs(Jobs::Number(NonZeroU32::MIN));
    assert_eq!(setting.lto("LLVM=-22").parallelism, one);
}

#[test]
fn what_cannot_be_built_as_asked_is_refused() {
    let setting = Setting::new(V6_12, THIN);
    assert!(
        setting
            .failure("LLVM=-22 PATH=/usr/bin")
            .contains("hint: set PATH in the environment")
    );
    assert!(
        setting
            .failure("LLVM=-22 LLVM_IAS=0")
            .contains("LTO needs clang's own assembler")
    );
    assert!(
        setting
            .failure("-C .. all")
            .contains("is no Linux kernel tree")
    );
    fs_err::write(setting.directory.path().join("src/.kernelvariables"), "").unwrap();
    assert!(
        setting
            .failure("LLVM=-22")
            .contains(".kernelvariables may name tools")
    );
    let mut setting = Setting::new(V5_10, "CONFIG_GCOV_KERNEL=y\n");
    setting.request = Some(LtoRequest::Thin);
    assert!(
        setting
            .failure("LLVM=-22")
            .contains("CONFIG_GCOV_KERNEL=y: gcov counts by object")
    );
    let old = FakeVersion {
        lines: "VERSION = 5\nPATCHLEVEL = 4\nSUBLEVEL = 1\n",
        ..V5_10
    };
    let mut setting = Setting::new(old, "CONFIG_MODULES=y\n");
    setting.request = Some(LtoRequest::Thin);
    assert!(
        setting
            .failure("LLVM=-22")
            .contains("klto adds LTO to 5.10 and newer")
    );
}

#[test]
fn steps_after_a_compile_are_led_to_stand_ins() {
    let config = "CONFIG_64BIT=y\nCONFIG_STACK_VALIDATION=y\nCONFIG_FTRACE_MCOUNT_RECORD=y\n";
    let mut setting = Setting::new(V5_10, config);
    setting.request = Some(LtoRequest::Thin);
    let scripts = setting.directory.path().join("src/scripts");
    fs_err::create_dir_all(&scripts).unwrap();
    fs_err::write(
        scripts.join("Makefile.build"),
        "__objtool_obj := $(objtree)/tools/objtool/objtool\n",
    )
    .unwrap();
    let build = setting.lto("LLVM=-22");
    assert_eq!(build.steps, [Step::Objtool, Step::Recordmcount]);
}

#[test]
fn the_doctor_finds_nothing_where_a_build_would_start() {
    assert_eq!(Setting::new(V6_12, THIN).conflicts("LLVM=-22"), [""; 0]);
    let none = "CONFIG_HAS_LTO_CLANG=y\nCONFIG_LTO_NONE=y\n";
    assert_eq!(Setting::new(V6_12, none).conflicts("LLVM=-22"), [""; 0]);
    assert_eq!(Setting::new(V5_10, "").conflicts("LLVM=-22"), [""; 0]);
}

#[test]
fn the_doctor_names_every_conflict_at_once() {
    let config = "CONFIG_GCOV_KERNEL=y\nCONFIG_KASAN_GENERIC=y\nCONFIG_FTRACE_MCOUNT_RECORD=y\n";
    let setting = Setting::new(V5_10, config);
    script(
        &setting.directory.path().join("bin/gnu-nm"),
        "GNU nm (GNU Binutils) 2.40",
    );
    let found = setting.conflicts("LLVM=-22 NM=gnu-nm OBJCOPY=none LLVM_IAS=0");
    let expected = [
        "LTO needs clang's own assembler, but LLVM_IAS=0 is set",
        "LTO needs llvm-nm, but NM=gnu-nm runs bin/gnu-nm (GNU nm (GNU Binutils) 2.40)",
        "none (OBJCOPY) is not found",
        "klto cannot build src/.config with LTO: CONFIG_KASAN_GENERIC=y: generic KASAN marks \
         globals object by object, and arch/Kconfig of later trees excludes it with LTO and debug \
         information",
        "klto cannot build src/.config with LTO: CONFIG_GCOV_KERNEL=y: gcov counts by object, and \
         arch/Kconfig of trees with the option excludes it with LTO",
        "klto cannot build src/.config with LTO: CONFIG_FTRACE_MCOUNT_RECORD=y needs recordmcount \
         for x86, which cannot read bitcode",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_doctor_says_why_kconfig_offers_no_lto() {
    let of = |config| Setting::new(V6_12, config).conflicts("LLVM=-22");
    let hidden = "CONFIG_HAS_LTO_CLANG is not set in src/.config: it was configured with other tools, \
                  or an option excludes LTO";
    assert_eq!(of("CONFIG_LTO_NONE=y\n"), [hidden]);
    let ranges = of("CONFIG_LTO_NONE=y\nCONFIG_BUILTIN_MODULE_RANGES=y\n");
    assert_eq!(ranges.len(), 1);
    assert!(
        ranges[0].contains("CONFIG_BUILTIN_MODULE_RANGES=y"),
        "{ranges:?}"
    );
}

#[test]
fn btf_needs_a_pahole_that_merges_units() {
    let config = "CONFIG_HAS_LTO_CLANG=y\nCONFIG_DEBUG_INFO_BTF=y\n";
    let setting = Setting::new(V6_12, config);
    let pahole = setting.directory.path().join("bin/pahole");
    let words = format!("LLVM=-22 PAHOLE={}", pahole.display());
    for (version, fits) in [
        ("v1.20", false),
        ("v1.21", true),
        ("v1.31.1", true),
        ("v2.0", true),
    ] {
        script(&pahole, version);
        assert_eq!(setting.conflicts(&words).is_empty(), fits, "{version}");
    }
    let missing = setting.conflicts("LLVM=-22 PAHOLE=/none/pahole");
    assert!(
        missing[0].starts_with("CONFIG_DEBUG_INFO_BTF=y needs pahole, but "),
        "{missing:?}"
    );
}
