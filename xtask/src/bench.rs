//! The measurements: klto against what a user has without it, on the same machine in the same run.
//!
//! In: names of rows and sides. Out: raw figures in `docs/figures`, and `docs/benchmarks.md` with a few of
//! them in the README, written from all figures that are there. A row that was interrupted goes on where it
//! stopped; a finished row is measured anew only with `--again`.

mod builds;
mod edits;
mod figures;
mod growth;
mod initcalls;
mod load;
mod machine;
mod not_reused;
mod readme;
mod report;
mod rows;
mod shim;
mod sizes;

use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;

use crate::cache::Cache;
use crate::{choice, packages, product};
use builds::Builds;
use figures::Figures;
use report::Measured;
use rows::{Row, Side};
use sizes::Size;

/// The number of jobs that every measured make gets.
const JOBS: &str = "-j2";

/// What a name on the command line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measurement {
    /// Single tool calls through the shim.
    Shim,
    /// Whole builds.
    Builds(Size, Row),
    /// The order of the large kernel's initcalls.
    Initcalls,
}

impl Measurement {
    /// All of them; the long ones come last.
    fn all() -> Vec<Self> {
        let of_size = |size| Row::ALL.map(|row| Self::Builds(size, row));
        let builds = Size::ALL.into_iter().flat_map(of_size);
        let all = std::iter::once(Self::Shim).chain(builds);
        all.chain([Self::Initcalls]).collect()
    }

    /// As `shim`, `large/touch`.
    fn name(self) -> String {
        match self {
            Self::Shim => "shim".to_owned(),
            Self::Builds(size, row) => format!("{}/{}", size.name(), row.name()),
            Self::Initcalls => "initcalls".to_owned(),
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Shim => "tool calls through the shim during a build",
            Self::Builds(_, row) => row.what(),
            Self::Initcalls => {
                "order of the large kernel's initcalls, by klto and by kbuild's script"
            }
        }
    }

    /// Where its raw figures are: in the repository, but for thousands of them.
    fn file(self, cache: &Cache) -> Result<PathBuf> {
        let directory = match self {
            Self::Shim => cache.benchmarks()?,
            _ => product::repository().join("docs/figures"),
        };
        fs::create_dir_all(&directory)?;
        Ok(directory.join(format!("{}.tsv", self.name().replace('/', "-"))))
    }
}

/// Measures the rows that `words` name, or those of a size; all without words. `--side=NAME`, which can be
/// repeated, measures that side alone. Writes the document.
pub fn run(words: &[&str]) -> Result<()> {
    let again = choice::has(words, "--again", &["--again", "--list", "--side="])?;
    let (chosen, sides) = (chosen(words)?, sides(words)?);
    if words.contains(&"--list") {
        for measurement in chosen {
            println!("{:<22} {}", measurement.name(), measurement.what());
        }
        return Ok(());
    }
    packages::install_missing()?;
    let cache = Cache::open()?;
    let klto = product::build_klto()?;
    for measurement in chosen {
        let file = measurement.file(&cache)?;
        match measurement {
            Measurement::Shim => {
                let complete = |figures: &Figures, _: &str| shim::is_complete(figures);
                let mut figures = Figures::open(file, |_| again, |_| false, complete)?;
                shim::measure(&cache, &klto, &mut figures)?;
            }
            Measurement::Builds(size, row) => {
                let is_plain = |side: &str| !Side::named(side).is_some_and(Side::is_klto);
                let is_complete =
                    |figures: &Figures, side: &str| builds::is_complete(row, figures, side);
                let again = |name: &str| again && sides.iter().any(|side| side.name() == name);
                let mut figures = Figures::open(file, again, is_plain, is_complete)?;
                Builds::open(&cache, &klto, size)?.measure(row, &sides, &mut figures)?;
            }
            Measurement::Initcalls => {
                let is_plain = |side: &str| side != initcalls::KLTO;
                let complete = |figures: &Figures, _: &str| initcalls::is_complete(figures);
                let mut figures = Figures::open(file, |_| again, is_plain, complete)?;
                let builds = Builds::open(&cache, &klto, Size::Large)?;
                initcalls::measure(&builds, &klto, &mut figures)?;
            }
        }
        write_document(&cache)?;
    }
    Ok(())
}

fn chosen(words: &[&str]) -> Result<Vec<Measurement>> {
    let hint = "cargo xtask bench --list names them";
    let is_of_size = |name: &str, word: &str| name.split('/').next() == Some(word);
    choice::named(
        Measurement::all(),
        words,
        |one| one.name(),
        is_of_size,
        hint,
    )
}

fn sides(words: &[&str]) -> Result<Vec<Side>> {
    let names: Vec<&str> = words
        .iter()
        .filter_map(|word| word.strip_prefix("--side="))
        .collect();
    let hint = format!("the sides are {}", Side::ALL.map(Side::name).join(", "));
    let name = |side: &Side| side.name().to_owned();
    choice::named(Side::ALL.to_vec(), &names, name, |_, _| false, &hint)
}

fn write_document(cache: &Cache) -> Result<()> {
    let mut measured = Vec::new();
    for size in Size::ALL {
        let mut rows = Vec::new();
        for row in Row::ALL {
            let file = Measurement::Builds(size, row).file(cache)?;
            rows.push((row, Figures::read(file)?));
        }
        measured.push(Measured { size, rows });
    }
    let shim = Figures::read(Measurement::Shim.file(cache)?)?;
    let docs = product::repository().join("docs");
    let path = docs.join("benchmarks.md");
    let before = fs::read_to_string(&path)?;
    let initcalls = Figures::read(Measurement::Initcalls.file(cache)?)?;
    let tools = machine::tools()?;
    let not_reused = not_reused::section()?;
    let text = report::document(
        &tools,
        (&measured, &initcalls),
        &shim,
        (&not_reused, &before),
    );
    fs::write(&path, text)?;
    growth::draw(&measured, &docs.join(growth::PLOT))?;
    let readme = product::repository().join("README.md");
    let text = readme::with_figures(&fs::read_to_string(&readme)?, &measured)?;
    fs::write(readme, text)?;
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name_and_by_size() {
        for measurement in Measurement::all() {
            assert_eq!(chosen(&[&measurement.name()]).unwrap(), [measurement]);
        }
        assert_eq!(chosen(&["large", "--again"]).unwrap().len(), Row::ALL.len());
        assert_eq!(chosen(&[]).unwrap(), Measurement::all());
        assert!(chosen(&["clean"]).is_err());
    }

    #[test]
    fn sides_are_chosen_by_name() {
        assert_eq!(sides(&["large"]).unwrap(), Side::ALL);
        let words = ["--side=klto", "large/edit", "--side=thin"];
        assert_eq!(sides(&words).unwrap(), [Side::Thin, Side::Klto]);
        assert!(sides(&["--side=make"]).is_err());
    }
}
