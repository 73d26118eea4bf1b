//! The measurements: klto against what a user has without it, on the same machine in the same run.
//!
//! In: names of rows. Out: raw figures in the development cache, and `docs/benchmarks.md`, written
//! from all figures that are there. A row that was interrupted goes on where it stopped; a finished
//! row is measured anew only with `--again`.
//!
//! Every figure is a pair: the plain tool and klto one after the other, and the next pair in the
//! other order, so that a machine that becomes slower or faster favours neither.

mod builds;
mod figures;
mod load;
mod report;
mod shim;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::{packages, product};
use builds::Builds;
use figures::Figures;

/// The number of jobs that every measured make gets.
const JOBS: &str = "-j2";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Single tool calls through the shim.
    Shim,
    /// A clean build, nothing stored.
    CleanEmpty,
    /// A build after touching one file.
    Touch,
    /// A build after a change of one function.
    Edit,
    /// A clean build, all results stored.
    CleanFull,
}

impl Row {
    /// All rows; an earlier one leaves the builds that a later one starts from.
    const ALL: [Self; 5] = [
        Self::Shim,
        Self::CleanEmpty,
        Self::Touch,
        Self::Edit,
        Self::CleanFull,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::CleanEmpty => "clean-empty",
            Self::Touch => "touch",
            Self::Edit => "edit",
            Self::CleanFull => "clean-full",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Shim => "tool calls through the shim during a build",
            Self::CleanEmpty => "clean build, empty store",
            Self::Touch => "after touching init/main.c",
            Self::Edit => "after a change of a function in init/main.c",
            Self::CleanFull => "clean build, full store",
        }
    }

    /// The most that klto's time may be, as a part of the plain one.
    const fn target(self) -> Option<f64> {
        match self {
            Self::CleanEmpty => Some(1.0),
            Self::Touch => Some(0.3),
            Self::CleanFull => Some(0.92),
            Self::Shim | Self::Edit => None,
        }
    }

    /// Pairs of a series.
    const fn pairs(self) -> usize {
        match self {
            Self::Shim => 1000,
            Self::CleanEmpty | Self::CleanFull => 1,
            Self::Touch => 5,
            Self::Edit => 3,
        }
    }

    fn named(name: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|row| row.name() == name);
        let unknown = || Failure::bad_input(format!("no row {name}")).hint(names.join(" "));
        Ok(found.ok_or_else(unknown)?)
    }
}

/// Measures the rows of these names, or all, and writes the document.
pub fn run(words: &[&str]) -> Result<()> {
    if words == ["--list"] {
        for row in Row::ALL {
            println!("{:<12} {}", row.name(), row.what());
        }
        return Ok(());
    }
    let again = words.contains(&"--again");
    let named = words.iter().filter(|word| **word != "--again");
    let mut rows = named
        .map(|name| Row::named(name))
        .collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        rows.extend(Row::ALL);
    }
    packages::install_missing()?;
    let cache = Cache::open()?;
    let klto = product::build_klto()?;
    for row in rows {
        let mut figures = Figures::open(&cache.benchmarks()?, row, again)?;
        match row {
            Row::Shim => shim::measure(&cache, &klto, &mut figures)?,
            other => Builds::open(&cache, &klto)?.measure(other, &mut figures)?,
        }
        print!("{}", report::shown(row, &figures));
    }
    write_document(&cache)
}

fn write_document(cache: &Cache) -> Result<()> {
    let mut measured = Vec::new();
    for row in Row::ALL {
        measured.push((row, Figures::read(&cache.benchmarks()?, row)?));
    }
    let path = product::repository().join("docs/benchmarks.md");
    fs::write(&path, report::document(&report::machine()?, &measured))?;
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        for row in Row::ALL {
            assert_eq!(Row::named(row.name()).unwrap(), row);
        }
        assert!(Row::named("clean").is_err());
    }
}
