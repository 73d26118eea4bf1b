//! The makes that kbuild starts under the first one.
//!
//! In: the arguments of one. Out: whether it makes what is in one directory and below it, and nothing else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Whether a make with these arguments makes the objects of a directory and of those below it, from sources
/// and from what was made before any directory was entered (scripts/Kbuild.include, `build`).
///
/// What is made with vmlinux is none.
pub fn makes_a_directory(arguments: &[OsString]) -> bool {
    let builds =
        makefile_of(arguments).is_some_and(|path| path.ends_with("scripts/Makefile.build"));
    builds && directory_of_make(arguments).is_some_and(|directory| !is_made_with_vmlinux(directory))
}

/// Whether a make with these arguments is the tree's own in its output directory, by an absolute path to a
/// Makefile: it starts others, and makes no object itself (Makefile, `__sub-make`).
pub fn makes_the_tree(arguments: &[OsString]) -> bool {
    let makefile = makefile_of(arguments);
    makefile.is_some_and(|path| path.is_absolute() && path.ends_with("Makefile"))
}

fn makefile_of(arguments: &[OsString]) -> Option<&Path> {
    let mut pairs = arguments.windows(2);
    let named = pairs.find(|words| words[0] == "-f")?;
    Some(Path::new(&named[1]))
}

/// The directory of which a make with these arguments makes something, as kbuild names it.
pub fn directory_of_make(arguments: &[OsString]) -> Option<&Path> {
    let mut words = arguments.iter().map(|word| word.as_bytes());
    let directory = words.find_map(|word| word.strip_prefix(b"obj="))?;
    Some(Path::new(OsStr::from_bytes(directory)))
}

/// Whether a make with these arguments makes a program of the source tree's `tools`, from what is there
/// (Makefile, `tools/%`).
pub fn makes_tools(arguments: &[OsString]) -> bool {
    let mut pairs = arguments.windows(2);
    let directory = pairs.find(|words| words[0] == "-C").map(|words| &words[1]);
    arguments.iter().any(|word| word == "subdir=tools")
        && directory.is_some_and(|directory| Path::new(directory).ends_with("tools"))
}

/// Whether what is in a directory is made with vmlinux or after it: the boot image, which reads it, and init,
/// which scripts/link-vmlinux.sh makes again for the version of the kernel.
pub fn is_made_with_vmlinux(directory: &Path) -> bool {
    is_of_boot_image(directory) || directory == Path::new("init")
}

/// Whether a make with these arguments makes something of the boot image, from vmlinux and sources.
pub fn makes_boot_image(arguments: &[OsString]) -> bool {
    directory_of_make(arguments).is_some_and(is_of_boot_image)
}

/// Whether a directory is `arch/*/boot`, or below it.
fn is_of_boot_image(directory: &Path) -> bool {
    let mut parts = directory
        .components()
        .filter(|part| *part != Component::CurDir);
    let first = parts.next().map(Component::as_os_str);
    let third = parts.nth(1).map(Component::as_os_str);
    first == Some("arch".as_ref()) && third == Some("boot".as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_from_what_follows_them() {
        let is = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            makes_a_directory(&words)
        };
        assert!(is("-f ./scripts/Makefile.build obj=fs need-builtin=1"));
        assert!(is("-f /src/scripts/Makefile.build obj=. prepare"));
        assert!(is("-f ../scripts/Makefile.build obj=arch/x86/kernel"));
        assert!(!is(
            "-f ./scripts/Makefile.build obj=arch/x86/boot arch/x86/boot/bzImage"
        ));
        assert!(!is("-f ./scripts/Makefile.build obj=./arch/arm64/boot/dts"));
        assert!(!is("-f ./scripts/Makefile.build obj=init need-builtin=1"));
        assert!(!is("-f ./scripts/Makefile.modpost"));
        assert!(!is("-f ./scripts/Makefile.modfinal obj=x"));
        assert!(!is("-C tools objtool"));
    }

    #[test]
    fn makes_of_tools_and_of_the_boot_image_are_told() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        assert!(makes_tools(&words(
            "O=/out subdir=tools -C ../tools/ objtool"
        )));
        assert!(!makes_tools(&words("-C /out -f /src/Makefile tools")));
        assert!(!makes_tools(&words("subdir=tools -C objtool")));
        let boot = "-f ./scripts/Makefile.build obj=arch/x86/boot/compressed vmlinux";
        assert!(makes_boot_image(&words(boot)));
        assert!(!makes_boot_image(&words(
            "-f ./scripts/Makefile.build obj=init"
        )));
    }

    #[test]
    fn the_make_of_the_tree_is_told_from_those_under_it() {
        let is = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            makes_the_tree(&words)
        };
        assert!(is(
            "--no-print-directory -C /out -f /src/Makefile bzImage modules"
        ));
        assert!(!is("-f /src/scripts/Makefile.build obj=fs"));
        assert!(!is("-C tools objtool"));
        assert!(!is("-f ./Makefile"));
    }
}
