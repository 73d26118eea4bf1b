//! Figures as text: for the terminal, and as `docs/benchmarks.md`.
//!
//! In: the figures of every row. Out: medians, ranges, ratios and targets. Nothing here measures.

use std::process::Command;

use anyhow::Result;
use fs_err as fs;

use super::figures::{Figures, Pair, quantile};
use super::{JOBS, Row};
use crate::command;

/// Most that a shim may cost a probe, in milliseconds: p50 and p99.
const SHIM_TARGETS: [(f64, f64); 2] = [(0.5, 2.0), (0.99, 4.0)];

/// The machine and the tools, one a line.
pub(super) fn machine() -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = value_after(&processor, "model name").unwrap_or("unknown");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kibibytes: u64 = value_after(&memory, "MemTotal")
        .and_then(|value| value.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let mut text = format!(
        "- {} × {model}, {} GiB of memory, Linux {}\n",
        std::thread::available_parallelism()?,
        kibibytes >> 20,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    );
    for tool in ["clang-22", "ld.lld-22", "make"] {
        let version = command::output(Command::new(tool).arg("--version"))?;
        text += &format!("- {}\n", version.lines().next().unwrap_or_default().trim());
    }
    Ok(text)
}

fn value_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// One row for the terminal.
pub(super) fn shown(row: Row, figures: &Figures) -> String {
    match row {
        Row::Shim => shim_table(figures),
        other => build_table(&[(other, figures)]),
    }
}

/// The whole document.
pub(super) fn document(machine: &str, measured: &[(Row, Figures)]) -> String {
    let builds: Vec<(Row, &Figures)> = measured
        .iter()
        .filter(|(row, _)| *row != Row::Shim)
        .map(|(row, figures)| (*row, figures))
        .collect();
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; do not edit. Each figure is measured in pairs, the plain \
         tool and klto one after the other, in alternating order, with `{JOBS}` on both sides.\n\n\
         {machine}\n\
         ## Builds\n\n\
         Linux 6.12, x86_64, the configuration of the tests (`tests/kernel/6.12-x86_64.config`), \
         `bzImage modules`. Plain is kbuild's own ThinLTO by `make`. Seconds are medians, with the \
         smallest and the largest in parentheses.\n\n{}",
        build_table(&builds)
    );
    text += "\n## Calls through the shim\n\n\
             Milliseconds, while `klto make -j2` builds the 5.10 kernel of the tests. The cost is the \
             quantile through the shim less the same quantile of the plain tool: below zero where the \
             tool's fork server saves more than the shim takes. The last columns have the quantile of \
             the differences of single pairs. Calls by the session ask klto first.\n\n";
    for (_, figures) in measured.iter().filter(|(row, _)| *row == Row::Shim) {
        text += &shim_table(figures);
    }
    text += "\n## Raw figures\n\n\
             Seconds, plain and klto, in the order of the measurement. Those of the shim stay in the \
             development cache.\n\n";
    for (row, figures) in builds {
        for Pair { plain, klto, .. } in &figures.pairs {
            text += &format!("- {}: {plain:.2}, {klto:.2}\n", row.name());
        }
    }
    text
}

fn build_table(rows: &[(Row, &Figures)]) -> String {
    let mut text = "| row | what | plain | klto | ratio | target | runs | commit |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (row, figures) in rows {
        let pairs = figures.pairs.len();
        let (name, what) = (row.name(), row.what());
        let target = row
            .target()
            .map_or("none".to_owned(), |target| format!("at most {target}"));
        if pairs == 0 {
            text += &format!("| {name} | {what} | not measured | | | {target} | 0 | |\n");
            continue;
        }
        let plain: Vec<f64> = figures.pairs.iter().map(|pair| pair.plain).collect();
        let klto: Vec<f64> = figures.pairs.iter().map(|pair| pair.klto).collect();
        let ratio = median(&klto) / median(&plain);
        let met = match row.target() {
            Some(target) if ratio <= target => ", met",
            Some(_) => ", **missed**",
            None => "",
        };
        text += &format!(
            "| {name} | {what} | {} | {} | {ratio:.2} | {target}{met} | {pairs} | {} |\n",
            spread(&plain),
            spread(&klto),
            figures.commit
        );
    }
    text
}

fn median(values: &[f64]) -> f64 {
    quantile(values.iter().copied(), 0.5)
}

/// Median and range; one value stands alone.
fn spread(values: &[f64]) -> String {
    match values {
        [value] => format!("{value:.1} s"),
        many => format!(
            "{:.1} s ({:.1} to {:.1})",
            median(many),
            quantile(many.iter().copied(), 0.0),
            quantile(many.iter().copied(), 1.0)
        ),
    }
}

fn shim_table(figures: &Figures) -> String {
    let mut text =
        "| call | quantile | plain | shim | cost | target | of differences | calls | commit |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for series in figures.series() {
        for (part, target) in SHIM_TARGETS {
            let of =
                |value: fn(&Pair) -> f64| 1000.0 * quantile(figures.of(series).map(value), part);
            let (plain, shim) = (of(|pair| pair.plain), of(|pair| pair.klto));
            let cost = shim - plain;
            let verdict = match cost <= target {
                true => format!("at most {target:.0}, met"),
                false => format!("at most {target:.0}, **missed**"),
            };
            text += &format!(
                "| {series} | p{:.0} | {plain:.2} | {shim:.2} | {cost:.2} | {verdict} | {:.2} | {} | {} |\n",
                part * 100.0,
                of(|pair| pair.klto - pair.plain),
                figures.count(series),
                figures.commit
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(series: &str, pairs: &[(f64, f64)]) -> Figures {
        let pair = |(plain, klto): &(f64, f64)| Pair {
            series: series.to_owned(),
            plain: *plain,
            klto: *klto,
        };
        Figures {
            commit: "abc 2026-01-01".to_owned(),
            pairs: pairs.iter().map(pair).collect(),
            ..Figures::default()
        }
    }

    #[test]
    fn a_row_has_median_range_ratio_and_verdict() {
        let touch = figures("touch", &[(40.0, 9.0), (42.0, 8.0), (41.0, 10.0)]);
        let table = build_table(&[(Row::Touch, &touch)]);
        let line = "| touch | after touching init/main.c | 41.0 s (40.0 to 42.0) | 9.0 s (8.0 to 10.0) \
                    | 0.22 | at most 0.3, met | 3 | abc 2026-01-01 |";
        assert_eq!(table.lines().last().unwrap(), line);
    }

    #[test]
    fn a_row_without_figures_says_so() {
        let table = build_table(&[(Row::CleanFull, &Figures::default())]);
        assert!(table.contains("| not measured | | | at most 0.92 | 0 | |"));
    }

    #[test]
    fn a_shim_s_cost_is_the_difference_of_quantiles() {
        let shim = figures("cc-option probe", &[(0.010, 0.0115), (0.010, 0.0115)]);
        let table = shim_table(&shim);
        let line = "| cc-option probe | p99 | 10.00 | 11.50 | 1.50 | at most 4, met | 1.50 | 2 | abc 2026-01-01 |";
        assert_eq!(table.lines().last().unwrap(), line);
    }
}
