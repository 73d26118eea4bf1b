//! Raw figures of one row, in a file of the development cache.
//!
//! The first line is `# <commit> <date of the commit>`; each other line is `<series> TAB <plain> TAB
//! <klto>`, in seconds, added when the pair is complete. A row that was not finished at another
//! commit begins anew, so that no row mixes two versions.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::Row;
use crate::product;

/// The plain tool's seconds and klto's, measured one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub series: String,
    pub plain: f64,
    pub klto: f64,
}

/// All pairs of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    pub path: PathBuf,
    /// The commit that was measured, and its date.
    pub commit: String,
    pub pairs: Vec<Pair>,
}

impl Figures {
    /// The figures that are there already, to go on from; `again` begins anew.
    pub fn open(directory: &Path, row: Row, again: bool) -> Result<Self> {
        let commit = product::commit()?;
        let known = Self::read(directory, row)?;
        let complete = known.is_complete(row);
        if !again && (complete || known.commit == commit) && !known.commit.is_empty() {
            return Ok(known);
        }
        fs::write(&known.path, format!("# {commit}\n"))?;
        Ok(Self {
            path: known.path,
            commit,
            pairs: Vec::new(),
        })
    }

    /// What the file has; nothing where there is none.
    pub fn read(directory: &Path, row: Row) -> Result<Self> {
        let path = directory.join(format!("{}.tsv", row.name()));
        let text = match path.exists() {
            true => fs::read_to_string(&path)?,
            false => String::new(),
        };
        let (commit, pairs) = parse(&text);
        Ok(Self {
            path,
            commit,
            pairs,
        })
    }

    /// Adds a pair to the file.
    pub fn add(&mut self, pair: Pair) -> Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(&self.path)?;
        let Pair {
            series,
            plain,
            klto,
        } = &pair;
        writeln!(file, "{series}\t{plain:.6}\t{klto:.6}")?;
        self.pairs.push(pair);
        Ok(())
    }

    /// Pairs of one series.
    pub fn count(&self, series: &str) -> usize {
        self.of(series).count()
    }

    /// The pairs of one series, in the order of their measurement.
    pub fn of(&self, series: &str) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.series == series)
    }

    /// Names of the series, in the order in which they came.
    pub fn series(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for pair in &self.pairs {
            if !names.contains(&pair.series.as_str()) {
                names.push(&pair.series);
            }
        }
        names
    }

    fn is_complete(&self, row: Row) -> bool {
        let wanted = match row {
            Row::Shim => super::shim::SERIES.to_vec(),
            other => vec![other.name()],
        };
        wanted
            .iter()
            .all(|series| self.count(series) >= row.pairs())
    }
}

fn parse(text: &str) -> (String, Vec<Pair>) {
    let mut commit = String::new();
    let mut pairs = Vec::new();
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("# ") {
            commit = words.to_owned();
        } else {
            pairs.extend(parse_pair(line));
        }
    }
    (commit, pairs)
}

/// `None` for a line that was cut off in the middle.
fn parse_pair(line: &str) -> Option<Pair> {
    let mut fields = line.split('\t');
    Some(Pair {
        series: fields.next()?.to_owned(),
        plain: fields.next()?.parse().ok()?,
        klto: fields.next()?.parse().ok()?,
    })
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
    fn a_row_is_read_as_it_was_written() {
        let text = "# abc 2026-01-01\ntouch\t10.500000\t2.250000\ntouch\t10.1\n";
        let (commit, pairs) = parse(text);
        assert_eq!(commit, "abc 2026-01-01");
        let pair = Pair {
            series: "touch".to_owned(),
            plain: 10.5,
            klto: 2.25,
        };
        assert_eq!(pairs, [pair]);
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
