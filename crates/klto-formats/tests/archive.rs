//! The archive reader against llvm-ar.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{compile, run};
use klto_formats::archive;

#[test]
fn thin_members_agree_with_llvm_ar() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let names = [
        "init/main.o",
        "init/a_name_that_is_longer_than_it.o",
        "lib/b.o",
    ];
    for name in names {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        compile(root, name, "int x;", "aarch64-linux-gnu", &["-flto=thin"]);
    }
    run(
        "llvm-ar",
        root,
        &["cDPrST", "init/built-in.a", names[0], names[1]],
    );
    run("llvm-ar", root, &["cDPrST", "empty.a"]);
    let all = [
        "cDPrST",
        "built-in.a",
        "init/built-in.a",
        "empty.a",
        names[2],
    ];
    run("llvm-ar", root, &all);
    for (name, count) in [("init/built-in.a", 2), ("empty.a", 0), ("built-in.a", 3)] {
        let bytes = std::fs::read(root.join(name)).unwrap();
        assert!(archive::is_archive(&bytes) && archive::is_thin(&bytes));
        let members = archive::members(&bytes).unwrap();
        assert!(members.iter().all(|member| member.data.is_none()));
        let paths = members
            .iter()
            .map(|member| archive::thin_member_path(Path::new(name), &member.name));
        let paths: Vec<String> = paths
            .map(|path| path.to_str().unwrap().to_owned())
            .collect();
        let listed = String::from_utf8(run("llvm-ar", root, &["t", name])).unwrap();
        assert_eq!(paths, listed.lines().collect::<Vec<_>>(), "{name}");
        assert_eq!(paths, names[..count], "{name}");
        let unsymboled = |path: &&str| thin_member(root, name, path, false);
        let all: Vec<_> = names[..count].iter().map(unsymboled).collect();
        assert_eq!(archive::thin(&all).unwrap(), bytes, "{name}");
    }
}

/// The member of the thin archive `archive` that is made of the object at `path`.
fn thin_member(root: &Path, archive: &str, path: &str, with_symbols: bool) -> archive::ThinMember {
    let bytes = std::fs::read(root.join(path)).unwrap();
    let name = archive::thin_member_name(Path::new(archive), Path::new(path));
    archive::ThinMember {
        name: name.into_os_string().into_encoded_bytes(),
        size: bytes.len() as u64,
        symbols: match with_symbols {
            true => archive::defined_globals(&bytes).unwrap(),
            false => Vec::new(),
        },
    }
}

/// As kbuild makes `vmlinux.a` from 6.1 on: the objects of the kernel's head go first.
#[test]
fn an_archive_in_another_order_has_the_symbols_that_llvm_ar_finds() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let source = "int common; extern int far; static int own(void) { return far; } \
                  __attribute__((weak)) int soft(void) { return own(); } \
                  int value = 1; extern int other __attribute__((alias(\"value\"))); \
                  asm(\".globl of_asm\\nof_asm:\\n.weak weak_of_asm\\nlocal_of_asm:\\n\");";
    std::fs::create_dir_all(root.join("sub")).unwrap();
    let target = "x86_64-linux-gnu";
    compile(
        root,
        "sub/thin.o",
        source,
        target,
        &["-flto=thin", "-fcommon"],
    );
    let renamed = source
        .replace("value", "number")
        .replace("of_asm", "in_asm");
    compile(root, "full.o", &renamed, target, &["-flto", "-g"]);
    compile(root, "native.o", &renamed, target, &["-fcommon", "-g"]);
    compile(root, "empty.o", "", target, &["-flto=thin"]);
    let names = ["sub/thin.o", "empty.o", "full.o", "native.o"];
    run(
        "llvm-ar",
        root,
        &[&["cDPrST", "vmlinux.a"], &names[..]].concat(),
    );
    for (moved, order) in [
        (&names[2..3], [2, 0, 1, 3]),
        (&names[2..], [2, 3, 0, 1]),
        (&names[..1], [0, 2, 3, 1]),
    ] {
        let before = run("llvm-ar", root, &["t", "vmlinux.a"]);
        let first = String::from_utf8(before)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned();
        let arguments = [&["mPiT", &first, "vmlinux.a"], moved].concat();
        run("llvm-ar", root, &arguments);
        let members = order.map(|place: usize| thin_member(root, "vmlinux.a", names[place], true));
        let bytes = std::fs::read(root.join("vmlinux.a")).unwrap();
        let listed = run("llvm-ar", root, &["t", "vmlinux.a"]);
        assert_eq!(
            archive::thin(&members).unwrap(),
            bytes,
            "{moved:?} {}",
            String::from_utf8_lossy(&listed)
        );
    }
}

#[test]
fn regular_members_agree_with_llvm_ar() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let names = ["a.o", "a_name_that_is_longer_than_it.o", "odd.txt"];
    for name in &names[..2] {
        compile(root, name, "int x;", "x86_64-linux-gnu", &[]);
    }
    std::fs::write(root.join("odd.txt"), "odd").unwrap();
    let arguments = ["cDPrs", "lib.a", names[0], names[2], names[1]];
    run("llvm-ar", root, &arguments);
    let bytes = std::fs::read(root.join("lib.a")).unwrap();
    assert!(archive::is_archive(&bytes) && !archive::is_thin(&bytes));
    let members = archive::members(&bytes).unwrap();
    let listed = String::from_utf8(run("llvm-ar", root, &["t", "lib.a"])).unwrap();
    assert_eq!(members.len(), 3);
    for (member, name) in members.iter().zip(listed.lines()) {
        assert_eq!(member.name, name.as_bytes());
        let data = &bytes[member.data.clone().unwrap()];
        assert_eq!(data, std::fs::read(root.join(name)).unwrap(), "{name}");
    }
}
