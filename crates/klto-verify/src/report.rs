//! Comes in: what was compared and how it differs. Goes out: a table for people, and one answer.
//!
//! Does not compare.

use std::fmt;

use crate::differences::Differences;

/// One thing that was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was compared.
    pub what: String,
    /// Whether both sides are equal.
    pub equal: bool,
    /// How many items the reference has: 0 says that nothing was compared.
    pub count: usize,
    /// How many differences there are in all.
    pub difference_count: usize,
    /// The first 20 differences.
    pub differences: Vec<String>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, count: usize, differences: Differences) -> Self {
        Self {
            what: what.into(),
            equal: differences.total == 0,
            count,
            difference_count: differences.total,
            differences: differences.first,
        }
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All that was compared, in a fixed order.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether something was compared and no row differs.
    pub fn equal(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.equal)
    }

    /// The row that compares `what`.
    pub fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.what.len()).max();
        let width = width.unwrap_or(0).max("compared".len());
        writeln!(f, "{:width$}  {:>9}  result", "compared", "count")?;
        for row in &self.rows {
            write!(f, "{:width$}  {:>9}  ", row.what, row.count)?;
            match row.difference_count {
                0 => writeln!(f, "equal")?,
                1 => writeln!(f, "1 difference")?,
                count => writeln!(f, "{count} differences")?,
            }
            for difference in &row.differences {
                writeln!(f, "  {difference}")?;
            }
            let hidden = row.difference_count.saturating_sub(row.differences.len());
            if hidden > 0 {
                writeln!(f, "  and {hidden} more")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_each_row_and_its_differences() {
        let mut differences = Differences::default();
        for number in 0..21 {
            differences.push(format!("d{number}"));
        }
        let report = Report {
            rows: vec![
                Row::new("initcalls", 512, Differences::default()),
                Row::new("Module.symvers", 9, differences),
            ],
        };
        assert!(!report.equal());
        let text = report.to_string();
        let start = "compared            count  result\n\
                     initcalls             512  equal\n\
                     Module.symvers          9  21 differences\n  d0\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("  d19\n  and 1 more\n"), "{text}");
    }

    #[test]
    fn a_report_of_nothing_proves_nothing() {
        assert!(!Report { rows: Vec::new() }.equal());
    }
}
