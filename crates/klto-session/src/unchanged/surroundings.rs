//! What a build depends on besides the two trees: words, environment, host, programs, what is installed.
//!
//! In: a plan and settings. Out: facts by name. It does not know the trees.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use klto_core::{KeyBuilder, processor};
use klto_kbuild::{Environment, LtoBuild};

use super::named::Variables;
use super::trees::{Facts, digest, of_file};
use crate::build::Settings;

/// make's own flags, which are compared without the jobserver.
const FLAGS_OF_MAKE: [&str; 3] = ["GNUMAKEFLAGS", "MAKEFLAGS", "MFLAGS"];

/// The fact of the program itself.
pub(super) const KLTO: &str = "klto";

/// Variables that differ from shell to shell and that no build reads.
pub(crate) const VOLATILE: [&str; 21] = [
    "COLUMNS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GPG_TTY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "OLDPWD",
    "SHLVL",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "STY",
    "TMUX",
    "TMUX_PANE",
    "VTE_VERSION",
    "WAYLAND_DISPLAY",
    "WINDOWID",
    "XDG_SESSION_ID",
    "_",
];

/// Where package managers note each change of the system, and what the loader's libraries are: headers and
/// libraries of host programs, and what `pkg-config` says of them.
const PACKAGES: [&str; 12] = [
    "/var/lib/dpkg/status",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/var/lib/rpm/Packages",
    "/var/cache/edb/counter",
    "/var/db/xbps",
    "/usr/local/lib/pkgconfig",
    "/usr/local/share/pkgconfig",
    "/var/lib/pacman/local",
    "/lib/apk/db/installed",
    "/etc/ld.so.cache",
];

/// Where a user's choices are that make's programs follow: a variable, its default below HOME, names. git
/// says which version a tree is; programs in PATH that choose a version of rustc or Python are others by
/// that.
const CHOICES: [(&str, &str, &[&str]); 3] = [
    ("XDG_CONFIG_HOME", ".config", &["git/config"]),
    ("RUSTUP_HOME", ".rustup", &["settings.toml", "toolchains"]),
    ("PYENV_ROOT", ".pyenv", &["version", "versions"]),
];

/// Flags of the compiler by which it reads files, or looks for them.
const READING: [&str; 13] = [
    "-include",
    "-imacros",
    "-isystem",
    "-iquote",
    "-idirafter",
    "--sysroot",
    "-isysroot",
    "-Wp,-include,",
    "-Wp,-I",
    "-I",
    "-B",
    "-L",
    "@",
];
const QUOTES: [char; 2] = ['"', '\''];
/// How a word of make names the two trees.
const WITHIN: [&str; 2] = ["$(srctree)", "$(objtree)"];
/// Words of make that name a compiler, with flags of its own.
const COMPILERS: [&str; 4] = ["CC", "HOSTCC", "HOSTCXX", "CPP"];
/// Variables in which a compiler itself finds directories (clang, "Environment").
const FOR_COMPILERS: [&str; 4] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
];
/// Variables with flags that kbuild takes from the environment (Documentation/kbuild/kbuild.rst).
const FLAGS_IN_ENVIRONMENT: [&str; 11] = [
    "KCPPFLAGS",
    "KAFLAGS",
    "AFLAGS_MODULE",
    "AFLAGS_KERNEL",
    "KCFLAGS",
    "CFLAGS_KERNEL",
    "CFLAGS_MODULE",
    "LDFLAGS_MODULE",
    "HOSTCFLAGS",
    "HOSTCXXFLAGS",
    "USERCFLAGS",
];

/// What a build depends on besides the two trees.
pub(super) fn outside(build: &LtoBuild, settings: &Settings, programs: &[PathBuf]) -> Facts {
    let mut facts = Facts::new();
    facts.insert("the arguments".into(), arguments(build));
    // klto's own argument, or what is remembered for the tree.
    facts.insert("the mode of LTO".into(), digest(&[u8::from(build.full)]));
    facts.extend(of_environment(&settings.environment));
    facts.insert("the host".into(), of_host());
    let directory = settings.directory.as_os_str().as_bytes();
    facts.insert("the directory".into(), digest(directory));
    let path = settings.environment.get("PATH").unwrap_or_default();
    for directory in std::env::split_paths(path) {
        let found = of_directory(&directory).unwrap_or_default();
        facts.insert(directory.display().to_string(), found);
    }
    for named in build.config.values() {
        facts.extend(of_named(build, named));
    }
    // As `PAHOLE=/opt/pahole`.
    for assignment in build.arguments.assignments() {
        let named = Path::new(&assignment.value);
        if named.is_absolute() && named.is_file() {
            let name = format!("{}, which make's words name,", named.display());
            facts.insert(name, of_file(named));
        }
    }
    let packages: Vec<u8> = PACKAGES.map(|file| of_file(Path::new(file))).concat();
    facts.insert("the set of installed packages".into(), digest(&packages));
    facts.insert("a choice of the user's".into(), of_choices(settings));
    if let Ok(klto) = std::env::current_exe() {
        facts.insert(KLTO.into(), of_file(&klto));
    }
    for program in programs {
        facts.insert(program.display().to_string(), of_file(program));
    }
    // A program may be a script, behind which another tool has come.
    let reports = build.first_lines_of_tools.join("\n");
    facts.insert(
        "what the tools print of themselves".into(),
        digest(reports.as_bytes()),
    );
    facts
}

/// Variables of make: its words and the environment.
pub(super) fn variables(build: &LtoBuild, environment: &Environment) -> Variables {
    let both = [build.make_flags.arguments(), &build.arguments];
    let words = both.into_iter().flat_map(|words| words.assignments());
    let words = words.map(|word| (word.name.as_os_str(), word.value.as_os_str()));
    let mut variables = Variables::new();
    for (name, value) in environment.iter().chain(words) {
        let known = variables.entry(name.as_bytes().to_vec()).or_default();
        let words = value.as_bytes().split(u8::is_ascii_whitespace);
        known.extend(words.filter(|word| !word.is_empty()).map(<[u8]>::to_vec));
    }
    variables
}

/// What a value of the configuration names outside of the trees, if it does: a file, or a directory with what
/// is in it.
fn of_named(build: &LtoBuild, value: &str) -> Facts {
    let path = Path::new(value);
    let leads_out = path.components().any(|part| part == Component::ParentDir);
    // kbuild looks for a relative one in either tree.
    let places = match (path.is_absolute(), leads_out) {
        (true, _) => vec![path.to_owned()],
        (false, true) => [&build.tree.source, &build.tree.output]
            .map(|root| root.join(path))
            .to_vec(),
        (false, false) => Vec::new(),
    };
    let facts = places.into_iter().map(|place| {
        let name = format!("{}, which the configuration names,", place.display());
        let within = of_directory(&place).unwrap_or_default();
        (name, digest(&[of_file(&place), within].concat()))
    });
    facts.collect()
}

/// The first flag by which the compiler reads files outside of both trees, in make's words and in the
/// variables that kbuild takes from the environment.
pub(super) fn flag_that_leads_out(build: &LtoBuild, environment: &Environment) -> Option<String> {
    let both = [&build.arguments, build.make_flags.arguments()];
    let words = both.into_iter().flat_map(|words| words.assignments());
    let is_set = |name: &&&str| environment.get(name).is_some_and(|value| !value.is_empty());
    if let Some(name) = FOR_COMPILERS.iter().find(is_set) {
        return Some(format!("{name} is set"));
    }
    let is_flags = |name: &OsStr| {
        let is_compiler = COMPILERS.iter().any(|compiler| name == *compiler);
        is_compiler || name.as_bytes().windows(5).any(|part| part == b"FLAGS")
    };
    let words = words.filter(|word| is_flags(&word.name));
    let words = words.map(|word| word.value.as_os_str());
    let variables = FLAGS_IN_ENVIRONMENT.iter();
    let variables = variables.filter_map(|name| environment.get(name));
    let roots = [&build.tree.source, &build.tree.output];
    words.chain(variables).find_map(|flags| {
        let flags = flags.to_string_lossy();
        let mut flags = flags.split_whitespace();
        while let Some(flag) = flags.next() {
            let flag = flag.trim_start_matches(QUOTES);
            let read = READING.iter().find_map(|start| flag.strip_prefix(start));
            let path = match read {
                Some("") => flags.next().unwrap_or_default(),
                Some(path) => path,
                None => continue,
            };
            let path = path.trim_start_matches('=').trim_start_matches(QUOTES);
            let below = WITHIN.iter().find_map(|tree| path.strip_prefix(tree));
            let path = Path::new(below.unwrap_or(path));
            let leads_out = path.components().any(|part| part == Component::ParentDir);
            let is_reference = path.to_string_lossy().contains(['$', '`']);
            let is_within = below.is_some() || roots.iter().any(|root| path.starts_with(root));
            if leads_out || is_reference || path.is_absolute() && !is_within {
                return Some(format!("{flag} {}", path.display()));
            }
        }
        None
    })
}

fn of_choices(settings: &Settings) -> [u8; 32] {
    let value = |name| {
        settings
            .environment
            .get(name)
            .filter(|value| !value.is_empty())
    };
    let home = PathBuf::from(value("HOME").unwrap_or_default());
    let mut stats = of_file(&home.join(".gitconfig")).to_vec();
    for (variable, below_home, names) in CHOICES {
        let root = value(variable).map_or_else(|| home.join(below_home), PathBuf::from);
        let files = names.iter().map(|name| of_file(&root.join(name)));
        stats.extend(files.flatten());
    }
    digest(&stats)
}

fn arguments(build: &LtoBuild) -> [u8; 32] {
    let mut key = KeyBuilder::new("arguments", 1);
    for word in build.arguments.words() {
        key.field("word", word.as_bytes());
    }
    key.field("flags", build.make_flags.without_jobserver().as_bytes());
    *key.finish().as_bytes()
}

fn of_environment(environment: &Environment) -> Facts {
    let counts = |name: &OsStr| {
        let mut others = VOLATILE.iter().chain(&FLAGS_OF_MAKE);
        others.all(|other| name != *other)
    };
    let counting = environment.iter().filter(|(name, _)| counts(name));
    let facts = counting.map(|(name, value)| {
        let fact = format!("{} of the environment", name.display());
        (fact, digest(value.as_bytes()))
    });
    facts.collect()
}

/// kbuild writes the names of host and user into the kernel, and `-march=native` is for its processor.
fn of_host() -> [u8; 32] {
    let host = rustix::system::uname();
    let mut key = KeyBuilder::new("host", 1);
    for name in [host.nodename(), host.release(), host.machine()] {
        key.field("name", name.to_bytes());
    }
    key.digest("processor", processor());
    let user = rustix::process::geteuid().as_raw();
    key.field("user", &user.to_le_bytes());
    *key.finish().as_bytes()
}

/// The digest of names and stats in a directory, links followed.
fn of_directory(directory: &Path) -> io::Result<[u8; 32]> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().as_bytes().to_vec();
        files.push((name, of_file(&entry.path())));
    }
    files.sort();
    let mut key = KeyBuilder::new("files", 1);
    for (name, stat) in files {
        key.field("name", &name).field("stat", &stat);
    }
    Ok(*key.finish().as_bytes())
}
