//! The search for executables in PATH.
//!
//! In: a name, PATH, and the directory that relative names start from. Out: an absolute path. It
//! runs nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::command::is_launcher;

/// The executable of klto's shims.
const SHIM: &str = "klto-shim";

/// Where executables are looked for.
#[derive(Debug, Clone)]
pub(super) struct SearchPath {
    pub(super) path: OsString,
    /// The directory in which kbuild runs its tools.
    pub(super) directory: PathBuf,
}

/// A found executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// A launcher of the same name (`/usr/lib/ccache/clang`) that stands before it in PATH.
    pub(super) passed_over: Option<PathBuf>,
}

impl SearchPath {
    /// The executable that `program` names. The path keeps its links: clang behaves by its name.
    pub(super) fn find(&self, program: &str) -> Option<Found> {
        if program.is_empty() {
            return None;
        }
        if program.contains('/') {
            let path = self.directory.join(program);
            return is_executable(&path).then_some(Found {
                path,
                passed_over: None,
            });
        }
        let mut passed_over = None;
        for directory in std::env::split_paths(&self.path) {
            let path = self.directory.join(directory).join(program);
            // klto may run under another klto.
            if !is_executable(&path) || leads_to(&path, |name| name == SHIM) {
                continue;
            }
            // A launcher would find klto's stand-in as the real compiler, and call it forever.
            if leads_to_launcher(&path, program) {
                passed_over.get_or_insert(path);
                continue;
            }
            return Some(Found { path, passed_over });
        }
        None
    }

    /// The newest version of LLVM whose clang is in PATH with a suffix, as `clang-22`.
    pub(super) fn newest_suffix(&self) -> Option<u32> {
        (crate::versions::OLDEST_LLVM..64)
            .rev()
            .find(|major| self.find(&format!("clang-{major}")).is_some())
    }
}

fn is_executable(path: &Path) -> bool {
    let executable = |metadata: std::fs::Metadata| {
        metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
    };
    fs_err::metadata(path).is_ok_and(executable)
}

fn leads_to_launcher(path: &Path, program: &str) -> bool {
    !is_launcher(program) && leads_to(path, is_launcher)
}

/// Whether the file behind all links has a name for which `wanted` holds.
fn leads_to(path: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    let real = fs_err::canonicalize(path).ok();
    let name = real.as_deref().and_then(Path::file_name);
    name.and_then(OsStr::to_str).is_some_and(wanted)
}
