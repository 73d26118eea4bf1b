//! Figures as text: for the terminal, and as `docs/benchmarks.md`.
//!
//! In: the figures of every row. Out: medians, ranges, ratios, targets, and how they grow with the
//! kernel. Nothing here measures.

use std::process::Command;

use anyhow::Result;
use fs_err as fs;

use super::JOBS;
use super::figures::{Figure, Figures, quantile};
use super::initcalls;
use super::rows::{Row, Side, Target};
use super::shim;
use super::sizes::Size;
use crate::command;

/// Most that a shim may cost a probe, in milliseconds: p50 and p99.
const SHIM_TARGETS: [(f64, f64); 2] = [(0.5, 2.0), (0.99, 4.0)];
/// The most that klto may take for the order of initcalls, in seconds.
const INITCALLS_TARGET: f64 = 0.1;
/// What kbuild ThinLTO's clean build of the large kernel took where the targets were set, in seconds.
const CLEAN_WHERE_SET: f64 = 1567.0;
/// The most memory that klto's clean build may take, as a part of kbuild ThinLTO's.
const MEMORY_TARGET: f64 = 1.0;

const SHIM_SECTION: &str = "## Calls through the shim\n";

/// What was measured of one kernel.
pub(super) struct Measured {
    pub size: Size,
    /// Objects of vmlinux and its modules, where it was built.
    pub objects: Option<usize>,
    /// In the order of [`Row::ALL`].
    pub rows: Vec<(Row, Figures)>,
}

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
    for tool in ["clang-22", "ld.lld-22", "make", "ccache"] {
        let version = command::output(Command::new(tool).arg("--version"))?;
        text += &format!("- {}\n", version.lines().next().unwrap_or_default().trim());
    }
    Ok(text)
}

fn value_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The whole document. Where the calls through the shim were not measured on this machine, the section
/// about them stays as it was in the document `before`.
pub(super) fn document(
    machine: &str,
    (measured, initcalls): (&[Measured], &Figures),
    shim: &Figures,
    before: &str,
) -> String {
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; do not edit. With `{JOBS}` on all sides, one build after the \
         other, each round beginning with another side. What takes a minute or longer is measured \
         once, the rest five times: medians, with the smallest and the largest in parentheses.\n\n\
         {machine}\n\
         ## Builds\n\n\
         Linux 6.12, x86_64, `bzImage modules`.\n"
    );
    let is_measured = |kernel: &&Measured| kernel.rows.iter().any(|(_, row)| !row.all.is_empty());
    for kernel in measured.iter().rev().filter(is_measured) {
        text += &format!("\n### {}\n\n{}", heading(kernel), table(kernel));
    }
    text += &growth(measured);
    text += &initcall_section(initcalls);
    text += &match shim.all.is_empty() {
        true => earlier_section(before, SHIM_SECTION),
        false => shim_section(shim),
    };
    text += "\n## Raw figures\n\n\
             Seconds in the order of the measurement. Those of the shim stay in the development \
             cache.\n\n";
    for kernel in measured.iter().rev().filter(is_measured) {
        for (row, figures) in &kernel.rows {
            for side in row.sides() {
                let seconds = seconds(figures, *row, *side);
                let shown: Vec<String> = seconds.iter().map(|one| format!("{one:.2}")).collect();
                if !shown.is_empty() {
                    let name = format!("{}/{}", kernel.size.name(), row.name());
                    text += &format!("- {name} {}: {}\n", side.name(), shown.join(", "));
                }
            }
        }
    }
    text
}

fn heading(kernel: &Measured) -> String {
    let objects = kernel
        .objects
        .map_or(String::new(), |objects| format!(", {objects} objects"));
    format!("{}: {}{objects}", kernel.size.name(), kernel.size.what())
}

fn seconds(figures: &Figures, row: Row, side: Side) -> Vec<f64> {
    let of = figures.of(row.name(), side.name());
    of.map(|figure| figure.seconds).collect()
}

/// The table of one kernel.
pub(super) fn table(kernel: &Measured) -> String {
    let titles = Side::ALL.map(Side::title).join(" | ");
    let slower = slower(kernel);
    let mut text = match slower {
        Some(slower) => format!(
            "Targets in seconds were set where kbuild ThinLTO's clean build took {CLEAN_WHERE_SET} s. This machine \
             takes {slower:.2} times as long; in parentheses what a target is here.\n\n"
        ),
        None => String::new(),
    };
    text += &format!(
        "| row | what | {titles} | klto to ThinLTO | klto to none | target | commit |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
    );
    for (row, figures) in &kernel.rows {
        let of = |side| seconds(figures, *row, side);
        let cells = Side::ALL.map(|side| spread(&of(side))).join(" | ");
        let (klto, thin, none) = (of(Side::Klto), of(Side::Thin), of(Side::None));
        let target = match (kernel.size, row.target()) {
            (Size::Large, Some(target)) => verdict(target, &klto, &thin, slower),
            _ => String::new(),
        };
        text += &format!(
            "| {} | {} | {cells} | {} | {} | {target} | {} |\n",
            row.name(),
            row.what(),
            ratio(&klto, &thin),
            ratio(&klto, &none),
            figures.commit
        );
        if *row == Row::CleanEmpty {
            text += &memory_line(kernel.size, figures);
        }
    }
    text
}

/// How many times as long this machine takes as the one where the targets were set.
fn slower(kernel: &Measured) -> Option<f64> {
    let clean = Row::CleanEmpty;
    let (_, figures) = kernel.rows.iter().find(|(row, _)| *row == clean)?;
    let thin = some_median(&seconds(figures, clean, Side::Thin))?;
    (kernel.size == Size::Large).then_some(thin / CLEAN_WHERE_SET)
}

/// The memory of the largest process of the clean builds.
fn memory_line(size: Size, figures: &Figures) -> String {
    let row = Row::CleanEmpty.name();
    let most = |side: Side| -> Vec<f64> {
        let kibibytes = figures.of(row, side.name()).map(|figure| figure.kibibytes);
        let largest = kibibytes.max().filter(|most| *most > 0);
        largest.map(|most| most as f64 / 1e6).into_iter().collect()
    };
    let cell = |side| match most(side).first() {
        Some(most) => format!("{most:.2} GB"),
        None => String::new(),
    };
    let cells = Side::ALL.map(cell).join(" | ");
    let (klto, thin) = (most(Side::Klto), most(Side::Thin));
    let target = match size {
        Size::Large => verdict(Target::OfThin(MEMORY_TARGET), &klto, &thin, None),
        _ => String::new(),
    };
    format!(
        "| | peak memory of any process in it | {cells} | {} | {} | {target} | |\n",
        ratio(&klto, &thin),
        ratio(&klto, &most(Side::None))
    )
}

fn verdict(target: Target, klto: &[f64], thin: &[f64], slower: Option<f64>) -> String {
    let (shown, figure, most) = match target {
        Target::Seconds(most) => {
            let here = slower.map(|slower| most * slower);
            let in_parentheses = here.map_or(String::new(), |here| format!(" ({here:.1})"));
            let shown = format!("at most {most} s{in_parentheses}");
            (shown, some_median(klto), here.unwrap_or(most))
        }
        Target::OfThin(most) => {
            let part = some_median(klto).zip(some_median(thin));
            let part = part.map(|(klto, thin)| klto / thin);
            (format!("at most {most} of ThinLTO"), part, most)
        }
    };
    match figure {
        Some(figure) if figure <= most => format!("{shown}, met"),
        Some(_) => format!("{shown}, **missed**"),
        None => shown,
    }
}

fn ratio(klto: &[f64], other: &[f64]) -> String {
    let part = some_median(klto).zip(some_median(other));
    part.map_or(String::new(), |(klto, other)| {
        format!("{:.2}", klto / other)
    })
}

fn some_median(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(values.iter().copied(), 0.5))
}

/// Median and range; one value stands alone, none is blank.
fn spread(values: &[f64]) -> String {
    match values {
        [] => String::new(),
        [value] => format!("{value:.1} s"),
        many => format!(
            "{:.1} s ({:.1} to {:.1})",
            quantile(many.iter().copied(), 0.5),
            quantile(many.iter().copied(), 0.0),
            quantile(many.iter().copied(), 1.0)
        ),
    }
}

/// Seconds as a straight line over the number of objects, where a row was measured on two kernels or
/// more.
fn growth(measured: &[Measured]) -> String {
    let mut lines = String::new();
    for row in Row::ALL {
        let cells = Side::ALL.map(|side| {
            let mut points = Vec::new();
            for kernel in measured {
                let figures = kernel.rows.iter().find(|(other, _)| *other == row);
                let median = figures.and_then(|(_, all)| some_median(&seconds(all, row, side)));
                points.extend(kernel.objects.map(|objects| objects as f64).zip(median));
            }
            fitted(&points).map_or(String::new(), |(at_none, slope)| {
                format!("{at_none:.1} s + {:.2} ms", 1000.0 * slope)
            })
        });
        if cells.iter().any(|cell| !cell.is_empty()) {
            lines += &format!("| {} | {} |\n", row.name(), cells.join(" | "));
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\n## Growth\n\n\
         What each row costs whatever the kernel, and for each object more: the straight line of least \
         squares through the medians of the kernels above.\n\n\
         | row | {} |\n|---|---|---|---|---|\n{lines}",
        Side::ALL.map(Side::title).join(" | ")
    )
}

/// The value at zero and the slope of the line of least squares.
fn fitted(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let (x, y) = (
        mean(&mut points.iter().map(|point| point.0)),
        mean(&mut points.iter().map(|point| point.1)),
    );
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let together = points.iter().map(|point| (point.0 - x) * (point.1 - y));
    let slope = together.sum::<f64>() / spread;
    (points.len() >= 2 && spread > 0.0).then_some((y - slope * x, slope))
}

/// Kbuild's script and klto; nothing where klto was not measured.
fn initcall_section(figures: &Figures) -> String {
    let of = |side| -> Vec<f64> {
        let of = figures.of(initcalls::SERIES, side);
        of.map(|figure| figure.seconds).collect()
    };
    let (klto, script) = (of(initcalls::KLTO), of(initcalls::SCRIPT));
    let (Some(median), Some(of_script)) = (some_median(&klto), some_median(&script)) else {
        return String::new();
    };
    let verdict = match median <= INITCALLS_TARGET {
        true => "met",
        false => "**missed**",
    };
    format!(
        "\n## The order of initcalls\n\n\
         Of the large kernel, after an edit. `scripts/generate_initcall_order.pl`: {of_script:.2} s. klto, in \
         its place: {median:.3} s (at most {INITCALLS_TARGET} s, {verdict}; medians of {} each; commit {}).\n",
        klto.len(),
        figures.commit
    )
}

/// A section of the document as it stands, with the empty line before it.
fn earlier_section(before: &str, heading: &str) -> String {
    let Some(start) = before.find(heading) else {
        return String::new();
    };
    let section = &before[start..];
    let end = section[heading.len()..].find("\n## ");
    let end = end.map_or(section.len(), |end| heading.len() + end);
    format!("\n{}", &section[..end])
}

fn shim_section(figures: &Figures) -> String {
    format!(
        "\n{SHIM_SECTION}\n\
         Milliseconds, while `klto make -j2` builds the 5.10 kernel of the tests. The cost is the \
         quantile through the shim less the same quantile of the plain tool: below zero where the \
         tool's fork server saves more than the shim takes. The last columns have the quantile of \
         the differences of single pairs. Calls by the session ask klto first.\n\n{}",
        shim_table(figures)
    )
}

/// The table of the calls through the shim.
pub(super) fn shim_table(figures: &Figures) -> String {
    let mut text =
        "| call | quantile | plain | shim | cost | target | of differences | calls | commit |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for series in shim::SERIES {
        let of = |side| -> Vec<f64> {
            let milliseconds = |figure: &Figure| 1000.0 * figure.seconds;
            figures.of(series, side).map(milliseconds).collect()
        };
        let (plain, shim) = (of(shim::PLAIN), of(shim::SHIM));
        let differences = || plain.iter().zip(&shim).map(|(plain, shim)| shim - plain);
        for (part, target) in SHIM_TARGETS {
            let at = |values: &[f64]| quantile(values.iter().copied(), part);
            let cost = at(&shim) - at(&plain);
            let verdict = match cost <= target {
                true => format!("at most {target:.0}, met"),
                false => format!("at most {target:.0}, **missed**"),
            };
            text += &format!(
                "| {series} | p{:.0} | {:.2} | {:.2} | {cost:.2} | {verdict} | {:.2} | {} | {} |\n",
                part * 100.0,
                at(&plain),
                at(&shim),
                quantile(differences(), part),
                shim.len(),
                figures.commit
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(measured: &[(&str, &str, f64)]) -> Figures {
        let figure = |(series, side, seconds): &(&str, &str, f64)| Figure {
            series: (*series).to_owned(),
            side: (*side).to_owned(),
            seconds: *seconds,
            kibibytes: 1_950_000,
        };
        Figures {
            commit: "abc 2026-01-01".to_owned(),
            all: measured.iter().map(figure).collect(),
            ..Figures::default()
        }
    }

    fn kernel(size: Size, objects: usize, row: Row, all: &[(&str, &str, f64)]) -> Measured {
        Measured {
            size,
            objects: Some(objects),
            rows: vec![(row, figures(all))],
        }
    }

    #[test]
    fn a_row_has_median_range_ratios_and_verdict() {
        let measured = [
            ("touch", "thin", 243.0),
            ("touch", "none", 31.0),
            ("touch", "klto", 0.4),
            ("touch", "klto", 0.3),
            ("touch", "klto", 0.6),
        ];
        let large = kernel(Size::Large, 2325, Row::Touch, &measured);
        let line = "| touch | `touch init/main.c` | 243.0 s | 31.0 s |  | 0.4 s (0.3 to 0.6) | 0.00 | 0.01 \
                    | at most 0.5 s, met | abc 2026-01-01 |";
        assert_eq!(table(&large).lines().last().unwrap(), line);
        let small = kernel(Size::Small, 500, Row::Touch, &measured);
        assert!(!table(&small).contains("at most"));
    }

    #[test]
    fn the_clean_build_has_its_memory() {
        let measured = [
            ("clean-empty", "thin", 1567.0),
            ("clean-empty", "klto", 1489.0),
        ];
        let large = kernel(Size::Large, 2325, Row::CleanEmpty, &measured);
        let line = "| | peak memory of any process in it | 1.95 GB |  |  | 1.95 GB | 1.00 |  \
                    | at most 1 of ThinLTO, met | |";
        assert_eq!(table(&large).lines().last().unwrap(), line);
    }

    #[test]
    fn targets_are_those_of_the_machine() {
        let figure = |row, seconds: &[(&str, &str, f64)]| (row, figures(seconds));
        let large = |klto: f64| Measured {
            size: Size::Large,
            objects: Some(2325),
            rows: vec![
                figure(Row::CleanEmpty, &[("clean-empty", "thin", 3134.0)]),
                figure(Row::Edit, &[("edit", "klto", klto)]),
            ],
        };
        let text = table(&large(30.0));
        assert!(
            text.contains("takes 2.00 times as long") && text.contains("at most 18 s (36.0), met")
        );
        assert!(table(&large(37.0)).contains("at most 18 s (36.0), **missed**"));
    }

    #[test]
    fn growth_is_a_line_through_the_kernels() {
        let at =
            |size, objects, seconds| kernel(size, objects, Row::Edit, &[("edit", "klto", seconds)]);
        let two = [at(Size::Small, 500, 6.0), at(Size::Large, 2500, 10.0)];
        let lines = growth(&two);
        assert_eq!(
            lines.lines().last().unwrap(),
            "| edit |  |  |  | 5.0 s + 2.00 ms |"
        );
        assert_eq!(growth(&two[..1]), "");
    }

    #[test]
    fn what_this_machine_did_not_measure_stays() {
        let before = format!("# Benchmarks\n\n{SHIM_SECTION}\n| a |\n\n## Raw figures\n");
        let text = document(
            "- m\n",
            (&[], &Figures::default()),
            &Figures::default(),
            &before,
        );
        assert_eq!(text.matches(SHIM_SECTION).count(), 1);
        assert!(text.contains("\n| a |\n\n## Raw figures\n"));
    }

    #[test]
    fn the_order_of_initcalls_has_its_section() {
        let measured = [("initcalls", "script", 2.0), ("initcalls", "klto", 0.05)];
        let section = initcall_section(&figures(&measured));
        assert!(section.contains("pl`: 2.00 s. klto, in its place: 0.050 s (at most 0.1 s, met;"));
        assert_eq!(initcall_section(&figures(&measured[..1])), "");
    }

    #[test]
    fn a_shim_s_cost_is_the_difference_of_quantiles() {
        let call = "cc-option probe";
        let table = shim_table(&figures(&[
            (call, "plain", 0.010),
            (call, "shim", 0.0115),
            (call, "plain", 0.010),
            (call, "shim", 0.0115),
        ]));
        let line = "| cc-option probe | p99 | 10.00 | 11.50 | 1.50 | at most 4, met | 1.50 | 2 | abc 2026-01-01 |";
        assert!(table.lines().any(|found| found == line), "{table}");
    }
}
