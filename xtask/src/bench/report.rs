//! Figures as text: for the terminal, and as `docs/benchmarks.md`.
//!
//! In: the figures of every row. Out: medians, ranges, ratios, targets. Nothing here measures.

use super::JOBS;
use super::figures::{Figure, Figures, quantile};
use super::growth;
use super::initcalls;
use super::rows::{Row, Side, Target};
use super::shim;
use super::sizes::Size;

/// Most that a shim may cost a probe, in milliseconds: p50 and p99.
const SHIM_TARGETS: [(f64, f64); 2] = [(0.5, 2.0), (0.99, 4.0)];
/// The most that klto may take for the order of initcalls, in seconds.
const INITCALLS_TARGET: f64 = 0.1;
/// What kbuild ThinLTO's clean build of the large kernel took where the targets were set, in seconds.
const CLEAN_WHERE_SET: f64 = 1567.0;
/// The most memory that klto's clean build may take, as a part of kbuild ThinLTO's.
const MEMORY_TARGET: f64 = 1.0;

/// Stands behind what comes of figures from two machines.
pub(super) const ELSEWHERE: &str = " †";
/// What the lines of memory are of.
const MEMORY: &str = "peak memory of any process in it";
const INITCALLS_SECTION: &str = "## The order of initcalls\n";
const SHIM_SECTION: &str = "## Calls through the shim\n";

/// What was measured of one kernel.
pub(super) struct Measured {
    pub size: Size,
    /// In the order of [`Row::ALL`].
    pub rows: Vec<(Row, Figures)>,
}

impl Measured {
    /// The figures of a row and side, in the order of their measurement.
    pub fn figures(&self, row: Row, side: Side) -> Vec<&Figure> {
        let of_row = self.rows.iter().filter(|(other, _)| *other == row);
        let of_side = of_row.flat_map(|(_, all)| all.of(row.name(), side.name()));
        of_side.collect()
    }

    fn seconds(&self, row: Row, side: Side) -> Sample<'_> {
        Sample {
            figures: self.figures(row, side),
            of: |figure| figure.value.seconds,
        }
    }

    fn gigabytes(&self, side: Side) -> Sample<'_> {
        Sample {
            figures: self.figures(Row::CleanEmpty, side),
            of: |figure| figure.value.gigabytes(),
        }
    }
}

/// One quantity of some figures.
struct Sample<'a> {
    figures: Vec<&'a Figure>,
    of: fn(&Figure) -> f64,
}

impl Sample<'_> {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.figures.iter().map(|figure| (self.of)(figure))
    }

    /// `None` without figures.
    fn median(&self) -> Option<f64> {
        (!self.figures.is_empty()).then(|| quantile(self.values(), 0.5))
    }

    fn commit(&self) -> &str {
        self.figures.last().map_or("", |figure| &figure.commit)
    }

    /// [`ELSEWHERE`] where another machine measured the other.
    fn mark(&self, other: &Self) -> &'static str {
        let machine = |sample: &Self| sample.figures.last().map(|figure| figure.machine.clone());
        match machine(self) == machine(other) {
            true => "",
            false => ELSEWHERE,
        }
    }

    /// The ratio of the medians; blank where one is missing.
    fn to(&self, other: &Self) -> String {
        let medians = self.median().zip(other.median());
        medians.map_or(String::new(), |(one, other_median)| {
            format!("{:.2}{}", one / other_median, self.mark(other))
        })
    }

    /// Median and range; one value stands alone, none is blank.
    fn spread(&self) -> String {
        let at = |part| quantile(self.values(), part);
        match self.figures.len() {
            0 => String::new(),
            1 => format!("{:.1} s", at(0.5)),
            _ => format!("{:.1} s ({:.1} to {:.1})", at(0.5), at(0.0), at(1.0)),
        }
    }
}

/// The whole document. Where calls through the shim or the order of initcalls were not measured on this
/// machine, the section about them stays as it was in the document `before`.
pub(super) fn document(
    tools: &[String],
    (measured, initcalls): (&[Measured], &Figures),
    shim: &Figures,
    (not_reused, before): (&str, &str),
) -> String {
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; do not edit. With `{JOBS}` on all sides, one build after the \
         other, each round beginning with another side. What takes a minute or longer is measured \
         once, the rest five times: medians, with the smallest and the largest in parentheses. \
         `docs/figures` has the raw figures: row, side, seconds, KiB of the largest process, objects, bytes of bitcode \
         in vmlinux, commit and machine of each.\n\n"
    );
    for line in machines(measured).iter().chain(tools) {
        text += &format!("- {line}\n");
    }
    text += "\n## Builds\n\nLinux for x86_64, `bzImage modules`.\n";
    let is_measured = |kernel: &&Measured| kernel.rows.iter().any(|(_, row)| !row.all.is_empty());
    for kernel in measured.iter().rev().filter(is_measured) {
        text += &format!(
            "\n### {}\n\n{}{}",
            heading(kernel),
            table(kernel),
            full_table(kernel)
        );
    }
    if text.contains(ELSEWHERE) {
        text += &format!("\n{}\n", two_machines());
    }
    text += not_reused;
    text += &growth::section(measured);
    text += &growth::memory_section(measured);
    text += &match initcalls.all.is_empty() {
        true => earlier_section(before, INITCALLS_SECTION),
        false => initcall_section(initcalls),
    };
    text += &match shim.all.is_empty() {
        true => earlier_section(before, SHIM_SECTION),
        false => shim_section(shim),
    };
    text
}

/// What [`ELSEWHERE`] says.
pub(super) fn two_machines() -> String {
    format!(
        "{} Of figures from two machines of this kind.",
        ELSEWHERE.trim()
    )
}

/// Those that measured, each once.
fn machines(measured: &[Measured]) -> Vec<String> {
    let rows = measured.iter().flat_map(|kernel| &kernel.rows);
    let figures = rows.flat_map(|(_, figures)| &figures.all);
    let mut machines: Vec<String> = figures.map(|figure| figure.machine.clone()).collect();
    machines.sort();
    machines.dedup();
    machines
}

fn heading(kernel: &Measured) -> String {
    let figures = kernel.rows.iter().flat_map(|(_, figures)| &figures.all);
    let objects = figures.map(|figure| figure.value.objects).max();
    format!(
        "{}: {}, {} objects",
        kernel.size.name(),
        kernel.size.what(),
        objects.unwrap_or(0)
    )
}

/// The table of one kernel with ThinLTO and without LTO.
pub(super) fn table(kernel: &Measured) -> String {
    const SIDES: [Side; 4] = [Side::Thin, Side::None, Side::Ccache, Side::Klto];
    let where_set = Row::CleanEmpty;
    let clean = kernel.seconds(where_set, Side::Thin);
    let slower = clean.median().filter(|_| kernel.size == Size::Large);
    let slower = slower.map(|clean| clean / CLEAN_WHERE_SET);
    let mut text = match slower {
        Some(slower) => format!(
            "Targets in seconds were set for 2,325 objects, of which kbuild ThinLTO's clean build took \
             {CLEAN_WHERE_SET} s. Here it takes {slower:.2} times as long, with more objects and on another machine; in \
             parentheses what a target is by that.\n\n"
        ),
        None => String::new(),
    };
    text += &format!(
        "| row | what | {} | klto to ThinLTO | klto to none | target | commit |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        SIDES.map(Side::title).join(" | ")
    );
    for (row, _) in &kernel.rows {
        if row.sides(kernel.size).is_empty() {
            continue;
        }
        let of = |side| kernel.seconds(*row, side);
        let (klto, thin) = (of(Side::Klto), of(Side::Thin));
        let target = match (kernel.size, row.target()) {
            (Size::Large, Some(target)) => {
                let scale = slower.map(|slower| (slower, klto.mark(&clean)));
                verdict(target, &klto, &thin, scale)
            }
            _ => String::new(),
        };
        text += &format!(
            "| {} | {} | {} | {} | {} | {target} | {} |\n",
            row.name(),
            row.what(),
            SIDES.map(|side| of(side).spread()).join(" | "),
            klto.to(&thin),
            klto.to(&of(Side::None)),
            klto.commit()
        );
        if *row == Row::CleanEmpty {
            text += &memory_line(kernel, SIDES);
        }
    }
    text
}

/// The memory of the largest process of the clean builds.
fn memory_line(kernel: &Measured, sides: [Side; 4]) -> String {
    let (klto, thin) = (kernel.gigabytes(Side::Klto), kernel.gigabytes(Side::Thin));
    let target = match kernel.size {
        Size::Large => verdict(Target::OfThin(MEMORY_TARGET), &klto, &thin, None),
        _ => String::new(),
    };
    format!(
        "| | {MEMORY} | {} | {} | {} | {target} | |\n",
        sides
            .map(|side| in_gigabytes(&kernel.gigabytes(side)))
            .join(" | "),
        klto.to(&thin),
        klto.to(&kernel.gigabytes(Side::None))
    )
}

fn in_gigabytes(sample: &Sample<'_>) -> String {
    let median = sample.median();
    median.map_or(String::new(), |median| format!("{median:.2} GB"))
}

/// The table of one kernel with Full LTO, after an empty line; empty where nobody built it so.
fn full_table(kernel: &Measured) -> String {
    let mut lines = String::new();
    for (row, _) in &kernel.rows {
        let of = |side| kernel.seconds(*row, side);
        let (full, klto) = (of(Side::Full), of(Side::KltoFull));
        if full.figures.is_empty() && klto.figures.is_empty() {
            continue;
        }
        lines += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            row.name(),
            row.what(),
            full.spread(),
            klto.spread(),
            klto.to(&full),
            klto.commit()
        );
        if *row == Row::CleanEmpty {
            let of = |side| kernel.gigabytes(side);
            let (full, klto) = (of(Side::Full), of(Side::KltoFull));
            lines += &format!(
                "| | {MEMORY} | {} | {} | {} | |\n",
                in_gigabytes(&full),
                in_gigabytes(&klto),
                klto.to(&full)
            );
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\n| row | what | {} | {} | klto to kbuild | commit |\n|---|---|---|---|---|---|\n{lines}",
        Side::Full.title(),
        Side::KltoFull.title()
    )
}

/// What a target is, here too where the machine is `slower` by a factor, and whether klto met it.
fn verdict(
    target: Target,
    klto: &Sample<'_>,
    thin: &Sample<'_>,
    slower: Option<(f64, &str)>,
) -> String {
    let (shown, figure, most) = match target {
        Target::Seconds(most) => {
            let here = slower.map(|(slower, mark)| (most * slower, mark));
            let in_parentheses =
                here.map_or(String::new(), |(here, mark)| format!(" ({here:.1}{mark})"));
            let shown = format!("at most {most} s{in_parentheses}");
            (shown, klto.median(), here.map_or(most, |(here, _)| here))
        }
        Target::OfThin(most) => {
            let part = klto.median().zip(thin.median());
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

/// Kbuild's script and klto; nothing where klto was not measured.
fn initcall_section(figures: &Figures) -> String {
    let of = |side| Sample {
        figures: figures.of(initcalls::SERIES, side).collect(),
        of: |figure| figure.value.seconds,
    };
    let (klto, script) = (of(initcalls::KLTO), of(initcalls::SCRIPT));
    let (Some(median), Some(of_script)) = (klto.median(), script.median()) else {
        return String::new();
    };
    let verdict = match median <= INITCALLS_TARGET {
        true => "met",
        false => "**missed**",
    };
    format!(
        "\n{INITCALLS_SECTION}\n\
         Of the large kernel, after an edit. `scripts/generate_initcall_order.pl`: {of_script:.2} s. klto, in \
         its place: {median:.3} s (at most {INITCALLS_TARGET} s, {verdict}; medians of {} each; commit {}).\n",
        klto.figures.len(),
        klto.commit()
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
            let milliseconds = |figure: &Figure| 1000.0 * figure.value.seconds;
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
                figures.all.last().map_or("", |figure| &figure.commit)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "here";

    /// Series, side, seconds and machine of each figure.
    fn figures(measured: &[(&str, &str, f64, &str)]) -> Figures {
        let line = |(series, side, seconds, machine): &(&str, &str, f64, &str)| {
            format!("{series}\t{side}\t{seconds}\t1950000\t2325\t0\tabc 2026-01-01\t{machine}\n")
        };
        Figures::parse(&measured.iter().map(line).collect::<String>())
    }

    /// A row with side, seconds and machine of each figure.
    type OfRow<'a> = (Row, &'a [(Side, f64, &'a str)]);

    fn kernel(size: Size, rows: &[OfRow<'_>]) -> Measured {
        let of_row = |(row, all): &OfRow<'_>| {
            let all: Vec<_> = all
                .iter()
                .map(|(side, seconds, machine)| (row.name(), side.name(), *seconds, *machine))
                .collect();
            (*row, figures(&all))
        };
        Measured {
            size,
            rows: rows.iter().map(of_row).collect(),
        }
    }

    #[test]
    fn a_row_has_median_range_ratios_and_verdict() {
        let measured = [
            (Side::Thin, 243.0, HERE),
            (Side::None, 31.0, "there"),
            (Side::Klto, 0.4, HERE),
            (Side::Klto, 0.3, HERE),
            (Side::Klto, 0.6, HERE),
        ];
        let large = kernel(Size::Large, &[(Row::Touch, &measured)]);
        let line = "| touch | `touch init/main.c` | 243.0 s | 31.0 s |  | 0.4 s (0.3 to 0.6) | 0.00 | 0.01 † \
                    | at most 0.5 s, met | abc 2026-01-01 |";
        assert_eq!(table(&large).lines().last().unwrap(), line);
        let small = kernel(Size::Small, &[(Row::Touch, &measured)]);
        assert!(!table(&small).contains("at most"));
    }

    #[test]
    fn the_clean_build_has_its_memory() {
        let measured = [(Side::Thin, 1567.0, HERE), (Side::Klto, 1489.0, HERE)];
        let large = kernel(Size::Large, &[(Row::CleanEmpty, &measured)]);
        let line = "| | peak memory of any process in it | 2.00 GB |  |  | 2.00 GB | 1.00 |  \
                    | at most 1 of ThinLTO, met | |";
        assert_eq!(table(&large).lines().last().unwrap(), line);
        assert_eq!(full_table(&large), "");
    }

    #[test]
    fn full_lto_has_a_table_of_its_own() {
        let measured = [(Side::Full, 100.0, HERE), (Side::KltoFull, 90.0, HERE)];
        let large = kernel(Size::Large, &[(Row::Edit, &measured)]);
        let line =
            "| edit | a new printk in `init/main.c` | 100.0 s | 90.0 s | 0.90 | abc 2026-01-01 |";
        assert_eq!(full_table(&large).lines().last().unwrap(), line);
    }

    #[test]
    fn targets_are_those_of_the_machine() {
        let large = |klto: f64, machine| {
            let clean: &[_] = &[(Side::Thin, 3134.0, HERE)];
            let edit: &[_] = &[(Side::Klto, klto, machine)];
            table(&kernel(
                Size::Large,
                &[(Row::CleanEmpty, clean), (Row::Edit, edit)],
            ))
        };
        let text = large(30.0, HERE);
        assert!(
            text.contains("takes 2.00 times as long") && text.contains("at most 18 s (36.0), met")
        );
        assert!(large(37.0, HERE).contains("at most 18 s (36.0), **missed**"));
        assert!(large(30.0, "there").contains("at most 18 s (36.0 †), met"));
    }

    #[test]
    fn what_this_machine_did_not_measure_stays() {
        let before = format!("# Benchmarks\n\n{SHIM_SECTION}\n| a |\n\n## Another\n");
        let none = Figures::default();
        let text = document(&[], (&[], &none), &none, ("", &before));
        assert_eq!(text.matches(SHIM_SECTION).count(), 1);
        assert!(text.ends_with("\n| a |\n"));
    }

    #[test]
    fn the_order_of_initcalls_has_its_section() {
        let measured = [
            ("initcalls", "script", 2.0, HERE),
            ("initcalls", "klto", 0.05, HERE),
        ];
        let section = initcall_section(&figures(&measured));
        assert!(section.contains("pl`: 2.00 s. klto, in its place: 0.050 s (at most 0.1 s, met;"));
        assert_eq!(initcall_section(&figures(&measured[..1])), "");
    }

    #[test]
    fn a_shim_s_cost_is_the_difference_of_quantiles() {
        let call = "cc-option probe";
        let table = shim_table(&figures(&[
            (call, "plain", 0.010, HERE),
            (call, "shim", 0.0115, HERE),
            (call, "plain", 0.010, HERE),
            (call, "shim", 0.0115, HERE),
        ]));
        let line = "| cc-option probe | p99 | 10.00 | 11.50 | 1.50 | at most 4, met | 1.50 | 2 | abc 2026-01-01 |";
        assert!(table.lines().any(|found| found == line), "{table}");
    }
}
