//! A compile as klto has it done: so that the same source in another checkout, or for another output tree,
//! gives the same bitcode.
//!
//! In: a call as kbuild wrote it, and where the trees are. Out: the call to run, the arguments for its key,
//! and which place a path is. It runs nothing and reads no file.
//!
//! clang writes the path of the source into bitcode, and the names of static functions in the index are made
//! of it. So clang is started in the source tree, with paths below it relative. What `__FILE__` shows stays
//! what kbuild's prefix map makes of it. With debug information, or on a tree without that map, the object
//! shows directories; then the call stays as it is, and they are part of the key.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use klto_core::normalize;
use klto_kbuild::front_end::{FrontEnd, PathUse, with_all_dependencies, with_paths};
use klto_lower::Place;

/// What klto adds to KCFLAGS, so that kbuild makes objects again in another mode.
pub(crate) const MODE_MARKER: &str = "-D__KLTO=";

/// Whether a word of a compile is the [`MODE_MARKER`] with its value.
pub(super) fn is_mode_marker(word: &OsString) -> bool {
    word.as_bytes().starts_with(MODE_MARKER.as_bytes())
}

/// The directories that differ between checkouts and output trees; absolute, without links.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    /// The kernel's source tree.
    pub source: PathBuf,
    /// Where kbuild compiles.
    pub output: PathBuf,
}

impl Roots {
    /// The place of a path that a tool in `directory` names.
    pub fn place(&self, directory: &Path, path: &Path) -> Place {
        let absolute = normalize(&directory.join(path));
        let below = |root: &Path| absolute.strip_prefix(root).ok().map(Path::to_owned);
        match (below(&self.source), below(&self.output)) {
            // One tree lies in the other: the path belongs to the inner one.
            (Some(_), Some(path)) if self.output.starts_with(&self.source) && !self.is_one() => {
                Place::Output(path)
            }
            (Some(path), _) => Place::Source(path),
            (None, Some(path)) => Place::Output(path),
            (None, None) => Place::Elsewhere(absolute),
        }
    }

    /// An absolute path's root, and the rest as it is written: `..` in it may lead behind a link.
    fn below_as_written<'a>(&self, path: &'a Path) -> Option<(Root, &'a [u8])> {
        let text = path.as_os_str().as_bytes();
        let below = |root: &Path| {
            let rest = text.strip_prefix(root.as_os_str().as_bytes())?;
            match rest {
                [] => Some(rest),
                [b'/', rest @ ..] => Some(rest),
                _ => None,
            }
        };
        let output = below(&self.output).map(|rest| (Root::Output, rest));
        let source = below(&self.source).map(|rest| (Root::Source, rest));
        match self.output.starts_with(&self.source) && !self.is_one() {
            true => output.or(source),
            false => source.or(output),
        }
    }

    /// Whether the source tree is its own output tree.
    pub fn is_one(&self) -> bool {
        self.source == self.output
    }

    /// Where a place is on this machine.
    pub fn path(&self, place: &Place) -> PathBuf {
        match place {
            Place::Source(path) => self.source.join(path),
            Place::Output(path) => self.output.join(path),
            Place::Elsewhere(path) => path.clone(),
        }
    }
}

/// One of the [`Roots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Source,
    Output,
}

fn tagged(root: &[u8], rest: &[u8]) -> OsString {
    OsString::from_vec([b"\0", root, rest].concat())
}

/// The call to run, and what its key is made of.
#[derive(Debug, Clone)]
pub(super) struct NormalCall {
    /// Arguments of the compiler.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub directory: PathBuf,
    /// The arguments for the key.
    pub key_arguments: Vec<OsString>,
    /// The directory for the key, where the object shows it.
    pub key_directory: Option<PathBuf>,
    /// How kbuild's call names the source tree, up to the path of the source in it.
    pub source_prefix: PathBuf,
}

impl NormalCall {
    /// Of a call that compiles `source` in `roots.output`; `front` is what it tells the front end.
    pub fn of(arguments: &[OsString], source: &Path, front: &FrontEnd, roots: &Roots) -> Self {
        let directory = &roots.output;
        let arguments: Vec<OsString> = arguments
            .iter()
            .filter(|word| !is_mode_marker(word))
            .cloned()
            .collect();
        let written = with_all_dependencies(&arguments);
        let removed = |prefix: &PathBuf| normalize(&directory.join(prefix)) == roots.source;
        let place = roots.place(directory, source);
        let is_moved = matches!(place, Place::Source(_)) && !roots.is_one();
        // Sanitizers name sources as the call does, whatever a map takes off.
        let shows_paths = front.has_debug_information
            || front.shows_columns && !is_moved
            || !(front.removed_prefixes.iter().any(removed) || roots.is_one());
        let source_prefix = match &place {
            Place::Source(path) => prefix_of(source, path).unwrap_or_else(|| roots.source.clone()),
            _ => roots.source.clone(),
        };
        let as_is = Self {
            arguments: written.clone(),
            directory: directory.clone(),
            key_arguments: key_arguments(&arguments, &|path| path.as_os_str().to_owned()),
            key_directory: Some(directory.clone()),
            source_prefix,
        };
        if shows_paths {
            return as_is;
        }
        // Where the call stays, only the map of kbuild's own takes a root off what `__FILE__` shows.
        let shown =
            |root: &Path| !is_moved && !front.removed_prefixes.iter().any(|one| one == root);
        let key_arguments = key_arguments(&arguments, &|path| match roots.below_as_written(path) {
            Some((Root::Source, rest)) if !shown(&roots.source) => tagged(b"source/", rest),
            Some((Root::Output, rest)) if is_moved => tagged(b"output/", rest),
            _ => match roots.place(directory, path) {
                // The same words name another file in another checkout.
                Place::Elsewhere(place) if path.is_relative() => {
                    let words = [place.as_os_str().as_bytes(), path.as_os_str().as_bytes()];
                    tagged(b"elsewhere/", &words.join(&0))
                }
                _ => path.as_os_str().to_owned(),
            },
        });
        // Sanitizers name generated headers by their whole path.
        let key_directory = front.shows_columns.then(|| directory.clone());
        let normal = Self {
            key_arguments,
            key_directory,
            ..as_is
        };
        match is_moved {
            true => Self {
                arguments: moved(&written, roots),
                directory: roots.source.clone(),
                ..normal
            },
            false => normal,
        }
    }
}

/// `/src/` for `/src/fs/a.c`, where `fs/a.c` is the path in the tree.
fn prefix_of(source: &Path, path: &Path) -> Option<PathBuf> {
    let prefix = source
        .as_os_str()
        .as_bytes()
        .strip_suffix(path.as_os_str().as_bytes())?;
    Some(PathBuf::from(OsString::from_vec(prefix.to_vec())))
}

fn key_arguments(arguments: &[OsString], path: &dyn Fn(&Path) -> OsString) -> Vec<OsString> {
    with_paths(arguments, &|file, used| match used {
        PathUse::Object | PathUse::Depfile => OsString::new(),
        PathUse::Source | PathUse::Read | PathUse::Prefix => path(file),
    })
}

/// The call for the source tree as its directory.
fn moved(arguments: &[OsString], roots: &Roots) -> Vec<OsString> {
    let mut moved = with_paths(arguments, &|path, used| {
        if used == PathUse::Prefix {
            return path.as_os_str().to_owned();
        }
        match roots.below_as_written(path) {
            Some((Root::Source, [])) => ".".into(),
            Some((Root::Source, rest)) => OsString::from_vec(rest.to_vec()),
            Some((Root::Output, _)) => path.as_os_str().to_owned(),
            None if path.is_absolute() => path.as_os_str().to_owned(),
            None => from_output(path, roots),
        }
    });
    let mut map = OsString::from("-fmacro-prefix-map=");
    map.push(&roots.output);
    map.push("/=");
    moved.push(map);
    moved
}

/// A path relative to the output tree. `./include` keeps its dot, which `__FILE__` shows; leading `..` that
/// lead into a source tree around the output tree are taken off.
fn from_output(path: &Path, roots: &Roots) -> OsString {
    let mut directory = roots.output.as_path();
    let mut rest = path;
    while let (Ok(after), Some(parent)) = (rest.strip_prefix(".."), directory.parent()) {
        (rest, directory) = (after, parent);
    }
    match directory.strip_prefix(&roots.source) {
        Ok(below) if directory != roots.output => match below.join(rest) {
            empty if empty == Path::new("") => ".".into(),
            path => path.into_os_string(),
        },
        _ => roots.output.join(path).into_os_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn normal(source: &str, output: &str, call: &str, file: &str) -> NormalCall {
        let roots = Roots {
            source: source.into(),
            output: output.into(),
        };
        let call = words(call);
        NormalCall::of(&call, Path::new(file), &FrontEnd::of(&call), &roots)
    }

    fn call(tree: &str, more: &str) -> String {
        format!(
            "-Wp,-MMD,fs/.a.o.d -I{tree}/include -I./include -fmacro-prefix-map={tree}/= -D__KLTO=thin_1 {more} \
             -c -o fs/a.o {tree}/fs/a.c"
        )
    }

    #[test]
    fn checkouts_and_output_trees_do_not_matter() {
        let one = normal("/s", "/o", &call("/s", "-O2"), "/s/fs/a.c");
        let other = normal(
            "/long/src",
            "/out/x",
            &call("/long/src", "-O2"),
            "/long/src/fs/a.c",
        );
        assert_eq!(one.key_arguments, other.key_arguments);
        assert_eq!((one.key_directory, other.key_directory), (None, None));
        let wanted = "-Wp,-MD,/o/fs/.a.o.d -Iinclude -I/o/./include -fmacro-prefix-map=/s/= -O2 -c -o /o/fs/a.o \
            fs/a.c -fmacro-prefix-map=/o/=";
        assert_eq!(one.arguments, words(wanted));
        assert_eq!(one.directory, Path::new("/s"));
        assert_eq!(one.source_prefix, Path::new("/s/"));
    }

    #[test]
    fn an_output_tree_in_the_source_tree_is_told_apart() {
        let inside = normal("/s", "/s/out", &call("..", ""), "../fs/a.c");
        assert!(inside.arguments.contains(&"-I/s/out/./include".into()));
        assert!(inside.arguments.contains(&"-Iinclude".into()));
        assert_eq!(inside.source_prefix, Path::new("../"));
        let same = normal("/s", "/s", &call(".", ""), "./fs/a.c");
        assert_eq!(same.directory, Path::new("/s"));
    }

    #[test]
    fn dots_behind_a_name_stay() {
        let text = call("/s", "-I/s/link/../b -I/o/x/../y");
        let moved = normal("/s", "/o", &text, "/s/fs/a.c");
        for word in ["-Ilink/../b", "-I/o/x/../y"] {
            assert!(moved.arguments.contains(&word.into()), "{word}");
        }
        let other = normal("/s", "/o", &call("/s", "-I/s/b -I/o/y"), "/s/fs/a.c");
        assert_ne!(moved.key_arguments, other.key_arguments);
    }

    #[test]
    fn a_file_outside_of_both_trees_is_named_by_its_place() {
        let key = |job: &str, source: &str| {
            let tree = format!("{job}/linux");
            let text = call(".", "-I../extra").replace("./fs/a.c", source);
            normal(&tree, &tree, &text, source).key_arguments
        };
        assert_eq!(key("/one", "../mod/a.c"), key("/one", "../mod/a.c"));
        assert_ne!(key("/one", "../mod/a.c"), key("/other", "../mod/a.c"));
        assert_ne!(key("/one", "./fs/a.c"), key("/other", "./fs/a.c"));
        let absolute = |job: &str| {
            let tree = format!("{job}/linux");
            let text = call(".", "-I/extra");
            normal(&tree, &tree, &text, "./fs/a.c").key_arguments
        };
        assert_eq!(absolute("/one"), absolute("/other"));
    }

    #[test]
    fn a_root_that_the_object_shows_is_in_the_key() {
        // A generated source: the call stays where it is, and no map takes `/o/` off.
        let key = |output: &str| {
            let text = call("/s", &format!("-I{output}/generated")).replace("/s/fs/a.c", "fs/a.c");
            normal("/s", output, &text, "fs/a.c").key_arguments
        };
        assert_ne!(key("/o"), key("/p"));
    }

    #[test]
    fn a_sanitizer_names_generated_headers_by_their_whole_path() {
        let of = |flag: &str, output: &str| {
            let text = call("/s", flag);
            normal("/s", output, &text, "/s/fs/a.c").key_directory
        };
        assert_ne!(of("-fsanitize=bounds", "/o"), of("-fsanitize=bounds", "/p"));
        assert_eq!(of("-O2", "/o"), of("-O2", "/p"));
    }

    #[test]
    fn objects_that_show_paths_keep_them() {
        for (more, map) in [("-g", true), ("-O2", false)] {
            let mut text = call("/s", more);
            if !map {
                text = text.replace("-fmacro-prefix-map=/s/=", "-O2");
            }
            let kept = normal("/s", "/o", &text, "/s/fs/a.c");
            assert_eq!(kept.directory, Path::new("/o"));
            assert_eq!(kept.key_directory.as_deref(), Some(Path::new("/o")));
            assert!(kept.key_arguments.contains(&"-I/s/include".into()));
        }
    }

    #[test]
    fn places_are_told_apart() {
        let roots = Roots {
            source: "/s".into(),
            output: "/s/out".into(),
        };
        let place = |path: &str| roots.place(&roots.output, Path::new(path));
        assert_eq!(place("../fs/a.h"), Place::Source("fs/a.h".into()));
        assert_eq!(place("include/b.h"), Place::Output("include/b.h".into()));
        assert_eq!(place("/usr/c.h"), Place::Elsewhere("/usr/c.h".into()));
        for path in ["../fs/a.h", "include/b.h", "/usr/c.h"] {
            let absolute = normalize(&roots.output.join(path));
            assert_eq!(roots.path(&place(path)), absolute);
        }
    }
}
