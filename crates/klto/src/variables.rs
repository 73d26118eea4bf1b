//! klto's own environment variables: where the store is, how large it may grow, how much of it is
//! checked, how large an imported function may be, and how much memory full links may take.

use std::path::PathBuf;

use klto_core::Failure;
use klto_kbuild::Environment;
use klto_session::StoreChoice;

const DEFAULT_LIMIT: u64 = 10 << 30;

/// The store, by KLTO_CACHE, KLTO_CACHE_LIMIT, KLTO_VERIFY, XDG_CACHE_HOME and HOME.
pub fn store(environment: &Environment) -> anyhow::Result<StoreChoice> {
    let text = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let below = |name: &str, path: &str| text(name).map(|home| PathBuf::from(home).join(path));
    let root = text("KLTO_CACHE")
        .map(PathBuf::from)
        .or_else(|| below("XDG_CACHE_HOME", "klto"))
        .or_else(|| below("HOME", ".cache/klto"));
    let number = |name: &str| text(name).map(|value| value.to_string_lossy().into_owned());
    let limit = match number("KLTO_CACHE_LIMIT") {
        Some(value) => {
            bytes(&value).ok_or_else(|| bad("KLTO_CACHE_LIMIT", &value, "bytes, as 20G"))?
        }
        None => DEFAULT_LIMIT,
    };
    let verify_percent = match number("KLTO_VERIFY") {
        Some(value) => value
            .parse()
            .ok()
            .filter(|percent| *percent <= 100)
            .ok_or_else(|| bad("KLTO_VERIFY", &value, "a percentage from 0 to 100"))?,
        None => 0,
    };
    if root.is_none() {
        eprintln!(
            "klto: warning: none of KLTO_CACHE, XDG_CACHE_HOME and HOME is set; nothing is reused between output trees"
        );
    }
    Ok(StoreChoice {
        root,
        limit,
        verify_percent,
    })
}

/// KLTO_IMPORT_LIMIT: the largest function that is imported, in LLVM's instructions.
pub fn import_limit(environment: &Environment) -> anyhow::Result<Option<u32>> {
    const NAME: &str = "KLTO_IMPORT_LIMIT";
    let Some(value) = environment.get(NAME).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    let bad = || {
        bad(
            NAME,
            &value.to_string_lossy(),
            "a number of instructions, as 100",
        )
    };
    Ok(Some(number.ok_or_else(bad)?))
}

/// KLTO_MEMORY: the most bytes of memory that full links may take together.
pub fn memory_limit(environment: &Environment) -> anyhow::Result<Option<u64>> {
    const NAME: &str = "KLTO_MEMORY";
    let Some(value) = environment.get(NAME).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    let number = bytes(&value).ok_or_else(|| bad(NAME, &value, "bytes, as 8G"))?;
    Ok(Some(number))
}

fn bad(name: &str, value: &str, wanted: &str) -> Failure {
    Failure::bad_input(format!("{name} is {value:?}")).hint(format!("set it to {wanted}"))
}

/// `20G` in bytes.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        b'T' | b't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_suffixes() {
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("20G"), Some(20 << 30));
        for text in ["", "G", "-1", "1.5G", "99999999999999999999", "99999999T"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
