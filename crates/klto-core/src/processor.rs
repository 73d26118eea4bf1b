//! The processor of this machine, for which a tool makes code when an argument says `native`.
//!
//! In: `/proc/cpuinfo`. Out: a digest. It does not know what a tool makes of it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::digest::Digest;

/// What of `/proc/cpuinfo` says which processor it is and what it can (Linux, `arch/x86/kernel/cpu/proc.c`,
/// `arch/arm64/kernel/cpuinfo.c`); the rest differs from moment to moment.
const TELLING: [&str; 11] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
];

/// Digest of what the processors of this machine are; of nothing where the system does not say.
pub fn processor() -> Digest {
    static PROCESSOR: OnceLock<Digest> = OnceLock::new();
    *PROCESSOR.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        of_text(&text)
    })
}

fn of_text(text: &str) -> Digest {
    let is_telling = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        TELLING.contains(&name)
    };
    let lines: BTreeSet<&str> = text.lines().filter(is_telling).collect();
    let lines: Vec<&str> = lines.into_iter().collect();
    Digest::of_bytes(lines.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_what_it_can_and_not_how_fast_it_is_now() {
        let text = |flags: &str, frequency: &str| {
            format!(
                "processor\t: 0\nmodel\t\t: 17\ncpu MHz\t\t: {frequency}\nflags\t\t: fpu {flags}\n"
            )
        };
        let of = |flags, frequency| of_text(&text(flags, frequency));
        assert_eq!(of("avx2", "2400"), of("avx2", "3100"));
        assert_ne!(of("avx2", "2400"), of("avx512f", "2400"));
        let two = text("avx2", "2400") + &text("avx2", "2500");
        assert_eq!(of_text(&two), of("avx2", "2400"));
    }
}
