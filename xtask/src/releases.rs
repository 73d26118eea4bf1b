//! The releases of Linux that the matrix and the benchmarks build, and the versions of LLVM.
//!
//! In: nothing. Out: a table. It does not know what is built of them.

use crate::sources::Place;
use crate::suites::Suite;

/// A kernel version.
#[derive(Debug)]
pub(crate) struct Release {
    pub name: &'static str,
    pub source: &'static str,
    pub package: &'static str,
    pub place: Place,
    pub has_lto_option: bool,
    /// Whether it has LTO_CLANG_THIN_DIST.
    pub has_distributed_lto: bool,
    /// Whether its x86_64 is also built with BTF.
    pub has_btf: bool,
    /// Whether its x86_64 is also built with CFI.
    pub has_cfi: bool,
    /// Configuration that it alone needs.
    pub fragments: &'static [&'static str],
    /// The oldest LLVM that it is built with: of those here, the first that it takes
    /// (scripts/min-tool-version.sh).
    pub oldest_llvm: u32,
    /// Whether its x86_64 is also built with fewer exports or none, and switched from one mode to the other.
    pub has_all_variants: bool,
}

pub(crate) static RELEASES: [Release; 4] = [
    Release {
        name: "5.10",
        source: "linux-5.10",
        package: "linux-source-5.10",
        place: Place::Other(Suite::Security("bullseye-security")),
        has_lto_option: false,
        has_distributed_lto: false,
        has_btf: false,
        has_cfi: false,
        fragments: &[],
        oldest_llvm: OLDER_LLVM[1],
        has_all_variants: true,
    },
    Release {
        name: "6.1",
        source: "linux-6.1",
        package: "linux-source-6.1",
        place: Place::Machine,
        has_lto_option: true,
        has_distributed_lto: false,
        has_btf: false,
        has_cfi: true,
        fragments: &[],
        oldest_llvm: OLDER_LLVM[1],
        has_all_variants: false,
    },
    Release {
        name: "6.12",
        source: "linux-6.12",
        package: "linux-source-6.12",
        place: Place::Machine,
        has_lto_option: true,
        has_distributed_lto: false,
        has_btf: true,
        has_cfi: true,
        fragments: &[],
        oldest_llvm: OLDER_LLVM[1],
        has_all_variants: true,
    },
    Release {
        name: "7.2",
        source: "linux-7.2",
        package: "linux-source-7.2",
        place: Place::Other(Suite::Main("sid")),
        has_lto_option: true,
        has_distributed_lto: true,
        has_btf: true,
        has_cfi: true,
        fragments: &["matrix-7.2.config"],
        oldest_llvm: 17,
        has_all_variants: false,
    },
];

/// The LLVM of both modes; older ones are tested with LTO.
pub(crate) const NEWEST_LLVM: u32 = 22;
/// Older versions that Debian 12 has and klto supports, on x86_64.
pub(crate) const OLDER_LLVM: [u32; 2] = [19, 16];
/// All of them.
pub const LLVM_VERSIONS: [u32; 3] = [NEWEST_LLVM, OLDER_LLVM[0], OLDER_LLVM[1]];
