//! Names that ThinLTO promoted, as `foo.llvm.1234`: only those stay whose base name another symbol has.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use klto_verify::symbol_list;

use crate::units::{archives, is_bitcode};

/// The promoted names in vmlinux of a finished build, but those of CFI's types.
pub fn promoted_names_of_vmlinux(output: &Path) -> Result<BTreeSet<String>> {
    let map = fs::read_to_string(output.join("System.map"))?;
    let words = map.split_whitespace();
    let promoted = words.filter(|word| word.contains(".llvm."));
    let without_cfi = promoted.map(|word| word.strip_prefix("__cfi_").unwrap_or(word));
    Ok(without_cfi.map(str::to_owned).collect())
}

/// Fails where a promoted name could have its base name back, by the symbol tables of all that vmlinux is linked
/// from: the members of the tree's archives, as the backends wrote them, and `more`; and by its linker script.
pub fn assert_ambiguous(
    output: &Path,
    names: &BTreeSet<String>,
    more: &[&str],
    script: &str,
) -> Result<()> {
    let members = archives(output)?.into_iter().flatten();
    let members: BTreeSet<PathBuf> = members.chain(more.iter().map(PathBuf::from)).collect();
    let mut owners: HashMap<String, usize> = HashMap::new();
    for member in &members {
        let object = match is_bitcode(&output.join(member)) {
            true => output.join(".klto/units/vmlinux.o/raw").join(member),
            false => output.join(member),
        };
        let symbols: BTreeSet<String> = symbol_list(&fs::read(&object)?)?.into_iter().collect();
        for symbol in symbols {
            *owners.entry(symbol).or_default() += 1;
        }
    }
    let script = fs::read_to_string(output.join(script))?;
    let is_separator = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let script: BTreeSet<&str> = script.split(is_separator).collect();
    for name in names {
        let (base, _) = name.split_once(".llvm.").unwrap_or((name, ""));
        let prefix = format!("{base}.llvm.");
        let promoted = owners.keys().filter(|other| other.starts_with(&prefix));
        let is_ambiguous =
            owners.contains_key(base) || promoted.count() > 1 || script.contains(base);
        assert!(is_ambiguous, "{name} could have its name back");
    }
    let promoted = owners.keys().filter(|name| name.contains(".llvm.")).count();
    eprintln!("    {promoted} promoted names, {} stay", names.len());
    assert!(
        promoted > 2 * names.len(),
        "{promoted} promoted, {} stay",
        names.len()
    );
    Ok(())
}
