//! Configurations that cannot be built with LTO.
//!
//! In: a configuration, whether klto adds LTO or the tree has the option, and the major version of
//! LLVM. Out: the rows of the table that hold. Where the tree has the option, its own Kconfig excludes
//! such configurations (its LTO choice then disappears without a word), and the table says why.

use klto_core::Failure;

use crate::config::Config;

/// Which trees a row speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trees {
    All,
    /// Trees to which klto adds LTO.
    WithoutOption,
    /// Trees whose Kconfig has the option.
    WithOption,
}

struct Refusal {
    /// Holds if all of these are set.
    options: &'static [&'static str],
    trees: Trees,
    /// Holds for LLVM older than this; always if there is none.
    before_llvm: Option<u32>,
    why: &'static str,
    change: &'static str,
}

const REFUSALS: [Refusal; 13] = [
    Refusal {
        options: &["KASAN_GENERIC"],
        trees: Trees::WithoutOption,
        before_llvm: None,
        why: "generic KASAN marks globals object by object, and arch/Kconfig of later trees \
              excludes it with LTO and debug information",
        change: "turn CONFIG_KASAN off, or build with --lto=none",
    },
    Refusal {
        options: &["KASAN_SW_TAGS"],
        trees: Trees::WithoutOption,
        before_llvm: None,
        why: "software KASAN tags globals object by object, and arch/Kconfig of later trees \
              excludes it with LTO and debug information",
        change: "turn CONFIG_KASAN off, or build with --lto=none",
    },
    Refusal {
        options: &["KASAN_GENERIC", "DEBUG_INFO"],
        trees: Trees::WithOption,
        before_llvm: Some(17),
        why: "LLVM before 17 makes invalid debug information of KASAN's calls under LTO \
              (ClangBuiltLinux issue 1721)",
        change: "turn CONFIG_KASAN or CONFIG_DEBUG_INFO off, or use LLVM 17 or newer",
    },
    Refusal {
        options: &["KASAN_SW_TAGS", "DEBUG_INFO"],
        trees: Trees::WithOption,
        before_llvm: Some(17),
        why: "LLVM before 17 makes invalid debug information of KASAN's calls under LTO \
              (ClangBuiltLinux issue 1721)",
        change: "turn CONFIG_KASAN or CONFIG_DEBUG_INFO off, or use LLVM 17 or newer",
    },
    Refusal {
        options: &["GCOV_KERNEL"],
        trees: Trees::All,
        before_llvm: None,
        why: "gcov counts by object, and arch/Kconfig of trees with the option excludes it with LTO",
        change: "turn CONFIG_GCOV_KERNEL off, or choose no LTO: klto config --lto=none",
    },
    Refusal {
        options: &["KCOV", "DEBUG_INFO"],
        trees: Trees::All,
        before_llvm: Some(17),
        why: "LLVM before 17 makes invalid debug information of KCOV's calls under LTO \
              (ClangBuiltLinux issue 1721)",
        change: "turn CONFIG_KCOV or CONFIG_DEBUG_INFO off, or use LLVM 17 or newer",
    },
    Refusal {
        options: &["CPU_BIG_ENDIAN"],
        trees: Trees::WithoutOption,
        before_llvm: None,
        why: "LTO on arm64 is for little-endian kernels only, upstream too",
        change: "choose CONFIG_CPU_LITTLE_ENDIAN, or build with --lto=none",
    },
    Refusal {
        options: &["CPU_BIG_ENDIAN", "ARM64"],
        trees: Trees::WithOption,
        before_llvm: None,
        why: "arch/arm64/Kconfig supports LTO for little-endian kernels only",
        change: "choose CONFIG_CPU_LITTLE_ENDIAN",
    },
    Refusal {
        options: &["FTRACE_MCOUNT_USE_RECORDMCOUNT"],
        trees: Trees::WithOption,
        before_llvm: None,
        why: "recordmcount cannot read bitcode, and arch/Kconfig excludes it with LTO",
        change: "turn CONFIG_FUNCTION_TRACER off, or use a compiler that writes the table itself",
    },
    Refusal {
        options: &["RUST", "DEBUG_INFO_BTF"],
        trees: Trees::WithOption,
        before_llvm: None,
        why: "pahole cannot leave Rust's types out of merged units, and init/Kconfig excludes Rust \
              with BTF and LTO",
        change: "turn CONFIG_RUST or CONFIG_DEBUG_INFO_BTF off",
    },
    Refusal {
        options: &["GENDWARFKSYMS"],
        trees: Trees::WithOption,
        before_llvm: None,
        why: "gendwarfksyms reads the debug information of each object, and bitcode has none; \
              kernel/module/Kconfig excludes it with LTO",
        change: "choose CONFIG_GENKSYMS",
    },
    Refusal {
        options: &["BUILTIN_MODULE_RANGES"],
        trees: Trees::WithOption,
        before_llvm: None,
        why: "the ranges come from a link map by object, and lib/Kconfig.debug excludes them with LTO",
        change: "turn CONFIG_BUILTIN_MODULE_RANGES off",
    },
    Refusal {
        options: &["GCC_PLUGINS"],
        trees: Trees::All,
        before_llvm: None,
        why: "plugins of GCC do not run in clang",
        change: "turn CONFIG_GCC_PLUGINS off",
    },
];

/// Every reason why the configuration cannot be built with LTO.
pub(crate) fn refusals(config: &Config, klto_adds_lto: bool, llvm_major: u32) -> Vec<Failure> {
    let holds = |row: &&Refusal| {
        row.options.iter().all(|option| config.is_set(option))
            && row.before_llvm.is_none_or(|fixed| llvm_major < fixed)
            && match row.trees {
                Trees::All => true,
                Trees::WithoutOption => klto_adds_lto,
                Trees::WithOption => !klto_adds_lto,
            }
    };
    REFUSALS
        .iter()
        .filter(holds)
        .map(|row| row.failure(config))
        .collect()
}

/// The LLVM, by major version, from which on `ld.lld --plugin-opt=emit-llvm` writes what it has optimized:
/// version 16 writes what it has merged, 19 optimizes before (lld/ELF/LTO.cpp, the hooks of `createConfig`);
/// those between were not tried.
const MERGES_OPTIMIZED: u32 = 19;

/// Every reason why klto cannot add full LTO to a tree, beside those of [`refusals`].
pub(crate) fn refusals_of_full(config: &Config, llvm_major: u32) -> Vec<Failure> {
    let mut found = Vec::new();
    if llvm_major < MERGES_OPTIMIZED {
        let message = format!(
            "klto adds full LTO with LLVM {MERGES_OPTIMIZED} or newer: the linker of LLVM {llvm_major} gives \
             out a merged module before it is optimized"
        );
        let hint = format!("use --lto=thin, or LLVM {MERGES_OPTIMIZED} or newer");
        found.push(Failure::bad_input(message).hint(hint));
    }
    if config.is_set("DEBUG_INFO_SPLIT") {
        let message = format!(
            "{} has CONFIG_DEBUG_INFO_SPLIT=y: split debug information lies beside each object, and full LTO makes \
             one of all",
            config.path().display()
        );
        let hint = "turn CONFIG_DEBUG_INFO_SPLIT off, or use --lto=thin";
        found.push(Failure::bad_input(message).hint(hint));
    }
    found
}

impl Refusal {
    fn failure(&self, config: &Config) -> Failure {
        let options = self
            .options
            .iter()
            .map(|option| format!("CONFIG_{option}=y"));
        let message = format!(
            "klto cannot build {} with LTO: {}: {}",
            config.path().display(),
            options.collect::<Vec<_>>().join(" with "),
            self.why
        );
        Failure::bad_input(message).hint(self.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, klto_adds_lto: bool, llvm: u32) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        let config = Config::read(file.path()).unwrap().unwrap();
        let failures = refusals(&config, klto_adds_lto, llvm).into_iter();
        failures.map(|failure| failure.message).collect()
    }

    #[test]
    fn full_lto_by_klto_has_reasons_of_its_own() {
        let found = |text: &str, llvm| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs_err::write(file.path(), text).unwrap();
            let config = Config::read(file.path()).unwrap().unwrap();
            refusals_of_full(&config, llvm).len()
        };
        assert_eq!(found("CONFIG_DEBUG_INFO=y\n", 19), 0);
        assert_eq!(found("CONFIG_DEBUG_INFO=y\n", 18), 1);
        assert_eq!(found("CONFIG_DEBUG_INFO_SPLIT=y\n", 16), 2);
    }

    impl Refusal {
        /// A configuration that the row refuses.
        fn settings(&self) -> String {
            let options = self.options.iter();
            options
                .map(|option| format!("CONFIG_{option}=y\n"))
                .collect()
        }
    }

    #[test]
    fn every_row_refuses_its_own_options_on_its_own_trees() {
        for row in &REFUSALS {
            let set = row.settings();
            for (klto_adds_lto, other) in [(true, Trees::WithOption), (false, Trees::WithoutOption)]
            {
                let messages = found(&set, klto_adds_lto, 13);
                let is_there = messages.iter().any(|message| message.ends_with(row.why));
                assert_eq!(is_there, row.trees != other, "{}", row.why);
            }
        }
    }

    /// What the user sees of each row, as it is in the golden file.
    #[test]
    fn every_refusal_reads_as_it_must() {
        let mut shown = String::new();
        for row in &REFUSALS {
            let set = row.settings();
            let file = tempfile::NamedTempFile::new().unwrap();
            fs_err::write(file.path(), set).unwrap();
            let config = Config::read(file.path()).unwrap().unwrap();
            let (text, status) = klto_core::report(&row.failure(&config).into());
            assert_eq!(status, klto_core::ExitStatus::BadInput);
            shown += &text.replace(&file.path().display().to_string(), ".config");
        }
        assert_eq!(shown, include_str!("golden/refusals.txt"));
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
            for klto_adds_lto in [true, false] {
                assert_eq!(found(text, klto_adds_lto, llvm), [""; 0], "{text}");
            }
        }
    }
}
