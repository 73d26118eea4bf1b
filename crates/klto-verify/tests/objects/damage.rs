//! Damaged objects: every reader answers, with a list or an error, and never panics.
//!
//! The damage is the same in every run.

use klto_verify::{
    acquire_loads, initcalls, modinfo, module_versions, pci_fixups, promoted_names, section_list,
    symbol_list,
};

use crate::kernel::{ARM64, Source, link_kernel};
use crate::module::module_source;
use crate::toolchain::Workshop;

fn read_all(bytes: &[u8]) {
    // Whether a damaged file is still readable is up to the damage.
    let _ = initcalls(bytes);
    let _ = pci_fixups(bytes);
    let _ = promoted_names(bytes);
    let _ = acquire_loads(bytes);
    let _ = modinfo(bytes);
    let _ = module_versions(bytes);
    let _ = section_list(bytes);
    let _ = symbol_list(bytes);
}

/// A linear congruential sequence (Knuth's MMIX constants).
fn next(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

fn damage(original: &[u8]) {
    for length in (0..original.len()).step_by(61) {
        read_all(&original[..length]);
    }
    let mut state = 1;
    for round in 0..4000 {
        let mut bytes = original.to_vec();
        // Headers and tables stand at both ends of a file: half of the damage goes there.
        let span = if round % 2 == 0 { bytes.len() } else { 64 };
        for _ in 0..=round % 4 {
            let at = next(&mut state) % span;
            let value = [0, 0xff, 0x7f, 0x80, 1][next(&mut state) % 5];
            bytes[at] = value;
        }
        read_all(&bytes);
    }
}

#[test]
fn no_damage_makes_a_reader_panic() {
    let workshop = Workshop::new();
    let mut source = Source::new(&ARM64);
    source
        .function("foo")
        .initcall("foo", "6")
        .fixup("early", 1, "foo");
    link_kernel(&workshop, &ARM64, &[&source], "vmlinux");
    damage(&std::fs::read(workshop.path().join("vmlinux")).unwrap());
    let text = module_source(".quad", &["license=GPL"], &[("kfree", 1)]);
    let module = workshop.compile(ARM64.triple, &[], "module.s", &text);
    damage(&std::fs::read(module).unwrap());
}
