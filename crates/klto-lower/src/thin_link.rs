//! The thin-link: from the summaries of all objects of a unit to one index and one import list for
//! each object.
//!
//! `ld.lld --thinlto-index-only` (LLVM docs, "ThinLTO: Distributed"): for `init/main.o` it writes
//! `init/main.o.thinlto.bc` and `init/main.o.imports` under another prefix, and the list of objects
//! that take part in the link. Lazy members stand between `--start-lib` and `--end-lib` as plain
//! paths: an archive member's own identifier, `x.a(y.o at 1234)`, changes with the archive.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use klto_kbuild::link::LinkCall;

use crate::unit::LinkUnit;

/// Where a thin-link writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinLinkPlace {
    /// Put before the path of each bitcode object; ends with a slash.
    pub prefix: String,
    /// The list of linked objects.
    pub list: PathBuf,
}

impl ThinLinkPlace {
    /// In the directory of a unit.
    pub fn below(root: &Path) -> Self {
        Self {
            prefix: format!("{}/index/", root.display()),
            list: root.join("linked"),
        }
    }

    fn file(&self, member: &Path, extension: &str) -> PathBuf {
        let mut path = OsString::from(&self.prefix);
        path.push(member);
        path.push(extension);
        PathBuf::from(path)
    }

    /// The index of `member`.
    pub fn index(&self, member: &Path) -> PathBuf {
        self.file(member, ".thinlto.bc")
    }

    /// The import list of `member`.
    pub fn imports(&self, member: &Path) -> PathBuf {
        self.file(member, ".imports")
    }
}

/// Arguments of the linker for the thin-link of `unit`, whose link is `call`.
///
/// `import_limit` says how large an imported function may be. Without it the tree's own limit stands,
/// and where it has none, what upstream says: 5 instructions ("kbuild: lto: limit inlining"); LLVM's own
/// default is 100.
pub fn thin_link_arguments(
    unit: &LinkUnit,
    call: &LinkCall,
    place: &ThinLinkPlace,
    import_limit: Option<u32>,
) -> Vec<OsString> {
    let mut arguments = call.options_for_thin_link();
    let is_limit = |argument: &OsString| argument.as_bytes().starts_with(b"-import-instr-limit=");
    let own = arguments.iter_mut().find(|argument| is_limit(argument));
    let limit = |limit: u32| OsString::from(format!("-import-instr-limit={limit}"));
    match (own, import_limit) {
        (Some(own), Some(given)) => *own = limit(given),
        (Some(_), None) => {}
        (None, given) => arguments.extend(["-mllvm".into(), limit(given.unwrap_or(5))]),
    }
    if call.relocatable {
        arguments.push("-r".into());
    }
    let mut only = OsString::from("--thinlto-index-only=");
    only.push(&place.list);
    arguments.push(only);
    arguments.push("--thinlto-emit-imports-files".into());
    arguments.push(format!("--thinlto-prefix-replace=;{}", place.prefix).into());
    arguments.push("-o".into());
    arguments.push(format!("{}thin-link.o", place.prefix).into());
    arguments.extend(unit.arguments());
    arguments
}

/// The objects that an import list names, in its order.
pub fn imports_of(text: &[u8]) -> Vec<PathBuf> {
    lines(text)
        .map(|line| PathBuf::from(OsStr::from_bytes(line)))
        .collect()
}

/// For each member of the unit, whether the list of linked objects names it.
///
/// The list holds native names, that is prefixed paths for bitcode and plain ones for ELF.
pub fn linked_members(list: &[u8], unit: &LinkUnit, place: &ThinLinkPlace) -> Vec<bool> {
    let linked: std::collections::HashSet<&[u8]> = lines(list).collect();
    let is_linked = |path: &Path| {
        let prefixed = place.file(path, "");
        linked.contains(path.as_os_str().as_bytes())
            || linked.contains(prefixed.as_os_str().as_bytes())
    };
    unit.members
        .iter()
        .map(|member| is_linked(&member.path))
        .collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{MemberKind, UnitMember};

    fn member(path: &str, lazy: bool) -> UnitMember {
        UnitMember {
            path: path.into(),
            kind: MemberKind::Bitcode,
            lazy,
        }
    }

    fn place() -> ThinLinkPlace {
        ThinLinkPlace {
            prefix: ".klto/index/".into(),
            list: ".klto/list".into(),
        }
    }

    #[test]
    fn lazy_members_stay_lazy_and_order_is_kept() {
        let unit = LinkUnit {
            name: "vmlinux.o".into(),
            members: vec![
                member("init/main.o", false),
                member("lib/a.o", true),
                member("lib/b.o", true),
            ],
        };
        let arguments = [
            "-m",
            "x",
            "-r",
            "-o",
            "vmlinux.o",
            "-T",
            "s.lds",
            "vmlinux.a",
        ]
        .map(OsString::from);
        let call = LinkCall::parse(&arguments).unwrap();
        assert_eq!(
            thin_link_arguments(&unit, &call, &place(), None),
            [
                "-m",
                "x",
                "-mllvm",
                "-import-instr-limit=5",
                "-r",
                "--thinlto-index-only=.klto/list",
                "--thinlto-emit-imports-files",
                "--thinlto-prefix-replace=;.klto/index/",
                "-o",
                ".klto/index/thin-link.o",
                "init/main.o",
                "--start-lib",
                "lib/a.o",
                "lib/b.o",
                "--end-lib",
            ]
        );
        assert_eq!(
            place().index(Path::new("lib/a.o")),
            Path::new(".klto/index/lib/a.o.thinlto.bc")
        );
    }

    #[test]
    fn a_limit_of_the_tree_is_kept_unless_the_user_gives_one() {
        let arguments = ["-mllvm", "-import-instr-limit=7", "-r", "-o", "a.o"].map(OsString::from);
        let call = LinkCall::parse(&arguments).unwrap();
        let unit = LinkUnit {
            name: "a.o".into(),
            members: vec![],
        };
        let arguments = thin_link_arguments(&unit, &call, &place(), None);
        assert!(arguments.contains(&"-import-instr-limit=7".into()));
        assert!(!arguments.contains(&"-import-instr-limit=5".into()));
        let arguments = thin_link_arguments(&unit, &call, &place(), Some(100));
        assert!(arguments.contains(&"-import-instr-limit=100".into()));
        assert!(!arguments.contains(&"-import-instr-limit=7".into()));
    }

    #[test]
    fn lists_name_linked_members_with_or_without_prefix() {
        let unit = LinkUnit {
            name: "u".into(),
            members: vec![
                member("a.o", false),
                member("b.o", true),
                member("c.o", true),
            ],
        };
        let linked = linked_members(b".klto/index/a.o\nc.o\n", &unit, &place());
        assert_eq!(linked, [true, false, true]);
        assert_eq!(
            imports_of(b"x.o\n\ny.o\n"),
            [Path::new("x.o"), Path::new("y.o")]
        );
    }
}
