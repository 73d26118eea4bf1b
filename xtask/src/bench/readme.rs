//! The few figures that the README shows, of the large kernel.
//!
//! In: the figures of every row. Out: the README with a table between two marks. Nothing here measures.

use anyhow::{Context as _, Result};

use super::figures::quantile;
use super::report::{ELSEWHERE, Measured, two_machines};
use super::rows::{Row, Side};
use super::sizes::Size;

const BEGIN: &str = "<!-- Written by `cargo xtask bench`; do not edit. -->\n\n";
const END: &str = "\n<!-- What is written by it ends here. -->\n";
/// As the README calls them, in its order.
const ROWS: [(Row, &str); 6] = [
    (Row::CleanEmpty, "clean build"),
    (Row::Nothing, "nothing to do"),
    (Row::Touch, "`touch init/main.c`"),
    (Row::Edit, "an edit of `init/main.c`"),
    (Row::HeaderLine, "a comment line in `include/linux/sched.h`"),
    (Row::EditModule, "an edit of a module, `fs/ext4/inode.c`"),
];

/// The README with the table of the large kernel in place of the one that it has.
///
/// # Errors
/// It has no place for one.
pub(super) fn with_figures(readme: &str, measured: &[Measured]) -> Result<String> {
    let large = measured.iter().find(|kernel| kernel.size == Size::Large);
    let table = large.map_or_else(String::new, table);
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.context("the README has no marks around its figures")?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// Medians of what both sides have measured, with a mark where they did on two machines.
fn table(kernel: &Measured) -> String {
    let mut text = "| | kbuild | klto |\n|---|---|---|\n".to_owned();
    for (row, name) in ROWS {
        let of = |side| {
            let figures = kernel.figures(row, side);
            let machine = figures.last()?.machine.clone();
            let seconds = figures.iter().map(|figure| figure.value.seconds);
            Some((quantile(seconds, 0.5), machine))
        };
        if let (Some((thin, there)), Some((klto, here))) = (of(Side::Thin), of(Side::Klto)) {
            let mark = if there == here { "" } else { ELSEWHERE };
            text += &format!("| {name} | {} | {}{mark} |\n", seconds(thin), seconds(klto));
        }
    }
    if text.contains(ELSEWHERE) {
        text += &format!("\n{}\n", two_machines());
    }
    text
}

fn seconds(seconds: f64) -> String {
    match seconds {
        600.0.. => format!("{:.0} min", seconds / 60.0),
        10.0.. => format!("{seconds:.0} s"),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Figures;

    #[test]
    fn what_both_have_measured_is_shown() {
        let line = |row: &str, side: &str, seconds: f64, machine: &str| {
            format!("{row}\t{side}\t{seconds}\t0\t0\t0\tcommit\t{machine}\n")
        };
        let nothing = [("thin", 12.4), ("klto", 0.5), ("klto", 0.3), ("klto", 0.2)];
        let nothing = nothing.map(|(side, seconds)| line("nothing", side, seconds, "one"));
        let touch = line("touch", "thin", 340.0, "one") + &line("touch", "klto", 0.3, "other");
        let rows = vec![
            (Row::Nothing, Figures::parse(&nothing.concat())),
            (Row::Touch, Figures::parse(&touch)),
            (Row::Edit, Figures::default()),
        ];
        let size = Size::Large;
        let measured = [Measured { size, rows }];
        let readme = format!("# klto\n\n{BEGIN}| old |\n{END}\nMore\n");
        let expected = format!(
            "# klto\n\n{BEGIN}| | kbuild | klto |\n|---|---|---|\n| nothing to do | 12 s | 0.3 s |\n\
             | `touch init/main.c` | 340 s | 0.3 s{ELSEWHERE} |\n\n{}\n{END}\nMore\n",
            two_machines()
        );
        assert_eq!(with_figures(&readme, &measured).unwrap(), expected);
        assert!(with_figures("# klto\n", &measured).is_err());
    }

    #[test]
    fn long_times_are_rounded() {
        assert_eq!(seconds(0.26), "0.3 s");
        assert_eq!(seconds(28.6), "29 s");
        assert_eq!(seconds(2519.3), "42 min");
    }
}
