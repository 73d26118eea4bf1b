//! Configurations that klto does not build with LTO on trees without an option for it.
//!
//! In: a configuration and the major version of LLVM. Out: the first row of the table that holds.
//! Where the tree has the option, its own Kconfig excludes such configurations.

use klto_core::Failure;

use crate::config::Config;

struct Refusal {
    /// Holds if all of these are set.
    options: &'static [&'static str],
    /// Holds for LLVM older than this; always if there is none.
    before_llvm: Option<u32>,
    why: &'static str,
    change: &'static str,
}

const REFUSALS: [Refusal; 6] = [
    Refusal {
        options: &["KASAN_GENERIC"],
        before_llvm: None,
        why: "generic KASAN marks globals object by object, and arch/Kconfig of later trees \
              excludes it with LTO and debug information",
        change: "turn CONFIG_KASAN off, or build without --lto",
    },
    Refusal {
        options: &["KASAN_SW_TAGS"],
        before_llvm: None,
        why: "software KASAN tags globals object by object, and arch/Kconfig of later trees \
              excludes it with LTO and debug information",
        change: "turn CONFIG_KASAN off, or build without --lto",
    },
    Refusal {
        options: &["GCOV_KERNEL"],
        before_llvm: None,
        why: "gcov counts by object, and arch/Kconfig of later trees excludes it with LTO",
        change: "turn CONFIG_GCOV_KERNEL off, or build without --lto",
    },
    Refusal {
        options: &["KCOV", "DEBUG_INFO"],
        before_llvm: Some(17),
        why: "LLVM before 17 makes invalid debug information of KCOV's calls under LTO \
              (ClangBuiltLinux issue 1721)",
        change: "turn CONFIG_KCOV or CONFIG_DEBUG_INFO off, or use LLVM 17 or newer",
    },
    Refusal {
        options: &["TRIM_UNUSED_KSYMS"],
        before_llvm: None,
        why: "symbols that only generated calls need (memcpy, memset) are not seen in bitcode and \
              would be trimmed",
        change: "turn CONFIG_TRIM_UNUSED_KSYMS off, or build without --lto",
    },
    Refusal {
        options: &["CPU_BIG_ENDIAN", "FTRACE_MCOUNT_RECORD"],
        before_llvm: None,
        why: "klto writes the table of traced functions for little-endian targets only",
        change: "turn CONFIG_FUNCTION_TRACER off, or build without --lto",
    },
];

/// Why the configuration cannot be built with LTO.
pub(crate) fn refused(config: &Config, llvm_major: u32) -> Option<Failure> {
    let holds = |row: &&Refusal| {
        row.options.iter().all(|option| config.is_set(option))
            && row.before_llvm.is_none_or(|fixed| llvm_major < fixed)
    };
    let row = REFUSALS.iter().find(holds)?;
    let options = row
        .options
        .iter()
        .map(|option| format!("CONFIG_{option}=y"));
    let message = format!(
        "klto cannot build {} with LTO: {}: {}",
        config.path().display(),
        options.collect::<Vec<_>>().join(" with "),
        row.why
    );
    Some(Failure::bad_input(message).hint(row.change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, llvm: u32) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        refused(&Config::read(file.path()).unwrap().unwrap(), llvm).map(|failure| failure.message)
    }

    #[test]
    fn every_row_refuses_its_own_options() {
        for row in &REFUSALS {
            let set: String = row
                .options
                .iter()
                .map(|option| format!("CONFIG_{option}=y\n"))
                .collect();
            let message = refusal(&set, 13).unwrap();
            assert!(message.ends_with(row.why), "{message}");
        }
    }

    #[test]
    fn other_configurations_and_newer_tools_pass() {
        for (text, llvm) in [
            ("", 13),
            ("CONFIG_KASAN_HW_TAGS=y\nCONFIG_DEBUG_INFO=y\n", 13),
            ("CONFIG_KCOV=y\n", 13),
            ("CONFIG_KCOV=y\nCONFIG_DEBUG_INFO=y\n", 17),
            ("# CONFIG_GCOV_KERNEL is not set\n", 13),
        ] {
            assert_eq!(refusal(text, llvm), None, "{text}");
        }
    }
}
