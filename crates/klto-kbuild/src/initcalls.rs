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
