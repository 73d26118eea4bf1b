//! Comes in: source text. Goes out: the bytes of objects, and what the oracles say of a file.
//!
//! Knows the names of the installed tools, no kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory to build in, removed in the end.
pub struct Workshop {
    directory: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `text` to `name` and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Compiles or assembles `text` by the language of `name`'s suffix into `name.o`.
    pub fn compile(&self, target: &str, flags: &[&str], name: &str, text: &str) -> PathBuf {
        let source = self.write(name, text);
        let object = self.path().join(format!("{name}.o"));
        let target = format!("--target={target}");
        let mut command = Command::new("clang-22");
        command.arg(target).args(flags).arg("-c").arg(source);
        run(command.arg("-o").arg(&object));
        object
    }

    /// Links `objects` to `name`.
    pub fn link(&self, flags: &[&str], objects: &[&Path], name: &str) -> PathBuf {
        let output = self.path().join(name);
        std::fs::create_dir_all(output.parent().unwrap()).unwrap();
        let mut command = Command::new("ld.lld-22");
        command.args(flags).args(objects).arg("-o").arg(&output);
        run(&mut command);
        output
    }
}

/// What `program` says of `file`.
pub fn ask(program: &str, flags: &[&str], file: &Path) -> String {
    run(Command::new(program).args(flags).arg(file))
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
