//! Path arithmetic without the file system, and publication of files by rename.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// `path` without `.` components and with `name/..` pairs removed, as text only: links are not
/// followed.
pub fn normalize(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match result.components().next_back() {
                Some(Component::Normal(_)) => {
                    result.pop();
                }
                Some(Component::RootDir) => {}
                _ => result.push(".."),
            },
            other => result.push(other),
        }
    }
    result
}

/// Two threads may publish the same path.
static PUBLICATIONS: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path` so that a reader sees the old file or the whole new one.
///
/// Directories above `path` are made.
pub fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    publish_with_mode(path, bytes, 0o666)
}

/// [`publish`] for what only the user may read.
pub fn publish_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    publish_with_mode(path, bytes, 0o600)
}

fn publish_with_mode(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let number = PUBLICATIONS.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut options = fs_err::OpenOptions::new();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs_err::rename(&temporary, path));
    if written.is_err() {
        let _ = fs_err::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalize_removes_what_text_can_remove() {
        let text = |path: &str| normalize(Path::new(path)).display().to_string();
        assert_eq!(text("./init/../init/main.o"), "init/main.o");
        assert_eq!(text("../x/./y"), "../x/y");
        assert_eq!(text("/../a//b"), "/a/b");
        assert_eq!(text("a/../../b"), "../b");
    }
}
