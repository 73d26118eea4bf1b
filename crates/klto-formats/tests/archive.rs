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
