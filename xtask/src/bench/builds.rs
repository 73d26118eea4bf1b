//! Whole builds of the 6.12 tree: kbuild's own ThinLTO by plain make against klto.
//!
//! In: a row. Out: pairs of seconds. Both sides have the same private copy of the tree, the same
//! configuration, the same number of jobs and an output directory of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;

use super::figures::{Figures, Pair};
use super::{JOBS, Row};
use crate::cache::Cache;
use crate::kernel::{self, Configuration, Lto, Tree};
use crate::{command, sources};

const CONFIGURATION: Configuration = Configuration {
    lto: Lto::Thin,
    modules: true,
    trim: false,
};

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Plain,
    Klto,
}

/// The two output directories and what they are built from.
pub(super) struct Builds {
    tree: &'static Tree,
    source: PathBuf,
    root: PathBuf,
    klto: PathBuf,
}

impl Builds {
    /// Finds or makes the private copy of the tree.
    pub fn open(cache: &Cache, klto: &Path) -> Result<Self> {
        let tree = Tree::named("6.12")?;
        let shared = sources::fetch(cache, tree)?;
        let root = cache.benchmarks()?;
        let source = root.join(tree.source);
        if !source.is_dir() {
            copy_tree(&shared, &source)?;
        }
        Ok(Self {
            tree,
            source,
            root,
            klto: klto.to_owned(),
        })
    }

    /// Adds the pairs that the row lacks.
    pub fn measure(&self, row: Row, figures: &mut Figures) -> Result<()> {
        while figures.count(row.name()) < row.pairs() {
            let round = figures.count(row.name());
            // The other order each time.
            let order = match round % 2 {
                0 => [Side::Plain, Side::Klto],
                _ => [Side::Klto, Side::Plain],
            };
            self.prepare(row)?;
            let mut pair = Pair {
                series: row.name().to_owned(),
                plain: 0.0,
                klto: 0.0,
            };
            for side in order {
                let seconds = self.time(row, side)?;
                println!("{} {side:?}: {seconds:.1} s", row.name());
                match side {
                    Side::Plain => pair.plain = seconds,
                    Side::Klto => pair.klto = seconds,
                }
            }
            figures.add(pair)?;
        }
        Ok(())
    }

    /// What both sides need before the clock starts.
    fn prepare(&self, row: Row) -> Result<()> {
        if row == Row::CleanEmpty {
            remove(&self.store())?;
        }
        for side in [Side::Plain, Side::Klto] {
            if row == Row::CleanEmpty {
                remove(&self.output(side))?;
            }
            kernel::configure(self.tree, &self.source, &self.output(side), CONFIGURATION)?;
            if row != Row::CleanEmpty {
                command::run(&mut self.build(side))?;
            }
        }
        Ok(())
    }

    fn time(&self, row: Row, side: Side) -> Result<f64> {
        match row {
            Row::Touch => self.change_main(|text| text)?,
            // A text that no build has seen before.
            Row::Edit => self.change_main(|text| edited(&text))?,
            Row::CleanFull => {
                let mut clean = kernel::make(self.tree, &self.source, &self.output(side));
                command::run(clean.args(["--silent", "clean"]))?;
            }
            Row::CleanEmpty | Row::Shim => {}
        }
        let begin = Instant::now();
        command::run(&mut self.build(side))?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Writes `init/main.c` anew. The file's own inode belongs to the copy, see [`copy_tree`].
    fn change_main(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.source.join("init/main.c");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, change(text))?;
        Ok(())
    }

    fn build(&self, side: Side) -> Command {
        let output = self.output(side);
        let mut build = match side {
            Side::Plain => Command::new("make"),
            Side::Klto => {
                let mut klto = Command::new(&self.klto);
                klto.arg("make").env("KLTO_CACHE", self.store());
                klto
            }
        };
        build
            .args(kernel::make_arguments(self.tree, &self.source, &output))
            .args([JOBS, "--silent"])
            .args(self.tree.goals(CONFIGURATION))
            .envs(kernel::REPRODUCIBLE)
            // Cargo sets it for the programs that it runs; every tool would look there first.
            .env_remove("LD_LIBRARY_PATH");
        build
    }

    fn output(&self, side: Side) -> PathBuf {
        self.root.join(match side {
            Side::Plain => "plain-6.12",
            Side::Klto => "klto-6.12",
        })
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}

/// A copy by hard links, but for the file that is changed: that one gets an inode of its own, and
/// the shared tree stays as it is.
fn copy_tree(shared: &Path, source: &Path) -> Result<()> {
    let partial = source.with_extension("partial");
    remove(&partial)?;
    let mut copy = Command::new("cp");
    command::run(copy.args(["--archive", "--link"]).arg(shared).arg(&partial))?;
    let main = partial.join("init/main.c");
    let text = fs::read(&main)?;
    fs::remove_file(&main)?;
    fs::write(&main, text)?;
    fs::rename(&partial, source)?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

const MARK: &str = "\n/* klto's measurement */ ";

/// The text with a function at its end whose number is one more than before.
fn edited(text: &str) -> String {
    let (original, last) = text.split_once(MARK).unwrap_or((text, ""));
    let digits = last
        .rsplit("n * ")
        .next()
        .and_then(|end| end.split(';').next());
    let number = digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .unwrap_or(0)
        + 1;
    let function = format!("int klto_measured(int n) {{ return n * {number}; }}");
    format!("{original}{MARK}int klto_measured(int n);\n{function}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_replaces_the_one_before() {
        let first = edited("int main;\n");
        let second = edited(&first);
        assert!(first.contains("n * 1;") && second.contains("n * 2;"));
        assert_eq!(second.matches("klto's measurement").count(), 1);
        assert!(second.starts_with("int main;\n"));
    }

    #[test]
    fn the_copy_shares_no_inode_of_the_changed_file() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("shared");
        fs::create_dir_all(shared.join("init")).unwrap();
        fs::write(shared.join("init/main.c"), "int a;").unwrap();
        fs::write(shared.join("Makefile"), "all:").unwrap();
        let copy = root.path().join("copy");
        copy_tree(&shared, &copy).unwrap();
        fs::write(copy.join("init/main.c"), "int b;").unwrap();
        assert_eq!(fs::read(shared.join("init/main.c")).unwrap(), b"int a;");
        assert_eq!(fs::read(copy.join("Makefile")).unwrap(), b"all:");
    }
}
