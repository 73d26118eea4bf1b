//! Raw figures of one table row, in a file of the repository or, where there are thousands, of the
//! development cache.
//!
//! Each line is a figure, added when it is measured: series, side, seconds, KiB, objects, bytes of bitcode,
//! klto's commit with its date, and the machine, with tabs between them. What klto had not finished at
//! another commit is dropped, so that no row of a side mixes two versions of klto.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;

use super::machine;
use crate::product;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// What was measured: the row, or the kind of call.
    pub series: String,
    /// Who ran.
    pub side: String,
    pub value: Value,
    /// The commit of this repository, and its date.
    pub commit: String,
    /// As [`machine::name`] says it.
    pub machine: String,
}

/// What was measured in it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Value {
    pub seconds: f64,
    /// Resident memory of the largest process; zero where it was not measured.
    pub kibibytes: u64,
    /// Objects of the kernel and its modules; zero where no kernel was built.
    pub objects: usize,
    /// Bytes of bitcode in vmlinux; zero where nothing was made of bitcode, or it was not looked for.
    pub bitcode: u64,
}

impl Value {
    /// The memory in units of 10⁹ bytes.
    pub const fn gigabytes(self) -> f64 {
        (self.kibibytes * 1024) as f64 / 1e9
    }
}

/// All figures of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    path: PathBuf,
    pub all: Vec<Figure>,
    /// Commit and machine of what is added.
    here: (String, String),
}

impl Figures {
    /// The figures that are there already, to go on from. Sides that are measured `again` begin anew.
    /// Those that are not plain are klto's, kept from another commit where it `is_complete`. The file keeps the
    /// others until one is added.
    pub fn open(
        path: PathBuf,
        again: impl Fn(&str) -> bool,
        is_plain: impl Fn(&str) -> bool,
        is_complete: impl Fn(&Self, &str) -> bool,
    ) -> Result<Self> {
        let mut figures = Self::read(path)?;
        figures.here = (product::commit()?, machine::name()?);
        let sides: BTreeSet<String> = figures.all.iter().map(|one| one.side.clone()).collect();
        let complete: BTreeSet<String> = sides
            .into_iter()
            .filter(|side| is_plain(side) || is_complete(&figures, side))
            .collect();
        let Self { all, here, .. } = &mut figures;
        all.retain(|figure| {
            let keeps = complete.contains(&figure.side) || figure.commit == here.0;
            !again(&figure.side) && keeps
        });
        Ok(figures)
    }

    /// What the file has; nothing where there is none.
    pub fn read(path: PathBuf) -> Result<Self> {
        let text = match path.exists() {
            true => fs::read_to_string(&path)?,
            false => String::new(),
        };
        let read = Self::parse(&text);
        Ok(Self { path, ..read })
    }

    /// What such a file's text has.
    pub fn parse(text: &str) -> Self {
        Self {
            all: text.lines().filter_map(Figure::parse).collect(),
            ..Self::default()
        }
    }

    /// Adds a figure to the file, as measured by this commit on this machine.
    pub fn add(&mut self, series: &str, side: &str, value: Value) -> Result<()> {
        let (commit, machine) = self.here.clone();
        let figure = Figure {
            series: series.to_owned(),
            side: side.to_owned(),
            value,
            commit,
            machine,
        };
        self.all.push(figure);
        let lines: String = self.all.iter().map(Figure::to_line).collect();
        Ok(fs::write(&self.path, lines)?)
    }

    /// The figures of one series and side, in the order of their measurement.
    pub fn of(&self, series: &str, side: &str) -> impl Iterator<Item = &Figure> {
        let belongs = move |figure: &&Figure| figure.series == series && figure.side == side;
        self.all.iter().filter(belongs)
    }
}

impl Figure {
    fn to_line(&self) -> String {
        let Self {
            series,
            side,
            value,
            commit,
            machine,
        } = self;
        let Value {
            seconds,
            kibibytes,
            objects,
            bitcode,
        } = value;
        format!(
            "{series}\t{side}\t{seconds:.6}\t{kibibytes}\t{objects}\t{bitcode}\t{commit}\t{machine}\n"
        )
    }

    /// `None` for a line that was cut off in the middle.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            series: fields.next()?.to_owned(),
            side: fields.next()?.to_owned(),
            value: Value {
                seconds: fields.next()?.parse().ok()?,
                kibibytes: fields.next()?.parse().ok()?,
                objects: fields.next()?.parse().ok()?,
                bitcode: fields.next()?.parse().ok()?,
            },
            commit: fields.next()?.to_owned(),
            machine: fields.next()?.to_owned(),
        })
    }
}

/// The value below which `part` of all values lie, by nearest rank; zero without values.
pub(super) fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIN: &str = "touch\tthin\t10.500000\t2048\t500\t7\tabc 2026-01-01\t2 × x\n";
    const KLTO: &str = "touch\tklto\t2.000000\t1024\t500\t7\tabc 2026-01-01\t2 × x\n";

    #[test]
    fn figures_are_read_as_they_were_written() {
        let figure = Figure::parse(THIN.trim()).unwrap();
        let value = Value {
            seconds: 10.5,
            kibibytes: 2048,
            objects: 500,
            bitcode: 7,
        };
        assert_eq!((figure.side.as_str(), figure.value), ("thin", value));
        assert_eq!(figure.to_line(), THIN);
        assert_eq!(Figure::parse("touch\tklto\t10.1"), None);
    }

    #[test]
    fn what_klto_did_not_finish_at_another_commit_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touch.tsv");
        let open = |again: &str, complete| {
            fs::write(&path, THIN.to_owned() + KLTO).unwrap();
            let is_plain = |side: &str| side != "klto";
            let again = |side: &str| side == again;
            let figures = Figures::open(path.clone(), again, is_plain, |_, _| complete).unwrap();
            let sides: Vec<String> = figures.all.into_iter().map(|figure| figure.side).collect();
            sides.join(" ")
        };
        assert_eq!(open("", true), "thin klto");
        assert_eq!(open("", false), "thin");
        assert_eq!(open("thin", true), "klto");
        assert_eq!(open("klto", true), "thin");
        assert_eq!(fs::read_to_string(&path).unwrap(), THIN.to_owned() + KLTO);
    }

    #[test]
    fn a_figure_has_the_commit_and_the_machine_that_measured_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touch.tsv");
        let open = || Figures::open(path.clone(), |_| false, |_| false, |_, _| true).unwrap();
        open().add("touch", "klto", Value::default()).unwrap();
        let figure = open().all.remove(0);
        assert_eq!(figure.commit, product::commit().unwrap());
        assert_eq!(figure.machine, machine::name().unwrap());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = || (1..=100).map(f64::from);
        assert_eq!(quantile(values(), 0.5), 50.0);
        assert_eq!(quantile(values(), 0.99), 99.0);
        assert_eq!(quantile([3.0, 1.0, 2.0].into_iter(), 0.5), 2.0);
        assert_eq!(quantile([].into_iter(), 0.5), 0.0);
    }
}
