//! `klto doctor`: what stands between a tree and LTO.

use std::ffi::OsString;
use std::fmt::Write as _;

use klto_core::Failure;
use klto_kbuild::{Diagnosis, Invocation, LtoRequest};

/// Prints the diagnosis; 0 if LTO can work, otherwise the first conflict's code.
pub fn run(request: Option<LtoRequest>, words: &[OsString]) -> anyhow::Result<u8> {
    let diagnosis = Diagnosis::of(&Invocation::of_process(request, words)?)?;
    crate::show(&shown(&diagnosis))?;
    let first = diagnosis.conflicts.first();
    Ok(first.map_or(0, |conflict| conflict.status.code()))
}

fn shown(diagnosis: &Diagnosis) -> String {
    let mut text = diagnosis.facts.join("\n");
    let verdict = match diagnosis.conflicts.len() {
        0 => "LTO can work".to_owned(),
        1 => "LTO cannot work: one conflict".to_owned(),
        count => format!("LTO cannot work: {count} conflicts"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{verdict}");
    for Failure { message, hint, .. } in &diagnosis.conflicts {
        let _ = writeln!(text, "\n- {message}");
        if let Some(hint) = hint {
            let _ = writeln!(text, "  change: {hint}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conflict_stands_with_its_remedy() {
        let conflict = Failure::bad_input("CONFIG_A=y: no").hint("turn it off");
        let diagnosis = Diagnosis {
            facts: vec!["tree     Linux".to_owned()],
            conflicts: vec![conflict],
        };
        let expected = "tree     Linux\nLTO cannot work: one conflict\n\n- CONFIG_A=y: no\n  \
                        change: turn it off\n";
        assert_eq!(shown(&diagnosis), expected);
    }
}
