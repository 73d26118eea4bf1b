//! Tests over real objects: small programs that clang assembles and lld links.
//!
//! The oracles are llvm-nm, llvm-readelf, llvm-objdump and modinfo. The tools must be installed.

// clippy's own exception sees only functions marked as tests, not what they call.
#![allow(clippy::unwrap_used)]

mod comparison;
mod damage;
mod finished_build;
mod kernel;
mod module;
mod toolchain;
