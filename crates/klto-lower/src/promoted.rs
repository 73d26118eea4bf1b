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

/// What ThinLTO puts between a name and the digits.
const MARK: &[u8] = b".llvm.";

/// A promoted name in its parts: `foo`, `8917`, and what LLVM puts behind the name of a copy that it makes
/// later, as `.specialized.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promoted<'a> {
    base: &'a [u8],
    digits: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Promoted<'a> {
    /// `None` for every other name.
    fn of(name: &'a [u8]) -> Option<Self> {
        let mark = name.windows(MARK.len()).rposition(|part| part == MARK)?;
        let (base, behind) = name.split_at_checked(mark)?;
        let behind = behind.get(MARK.len()..)?;
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        let end = behind.iter().position(|byte| !is_digit(byte));
        let (digits, rest) = behind.split_at_checked(end.unwrap_or(behind.len()))?;
        let is_promoted =
            !base.is_empty() && !digits.is_empty() && (rest.is_empty() || rest.starts_with(b"."));
        is_promoted.then_some(Self { base, digits, rest })
    }

    /// The name as it would be without promotion.
    fn plain(self) -> Vec<u8> {
        [self.base, self.rest].concat()
    }
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
        let mut promoted: HashMap<Vec<u8>, HashMap<&[u8], Promoted>> = HashMap::new();
        for symbol in objects.iter().flat_map(|object| &object.symbols) {
            match Promoted::of(&symbol.name) {
                Some(parts) => {
                    let names = promoted.entry(parts.plain()).or_default();
                    names.insert(&symbol.name, parts);
                }
                None => _ = plain.insert(&symbol.name),
            };
        }
        let owners = owners(objects);
        let mut decision = Self::default();
        for (without, names) in promoted {
            let unique =
                names.len() == 1 && !plain.contains(without.as_slice()) && !reserved(&without);
            for (name, parts) in names {
                let new = match (unique, owners.get(parts.digits)) {
                    (true, _) => without.clone(),
                    (false, Some(owner)) => {
                        [parts.base, MARK, &stable_digits(owner), parts.rest].concat()
                    }
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

/// The object that each digits stand for: the one that defines such names. Two of the same bitcode would
/// define the same names, and could not be linked. A copy that LLVM makes of a function can be in any object
/// that imports it.
fn owners(objects: &[UnitObject]) -> HashMap<&[u8], &str> {
    let mut owners = HashMap::new();
    for object in objects {
        let is_defined = |symbol: &&Symbol| symbol.place == Place::Defined;
        for symbol in object.symbols.iter().filter(is_defined) {
            let parts = Promoted::of(&symbol.name).filter(|parts| parts.rest.is_empty());
            if let Some(parts) = parts {
                owners.insert(parts.digits, object.name.as_str());
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
    fn promoted_names_have_parts() {
        let parts = |name: &'static str| {
            let parts = Promoted::of(name.as_bytes())?;
            let parts = [parts.base, parts.digits, parts.rest];
            Some(parts.map(|part| std::str::from_utf8(part).unwrap()))
        };
        assert_eq!(parts("foo_ops.llvm.8917"), Some(["foo_ops", "8917", ""]));
        let copy = parts("foo.llvm.12.specialized.1");
        assert_eq!(copy, Some(["foo", "12", ".specialized.1"]));
        for name in [
            "foo",
            "foo.llvm.",
            "foo.llvm.12x",
            ".llvm.12",
            "foo.llvm.x1",
        ] {
            assert_eq!(parts(name), None, "{name}");
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
        let kept = decision.kept.iter();
        let bases: Vec<&[u8]> = kept.map(|name| Promoted::of(name).unwrap().base).collect();
        assert_eq!(bases, [&b"probe"[..], b"reset", b"twice", b"twice"]);
        let digits_of = |base: &[u8]| {
            let name = decision.kept.iter().find(|name| name.starts_with(base));
            Promoted::of(name.unwrap()).unwrap().digits.to_vec()
        };
        assert_eq!(digits_of(b"probe"), stable_digits("a.o"));
        assert_eq!(digits_of(b"probe"), digits_of(b"reset"));
    }

    #[test]
    fn digits_of_the_bitcode_do_not_matter() {
        let kept = decide(["1", "2"]).kept;
        assert_eq!(decide(["71", "58"]).kept, kept);
    }

    #[test]
    fn copies_of_promoted_functions_are_named_after_them() {
        let objects = [
            object("a.o", "show.llvm.7 print.llvm.7 print"),
            object(
                "b.o",
                "show.llvm.7.specialized.1 print.llvm.7.specialized.2",
            ),
            object("c.o", "show.llvm.7.specialized.1 print.specialized.2"),
        ];
        let decision = PromotedNames::decide(&objects, &|_| false);
        assert_eq!(
            decision.renamed[&b"show.llvm.7.specialized.1"[..]],
            b"show.specialized.1"
        );
        let of_a = stable_digits("a.o");
        let named = |rest: &[u8]| [b"print.llvm.", of_a.as_slice(), rest].concat();
        let kept = BTreeSet::from([named(b""), named(b".specialized.2")]);
        assert_eq!(decision.kept, kept);
    }
}
