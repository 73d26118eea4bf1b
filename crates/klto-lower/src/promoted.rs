//! Names that ThinLTO promoted, and which of them get their base name back.
//!
//! A local symbol that another object imports becomes global under a name that no other object can
//! have: `foo` turns into `foo.llvm.8917…` (LLVM, ModuleSummaryIndex::getGlobalNameForLocal). modpost's
//! section-mismatch white lists, kallsyms, livepatch and BPF know it as `foo`.
//!
//! A promoted name gets its base name back only if no other symbol of that name, defined, local, weak,
//! common or undefined, is in any object of the unit, and no script or export that the unit can meet
//! has it, and no second local of that name was promoted.

use std::collections::{BTreeMap, HashMap, HashSet};

/// The part of a promoted name before `.llvm.<digits>`; `None` for every other name.
pub fn base_name(name: &[u8]) -> Option<&[u8]> {
    let position = name.windows(6).rposition(|window| window == b".llvm.")?;
    let digits = name.get(position + 6..)?;
    let promoted = position > 0 && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    promoted.then(|| name.get(..position)).flatten()
}

/// The decision for one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromotedNames {
    /// Promoted name to base name.
    pub restored: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Promoted names that stay, because their base name is not unique.
    pub kept: Vec<Vec<u8>>,
}

impl PromotedNames {
    /// Decides from the symbol names of every object of the unit and from names that are `reserved`.
    pub fn decide<'a>(
        objects: impl IntoIterator<Item = &'a Vec<Vec<u8>>>,
        reserved: &dyn Fn(&[u8]) -> bool,
    ) -> Self {
        let mut plain: HashSet<&[u8]> = HashSet::new();
        let mut promoted: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
        for name in objects.into_iter().flatten() {
            match base_name(name) {
                Some(base) => promoted.entry(base).or_default().insert(name),
                None => plain.insert(name),
            };
        }
        let mut decision = Self::default();
        for (base, names) in promoted {
            let unique = names.len() == 1 && !plain.contains(base) && !reserved(base);
            for name in names {
                match unique {
                    true => drop(decision.restored.insert(name.to_vec(), base.to_vec())),
                    false => decision.kept.push(name.to_vec()),
                }
            }
        }
        decision.kept.sort();
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Vec<u8>> {
        text.split_whitespace()
            .map(|name| name.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn only_whole_promoted_names_have_a_base() {
        assert_eq!(base_name(b"foo_ops.llvm.8917"), Some(&b"foo_ops"[..]));
        for name in [
            "foo",
            "foo.llvm.",
            "foo.llvm.12.cold",
            ".llvm.12",
            "foo.llvm.x1",
        ] {
            assert_eq!(base_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn unique_names_return_and_all_others_stay() {
        let objects = [
            names("ops.llvm.1 probe.llvm.2 reset.llvm.3 twice.llvm.4"),
            names("ops.llvm.1 probe twice.llvm.5 init"),
        ];
        let decision = PromotedNames::decide(&objects, &|name| name == b"reset");
        assert_eq!(
            decision.restored.keys().collect::<Vec<_>>(),
            [b"ops.llvm.1"]
        );
        assert_eq!(
            decision.kept,
            names("probe.llvm.2 reset.llvm.3 twice.llvm.4 twice.llvm.5")
        );
    }
}
