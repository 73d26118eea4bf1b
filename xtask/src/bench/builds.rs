//! Whole builds of one kernel, by each of those who build it.
//!
//! In: a row. Out: seconds, and the memory of the largest process. Each side has a copy of the tree, an
//! output directory and a store of its own, so that what one has to build again another has not. A
//! round is one build on each side, and every round begins with another side, so that a machine that
//! becomes slower or faster favours none.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use fs_err as fs;

use super::JOBS;
use super::edits::Edit;
use super::figures::{Figure, Figures, Value};
use super::not_reused;
use super::rows::{self, OPTION, Preparation, Row, Side};
use super::sizes::Size;
use crate::cache::Cache;
use crate::kernel::{self, Configuration, Tree};
use crate::{command, modules, sources};

/// What takes longer is measured once, the rest this often.
const LONG_SECONDS: f64 = 60.0;
const ROUNDS: usize = 5;

/// The builds of one size.
pub(super) struct Builds {
    size: Size,
    tree: Tree,
    shared_source: PathBuf,
    root: PathBuf,
    klto: PathBuf,
}

impl Builds {
    /// Fetches the source; nothing is built yet.
    pub fn open(cache: &Cache, klto: &Path, size: Size) -> Result<Self> {
        let tree = size.tree();
        let root = cache.benchmarks()?.join(size.name());
        fs::create_dir_all(&root)?;
        Ok(Self {
            size,
            shared_source: sources::fetch(cache, &tree)?,
            tree,
            root,
            klto: klto.to_owned(),
        })
    }

    /// Adds the figures that the row lacks of those sides.
    pub fn measure(&self, row: Row, chosen: &[Side], figures: &mut Figures) -> Result<()> {
        let sides = row.sides(self.size).iter().copied();
        let sides: Vec<Side> = sides.filter(|side| chosen.contains(side)).collect();
        for round in 0..ROUNDS {
            for place in 0..sides.len() {
                let side = sides[(place + round) % sides.len()];
                let measured = figures.of(row.name(), side.name()).collect::<Vec<_>>();
                if measured.len() > round || is_enough(row, &measured) {
                    continue;
                }
                let value = self.run(row, side)?;
                println!(
                    "{}/{} {}: {:.1} s",
                    self.size.name(),
                    row.name(),
                    side.name(),
                    value.seconds
                );
                figures.add(row.name(), side.name(), value)?;
            }
        }
        Ok(())
    }

    /// One build of the row `edit`, which no figure is taken of.
    pub fn edit(&self, side: Side) -> Result<()> {
        self.run(Row::Edit, side).map(|_| ())
    }

    fn run(&self, row: Row, side: Side) -> Result<Value> {
        let mut output = self.output(side);
        match row.preparation(self.size) {
            Preparation::Nothing => {
                remove(&output)?;
                remove(&self.store(side))?;
                self.configure(side, &output)?;
            }
            Preparation::Built => self.settle(side)?,
            Preparation::Edited(edit) => {
                self.settle(side)?;
                // Whoever builds other goals after each edit has built them before.
                command::run(self.build(side, &output)?.args(row.goals()))?;
                edit.apply(&self.source(side)?)?;
            }
            Preparation::Configured => {
                self.settle(side)?;
                let file = output.join(".config");
                let text = fs::read_to_string(&file)?;
                fs::write(
                    &file,
                    text.replace(&format!("{OPTION}=y"), &format!("{OPTION}=m")),
                )?;
            }
            Preparation::StoreOnly => {
                self.settle(side)?;
                output = self.new_output(side)?;
                self.configure(side, &output)?;
            }
        }
        let value = self.time(row, side, &output)?;
        if (row, side) == (Row::CleanFull, Side::Klto) {
            not_reused::count(self.size, &output)?;
        }
        Ok(value)
    }

    /// An output directory at a path where none has been: results that show their directory are in no store.
    fn new_output(&self, side: Side) -> Result<PathBuf> {
        const OTHER: &str = "other-";
        let root = self.root.join(side.name());
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(OTHER) {
                remove(&entry.path())?;
            }
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(root.join(format!("{OTHER}{}", now.as_secs())))
    }

    /// Brings the first output of a side up to date: with the configuration of the fragments, and all
    /// goals.
    fn settle(&self, side: Side) -> Result<()> {
        let output = self.output(side);
        let file = output.join(".config");
        let built_in = format!("{OPTION}=y");
        match file.exists() {
            true => {
                let text = fs::read_to_string(&file)?;
                let module = format!("{OPTION}=m");
                if text.contains(&module) {
                    fs::write(&file, text.replace(&module, &built_in))?;
                }
            }
            false => self.configure(side, &output)?,
        }
        command::run(self.build(side, &output)?.args(Row::CleanEmpty.goals()))
    }

    fn configure(&self, side: Side, output: &Path) -> Result<()> {
        let configuration = Configuration {
            lto: self.size.lto(side),
            ..Configuration::default()
        };
        kernel::configure(&self.tree, &self.source(side)?, output, configuration)
    }

    fn time(&self, row: Row, side: Side, output: &Path) -> Result<Value> {
        let memory = tempfile::NamedTempFile::new()?;
        let build = self.build(side, output)?;
        let mut timed = Command::new("time");
        timed
            .args(["--format", "%M", "--output"])
            .arg(memory.path())
            .arg(build.get_program())
            .args(build.get_args())
            .args(row.goals());
        for (name, value) in build.get_envs() {
            match value {
                Some(value) => timed.env(name, value),
                None => timed.env_remove(name),
            };
        }
        let begin = Instant::now();
        command::run(&mut timed)?;
        let seconds = begin.elapsed().as_secs_f64();
        let kibibytes = fs::read_to_string(memory.path())?;
        Ok(Value {
            seconds,
            kibibytes: kibibytes
                .trim()
                .parse()
                .with_context(|| format!("what time said: {kibibytes}"))?,
            objects: modules::linked_objects(output)?,
            bitcode: modules::bitcode_of_vmlinux(output)?,
        })
    }

    /// The build of a side without goals.
    fn build(&self, side: Side, output: &Path) -> Result<Command> {
        let mut build = match side {
            Side::Klto | Side::KltoFull => {
                let mut klto = Command::new(&self.klto);
                klto.arg("make").env("KLTO_CACHE", self.store(side));
                klto
            }
            _ => Command::new("make"),
        };
        build
            .args(kernel::make_arguments(
                &self.tree,
                &self.source(side)?,
                output,
            ))
            .args([JOBS, "--silent"])
            .envs(kernel::REPRODUCIBLE)
            // Cargo sets it for the programs that it runs; every tool would look there first.
            .env_remove("LD_LIBRARY_PATH");
        if side == Side::Ccache {
            build
                .arg("CC=ccache clang-22")
                .env("CCACHE_DIR", self.store(side))
                .env("CCACHE_MAXSIZE", "10G");
        }
        Ok(build)
    }

    /// The side's copy of the tree, made on first use: by hard links, but for the files that rows edit.
    /// Those get inodes of their own, and the shared tree stays as it is.
    pub fn source(&self, side: Side) -> Result<PathBuf> {
        let source = self.root.join(side.name()).join("linux");
        if source.is_dir() {
            return Ok(source);
        }
        fs::create_dir_all(self.root.join(side.name()))?;
        let edits = rows::edits(self.size);
        copy_tree(&self.shared_source, &source, edits)?;
        Ok(source)
    }

    pub fn output(&self, side: Side) -> PathBuf {
        // As long as the name of the second one: ccache sees the path to the source.
        self.root.join(side.name()).join("one")
    }

    fn store(&self, side: Side) -> PathBuf {
        self.root.join(side.name()).join("store")
    }
}

/// Whether the side of that name has the figures that the row needs.
pub(super) fn is_complete(row: Row, figures: &Figures, side: &str) -> bool {
    is_enough(row, &figures.of(row.name(), side).collect::<Vec<_>>())
}

/// Whether no more rounds are needed.
fn is_enough(row: Row, measured: &[&Figure]) -> bool {
    let is_long = |figure: &&Figure| row.is_once() || figure.value.seconds >= LONG_SECONDS;
    measured.first().is_some_and(is_long) || measured.len() >= ROUNDS
}

fn copy_tree(shared: &Path, source: &Path, edits: impl Iterator<Item = Edit>) -> Result<()> {
    let partial = source.with_extension("partial");
    remove(&partial)?;
    let mut copy = Command::new("cp");
    command::run(copy.args(["--archive", "--link"]).arg(shared).arg(&partial))?;
    for edit in edits {
        let file = partial.join(edit.file);
        let text = fs::read(&file)?;
        fs::remove_file(&file)?;
        fs::write(&file, text)?;
    }
    fs::rename(&partial, source)?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::edits::Kind;

    fn figure(seconds: f64) -> Figure {
        Figure {
            series: "touch".to_owned(),
            side: "thin".to_owned(),
            value: Value {
                seconds,
                ..Value::default()
            },
            commit: String::new(),
            machine: String::new(),
        }
    }

    #[test]
    fn long_rows_are_measured_once() {
        assert!(!is_enough(Row::Touch, &[]));
        assert!(!is_enough(Row::Touch, &[&figure(59.0); 4]));
        assert!(is_enough(Row::Touch, &[&figure(59.0); 5]));
        assert!(is_enough(Row::Touch, &[&figure(60.0)]));
        assert!(is_enough(Row::CleanFull, &[&figure(1.0)]));
    }

    #[test]
    fn the_copy_shares_no_inode_of_an_edited_file() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("shared");
        fs::create_dir_all(shared.join("init")).unwrap();
        fs::write(shared.join("init/main.c"), "int a;").unwrap();
        fs::write(shared.join("Makefile"), "all:").unwrap();
        let copy = root.path().join("copy");
        let edit = Edit {
            file: "init/main.c",
            at: "int a;",
            kind: Kind::CommentLine,
        };
        copy_tree(&shared, &copy, std::iter::once(edit)).unwrap();
        fs::write(copy.join("init/main.c"), "int b;").unwrap();
        assert_eq!(fs::read(shared.join("init/main.c")).unwrap(), b"int a;");
        assert_eq!(fs::read(copy.join("Makefile")).unwrap(), b"all:");
    }
}
