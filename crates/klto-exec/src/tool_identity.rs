//! What makes a tool what it is: its executable, every shared object it loads, its configuration
//! files, and what a compiler says of its version.
//!
//! The code of a Debian clang is in libLLVM and libclang-cpp, other packages that can change under an
//! unchanged `--version`. The dynamic loader itself is asked what it loads (`ld.so(8)`,
//! LD_TRACE_LOADED_OBJECTS), in the environment in which the tool will run. The version is that of a
//! wrapper's real compiler too.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klto_core::{Digest, KeyBuilder, Storable, die_with_parent};

use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::engine::{Stamp, stamp};

/// A tool's identity and whether results made with it may be stored.
#[derive(Debug, Clone)]
pub struct ToolIdentity {
    /// Digest over everything listed in [`ToolIdentity::files`], and over the version.
    pub digest: Digest,
    /// The files that were digested, in order.
    pub files: Vec<PathBuf>,
    /// What each was before it was digested, and the path by which the tool is called.
    pub(crate) stamps: Vec<(PathBuf, Stamp)>,
    /// `No` for a tool that cannot be identified, as a wrapper script.
    pub storable: Storable,
}

/// Identifies `program` as it runs in `environment`; `digest` gives a file's content digest.
pub fn tool_identity(
    program: &Path,
    environment: &[(OsString, OsString)],
    digest: &dyn Fn(&Path) -> io::Result<Digest>,
) -> io::Result<ToolIdentity> {
    // The path by which it is called may come to lead to another one.
    let mut stamps = vec![(program.to_owned(), stamp(program))];
    let (as_called, program) = (program, fs_err::canonicalize(program)?);
    let head = read_head(&program)?;
    let mut files = vec![program.clone()];
    let mut version = String::new();
    let storable = if head.starts_with(b"#!") {
        Storable::No(format!(
            "{} is a script; what it runs is not known",
            program.display()
        ))
    } else {
        if is_dynamic(&head) {
            files.extend(loaded_objects(&program, environment)?);
        }
        // Clang goes by the name by which it is called, as `aarch64-linux-gnu-clang`.
        version = version_text(as_called, environment, &[])?;
        let configuration = configuration_files(as_called, environment, &version)?;
        let storable = match version.contains(CLANG) {
            true => clang_storable(as_called, &program, environment, &configuration)?,
            false => Storable::Yes,
        };
        files.extend(configuration);
        storable
    };
    let mut key = KeyBuilder::new("tool", 2);
    for file in &files {
        stamps.push((file.clone(), stamp(file)));
        key.digest("file", digest(file)?);
    }
    // The same tool may be installed elsewhere.
    let is_place = |line: &&str| line.starts_with(CONFIGURATION_FILE) || line.starts_with(PLACE);
    for line in version.lines().filter(|line| !is_place(line)) {
        key.field("version", line.as_bytes());
    }
    Ok(ToolIdentity {
        digest: key.finish(),
        files,
        stamps,
        storable,
    })
}

fn read_head(program: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut head = Vec::new();
    fs_err::File::open(program)?
        .take(4096)
        .read_to_end(&mut head)?;
    Ok(head)
}

/// Whether the ELF head names a program interpreter, so that the dynamic loader runs first.
fn is_dynamic(head: &[u8]) -> bool {
    let Ok(header) = FileHeader64::<object::Endianness>::parse(head) else {
        return false;
    };
    let Ok(endian) = header.endian() else {
        return false;
    };
    let headers = header.program_headers(endian, head).unwrap_or_default();
    headers
        .iter()
        .any(|segment| segment.p_type(endian) == PT_INTERP)
}

fn command(program: &Path, environment: &[(OsString, OsString)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null());
    die_with_parent(&mut command);
    command
}

/// Paths of the shared objects that the dynamic loader maps, sorted.
fn loaded_objects(
    program: &Path,
    environment: &[(OsString, OsString)],
) -> io::Result<Vec<PathBuf>> {
    let output = command(program, environment)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()?;
    if !output.status.success() {
        let what = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{}: {what}", program.display())));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let mut paths: Vec<PathBuf> = lines.filter_map(loader_path).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// `\tlibLLVM.so.22 => /usr/lib/…/libLLVM.so.22 (0x…)` or `\t/lib64/ld-linux… (0x…)`.
fn loader_path(line: &[u8]) -> Option<PathBuf> {
    let mut words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    let path = words.find(|word| word.starts_with(b"/"))?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// What `clang --version` begins with, behind the vendor.
const CLANG: &str = "clang version ";
/// How the lines of `clang --version` begin that say where it is, and by which files it was configured.
const PLACE: &str = "InstalledDir: ";
const CONFIGURATION_FILE: &str = "Configuration file: ";
/// The targets for which kbuild calls clang (Linux, scripts/Makefile.clang), and code of vdso and boot image on
/// x86; each may have a file of its own.
const TARGETS: [&[&str]; 5] = [
    &["--target=x86_64-linux-gnu"],
    &["--target=x86_64-linux-gnu", "-m32"],
    &["--target=x86_64-linux-gnu", "-m16"],
    &["--target=aarch64-linux-gnu"],
    &["--target=arm-linux-gnueabi"],
];

/// How the words of a configuration file may begin that say no more than the file's text does: no file, place
/// or processor, and nothing of debug information.
const PLAIN_WORDS: [&str; 18] = [
    "@",
    "--gcc-install-dir=",
    "--gcc-toolchain=",
    "--gcc-triple=",
    "--rtlib=",
    "--stdlib=",
    "--sysroot=",
    "--unwindlib=",
    "-D",
    "-U",
    "-W",
    "-fcf-protection",
    "-fstack-clash-protection",
    "-fstack-protector",
    "-fuse-ld=",
    "-rtlib=",
    "-stdlib=",
    "-unwindlib=",
];

/// What clang says of its version; nothing of another tool, which may say anything.
fn version_text(
    program: &Path,
    environment: &[(OsString, OsString)],
    arguments: &[&str],
) -> io::Result<String> {
    let mut command = command(program, environment);
    let output = command.args(arguments).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_clang = text.contains(CLANG);
    Ok(if is_clang { text } else { String::new() })
}

/// Whether what clang makes may be stored: it is the compiler itself, and its configuration `files` say nothing
/// that would count on the command line.
fn clang_storable(
    as_called: &Path,
    program: &Path,
    environment: &[(OsString, OsString)],
    files: &[PathBuf],
) -> io::Result<Storable> {
    for file in files {
        let words = words_of_configuration(file)?;
        if let Some(word) = words.iter().find(|word| !is_plain(word)) {
            let file = file.display();
            return Ok(Storable::No(format!("{file} gives the compiler {word}")));
        }
    }
    let call = ["-###", "-c", "-x", "c", "/dev/null", "-o", "/dev/null"];
    let printed = command(as_called, environment).args(call).output()?;
    let printed = String::from_utf8_lossy(&printed.stderr);
    Ok(match front_end_of(&printed) {
        Some(front_end) if std::fs::canonicalize(front_end).is_ok_and(|path| path == program) => {
            Storable::Yes
        }
        other => {
            let other = other.unwrap_or(Path::new("another program"));
            let (program, other) = (program.display(), other.display());
            Storable::No(format!("{program} has {other} compile"))
        }
    })
}

fn is_plain(word: &str) -> bool {
    let is_for_others = word.starts_with("-Wp,") || word.starts_with("-Wa,");
    let is_plain = PLAIN_WORDS.iter().any(|plain| word.starts_with(plain));
    // It speaks of the word behind it.
    word == "-Xarch_host" || is_plain && !is_for_others
}

/// The program that compiles, of what `clang -###` prints: ` "/usr/bin/clang" "-cc1" …`.
fn front_end_of(printed: &str) -> Option<&Path> {
    let is_compile = |line: &&str| line.contains("\"-cc1\"");
    let line = printed.lines().find(is_compile)?;
    let program = line.trim_start().strip_prefix('"')?.split('"').next()?;
    Some(Path::new(program))
}

/// Files by which clang is configured, for any target, and those that they include (clang, "Configuration
/// files").
fn configuration_files(
    program: &Path,
    environment: &[(OsString, OsString)],
    version: &str,
) -> io::Result<Vec<PathBuf>> {
    let mut versions = vec![version.to_owned()];
    if version.contains(CLANG) {
        for target in TARGETS {
            versions.push(version_text(program, environment, target)?);
        }
    }
    let lines = versions.iter().flat_map(|version| version.lines());
    let named = lines.filter_map(|line| line.strip_prefix(CONFIGURATION_FILE));
    let mut found: Vec<PathBuf> = Vec::new();
    let mut next: Vec<PathBuf> = named.map(PathBuf::from).collect();
    while let Some(file) = next.pop() {
        if !found.contains(&file) {
            next.extend(included_files(&file)?);
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// Files that a configuration file includes: `@FILE`, relative to its own directory.
fn included_files(file: &Path) -> io::Result<Vec<PathBuf>> {
    let words = words_of_configuration(file)?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let included = words.iter().filter_map(|word| word.strip_prefix('@'));
    let places = included.map(|name| directory.join(name));
    Ok(places.filter(|place| place.is_file()).collect())
}

fn words_of_configuration(file: &Path) -> io::Result<Vec<String>> {
    let text = fs_err::read(file)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    Ok(words.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn shared_objects_are_part_of_a_tool() {
        let environment = [("PATH".into(), "/usr/bin:/bin".into())];
        let identity = tool_identity(Path::new("/bin/sh"), &environment, &|path| {
            Digest::of_file(path)
        })
        .unwrap();
        assert!(
            identity
                .files
                .iter()
                .any(|file| file.to_string_lossy().contains("libc.so"))
        );
        assert_eq!(identity.storable, Storable::Yes);
        let other = |path: &Path| match path.to_string_lossy().contains("libc.so") {
            true => Ok(Digest::of_bytes(b"another libc")),
            false => Digest::of_file(path),
        };
        let changed = tool_identity(Path::new("/bin/sh"), &environment, &other).unwrap();
        assert_ne!(identity.digest, changed.digest);
    }

    #[test]
    fn configuration_files_are_part_of_a_compiler() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let nested = write("nested.cfg", "-O1\n");
        let outer = write("outer.cfg", "# @no.cfg\n@nested.cfg\n-fno-common\n");
        let version = format!("{CONFIGURATION_FILE}{}\n", outer.display());
        let found = configuration_files(Path::new("/bin/true"), &[], &version).unwrap();
        assert_eq!(found, [nested, outer]);
    }

    #[test]
    fn a_compiler_that_another_program_or_file_steers_is_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let place = fs_err::canonicalize(directory.path()).unwrap();
        let write = |name: &str, text: &str| {
            let path = place.join(name);
            fs_err::write(&path, text).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let front_end = write("clang", "");
        let says = format!(
            "#!/bin/sh\necho ' \"{}\" \"-cc1\" \"-x\"' >&2\n",
            front_end.display()
        );
        let driver = write("driver", &says);
        let storable = |program: &Path, files: &[PathBuf]| {
            clang_storable(&driver, program, &[], files).unwrap()
        };
        assert_eq!(storable(&front_end, &[]), Storable::Yes);
        assert!(matches!(storable(&driver, &[]), Storable::No(_)));
        let plain = write("plain.cfg", "# -g\n--gcc-triple=x86_64-redhat-linux\n");
        assert_eq!(storable(&front_end, &[plain]), Storable::Yes);
        for word in [
            "-march=native",
            "-g1",
            "-fplugin=p.so",
            "-I/opt/include",
            "-Wp,-I/opt",
        ] {
            let steers = write("steers.cfg", word);
            assert!(
                matches!(storable(&front_end, &[steers]), Storable::No(_)),
                "{word}"
            );
        }
    }

    #[test]
    fn results_of_a_script_are_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("clang");
        fs_err::write(&script, "#!/bin/sh\nexec clang \"$@\"\n").unwrap();
        fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let identity = tool_identity(&script, &[], &|path| Digest::of_file(path)).unwrap();
        assert!(matches!(identity.storable, Storable::No(_)));
    }
}
