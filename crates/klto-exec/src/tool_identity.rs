//! What makes a tool what it is: its executable, every shared object it loads, its configuration
//! files.
//!
//! The code of a Debian clang is in libLLVM and libclang-cpp, other packages that can change under an
//! unchanged `--version`. The dynamic loader itself is asked what it loads (`ld.so(8)`,
//! LD_TRACE_LOADED_OBJECTS), in the environment in which the tool will run.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klto_core::{Digest, KeyBuilder, Storable, die_with_parent};
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// A tool's identity and whether results made with it may be stored.
#[derive(Debug, Clone)]
pub struct ToolIdentity {
    /// Digest over everything listed in [`ToolIdentity::files`].
    pub digest: Digest,
    /// The files that were digested, in order.
    pub files: Vec<PathBuf>,
    /// `No` for a tool that cannot be identified, as a wrapper script.
    pub storable: Storable,
}

/// Identifies `program` as it runs in `environment`; `digest` gives a file's content digest.
pub fn tool_identity(
    program: &Path,
    environment: &[(OsString, OsString)],
    digest: &dyn Fn(&Path) -> io::Result<Digest>,
) -> io::Result<ToolIdentity> {
    let program = fs_err::canonicalize(program)?;
    let head = read_head(&program)?;
    let mut files = vec![program.clone()];
    let storable = if head.starts_with(b"#!") {
        Storable::No(format!(
            "{} is a script; what it runs is not known",
            program.display()
        ))
    } else {
        if is_dynamic(&head) {
            files.extend(loaded_objects(&program, environment)?);
        }
        files.extend(configuration_files(&program, environment)?);
        Storable::Yes
    };
    let mut key = KeyBuilder::new("tool", 1);
    for file in &files {
        key.digest("file", digest(file)?);
    }
    Ok(ToolIdentity {
        digest: key.finish(),
        files,
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

/// Files that `clang --version` says it was configured by (`Configuration file: …`).
fn configuration_files(
    program: &Path,
    environment: &[(OsString, OsString)],
) -> io::Result<Vec<PathBuf>> {
    let output = command(program, environment).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("Configuration file: "))
        .map(PathBuf::from)
        .collect())
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
    fn results_of_a_script_are_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("clang");
        fs_err::write(&script, "#!/bin/sh\nexec clang \"$@\"\n").unwrap();
        fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let identity = tool_identity(&script, &[], &|path| Digest::of_file(path)).unwrap();
        assert!(matches!(identity.storable, Storable::No(_)));
    }
}
