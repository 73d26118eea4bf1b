//! Headers that trees lack for link-time optimization, kept in `compat/` at the project's root.
//!
//! In: a tree. Out: names below an include directory and texts. The directory goes before the tree's
//! own include path; each header does `#include_next` and redefines macros.

use crate::tree::Tree;
use crate::versions::Behaviour;

/// The headers for objects of `tree` that are compiled with LTO; more of them for full LTO.
pub fn compat_headers(tree: &Tree, full: bool) -> Vec<(&'static str, &'static str)> {
    let needs = |behaviour: Behaviour| behaviour.is_of(tree.version, &tree.source);
    let mut headers = Vec::new();
    if tree.source_architecture == "arm64" && needs(Behaviour::NeedsReadOnceAcquire) {
        headers.push((
            "asm/rwonce.h",
            include_str!("../../../compat/arm64/asm/rwonce.h"),
        ));
    }
    if full && needs(Behaviour::NeedsStubs) {
        let (init, pci) = (
            include_str!("../../../compat/full/linux/init.h"),
            include_str!("../../../compat/full/linux/pci.h"),
        );
        headers.extend([("linux/init.h", init), ("linux/pci.h", pci)]);
    }
    headers
}
