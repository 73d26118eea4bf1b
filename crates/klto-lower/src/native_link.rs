//! The link of a unit from natives: the call as kbuild wrote it, with other files in the same order.
//!
//! An archive that holds bitcode is replaced by its members, each native; members that are linked only
//! on demand stand between `--start-lib` and `--end-lib`. Groups go: lld refuses a library within one,
//! and it resolves symbols among all lazy objects anyway. Everything else stays as it is.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use klto_kbuild::link::{LinkCall, LinkItem};

/// What stands in the place of an input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substitution {
    /// The file itself.
    Same,
    /// Another object.
    Object(PathBuf),
    /// The members of an archive, in order.
    Members(Vec<PathBuf>),
    /// Nothing: its code is in another object.
    Nothing,
}

/// The arguments of the link with each file replaced as `substitute` says.
pub fn native_link_arguments(
    call: &LinkCall,
    substitute: &dyn Fn(&Path) -> Substitution,
) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for item in &call.items {
        match item {
            LinkItem::Option(words) => arguments.extend(words.iter().cloned()),
            LinkItem::State(word) if is_group(word) => {}
            LinkItem::State(word) => arguments.push(word.clone()),
            LinkItem::File {
                path,
                whole_archive,
                in_lib,
            } => match substitute(path) {
                Substitution::Same => arguments.push(path.into()),
                Substitution::Nothing => {}
                Substitution::Object(native) => arguments.push(native.into()),
                Substitution::Members(members) => {
                    let lazy = !whole_archive && !in_lib && !members.is_empty();
                    arguments.extend(lazy.then(|| OsString::from("--start-lib")));
                    arguments.extend(members.into_iter().map(OsString::from));
                    arguments.extend(lazy.then(|| OsString::from("--end-lib")));
                }
            },
        }
    }
    arguments
}

/// Whether `word` begins or ends a group. To lld it matters for `--warn-backrefs` only (lld's manual,
/// ld.lld(1)).
fn is_group(word: &OsStr) -> bool {
    ["--start-group", "--end-group", "-(", "-)"]
        .iter()
        .any(|group| word == *group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_become_their_natives_in_place() {
        let arguments: Vec<OsString> =
            "-r -o vmlinux.o --whole-archive init.a --no-whole-archive --start-group lib.a --end-group x.o y.o"
                .split(' ')
                .map(OsString::from)
                .collect();
        let call = LinkCall::parse(&arguments).unwrap();
        let substitute = |path: &Path| match path.to_str() {
            Some("init.a") => Substitution::Members(vec!["n/main.o".into(), "n/version.o".into()]),
            Some("lib.a") => Substitution::Members(vec!["n/string.o".into()]),
            Some("y.o") => Substitution::Nothing,
            _ => Substitution::Same,
        };
        assert_eq!(
            native_link_arguments(&call, &substitute).join(std::ffi::OsStr::new(" ")),
            "-r -o vmlinux.o --whole-archive n/main.o n/version.o --no-whole-archive \
             --start-lib n/string.o --end-lib x.o"
        );
    }
}
