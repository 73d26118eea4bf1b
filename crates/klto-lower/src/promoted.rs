//! Names that ThinLTO promoted, and which of them get their base name back.
//!
//! A local symbol that another object imports becomes global under a name that no other object can
//! have: `foo` turns into `foo.llvm.8917…` (LLVM, ModuleSummaryIndex::getGlobalNameForLocal). modpost's
//! section-mismatch white lists, kallsyms, livepatch and BPF know it as `foo`.
//!
//! A promoted name gets its base name back only if no other symbol of that name, defined, local, weak,
//! common or undefined, is in any object of the unit, and no script or export that the unit can meet
//! has it, and no second local of that name was promoted.

//!
//! The digits are a digest of the bitcode, and that depends on more than the code: places of inline
//! assembly in all that was included (`!srcloc`) are in it, so that another line in `autoconf.h` changes
//! the digits of objects that kbuild rightly does not compile again. A name that stays gets other digits,
//! a digest of its object's name: they are those of a clean build, and the same after an edit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use klto_core::Digest;
use klto_formats::elf::{Place, Symbol};

/// The part of a promoted name before `.llvm.<digits>`; `None` for every other name.
pub fn base_name(name: &[u8]) -> Option<&[u8]> {
    let position = name.windows(6).rposition(|window| window == b".llvm.")?;
    let digits = name.get(position + 6..)?;
    let promoted = position > 0 && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    promoted.then(|| name.get(..position)).flatten()
}

/// The digits of a promoted name.
fn digits<'a>(name: &'a [u8], base: &[u8]) -> &'a [u8] {
    name.get(base.len() + b".llvm.".len()..).unwrap_or_default()
}

/// An object of the unit, as its link takes it.
#[derive(Debug, Clone)]
pub struct UnitObject {
    /// Its name in the output tree.
    pub name: String,
    /// All symbols.
    pub symbols: Vec<Symbol>,
}

/// The decision for one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromotedNames {
    /// Promoted name to the name that it gets.
    pub renamed: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names with digits that are left, because their base name is not unique.
    pub kept: BTreeSet<Vec<u8>>,
}

impl PromotedNames {
    /// Decides from the symbols of every object of the unit and from names that are `reserved`.
    pub fn decide(objects: &[UnitObject], reserved: &dyn Fn(&[u8]) -> bool) -> Self {
        let mut plain: HashSet<&[u8]> = HashSet::new();
        let mut promoted: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
        for symbol in objects.iter().flat_map(|object| &object.symbols) {
            match base_name(&symbol.name) {
                Some(base) => promoted.entry(base).or_default().insert(&symbol.name),
                None => plain.insert(&symbol.name),
            };
        }
        let owners = owners(objects);
        let mut decision = Self::default();
        for (base, names) in promoted {
            let unique = names.len() == 1 && !plain.contains(base) && !reserved(base);
            for name in names {
                let owner = owners.get(digits(name, base));
                let new = match (unique, owner) {
                    (true, _) => base.to_vec(),
                    (false, Some(owner)) => [base, b".llvm.", &stable_digits(owner)].concat(),
                    (false, None) => name.to_vec(),
                };
                if !unique {
                    decision.kept.insert(new.clone());
                }
                if new != name {
                    decision.renamed.insert(name.to_vec(), new);
                }
            }
        }
        decision
    }
}

/// The object that each digits stand for: the one that defines such names. Two of the same bitcode
/// would define the same names, and could not be linked.
fn owners(objects: &[UnitObject]) -> HashMap<&[u8], &str> {
    let mut owners = HashMap::new();
    for object in objects {
        let is_defined = |symbol: &&Symbol| symbol.place == Place::Defined;
        for symbol in object.symbols.iter().filter(is_defined) {
            if let Some(base) = base_name(&symbol.name) {
                owners.insert(digits(&symbol.name, base), object.name.as_str());
            }
        }
    }
    owners
}

fn stable_digits(object: &str) -> Vec<u8> {
    let digest = Digest::of_bytes(object.as_bytes());
    let number = digest.as_bytes().first_chunk().copied();
    u64::from_le_bytes(number.unwrap_or_default())
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Names; those that the object only uses have a `?` in front.
    fn object(name: &str, text: &str) -> UnitObject {
        let symbol = |word: &str| Symbol {
            name: word.trim_start_matches('?').as_bytes().to_vec(),
            place: match word.starts_with('?') {
                true => Place::Undefined,
                false => Place::Defined,
            },
            binding: klto_formats::elf::Binding::Global,
            kind: klto_formats::elf::Kind::Other,
            value: 0,
        };
        UnitObject {
            name: name.to_owned(),
            symbols: text.split_whitespace().map(symbol).collect(),
        }
    }

    fn decide(digits: [&str; 2]) -> PromotedNames {
        let [one, two] = digits;
        let text = |text: &str| text.replace("#1", one).replace("#2", two);
        let objects = [
            object(
                "a.o",
                &text("ops.llvm.#1 probe.llvm.#1 reset.llvm.#1 twice.llvm.#1 ?twice.llvm.#2"),
            ),
            object("b.o", &text("?ops.llvm.#1 probe twice.llvm.#2 init")),
        ];
        PromotedNames::decide(&objects, &|name| name == b"reset")
    }

    #[test]
    fn unique_names_return_and_all_others_get_their_object_s_digits() {
        let decision = decide(["1", "2"]);
        assert_eq!(decision.renamed[&b"ops.llvm.1"[..]], b"ops");
        let bases: Vec<&[u8]> = decision
            .kept
            .iter()
            .filter_map(|name| base_name(name))
            .collect();
        assert_eq!(bases, [&b"probe"[..], b"reset", b"twice", b"twice"]);
        let digits_of = |base: &[u8]| {
            let name = decision.kept.iter().find(|name| name.starts_with(base));
            digits(name.unwrap(), base).to_vec()
        };
        assert_eq!(digits_of(b"probe"), stable_digits("a.o"));
        assert_eq!(digits_of(b"probe"), digits_of(b"reset"));
    }

    #[test]
    fn digits_of_the_bitcode_do_not_matter() {
        let kept = decide(["1", "2"]).kept;
        assert_eq!(decide(["71", "58"]).kept, kept);
    }
}
