//! `klto cache`: the store, looked at and cleaned.

use std::fmt::Write as _;

use klto_core::Failure;
use klto_kbuild::Environment;
use klto_store::{Collected, HitCounts, Store, StoreError, Usage};

use crate::cli::CacheCommand;
use crate::variables;

/// Does what is asked with the store that builds use.
pub fn run(command: CacheCommand) -> anyhow::Result<u8> {
    let choice = variables::store(&Environment::of_process())?;
    let Some(root) = choice.root else {
        let message =
            "no directory for the store is known: KLTO_CACHE, XDG_CACHE_HOME and HOME are unset";
        return Err(Failure::environment(message).hint("set KLTO_CACHE").into());
    };
    let store = Store::open(&root, choice.limit).map_err(StoreError::into_failure)?;
    let text = match command {
        CacheCommand::Size => {
            let (builds, counts) = store.history()?;
            let mut text = format!("store    {}\n", root.display());
            text += &size_text(store.usage()?, choice.limit);
            text + &hits_text(builds, &counts)
        }
        CacheCommand::Collect => match store.collect_garbage()? {
            Collected::Busy => "another process cleans the store at this moment\n".to_owned(),
            Collected::Done {
                removed_files,
                removed_bytes,
                size,
            } => {
                let (removed, left) = (bytes_text(removed_bytes), bytes_text(size));
                format!("removed {removed_files} files, {removed}; {left} are left\n")
            }
        },
        CacheCommand::Verify => {
            let examined = store.examine()?;
            let damaged = examined.damaged.len();
            let mut text = examined.damaged.join("\n");
            text += if text.is_empty() { "" } else { "\n" };
            text += &format!(
                "{} files read, {damaged} damaged and removed\n",
                examined.files
            );
            crate::show(&text)?;
            return Ok(u8::from(damaged > 0));
        }
        CacheCommand::Clear => {
            let Usage { entries, bytes, .. } = store.clear()?;
            format!("removed {entries} results, {}\n", bytes_text(bytes))
        }
    };
    crate::show(&text)?;
    Ok(0)
}

fn size_text(usage: Usage, limit: u64) -> String {
    let Usage {
        entries,
        blobs,
        bytes,
    } = usage;
    let (size, limit) = (bytes_text(bytes), bytes_text(limit));
    format!("size     {size} of at most {limit}\nresults  {entries}, in {blobs} files\n")
}

fn hits_text(builds: usize, counts: &HitCounts) -> String {
    let mut text = format!("builds   {builds} remembered\n");
    for (kind, count) in counts {
        let all = count.found + count.made;
        let share = 100 * count.found / all.max(1);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{kind:<16} {share:>3} % found ({} of {all})",
            count.found
        );
    }
    text
}

/// `1.5 GiB`.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klto_store::HitCount;

    #[test]
    fn hits_are_shown_by_kind() {
        let counts = HitCounts::from([
            ("backend".to_owned(), HitCount { found: 3, made: 1 }),
            ("compile".to_owned(), HitCount { found: 0, made: 0 }),
        ]);
        let expected = "builds   2 remembered\n\
            backend           75 % found (3 of 4)\n\
            compile            0 % found (0 of 0)\n";
        assert_eq!(hits_text(2, &counts), expected);
    }

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, text) in [(12, "12 bytes"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
