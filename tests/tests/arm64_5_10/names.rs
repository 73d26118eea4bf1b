//! Names that ThinLTO promoted: only those stay whose base name another symbol has.

use std::collections::BTreeSet;

use klto_tests::{assert_ambiguous, promoted_names_of_vmlinux};
use klto_verify::promoted_names;

use crate::{Thin, module_units, thin};

#[test]
fn a_promoted_name_stays_only_where_its_base_is_not_unique() {
    let Thin { build, first, .. } = thin();
    let output = build.output_directory();
    let listed = &first.log.promoted["vmlinux.o"];
    let left = promoted_names_of_vmlinux(output).unwrap();
    let unlisted: Vec<&String> = left.difference(listed).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    let more = ["arch/arm64/kernel/head.o"];
    assert_ambiguous(output, listed, &more, "arch/arm64/kernel/vmlinux.lds").unwrap();
    for unit in module_units(output) {
        let bytes = fs_err::read(output.join(unit.with_extension("ko"))).unwrap();
        let left: BTreeSet<String> = promoted_names(&bytes).unwrap().into_iter().collect();
        let none = BTreeSet::new();
        let unit = unit.display().to_string();
        let listed = first.log.promoted.get(&unit).unwrap_or(&none);
        assert!(left.is_subset(listed), "{unit}: {left:?}");
    }
}
