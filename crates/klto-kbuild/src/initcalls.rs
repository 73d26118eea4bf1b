//! The order of initcalls, which kbuild's Perl script finds for a kernel that is linked with LTO.
//!
//! In: the names of local symbols of each object in link order. Out: the linker script that it prints. A name
//! says the module, a counter that rises through its source, the line, the function and the level:
//! `__initcall__kmod_main__12_345_start6` (include/linux/init.h).

use std::collections::BTreeMap;

const PREFIX: &str = "__initcall__";
/// Levels that are words; the others are digits, each perhaps with an `s` behind it.
const LEVEL_WORDS: [&str; 3] = ["early", "rootfs", "con"];

/// The initcalls of a kernel, object by object.
#[derive(Debug, Default)]
pub struct InitcallOrder {
    /// Names of sections without the level's own, by level.
    levels: BTreeMap<String, Vec<String>>,
}

/// Names that the script would stop at, or take in an order that is not evident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnclearInitcalls;

impl InitcallOrder {
    /// Adds the initcalls of the next object in link order, of which `names` are the local symbols in any
    /// order.
    ///
    /// # Errors
    /// A name without a level, or two with one counter.
    pub fn add<'a>(
        &mut self,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), UnclearInitcalls> {
        let mut initcalls = BTreeMap::new();
        for initcall in names.filter_map(initcall) {
            let (counter, level, section) = initcall?;
            if initcalls.insert(counter, (level, section)).is_some() {
                return Err(UnclearInitcalls);
            }
        }
        for (level, section) in initcalls.into_values() {
            self.levels.entry(level).or_default().push(section);
        }
        Ok(())
    }

    /// What the script prints; `None` without any initcall, which is an error to it.
    pub fn linker_script(&self) -> Option<String> {
        if self.levels.is_empty() {
            return None;
        }
        let mut text = "SECTIONS {\n".to_owned();
        for (level, sections) in &self.levels {
            let of_level = match level.as_str() {
                "con" => ".con_initcall.init".to_owned(),
                level => format!(".initcall{level}.init"),
            };
            text += &format!("\t{of_level} : {{\n");
            for section in sections {
                text += &format!("\t\t*({of_level}..{section}) ;\n");
            }
            text += "\t}\n";
        }
        Some(text + "}\n")
    }
}

/// A script that has lld put the same sections into the same order as one of [`InitcallOrder`], with fewer
/// patterns: lld tries each of them on each section of the kernel. `sections` are the names of all sections in
/// the order of the link. A level whose initcalls are in that order by themselves gets a few patterns for all
/// but the last, which keeps its own: by the last pattern lld decides where the section's symbol stands. `None`
/// for a script that is none of these, or has nothing to shorten.
pub fn shorter_linker_script(script: &str, sections: &[Vec<u8>]) -> Option<String> {
    let levels = levels_of(script)?;
    let mut text = "SECTIONS {\n".to_owned();
    let mut is_shorter = false;
    for (level, names) in levels {
        let start = format!("{level}..");
        let natural = sections.iter();
        let natural = natural.filter(|name| name.starts_with(start.as_bytes()));
        let patterns = match natural.eq(names.iter().map(|name| name.as_bytes())) {
            true => patterns_of_all_but_last(&start, &names),
            false => None,
        };
        text += &format!("\t{level} : {{\n");
        match (patterns, names.last()) {
            (Some(patterns), Some(last)) => {
                is_shorter = true;
                text += &format!("\t\t*({}) ;\n\t\t*({last}) ;\n", patterns.join(" "));
            }
            _ => text.extend(names.iter().map(|name| format!("\t\t*({name}) ;\n"))),
        }
        text += "\t}\n";
    }
    is_shorter.then(|| text + "}\n")
}

/// The sections of a script by level, both in its order.
fn levels_of(script: &str) -> Option<Vec<(&str, Vec<&str>)>> {
    let is_plain = |name: &str| {
        let mut bytes = name.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._$-".contains(&byte))
    };
    let mut levels: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut lines = script.lines();
    (lines.next()? == "SECTIONS {").then_some(())?;
    while let Some(level) = lines.next()?.strip_prefix('\t') {
        let level = level.strip_suffix(" : {").filter(|level| is_plain(level))?;
        let mut names = Vec::new();
        while let Some(name) = lines.next()?.strip_prefix("\t\t*(") {
            names.push(name.strip_suffix(") ;").filter(|name| is_plain(name))?);
        }
        levels.push((level, names));
    }
    lines.next().is_none().then_some(levels)
}

/// Patterns that match each of `names`, which begin with `start`, but the last. Each matches names with
/// another letter than that one at some place. `None` where these are no fewer.
fn patterns_of_all_but_last(start: &str, names: &[&str]) -> Option<Vec<String>> {
    let (last, others) = names.split_last()?;
    let mut left: Vec<&str> = others.to_vec();
    let mut patterns = Vec::new();
    while !left.is_empty() {
        let differs = |name: &str, place: usize| {
            let letter = name.as_bytes().get(place);
            letter.is_some_and(|letter| last.as_bytes().get(place) != Some(letter))
        };
        let count = |place: &usize| left.iter().filter(|name| differs(name, *place)).count();
        let place = (start.len()..last.len()).rev().max_by_key(count)?;
        if count(&place) == 0 || patterns.len() + 1 == others.len() {
            return None;
        }
        left.retain(|name| !differs(name, place));
        let letter = last.get(place..=place)?;
        let before = "?".repeat(place - start.len());
        patterns.push(format!("{start}{before}[!{letter}]*"));
    }
    (!patterns.is_empty()).then_some(patterns)
}

/// The counter, the level and the section of an initcall's name; `None` of any other name.
fn initcall(name: &[u8]) -> Option<Result<(u64, String, String), UnclearInitcalls>> {
    let rest = std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?;
    // The last place where numbers follow: a module's name may hold such a text too.
    let places = rest.rmatch_indices("__").map(|(place, _)| place);
    let (module, counter, line, symbol) = places.into_iter().find_map(|place| {
        let (module, numbers) = (&rest[..place], &rest[place + 2..]);
        let mut parts = numbers.splitn(3, '_');
        let mut number = || parts.next().filter(|text| is_number(text));
        let (counter, line) = (number()?, number()?);
        Some((module, counter, line, parts.next()?))
    })?;
    let split = (|| {
        let at = (0..symbol.len())
            .rev()
            .find(|at| symbol.get(*at..).is_some_and(is_level))?;
        Some((symbol.split_at(at), counter.parse().ok()?))
    })();
    Some(match split {
        Some(((function, level), counter)) => Ok((
            counter,
            level.to_owned(),
            format!("{module}__{counter}_{line}_{function}"),
        )),
        None => Err(UnclearInitcalls),
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_level(text: &str) -> bool {
    let is_base = |text: &str| LEVEL_WORDS.contains(&text) || text.len() == 1 && is_number(text);
    is_base(text) || text.strip_suffix('s').is_some_and(is_base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_in_the_order_of_the_link_needs_few_patterns() {
        let script = |six: &str| {
            format!(
                "SECTIONS {{\n\t.initcall6.init : {{\n{six}\t}}\n\t.initcall7.init : {{\n\t\t*(.initcall7.init..a) ;\n\t}}\n}}\n"
            )
        };
        let names = [
            "kmod_a__1_2_one",
            "kmod_b__1_2_one",
            "kmod_a__3_4_two",
            "kmod_b__3_4_two",
        ];
        let names = names.map(|name| format!(".initcall6.init..{name}"));
        let all = names
            .each_ref()
            .map(|name| format!("\t\t*({name}) ;\n"))
            .concat();
        let bytes = |name: &String| name.as_bytes().to_vec();
        let mut sections: Vec<Vec<u8>> = names.iter().map(bytes).collect();
        sections.insert(2, b".text".to_vec());
        sections.push(b".initcall7.init..a".to_vec());
        let shorter = shorter_linker_script(&script(&all), &sections).unwrap();
        let patterns = ".initcall6.init..?????[!b]* .initcall6.init..????????[!3]*";
        let last = &names[3];
        assert_eq!(
            shorter,
            script(&format!("\t\t*({patterns}) ;\n\t\t*({last}) ;\n"))
        );
        // In another order, with one that the script does not name, and in another form.
        sections.swap(0, 1);
        assert_eq!(shorter_linker_script(&script(&all), &sections), None);
        sections.swap(0, 1);
        sections.push(b".initcall6.init..kmod_c__1_2_more".to_vec());
        assert_eq!(shorter_linker_script(&script(&all), &sections), None);
        sections.pop();
        let other = script(&all).replace(") ;", ");");
        assert_eq!(shorter_linker_script(&other, &sections), None);
        assert!(shorter_linker_script(&script(&all), &sections).is_some());
    }

    #[test]
    fn initcalls_stand_by_level_object_and_counter() {
        let mut order = InitcallOrder::default();
        let first: [&[u8]; 5] = [
            b"__initcall__kmod_a__10_3_late7",
            b"__initcall__kmod_a__9_2_start6s",
            b"other",
            b"__initcall__kmod_b__1_2_x__7_4_check_conearly",
            b"__initcall__kmod_8250__11_5_univ8250_console_initcon",
        ];
        order.add(first.into_iter()).unwrap();
        let second: [&[u8]; 2] = [
            b"__initcall__kmod_c__2_1_rest7",
            b"__initcall__kmod_c__1_9_fs_initrootfs",
        ];
        order.add(second.into_iter()).unwrap();
        let expected = "SECTIONS {\n\
            \t.initcall6s.init : {\n\t\t*(.initcall6s.init..kmod_a__9_2_start) ;\n\t}\n\
            \t.initcall7.init : {\n\t\t*(.initcall7.init..kmod_a__10_3_late) ;\n\
            \t\t*(.initcall7.init..kmod_c__2_1_rest) ;\n\t}\n\
            \t.con_initcall.init : {\n\
            \t\t*(.con_initcall.init..kmod_8250__11_5_univ8250_console_init) ;\n\t}\n\
            \t.initcallearly.init : {\n\
            \t\t*(.initcallearly.init..kmod_b__1_2_x__7_4_check_con) ;\n\t}\n\
            \t.initcallrootfs.init : {\n\
            \t\t*(.initcallrootfs.init..kmod_c__1_9_fs_init) ;\n\t}\n}\n";
        assert_eq!(order.linker_script().unwrap(), expected);
    }

    #[test]
    fn what_the_script_would_stop_at_is_said() {
        let mut order = InitcallOrder::default();
        assert_eq!(order.linker_script(), None);
        let mut add = |names: &[&str]| order.add(names.iter().map(|name| name.as_bytes()));
        assert_eq!(
            add(&["__initcall__kmod_a__1_2_start"]),
            Err(UnclearInitcalls)
        );
        assert_eq!(
            add(&["__initcall__m__1_2_a6", "__initcall__m__1_3_b6"]),
            Err(UnclearInitcalls)
        );
        assert_eq!(add(&["__initcall__m", "__initcall__m__1_x_a6"]), Ok(()));
    }
}
