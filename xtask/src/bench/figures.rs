//! Raw figures of one table row, in a file of the development cache.
//!
//! The first line is `# <commit> <date of the commit>`; each other line is `<series> TAB <side> TAB
//! <seconds> TAB <KiB>`, added when it is measured. The commit is klto's: what it had not finished at
//! another commit is dropped, so that no row mixes two versions of it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::product;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// What was measured: the row, or the kind of call.
    pub series: String,
    /// Who ran.
    pub side: String,
    pub seconds: f64,
    /// Resident memory of the largest process; zero where it was not measured.
    pub kibibytes: u64,
}

/// All figures of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    pub path: PathBuf,
    /// The commit of the klto that was measured, and its date.
    pub commit: String,
    pub all: Vec<Figure>,
}

impl Figures {
    /// The figures that are there already, to go on from. Sides that are measured `again` begin anew.
    /// Those that are not plain are klto's, kept from another commit where it `is_complete`.
    pub fn open(
        path: PathBuf,
        again: impl Fn(&str) -> bool,
        is_plain: impl Fn(&str) -> bool,
        is_complete: impl Fn(&Self) -> bool,
    ) -> Result<Self> {
        let commit = product::commit()?;
        let mut figures = Self::read(path)?;
        let keeps_klto = figures.commit == commit || is_complete(&figures);
        figures.all.retain(|figure| {
            let side = &figure.side;
            !again(side) && (is_plain(side) || keeps_klto)
        });
        if figures.all.iter().all(|figure| is_plain(&figure.side)) {
            figures.commit = commit;
        }
        let lines: String = figures.all.iter().map(Figure::to_line).collect();
        fs::write(&figures.path, format!("# {}\n{lines}", figures.commit))?;
        Ok(figures)
    }

    /// What the file has; nothing where there is none.
    pub fn read(path: PathBuf) -> Result<Self> {
        let text = match path.exists() {
            true => fs::read_to_string(&path)?,
            false => String::new(),
        };
        Ok(Self::parse(path, &text))
    }

    fn parse(path: PathBuf, text: &str) -> Self {
        let commit = text.lines().find_map(|line| line.strip_prefix("# "));
        Self {
            commit: commit.unwrap_or_default().to_owned(),
            all: text.lines().filter_map(Figure::parse).collect(),
            path,
        }
    }

    /// Adds a figure to the file.
    pub fn add(&mut self, figure: Figure) -> Result<()> {
        append(&self.path, &figure.to_line())?;
        self.all.push(figure);
        Ok(())
    }

    /// The figures of one series and side, in the order of their measurement.
    pub fn of(&self, series: &str, side: &str) -> impl Iterator<Item = &Figure> {
        let belongs = move |figure: &&Figure| figure.series == series && figure.side == side;
        self.all.iter().filter(belongs)
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    Ok(file.write_all(line.as_bytes())?)
}

impl Figure {
    fn to_line(&self) -> String {
        let Self {
            series,
            side,
            seconds,
            kibibytes,
        } = self;
        format!("{series}\t{side}\t{seconds:.6}\t{kibibytes}\n")
    }

    /// `None` for a line that was cut off in the middle.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            series: fields.next()?.to_owned(),
            side: fields.next()?.to_owned(),
            seconds: fields.next()?.parse().ok()?,
            kibibytes: fields.next()?.parse().ok()?,
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

    #[test]
    fn figures_are_read_as_they_were_written() {
        let text = "# abc 2026-01-01\ntouch\tthin\t10.500000\t2048\ntouch\tklto\t10.1\n";
        let read = Figures::parse(PathBuf::new(), text);
        assert_eq!(read.commit, "abc 2026-01-01");
        let figure = Figure {
            series: "touch".to_owned(),
            side: "thin".to_owned(),
            seconds: 10.5,
            kibibytes: 2048,
        };
        assert_eq!(read.all, [figure]);
        assert_eq!(
            read.all[0].to_line(),
            text.lines().nth(1).unwrap().to_owned() + "\n"
        );
    }

    #[test]
    fn what_klto_did_not_finish_at_another_commit_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touch.tsv");
        let text = "# another\ntouch\tthin\t1.0\t0\ntouch\tklto\t2.0\t0\n";
        let open = |again: &str, complete| {
            fs::write(&path, text).unwrap();
            let is_plain = |side: &str| side != "klto";
            let again = |side: &str| side == again;
            let figures = Figures::open(path.clone(), again, is_plain, |_| complete).unwrap();
            let sides: Vec<String> = figures.all.into_iter().map(|figure| figure.side).collect();
            (sides.join(" "), figures.commit == "another")
        };
        assert_eq!(open("", true), ("thin klto".to_owned(), true));
        assert_eq!(open("", false), ("thin".to_owned(), false));
        assert_eq!(open("thin", true), ("klto".to_owned(), true));
        assert_eq!(open("klto", true), ("thin".to_owned(), false));
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
