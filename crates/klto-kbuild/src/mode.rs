//! Which LTO a build has: the user's `--lto`, the tree's own option, the choice that `klto config`
//! remembered, or none.
//!
//! In: the request, the tree, its configuration. Out: the mode, or a failure whose hint is the
//! command that makes request and configuration agree. It knows no tools.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use klto_core::Failure;

use crate::config::{Config, UpstreamLto};
use crate::make_arguments::MakeArguments;
use crate::tree::Tree;
use crate::versions::Behaviour;

/// What `--lto=` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LtoRequest {
    /// `--lto=none`
    None,
    /// `--lto=thin`
    Thin,
    /// `--lto=full`
    Full,
}

impl FromStr for LtoRequest {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "none" => Ok(Self::None),
            "thin" => Ok(Self::Thin),
            "full" => Ok(Self::Full),
            _ => Err(
                Failure::bad_input(format!("--lto={text} is none of klto's modes"))
                    .hint("use none, thin or full, or leave it out to let the .config decide"),
            ),
        }
    }
}

impl std::fmt::Display for LtoRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Thin => "thin",
            Self::Full => "full",
        })
    }
}

/// The choice that `klto config` remembers beside the `.config` of a tree without an option for it.
pub fn choice_file(tree: &Tree) -> PathBuf {
    let mut name = tree.config.clone().into_os_string();
    name.push(".klto");
    name.into()
}

/// The remembered choice, if there is one.
pub fn remembered(tree: &Tree) -> Result<Option<LtoRequest>> {
    let path = choice_file(tree);
    match fs_err::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => {
            let request = text?.trim().parse::<LtoRequest>();
            Ok(Some(
                request.with_context(|| format!("reading {}", path.display()))?,
            ))
        }
    }
}

/// What a build does about LTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No LTO.
    None,
    /// ThinLTO by klto.
    Thin,
    /// Full LTO by klto.
    Full,
}

/// What the tree's own option says.
pub fn upstream_lto(tree: &Tree, config: Option<&Config>) -> UpstreamLto {
    let by_config = config.map_or(UpstreamLto::None, Config::upstream_lto);
    // Headers for module builds may lack arch/Kconfig; their configuration then tells.
    let has_kconfig = tree.source.join("arch/Kconfig").is_file();
    let names_it =
        || config.is_some_and(|config| config.is_set("LTO_NONE")) || by_config != UpstreamLto::None;
    if tree.has(Behaviour::LtoOption) || (!has_kconfig && names_it()) {
        by_config
    } else {
        UpstreamLto::Absent
    }
}

/// The mode of a build with `arguments`, which serve the hints.
pub fn decide(
    request: Option<LtoRequest>,
    tree: &Tree,
    config: Option<&Config>,
    arguments: &MakeArguments,
) -> Result<Mode> {
    let upstream = upstream_lto(tree, config);
    let request = match (request, upstream) {
        (None, UpstreamLto::Absent) => remembered(tree)?,
        _ => request,
    };
    if let (UpstreamLto::Absent, None | Some(LtoRequest::None)) = (upstream, request) {
        return Ok(Mode::None);
    }
    let Some(config) = config else {
        return Err(unconfigured(request, tree, arguments).into());
    };
    let wanted = match request {
        None => upstream,
        Some(LtoRequest::None) => UpstreamLto::None,
        // The same natives, by other calls of kbuild's.
        Some(LtoRequest::Thin) if upstream == UpstreamLto::ThinDist => upstream,
        Some(LtoRequest::Thin) => UpstreamLto::Thin,
        Some(LtoRequest::Full) => UpstreamLto::Full,
    };
    match upstream {
        UpstreamLto::Absent if wanted == UpstreamLto::Full => Ok(Mode::Full),
        UpstreamLto::Absent => Ok(Mode::Thin),
        _ if wanted != upstream => Err(disagreement(config, arguments, upstream, wanted).into()),
        UpstreamLto::Thin | UpstreamLto::ThinDist => Ok(Mode::Thin),
        UpstreamLto::None => Ok(Mode::None),
        UpstreamLto::Full => Ok(Mode::Full),
    }
}

/// The hint keeps `--lto=thin` and `--lto=full`: a tree without the option is configured with klto's
/// additions, and where there is one, `defconfig` does not choose it.
pub(crate) fn unconfigured(
    request: Option<LtoRequest>,
    tree: &Tree,
    arguments: &MakeArguments,
) -> Failure {
    let request = match request {
        Some(LtoRequest::Thin) => Some("thin"),
        Some(LtoRequest::Full) => Some("full"),
        Some(LtoRequest::None) | None => None,
    };
    let (option, chosen) = match request {
        Some(request) if tree.has(Behaviour::LtoOption) => {
            let change = config_command(request, arguments);
            (None, format!(", and then: klto {change}"))
        }
        request => (
            request.map(|request| format!("--lto={request}")),
            String::new(),
        ),
    };
    let message = format!(
        "{} does not exist, so there is nothing to build",
        tree.config.display()
    );
    let command = make(option.as_deref(), arguments, "defconfig");
    let hint = format!("make one, for instance with: klto {command}{chosen}");
    Failure::bad_input(message).hint(hint)
}

/// The words after `klto` that change the choice.
fn config_command(request: &str, arguments: &MakeArguments) -> String {
    let words = arguments.without_jobs().with_goals([]).words();
    let change = ["config".into(), format!("--lto={request}").into()];
    shell(change.into_iter().chain(words))
}

fn disagreement(
    config: &Config,
    arguments: &MakeArguments,
    found: UpstreamLto,
    wanted: UpstreamLto,
) -> Failure {
    let names = (
        found.option().unwrap_or_default(),
        wanted.option().unwrap_or_default(),
    );
    let (found, wanted) = names;
    let request = match wanted {
        "LTO_NONE" => "none",
        "LTO_CLANG_FULL" => "full",
        _ => "thin",
    };
    let message = format!(
        "--lto={request} is asked for, but {} chooses {found}",
        config.path().display()
    );
    let hint = format!("klto {}", config_command(request, arguments));
    Failure::bad_input(message).hint(hint)
}

/// The user's own command with another goal, and an option of klto.
fn make(option: Option<&str>, arguments: &MakeArguments, goal: &str) -> String {
    let words = arguments
        .without_jobs()
        .with_goals([OsStr::new(goal)])
        .words();
    let first = ["make"].into_iter().chain(option).map(OsString::from);
    shell(first.chain(words))
}

/// The words as a shell takes them; of an assignment only the value is quoted.
fn shell(words: impl IntoIterator<Item = OsString>) -> String {
    let quoted = words.into_iter().map(|word| {
        let word = word.to_string_lossy();
        match word.split_once('=') {
            Some((name, value)) if quote(name) == name => format!("{name}={}", quote(value)),
            _ => quote(&word),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A word with a NUL cannot be quoted, and cannot be an argument either.
fn quote(word: &str) -> String {
    match word {
        "" => String::new(),
        word => {
            shlex::try_quote(word).map_or_else(|_| word.to_owned(), |quoted| quoted.into_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make_arguments::MakeFlags;
    use crate::testing::{V5_10, V6_12, fake_kernel};
    use crate::variables::Variables;
    use std::path::Path;

    fn mode(
        tree: &Path,
        config: Option<&str>,
        request: Option<LtoRequest>,
    ) -> Result<Mode, String> {
        let path = tree.join(".config");
        match config {
            Some(text) => fs_err::write(&path, text).unwrap(),
            None => drop(fs_err::remove_file(&path)),
        }
        let words = ["-j4", "LLVM=1", "KCFLAGS=-g -O2", "bzImage"].map(OsString::from);
        let arguments = MakeArguments::parse(&words);
        let variables = Variables {
            arguments: &arguments,
            make_flags: &MakeFlags::default(),
            environment: &Default::default(),
        };
        let tree = Tree::probe(tree, &variables, "x86_64").unwrap();
        let config = Config::read(&tree.config).unwrap();
        let mode = decide(request, &tree, config.as_ref(), &arguments);
        mode.map_err(|error| {
            klto_core::report(&error)
                .0
                .replace(tree.source.to_str().unwrap(), "S")
        })
    }

    #[test]
    fn the_configuration_decides_where_the_tree_has_the_option() {
        let directory = tempfile::tempdir().unwrap();
        fake_kernel(directory.path(), V6_12);
        let none = Some("CONFIG_HAS_LTO_CLANG=y\nCONFIG_LTO_NONE=y\n");
        let thin = Some("CONFIG_LTO_CLANG_THIN=y\n");
        for (config, request, expected) in [
            (none, None, Mode::None),
            (none, Some(LtoRequest::None), Mode::None),
            (thin, None, Mode::Thin),
            (thin, Some(LtoRequest::Thin), Mode::Thin),
            (Some("CONFIG_LTO_CLANG_FULL=y"), None, Mode::Full),
            (
                Some("CONFIG_LTO_CLANG_FULL=y"),
                Some(LtoRequest::Full),
                Mode::Full,
            ),
            (Some("CONFIG_LTO_CLANG_THIN_DIST=y"), None, Mode::Thin),
            (
                Some("CONFIG_LTO_CLANG_THIN_DIST=y"),
                Some(LtoRequest::Thin),
                Mode::Thin,
            ),
        ] {
            assert_eq!(
                mode(directory.path(), config, request),
                Ok(expected),
                "{config:?}"
            );
        }
        let text = mode(directory.path(), none, Some(LtoRequest::Thin)).unwrap_err();
        let expected = "klto: error: --lto=thin is asked for, but S/.config chooses LTO_NONE\n  \
                        hint: klto config --lto=thin LLVM=1 KCFLAGS='-g -O2'\n";
        assert_eq!(text, expected);
        let text = mode(directory.path(), thin, Some(LtoRequest::None)).unwrap_err();
        assert!(
            text.contains("hint: klto config --lto=none LLVM=1 "),
            "{text}"
        );
        let text = mode(directory.path(), None, None).unwrap_err();
        assert!(
            text.contains("hint: make one, for instance with: klto make LLVM=1"),
            "{text}"
        );
    }

    #[test]
    fn the_request_decides_where_the_tree_has_no_option() {
        let directory = tempfile::tempdir().unwrap();
        fake_kernel(directory.path(), V5_10);
        let config = Some("CONFIG_MODULES=y\n# CONFIG_LTO_CLANG_THIN is not set\n");
        assert_eq!(mode(directory.path(), config, None), Ok(Mode::None));
        assert_eq!(mode(directory.path(), None, None), Ok(Mode::None));
        assert_eq!(
            mode(directory.path(), config, Some(LtoRequest::None)),
            Ok(Mode::None)
        );
        assert_eq!(
            mode(directory.path(), config, Some(LtoRequest::Thin)),
            Ok(Mode::Thin)
        );
        let text = mode(directory.path(), None, Some(LtoRequest::Thin)).unwrap_err();
        assert!(text.contains("klto make --lto=thin LLVM=1 "), "{text}");
    }

    #[test]
    fn a_tree_without_the_option_has_its_choice_remembered() {
        let directory = tempfile::tempdir().unwrap();
        fake_kernel(directory.path(), V5_10);
        let config = Some("CONFIG_MODULES=y\n");
        let file = directory.path().join(".config.klto");
        fs_err::write(&file, "thin\n").unwrap();
        assert_eq!(mode(directory.path(), config, None), Ok(Mode::Thin));
        let none = Some(LtoRequest::None);
        assert_eq!(mode(directory.path(), config, none), Ok(Mode::None));
        let full = Some(LtoRequest::Full);
        assert_eq!(mode(directory.path(), config, full), Ok(Mode::Full));
        fs_err::write(&file, "full\n").unwrap();
        assert_eq!(mode(directory.path(), config, None), Ok(Mode::Full));
        fs_err::write(&file, "fat\n").unwrap();
        let text = mode(directory.path(), config, None).unwrap_err();
        assert!(text.contains(".config.klto"), "{text}");
    }

    #[test]
    fn headers_without_kconfig_files_are_judged_by_their_configuration() {
        let directory = tempfile::tempdir().unwrap();
        fake_kernel(directory.path(), V6_12);
        fs_err::remove_file(directory.path().join("arch/Kconfig")).unwrap();
        let mode = |config| mode(directory.path(), Some(config), None);
        assert_eq!(mode("CONFIG_LTO_CLANG_THIN=y"), Ok(Mode::Thin));
        assert_eq!(mode("CONFIG_LTO_NONE=y"), Ok(Mode::None));
    }

    #[test]
    fn requests_have_names() {
        assert_eq!("thin".parse(), Ok(LtoRequest::Thin));
        assert_eq!("none".parse(), Ok(LtoRequest::None));
        assert_eq!("full".parse(), Ok(LtoRequest::Full));
        assert!("fat".parse::<LtoRequest>().is_err());
    }
}
