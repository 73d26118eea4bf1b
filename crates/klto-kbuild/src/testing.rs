//! Small trees that look like kernels to whoever reads only what klto reads.

use std::path::Path;

pub(crate) struct FakeVersion {
    pub(crate) lines: &'static str,
    pub(crate) files: &'static [(&'static str, &'static str)],
}

pub(crate) const V5_10: FakeVersion = FakeVersion {
    lines: "VERSION = 5\nPATCHLEVEL = 10\nSUBLEVEL = 262\n\
            abs_objtree := $(shell mkdir -p $(KBUILD_OUTPUT) && cd $(KBUILD_OUTPUT) && pwd)\n",
    files: &[("arch/Kconfig", "config KPROBES\n")],
};

pub(crate) const V6_12: FakeVersion = FakeVersion {
    lines: "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nLLVM_SUFFIX := $(LLVM)\n",
    files: &[
        (
            "arch/Kconfig",
            "config LTO_CLANG_FULL\n\nconfig LTO_CLANG_THIN\n\tbool\n",
        ),
        ("scripts/Makefile.clang", ""),
    ],
};

pub(crate) const V6_13: FakeVersion = FakeVersion {
    lines: "VERSION = 6\nPATCHLEVEL = 13\nSUBLEVEL = 0\nLLVM_SUFFIX := $(LLVM)\n\
            KBUILD_EXTMOD_OUTPUT := $(MO)\n",
    files: V6_12.files,
};

pub(crate) fn fake_kernel(directory: &Path, version: FakeVersion) {
    let write = |path: &str, text: &str| {
        let path = directory.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    write("Makefile", version.lines);
    write("scripts/Kbuild.include", "");
    write("include/linux/moduleparam.h", "");
    for (path, text) in version.files {
        write(path, text);
    }
}

/// A program that prints `text` (printf's escapes) whatever its arguments.
pub(crate) fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::write(path, format!("#!/bin/sh\nprintf '{text}\\n'\n")).unwrap();
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
