//! Codes of records in a module; `llvm/Bitcode/LLVMBitCodes.h`.

/// `bitc::ModuleCodes`.
pub(super) mod module {
    pub(crate) const VERSION: u64 = 1;
    pub(crate) const TRIPLE: u64 = 2;
    pub(crate) const DATA_LAYOUT: u64 = 3;
    pub(crate) const ASSEMBLY: u64 = 4;
    pub(crate) const SECTION_NAME: u64 = 5;
    pub(crate) const GLOBAL_VARIABLE: u64 = 7;
    pub(crate) const FUNCTION: u64 = 8;
    pub(crate) const SYMBOLS_OFFSET: u64 = 13;
    pub(crate) const ALIAS: u64 = 14;
    pub(crate) const HASH: u64 = 17;
    pub(crate) const IFUNC: u64 = 18;
}

/// `bitc::TypeCodes`.
pub(super) mod type_of {
    pub(crate) const NUMBER_OF_ENTRIES: u64 = 1;
    pub(crate) const VOID: u64 = 2;
    pub(crate) const LABEL: u64 = 5;
    pub(crate) const POINTER: u64 = 8;
    pub(crate) const ARRAY: u64 = 11;
    pub(crate) const VECTOR: u64 = 12;
    pub(crate) const METADATA: u64 = 16;
    pub(crate) const STRUCT_ANONYMOUS: u64 = 18;
    pub(crate) const STRUCT_NAME: u64 = 19;
    pub(crate) const STRUCT_NAMED: u64 = 20;
    pub(crate) const FUNCTION: u64 = 21;
    pub(crate) const OPAQUE_POINTER: u64 = 25;
    /// Void, numbers, labels, metadata, tokens: their operands are no types.
    pub(crate) const SCALARS: [u64; 13] = [2, 3, 4, 5, 6, 7, 10, 13, 14, 15, 16, 22, 23];
}

/// `bitc::ConstantsCodes`.
pub(super) mod constant {
    pub(crate) const SET_TYPE: u64 = 1;
    pub(crate) const INTEGER: u64 = 4;
    pub(crate) const AGGREGATE: u64 = 7;
    /// Null, undefined, numbers, strings, arrays of numbers, poison: their operands are plain.
    pub(crate) const PLAIN: [u64; 9] = [2, 3, 4, 5, 6, 8, 9, 22, 26];
    /// Texts of inline assembly, in the forms of several versions.
    pub(crate) const ASSEMBLY: [u64; 3] = [18, 23, 30];
}

/// `bitc::MetadataCodes`.
pub(super) mod metadata {
    pub(crate) const VALUE: u64 = 2;
    pub(crate) const NODE: u64 = 3;
    pub(crate) const NAME: u64 = 4;
    pub(crate) const DISTINCT_NODE: u64 = 5;
    pub(crate) const KIND: u64 = 6;
    pub(crate) const NAMED_NODE: u64 = 10;
    pub(crate) const STRINGS: u64 = 35;
    pub(crate) const DECLARATION_ATTACHMENT: u64 = 36;
    pub(crate) const INDEX_OFFSET: u64 = 38;
    pub(crate) const INDEX: u64 = 39;
}
