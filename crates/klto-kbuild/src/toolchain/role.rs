//! The tools of a kernel build by the make variable that names them.
//!
//! In: nothing. Out: one table. It does not know where tools are.

/// What a tool is to kbuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `CC`
    Compiler,
    /// `LD`
    Linker,
    /// `AR`
    Archiver,
    /// `NM`
    SymbolLister,
    /// `OBJCOPY`
    ObjectCopier,
    /// `OBJDUMP`
    ObjectDumper,
    /// `STRIP`
    Stripper,
    /// `READELF`
    ElfReader,
    /// `HOSTCC`
    HostCompiler,
}

/// What the tools of a role are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoleFacts {
    pub(super) variable: &'static str,
    pub(super) llvm_name: &'static str,
    pub(super) gnu_name: &'static str,
    /// Debian's package of LLVM's tool, without a version.
    pub(super) package: &'static str,
    /// It is called through klto: LTO works on what it reads or writes, or kbuild calls it so often
    /// that loading it once pays.
    pub(super) hooked: bool,
    /// A build with LTO cannot do without it.
    pub(super) needed: bool,
}

impl Role {
    /// All roles, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::Compiler,
        Self::Linker,
        Self::Archiver,
        Self::SymbolLister,
        Self::ObjectCopier,
        Self::ObjectDumper,
        Self::Stripper,
        Self::ElfReader,
        Self::HostCompiler,
    ];

    /// The make variable.
    pub fn variable(self) -> &'static str {
        self.facts().variable
    }

    /// Whether it is called through klto in a build with LTO.
    pub fn is_hooked(self) -> bool {
        self.facts().hooked
    }

    pub(super) const fn facts(self) -> RoleFacts {
        let (variable, llvm_name, gnu_name, package, hooked, needed) = match self {
            Self::Compiler => ("CC", "clang", "gcc", "clang", true, true),
            Self::Linker => ("LD", "ld.lld", "ld", "lld", true, true),
            Self::Archiver => ("AR", "llvm-ar", "ar", "llvm", true, true),
            Self::SymbolLister => ("NM", "llvm-nm", "nm", "llvm", true, true),
            Self::ObjectCopier => ("OBJCOPY", "llvm-objcopy", "objcopy", "llvm", true, true),
            Self::ObjectDumper => ("OBJDUMP", "llvm-objdump", "objdump", "llvm", true, true),
            Self::Stripper => ("STRIP", "llvm-strip", "strip", "llvm", true, false),
            Self::ElfReader => ("READELF", "llvm-readelf", "readelf", "llvm", true, false),
            Self::HostCompiler => ("HOSTCC", "clang", "gcc", "clang", false, false),
        };
        RoleFacts {
            variable,
            llvm_name,
            gnu_name,
            package,
            hooked,
            needed,
        }
    }
}
