//! What klto's build log says of one build, counted.
//!
//! In: the text of `.klto/log`. Out: which objects went through ThinLTO, which were compiled native
//! and why, and how long klto's own steps took.

use std::collections::{BTreeMap, BTreeSet};

/// One link unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unit {
    /// Bitcode objects that the thin-link took, or the link of full LTO.
    pub inputs: Vec<String>,
    /// Names of promoted locals that stay.
    pub promoted: BTreeSet<String>,
    /// Seconds of the thin-link.
    pub thin_link: f64,
    /// Seconds of all backends together, as the clock on the wall saw them.
    pub backends: f64,
}

/// The whole log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildLog {
    /// By the unit's name: `vmlinux.o`, `vmlinux.thinlto-index`, or a module's object.
    pub units: BTreeMap<String, Unit>,
    /// Members of `lib.a` that nothing needed, by unit.
    pub left_out: BTreeMap<String, Vec<String>>,
    /// Objects compiled native, and what reads each as ELF.
    pub native: BTreeMap<String, String>,
    /// Whether the tree's script gave the order of initcalls that klto finds.
    pub initcalls_agree: bool,
}

impl BuildLog {
    /// Reads the log; lines of other kinds are passed over.
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            log.add(line);
        }
        log
    }

    fn add(&mut self, line: &str) {
        self.initcalls_agree |= line == "initcalls by klto and the script agree";
        if let Some((unit, object)) = rest(line, "input ").and_then(|rest| rest.split_once(' ')) {
            self.unit(unit).inputs.push(object.to_owned());
        } else if let Some((unit, name)) =
            rest(line, "promoted ").and_then(|rest| rest.split_once(' '))
        {
            self.unit(unit).promoted.insert(name.to_owned());
        } else if let Some((unit, object)) =
            rest(line, "left-out ").and_then(|rest| rest.split_once(' '))
        {
            let objects = self.left_out.entry(unit.to_owned()).or_default();
            objects.push(object.to_owned());
        } else if let Some((unit, end)) =
            rest(line, "ran thin-link ").and_then(|rest| rest.split_once(": "))
        {
            self.unit(unit).thin_link = last_seconds(end);
        } else if let Some((unit, end)) =
            rest(line, "summary ").and_then(|rest| rest.split_once(" ("))
        {
            self.unit(unit).backends = last_seconds(end);
        } else if let Some((object, reader)) =
            rest(line, "native ").and_then(|rest| rest.split_once(": read by "))
        {
            self.native.insert(object.to_owned(), reader.to_owned());
        }
    }

    fn unit(&mut self, name: &str) -> &mut Unit {
        self.units.entry(name.to_owned()).or_default()
    }

    /// Bitcode objects of all units.
    pub fn inputs(&self) -> usize {
        self.units.values().map(|unit| unit.inputs.len()).sum()
    }
}

fn rest<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)
}

/// The number before the final ` s`; zero for a line without one.
fn last_seconds(text: &str) -> f64 {
    let number = text.strip_suffix(" s").and_then(|text| {
        let word = text.rsplit(' ').next()?;
        word.parse().ok()
    });
    number.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_native_objects_are_counted() {
        let text = "\
input vmlinux.o init/main.o
input vmlinux.o init/calibrate.o
left-out vmlinux.o lib/klist.o
ran thin-link vmlinux.o: 2 objects, 0.31 s
ran backend init/main.o
promoted vmlinux.o f.llvm.12
summary vmlinux.o (2 bitcode objects: 2 backends run, 0 from the store, 0 unchanged) 4.5 s
input lib/crc7.o lib/crc7.o
ran thin-link lib/crc7.o: 1 objects, 0.02 s
native lib/vdso.o: read by llvm-objcopy
";
        let log = BuildLog::parse(text);
        let vmlinux = Unit {
            inputs: vec!["init/main.o".to_owned(), "init/calibrate.o".to_owned()],
            promoted: BTreeSet::from(["f.llvm.12".to_owned()]),
            thin_link: 0.31,
            backends: 4.5,
        };
        assert_eq!(log.units["vmlinux.o"], vmlinux);
        assert_eq!(log.inputs(), 3);
        assert_eq!(log.left_out["vmlinux.o"], ["lib/klist.o"]);
        assert_eq!(log.native["lib/vdso.o"], "llvm-objcopy");
    }
}
