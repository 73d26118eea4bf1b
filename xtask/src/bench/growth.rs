//! How time and memory grow with the kernel: straight lines, a plot, and what a full link needs.
//!
//! In: the figures of kernels of several sizes. Out: a section of the document, and an SVG file. Nothing here
//! measures.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use fs_err as fs;
use plotters::prelude::*;

use super::figures::{Figure, quantile};
use super::report::{ELSEWHERE, Measured};
use super::rows::{Row, Side};

/// The file beside the document.
pub(super) const PLOT: &str = "growth.svg";

/// One panel of the plot.
struct Panel {
    title: &'static str,
    row: Row,
    of: fn(&Figure) -> f64,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "clean build, empty store: seconds",
        row: Row::CleanEmpty,
        of: seconds,
    },
    Panel {
        title: "largest process of it: GB",
        row: Row::CleanEmpty,
        of: |figure| figure.value.gigabytes(),
    },
    Panel {
        title: "a new printk in init/main.c: seconds",
        row: Row::Edit,
        of: seconds,
    },
];

/// Pixels of a panel.
const PANEL: (u32, u32) = (420, 380);
const FONT: (&str, u32) = ("sans-serif", 13);
/// Of the sides, in their order.
const COLORS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
];

const fn seconds(figure: &Figure) -> f64 {
    figure.value.seconds
}

/// Objects, and the median of the figures, of each kernel of Linux 6.12 that was measured.
fn points(measured: &[Measured], row: Row, side: Side, of: fn(&Figure) -> f64) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for kernel in measured.iter().filter(|kernel| kernel.size.is_of_growth()) {
        let figures = kernel.figures(row, side);
        if let Some(first) = figures.first() {
            let median = quantile(figures.iter().map(|figure| of(figure)), 0.5);
            points.push((first.value.objects as f64, median));
        }
    }
    points
}

/// Whether the kernels of a line were measured on more than one machine.
fn is_of_many_machines(measured: &[Measured], row: Row, side: Side) -> bool {
    let kernels = measured.iter().filter(|kernel| kernel.size.is_of_growth());
    let figures = kernels.flat_map(|kernel| kernel.figures(row, side));
    let machines: BTreeSet<&str> = figures.map(|figure| figure.machine.as_str()).collect();
    machines.len() > 1
}

/// Seconds as a straight line over the number of objects, where a row was measured on two kernels or
/// more; empty without such a row.
pub(super) fn section(measured: &[Measured]) -> String {
    let mut lines = String::new();
    for row in Row::ALL {
        let cells = Side::ALL.map(|side| {
            let line = fitted(&points(measured, row, side, seconds));
            let mark = match is_of_many_machines(measured, row, side) {
                true => ELSEWHERE,
                false => "",
            };
            line.map_or(String::new(), |(at_none, slope)| {
                format!("{at_none:.1} s + {:.2} ms{mark}", 1000.0 * slope)
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
         squares through the medians of the kernels of 6.12 above;{ELSEWHERE} marks a line through figures of \
         more than one machine.\n\n\
         | row | {} |\n|---|---|---|---|---|---|---|\n{lines}\n![Time and memory by the number of objects]({PLOT})\n",
        Side::ALL.map(Side::title).join(" | ")
    )
}

/// The memory of full links beside what klto keeps free for one; empty where none was measured.
pub(super) fn memory_section(measured: &[Measured]) -> String {
    const SIDES: [Side; 2] = [Side::Full, Side::KltoFull];
    let mut lines = String::new();
    let mut points = SIDES.map(|_| Vec::new());
    for kernel in measured.iter().filter(|kernel| kernel.size.is_of_growth()) {
        let figures = SIDES.map(|side| kernel.figures(Row::CleanEmpty, side).last().copied());
        let values = figures.map(|figure| figure.map(|figure| figure.value));
        let Some(bitcode) = values
            .into_iter()
            .flatten()
            .map(|value| value.bitcode)
            .max()
        else {
            continue;
        };
        for (value, points) in values.into_iter().zip(&mut points) {
            points.extend(value.map(|value| (value.bitcode as f64, value.gigabytes())));
        }
        let cells = values.map(|value| {
            value.map_or(String::new(), |value| {
                format!("{:.2} GB", value.gigabytes())
            })
        });
        lines += &format!(
            "| {} | {:.1} MB | {} | {:.2} GB |\n",
            kernel.size.name(),
            bitcode as f64 / 1e6,
            cells.join(" | "),
            klto_session::needed_by_full_link(bitcode) as f64 / 1e9
        );
    }
    if lines.is_empty() {
        return lines;
    }
    let fits = points.map(|points| fitted(&points));
    if fits.iter().any(Option::is_some) {
        let fits = fits.map(|fit| {
            fit.map_or(String::new(), |(at_none, slope)| {
                format!("{at_none:.2} GB + {:.1} for each byte", 1e9 * slope)
            })
        });
        lines += &format!("| least squares | | {} | |\n", fits.join(" | "));
    }
    format!(
        "\n## Memory of a full link\n\n\
         The largest process of a clean build with Full LTO is the link of vmlinux. klto keeps memory free for it by the \
         bytes of bitcode that it reads (`klto-session/src/memory.rs`).\n\n\
         | kernel | bitcode | {} | kept free |\n|---|---|---|---|---|\n{lines}",
        SIDES.map(Side::title).join(" | ")
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

/// Writes the plot that [`section`] shows; nothing where it shows none.
pub(super) fn draw(measured: &[Measured], path: &Path) -> Result<()> {
    if section(measured).is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    let size = (PANEL.0 * PANELS.len() as u32, PANEL.1);
    let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let drawn = root.fill(&WHITE).and_then(|()| {
        let areas = root.split_evenly((1, PANELS.len()));
        let mut panels = PANELS.iter().zip(&areas);
        panels.try_for_each(|(panel, area)| draw_panel(panel, measured, area))
    });
    drawn
        .and_then(|()| root.present())
        .map_err(|error| anyhow!("drawing {PLOT}: {error}"))?;
    drop(root);
    fs::write(path, text + "\n")?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<
    (),
    DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>,
>;

fn draw_panel(panel: &Panel, measured: &[Measured], area: &Area<'_>) -> Drawn {
    let series = Side::ALL.map(|side| points(measured, panel.row, side, panel.of));
    let all = || series.iter().flatten();
    let most = |values: &mut dyn Iterator<Item = f64>| 1.1 * values.fold(0.0, f64::max);
    let (right, top) = (
        most(&mut all().map(|point| point.0)),
        most(&mut all().map(|point| point.1)),
    );
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, FONT)
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..right.max(1.0), 0.0..top.max(f64::MIN_POSITIVE))?;
    chart
        .configure_mesh()
        .x_desc("objects")
        .x_label_formatter(&|objects| format!("{objects:.0}"))
        .light_line_style(WHITE)
        .label_style(FONT)
        .draw()?;
    for ((side, points), color) in Side::ALL.into_iter().zip(series).zip(COLORS) {
        if points.is_empty() {
            continue;
        }
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(dots.collect::<Vec<_>>())?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(side.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::super::sizes::Size;
    use super::*;

    fn kernel(size: Size, objects: usize, seconds: f64) -> Measured {
        let line = format!("edit\tklto\t{seconds}\t1000\t{objects}\t0\tabc 2026-01-01\tm\n");
        Measured {
            size,
            rows: vec![(Row::Edit, Figures::parse(&line))],
        }
    }

    #[test]
    fn growth_is_a_line_through_the_kernels() {
        let two = [
            kernel(Size::Small, 500, 6.0),
            kernel(Size::Large, 2500, 10.0),
        ];
        let section_of_two = section(&two);
        let line = "| edit |  |  |  | 5.0 s + 2.00 ms |  |  |";
        assert!(section_of_two.lines().any(|found| found == line));
        let other_tree = kernel(Size::Distributed, 2500, 10.0);
        let one = [kernel(Size::Small, 500, 6.0), other_tree];
        assert_eq!(section(&one), "");
        let elsewhere = "edit\tklto\t10\t1000\t2500\t0\tabc 2026-01-01\tanother\n";
        let [small, mut large] = two;
        large.rows = vec![(Row::Edit, Figures::parse(elsewhere))];
        let marked = section(&[small, large]);
        let line = "| edit |  |  |  | 5.0 s + 2.00 ms † |  |  |";
        assert!(marked.lines().any(|found| found == line), "{marked}");
    }

    #[test]
    fn the_memory_of_a_full_link_goes_by_its_bitcode() {
        let kernel = |size, kibibytes: u64, bitcode: u64| {
            let side = Side::KltoFull.name();
            let line = format!("clean-empty\t{side}\t1\t{kibibytes}\t9\t{bitcode}\tabc\tm\n");
            Measured {
                size,
                rows: vec![(Row::CleanEmpty, Figures::parse(&line))],
            }
        };
        let two = [
            kernel(Size::Small, 500_000, 10_000_000),
            kernel(Size::Large, 1_000_000, 30_000_000),
        ];
        let text = memory_section(&two);
        let has = |line: &str| text.lines().any(|found| found == line);
        assert!(has("| large | 30.0 MB |  | 1.02 GB | 1.00 GB |"), "{text}");
        assert!(
            has("| least squares | |  | 0.26 GB + 25.6 for each byte | |"),
            "{text}"
        );
        assert!(!memory_section(&two[..1]).contains("least squares"));
        assert_eq!(memory_section(&[]), "");
    }

    #[test]
    fn the_plot_has_the_sides_that_were_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(PLOT);
        let one = [kernel(Size::Small, 500, 6.0)];
        draw(&one, &path).unwrap();
        assert!(!path.exists());
        let [one] = one;
        draw(&[one, kernel(Size::Large, 2500, 10.0)], &path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(Side::Klto.title()) && text.contains("</svg>"));
        assert!(!text.contains(Side::Full.title()));

        let clean = |size, objects: usize, seconds: f64, kibibytes: u64| {
            let line = |side: Side| {
                let side = side.name();
                format!("clean-empty\t{side}\t{seconds}\t{kibibytes}\t{objects}\t9\tabc\tm\n")
            };
            let lines = line(Side::Full) + &line(Side::Thin);
            Measured {
                size,
                rows: vec![(Row::CleanEmpty, Figures::parse(&lines))],
            }
        };
        let two = [
            clean(Size::Small, 500, 100.0, 500_000),
            clean(Size::Large, 2500, 700.0, 3_000_000),
        ];
        draw(&two, &path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // Once in the panel of seconds, once in that of memory.
        for side in [Side::Full, Side::Thin] {
            assert_eq!(text.matches(side.title()).count(), 2, "{text}");
        }
    }
}
