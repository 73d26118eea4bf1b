//! Selection, search, hooks and checks, with GNU's real tools and scripts that print versions.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::environment::Environment;
use crate::make_arguments::{MakeArguments, MakeFlags};
use crate::testing::{V5_10, V6_12, fake_kernel};

struct Setting {
    directory: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fake_kernel(&directory.path().join("old"), V5_10);
        fake_kernel(&directory.path().join("new"), V6_12);
        fs_err::create_dir(directory.path().join("bin")).unwrap();
        Self { directory }
    }

    fn bin(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    fn script(&self, name: &str, prints: &str) {
        crate::testing::script(&self.bin().join(name), prints);
    }

    /// A complete LLVM whose names end in `suffix`.
    fn llvm(&self, suffix: &str, version: &str) {
        for role in Role::ALL {
            let name = role.facts().llvm_name;
            let text = match role {
                Role::Compiler | Role::HostCompiler => format!("clang version {version}"),
                Role::Linker => format!("LLD {version} (compatible with GNU linkers)"),
                _ => format!("{name}\\n LLVM version {version}"),
            };
            self.script(&format!("{name}{suffix}"), &text);
        }
    }

    fn with<T>(
        &self,
        tree: &str,
        words: &[&str],
        environment: &[(&str, &str)],
        run: impl FnOnce(&Tree, &Variables) -> T,
    ) -> T {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let path = self.bin().display().to_string();
        let pairs = [("PATH", path.as_str())]
            .into_iter()
            .chain(environment.iter().copied());
        let variables = Variables {
            arguments: &MakeArguments::parse(&words),
            make_flags: &MakeFlags::default(),
            environment: &pairs.collect::<Environment>(),
        };
        let tree = Tree::probe(&self.directory.path().join(tree), &variables, "x86_64").unwrap();
        run(&tree, &variables)
    }

    fn toolchain(&self, tree: &str, words: &[&str]) -> Toolchain {
        self.with(tree, words, &[], |tree, variables| {
            Toolchain::resolve(tree, variables).unwrap()
        })
    }

    fn names(&self, tree: &str, words: &[&str], environment: &[(&str, &str)]) -> String {
        let toolchain = self
            .with(tree, words, environment, |tree, variables| {
                Toolchain::resolve(tree, variables)
            })
            .unwrap();
        let names: Vec<_> = toolchain
            .tools()
            .iter()
            .map(|tool| tool.words.join(" "))
            .collect();
        names.join(",")
    }

    fn failure(&self, words: &[&str]) -> (String, u8) {
        let error = self.toolchain("new", words).check().unwrap_err();
        let (text, status) = klto_core::report(&error);
        (
            text.replace(&self.bin().display().to_string(), "BIN"),
            status.code(),
        )
    }
}

#[test]
fn each_tree_names_its_tools_by_its_own_rules() {
    let setting = Setting::new();
    let gnu = "gcc,ld,ar,nm,objcopy,objdump,strip,readelf,gcc";
    let llvm =
        "clang,ld.lld,llvm-ar,llvm-nm,llvm-objcopy,llvm-objdump,llvm-strip,llvm-readelf,clang";
    let each = |before: &str, after: &str| {
        llvm.split(',')
            .map(|name| format!("{before}{name}{after}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let cross = gnu.replace(',', ",x-");
    let cross = format!("x-{}", cross.replace(",x-gcc", ",gcc"));
    for (tree, words, environment, expected) in [
        ("old", &[][..], &[][..], gnu.to_owned()),
        ("new", &["CROSS_COMPILE=x-"], &[], cross),
        ("old", &["LLVM=1"], &[], llvm.to_owned()),
        ("new", &["LLVM=1", "CROSS_COMPILE=x-"], &[], llvm.to_owned()),
        ("new", &[], &[("LLVM", "1")], llvm.to_owned()),
        ("old", &["LLVM=-22"], &[], llvm.to_owned()),
        ("new", &["LLVM=-22"], &[], each("", "-22")),
        ("new", &["LLVM=/p/bin/"], &[], each("/p/bin/", "")),
        ("new", &["LLVM="], &[], gnu.to_owned()),
        (
            "new",
            &["LLVM=1", "CC=ccache clang"],
            &[],
            llvm.replacen("clang", "ccache clang", 1),
        ),
        // A Makefile's own assignment wins over the environment, unless make runs with -e.
        ("new", &["LLVM=1"], &[("CC", "gcc")], llvm.to_owned()),
        (
            "new",
            &["LLVM=1", "-e"],
            &[("CC", "gcc")],
            llvm.replacen("clang", "gcc", 1),
        ),
    ] {
        assert_eq!(
            setting.names(tree, words, environment),
            expected,
            "{tree} {words:?}"
        );
    }
}

#[test]
fn an_old_tree_gets_the_tools_by_name() {
    let setting = Setting::new();
    let additions = |tree: &str, words: &[&str], adds_lto: bool| {
        setting.with(tree, words, &[], |tree, variables| {
            let additions = Additions::of(tree, variables, adds_lto).unwrap();
            let words = additions.apply(&MakeArguments::default()).words();
            (
                words.join(std::ffi::OsStr::new(" ")).into_string().unwrap(),
                additions.notes.len(),
            )
        })
    };
    let tools = "CC=clang-22 LD=ld.lld-22 AR=llvm-ar-22 NM=llvm-nm-22 OBJCOPY=llvm-objcopy-22 \
                 OBJDUMP=llvm-objdump-22 STRIP=llvm-strip-22 READELF=llvm-readelf-22 \
                 HOSTCC=clang-22 HOSTCXX=clang++-22 HOSTLD=ld.lld-22 HOSTAR=llvm-ar-22";
    let prefixed = additions("old", &["LLVM=/p/"], false).0;
    assert!(
        prefixed.starts_with("CC=/p/clang LD=/p/ld.lld "),
        "{prefixed}"
    );
    let target = "CROSS_COMPILE=aarch64-linux-gnu-";
    for (tree, words, adds_lto, expected, notes) in [
        ("old", &["LLVM=-22"][..], false, tools.to_owned(), 1),
        ("old", &["LLVM=-22"], true, format!("{tools} LLVM_IAS=1"), 1),
        ("old", &["LLVM=1"], true, "LLVM_IAS=1".into(), 0),
        ("old", &["LLVM=1", "LLVM_IAS=1"], true, String::new(), 0),
        ("old", &["LLVM=1", "ARCH=arm64"], false, target.into(), 1),
        (
            "old",
            &["LLVM=1", "ARCH=arm64", "CROSS_COMPILE=a-"],
            false,
            String::new(),
            0,
        ),
        ("old", &["LLVM=1", "ARCH=i386"], false, String::new(), 0),
        (
            "old",
            &["CC=clang --target=x", "ARCH=arm64"],
            false,
            String::new(),
            0,
        ),
        ("old", &["ARCH=arm64"], true, String::new(), 0),
        ("new", &["LLVM=-22", "ARCH=arm64"], true, String::new(), 0),
    ] {
        assert_eq!(
            additions(tree, words, adds_lto),
            (expected, notes),
            "{tree} {words:?}"
        );
    }
    let kept = additions("old", &["LLVM=-22", "CC=clang-19"], false).0;
    assert!(kept.starts_with("LD=ld.lld-22 "), "{kept}");
}

#[test]
fn hooks_follow_how_kbuild_finds_the_tool() {
    let setting = Setting::new();
    setting.llvm("", "22.1.8");
    let strip = format!("STRIP={}/llvm-strip -x", setting.bin().display());
    let words = ["LLVM=1", &strip, "CC=ccache clang -g 'a b'"];
    let toolchain = setting.toolchain("new", &words);
    let hooks = toolchain.hooks();
    let names: Vec<_> = hooks.iter().map(|(_, hook)| hook.name()).collect();
    let expected = [
        "clang",
        "ld.lld",
        "llvm-ar",
        "llvm-nm",
        "llvm-objcopy",
        "llvm-objdump",
        "llvm-strip",
        "llvm-readelf",
    ];
    assert_eq!(names, expected);
    let assignments: Vec<_> = hooks
        .iter()
        .filter_map(|(_, hook)| hook.assignment(Path::new("/shims")))
        .collect();
    assert_eq!(
        assignments,
        [("STRIP", OsString::from("/shims/llvm-strip -x"))]
    );
    assert_eq!(
        toolchain.without_launchers(),
        [("CC", OsString::from("clang -g 'a b'"))]
    );
    assert_eq!(toolchain.launcher_notes().len(), 1);
}

#[test]
fn different_programs_of_one_name_get_different_hooks() {
    let setting = Setting::new();
    setting.llvm("", "22.1.8");
    let other = setting.directory.path().join("other");
    fs_err::create_dir(&other).unwrap();
    crate::testing::script(&other.join("llvm-objcopy"), "LLVM version 22.1.8");
    let strip = format!("STRIP={}/llvm-objcopy", other.display());
    let hooks = setting.toolchain("new", &["LLVM=1", &strip]).hooks();
    let (_, hook) = hooks
        .iter()
        .find(|(role, _)| *role == Role::Stripper)
        .unwrap();
    assert_eq!(hook.name(), "strip-llvm-objcopy");
}

/// What is resolved and what is passed over for clang, where PATH leads to `program` under that name first.
fn clang_behind(program: &str) -> [Option<&'static str>; 2] {
    let setting = Setting::new();
    setting.llvm("", "22.1.8");
    let masks = setting.directory.path().join("masks");
    fs_err::create_dir(&masks).unwrap();
    setting.script(program, "");
    let (mask, tool) = (masks.join("clang"), setting.bin().join("clang"));
    std::os::unix::fs::symlink(setting.bin().join(program), &mask).unwrap();
    let path = format!("{}:{}", masks.display(), setting.bin().display());
    let environment = [("PATH", path.as_str())];
    let toolchain = setting.with("new", &["LLVM=1"], &environment, |tree, variables| {
        Toolchain::resolve(tree, variables).unwrap()
    });
    let compiler = toolchain.tool(Role::Compiler).clone();
    let found = [compiler.resolved, compiler.passed_over];
    found.map(|path| match path? {
        path if path == mask => Some("mask"),
        path if path == tool => Some("tool"),
        path => panic!("{}", path.display()),
    })
}

#[test]
fn a_launcher_that_poses_as_the_tool_is_passed_over() {
    assert_eq!(clang_behind("ccache"), [Some("tool"), Some("mask")]);
}

#[test]
fn another_klto_s_shim_is_no_tool() {
    assert_eq!(clang_behind("klto-shim"), [Some("tool"), None]);
}

#[test]
fn one_llvm_passes() {
    let setting = Setting::new();
    setting.llvm("-22", "22.1.8");
    let checked = setting.toolchain("new", &["LLVM=-22"]).check().unwrap();
    assert_eq!(checked.version.to_string(), "22.1.8");
    assert_eq!(checked.first_lines.len(), 4);
    assert!(checked.first_lines[0].contains("clang version 22.1.8"));
}

#[test]
fn what_cannot_do_lto_is_refused_with_a_remedy() {
    let setting = Setting::new();
    let (text, code) = setting.failure(&["LLVM=1"]);
    assert_eq!(code, 3);
    assert_eq!(
        text,
        "klto: error: clang (CC) is not found\n  hint: apt install clang\n"
    );
    setting.llvm("-22", "22.1.8");
    let (text, code) = setting.failure(&["LLVM=1"]);
    assert!(
        text.ends_with("hint: LLVM=-22 uses the tools of LLVM 22 that are in PATH\n"),
        "{text}"
    );
    assert_eq!(code, 3);
    setting.script("llvm-nm-21", "LLVM version 21.1.0");
    let (text, code) = setting.failure(&["LLVM=-22", "NM=llvm-nm-21"]);
    assert!(
        text.contains("llvm-nm-21 is LLVM 21.1.0 but clang-22 is LLVM 22.1.8"),
        "{text}"
    );
    assert_eq!(code, 3);
    let (text, code) = setting.failure(&["LLVM=-22", "OBJCOPY=aarch64-linux-gnu-objcopy"]);
    assert!(
        text.contains("hint: apt install binutils-aarch64-linux-gnu\n"),
        "{text}"
    );
    assert_eq!(code, 3);
    setting.llvm("-11", "11.0.0");
    let (text, code) = setting.failure(&["LLVM=-11"]);
    assert!(
        text.contains("clang-11 is LLVM 11.0.0; klto's LTO needs 13 or newer"),
        "{text}"
    );
    assert_eq!(code, 3);
    let (text, code) = setting.failure(&["LLVM=-22", "CC=ccache"]);
    assert_eq!(
        (text.as_str(), code),
        ("klto: error: CC names no program\n", 2)
    );
}

#[test]
fn gnu_tools_are_refused_by_what_they_print() {
    let setting = Setting::new();
    setting.llvm("-22", "22.1.8");
    for (variable, tool, wanted) in [
        ("CC", "gcc", "clang"),
        ("LD", "ld", "ld.lld"),
        ("NM", "nm", "llvm-nm"),
        ("AR", "ar", "llvm-ar"),
    ] {
        let path = format!("/usr/bin/{tool}");
        assert!(Path::new(&path).exists(), "{path} is needed");
        let (text, code) = setting.failure(&["LLVM=-22", &format!("{variable}={path}")]);
        let expected = format!("LTO needs {wanted}, but {variable}={path} runs {path} (");
        assert!(text.contains(&expected), "{text}");
        assert_eq!(code, 2, "{tool}");
    }
}
