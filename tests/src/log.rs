//! klto's build log, `.klto/log`, read back: what ran, what was found, what stayed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One action of the log: `ran backend init/main.o`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// `ran`, `hit`, `kept` or `checked`.
    pub how: String,
    /// `backend`, `thin-link`, `unit`.
    pub kind: String,
    /// The object or unit.
    pub object: String,
    /// What stands after `: `; empty without it.
    pub note: String,
}

/// The log of one build. Empty for a build without a session.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Each line as it is.
    pub lines: Vec<String>,
    /// The actions in the order in which they ended.
    pub actions: Vec<Action>,
    /// What changed, so that make ran.
    pub why_make_ran: Option<String>,
    /// How many makes under it ran and were left out; nothing where all ran.
    pub makes_left_out: Option<(usize, usize)>,
    /// Bitcode that the thin-link of a unit took, in link order.
    pub inputs: BTreeMap<String, Vec<String>>,
    /// Lazy members that it did not take.
    pub left_out: BTreeMap<String, Vec<String>>,
    /// Objects made native in this build, and what read each. `klto explain --native` has all.
    pub natives: BTreeMap<String, String>,
    /// Promoted names that stay, with `.llvm.`, by unit.
    pub promoted: BTreeMap<String, BTreeSet<String>>,
}

impl Log {
    /// The log in `output`.
    pub fn read(output: &Path) -> Self {
        let text = std::fs::read_to_string(output.join(".klto/log"));
        Self::parse(&text.unwrap_or_default())
    }

    /// Reads the lines of a log.
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            log.lines.push(line.to_owned());
            log.add(line);
        }
        log
    }

    fn add(&mut self, line: &str) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (second, third) = rest.split_once(' ').unwrap_or((rest, ""));
        let pair = || (second.to_owned(), third.to_owned());
        match first {
            "ran" | "hit" | "kept" | "checked" => {
                let (object, note) = third.split_once(": ").unwrap_or((third, ""));
                self.actions.push(Action {
                    how: first.to_owned(),
                    kind: second.to_owned(),
                    object: object.to_owned(),
                    note: note.to_owned(),
                });
            }
            "make" => self.why_make_ran = rest.strip_prefix("runs: ").map(str::to_owned),
            "makes:" => self.makes_left_out = makes_left_out(rest),
            "input" => self.inputs.entry(pair().0).or_default().push(pair().1),
            "left-out" => self.left_out.entry(pair().0).or_default().push(pair().1),
            "promoted" => drop(self.promoted.entry(pair().0).or_default().insert(pair().1)),
            "native" => {
                if let Some((object, reader)) = rest.split_once(": read by ") {
                    self.natives.insert(object.to_owned(), reader.to_owned());
                }
            }
            _ => {}
        }
    }

    /// Objects of the actions of that kind that went that way, sorted.
    pub fn objects(&self, how: &str, kind: &str) -> BTreeSet<String> {
        self.actions
            .iter()
            .filter(|action| action.how == how && action.kind == kind)
            .map(|action| action.object.clone())
            .collect()
    }

    /// Objects whose backend really ran, because nothing was found or because a hit was checked.
    pub fn backends_run(&self) -> BTreeSet<String> {
        self.objects("ran", "backend")
    }

    /// Objects whose backend's result came out of the store, checked ones too.
    pub fn backends_found(&self) -> BTreeSet<String> {
        let mut found = self.objects("hit", "backend");
        found.extend(self.objects("checked", "backend"));
        found
    }
}

/// `3 ran, 9 were left out`.
fn makes_left_out(text: &str) -> Option<(usize, usize)> {
    let (ran, left_out) = text.strip_suffix(" were left out")?.split_once(" ran, ")?;
    Some((ran.parse().ok()?, left_out.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_read() {
        let log = Log::parse(
            "ran thin-link vmlinux.o: 2 objects\ninput vmlinux.o init/main.o\n\
             left-out vmlinux.o lib/a.o\nran backend init/main.o\n\
             checked backend b.o: not stored: why: so\nnative r.o: read by objcopy for x.o\n\
             promoted vmlinux.o f.llvm.12\nkept unit fs/ext4/ext4.o\nsummary vmlinux.o (x)\n",
        );
        assert_eq!(log.inputs["vmlinux.o"], ["init/main.o"]);
        assert_eq!(log.left_out["vmlinux.o"], ["lib/a.o"]);
        assert_eq!(log.backends_run(), ["init/main.o".to_owned()].into());
        assert_eq!(log.backends_found(), ["b.o".to_owned()].into());
        assert_eq!(log.actions[2].note, "not stored: why: so");
        assert_eq!(log.natives["r.o"], "objcopy for x.o");
        assert!(log.promoted["vmlinux.o"].contains("f.llvm.12"));
        assert!(log.objects("kept", "unit").contains("fs/ext4/ext4.o"));
        assert_eq!(
            log.objects("ran", "thin-link"),
            ["vmlinux.o".to_owned()].into()
        );
    }
}
