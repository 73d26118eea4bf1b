//! LTO happened: every bitcode object goes into its unit, and what is native has a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use klto_tests::{
    archives, is_bitcode, is_compiled, klto_binary, module_objects, natives_without_reason,
};

use crate::{Thin, module_units, thin};

/// Objects as klto's log names them.
fn paths<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<PathBuf> {
    names.into_iter().map(PathBuf::from).collect()
}

/// `klto explain --native`: object to reader.
fn explained(output: &Path) -> BTreeMap<PathBuf, String> {
    let mut klto = Command::new(klto_binary());
    klto.args(["explain", "--native", "-O"]).arg(output);
    let text = xtask::command::output(&mut klto).unwrap();
    let pair = |line: &str| {
        let (object, reader) = line.split_once('\t').unwrap();
        (PathBuf::from(object), reader.to_owned())
    };
    text.lines().map(pair).collect()
}

#[test]
fn every_bitcode_object_of_a_unit_goes_into_its_thin_link() {
    let Thin { build, first, .. } = thin();
    let output = build.output_directory();
    let lists = archives(output).unwrap();
    let in_archives: BTreeSet<PathBuf> = lists.iter().flatten().cloned().collect();
    let bitcode = |path: &PathBuf| is_bitcode(&output.join(path));
    let expected: BTreeSet<PathBuf> = in_archives.iter().filter(|p| bitcode(p)).cloned().collect();
    let inputs = &first.log.inputs["vmlinux.o"];
    assert!(inputs.len() > 300, "{}", inputs.len());
    assert_eq!(paths(inputs), expected);
    assert!(first.log.left_out.is_empty(), "{:?}", first.log.left_out);
    for list in &lists {
        let members: Vec<&PathBuf> = list.iter().filter(|path| bitcode(path)).collect();
        let of_list: BTreeSet<&PathBuf> = members.iter().copied().collect();
        let inputs = inputs.iter().map(Path::new);
        let inputs: Vec<&Path> = inputs
            .filter(|path| of_list.contains(&path.to_path_buf()))
            .collect();
        assert_eq!(inputs, members, "another order than in the archive");
    }
    for unit in module_units(output) {
        let objects = module_objects(output, &unit).unwrap();
        let expected = objects.into_iter();
        let expected: Vec<PathBuf> = expected
            .filter(|path| went_through_lto(output, path))
            .collect();
        let inputs = &first.log.inputs[&unit.display().to_string()];
        let inputs: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
        assert_eq!(inputs, expected, "{}", unit.display());
        assert!(!inputs.is_empty(), "{}", unit.display());
    }
}

/// Whether an object is bitcode; or was: on this tree the one object of a module is lowered in
/// place, and klto keeps its bitcode.
fn went_through_lto(output: &Path, object: &Path) -> bool {
    let kept = output.join(".klto/single").join(object);
    is_bitcode(&output.join(object)) || is_bitcode(&kept)
}

#[test]
fn no_object_is_native_without_a_reason() {
    let Thin { build, first, .. } = thin();
    let output = build.output_directory();
    let mut objects: BTreeSet<PathBuf> = archives(output).unwrap().into_iter().flatten().collect();
    for unit in module_units(output) {
        objects.extend(module_objects(output, &unit).unwrap());
    }
    let explained: BTreeSet<PathBuf> = explained(output).into_keys().collect();
    let bitcode = |path: &Path| went_through_lto(output, path);
    let found = natives_without_reason(output, &objects, &explained, &bitcode).unwrap();
    assert!(found.is_empty(), "{found:?}");
    // The check itself: each object that is bitcode is one that it misses when it is native.
    for unit in ["vmlinux.o", "fs/autofs/autofs4.o", "lib/crc7.o"] {
        for object in paths(&first.log.inputs[unit]).iter().take(20) {
            let one_native = |path: &Path| path != object && bitcode(path);
            let found = natives_without_reason(output, &objects, &explained, &one_native).unwrap();
            assert_eq!(found, [object.as_path()]);
        }
    }
}

/// What reads the objects of one place as ELF.
struct Expected {
    prefix: &'static str,
    suffix: &'static str,
    reader: &'static str,
}

/// vdso, EFI stub, lkdtm's code in rodata, the KVM hypervisor, and the object of a host program.
const EXPECTED_NATIVES: [Expected; 5] = [
    Expected {
        prefix: "arch/arm64/kernel/vdso/",
        suffix: ".o",
        reader: "ld.lld-22 for arch/arm64/kernel/vdso/vdso.so.dbg",
    },
    Expected {
        prefix: "arch/arm64/kvm/hyp/",
        suffix: ".nvhe.o",
        reader: "ld.lld-22 for arch/arm64/kvm/hyp/nvhe/kvm_nvhe.tmp.o",
    },
    Expected {
        prefix: "drivers/firmware/efi/libstub/",
        suffix: ".o",
        reader: "llvm-strip-22 for drivers/firmware/efi/libstub/",
    },
    Expected {
        prefix: "drivers/misc/lkdtm/rodata",
        suffix: ".o",
        reader: "llvm-objcopy-22 for drivers/misc/lkdtm/rodata_objcopy.o",
    },
    Expected {
        prefix: "scripts/mod/empty",
        suffix: ".o",
        reader: "scripts/mod/mk_elfconfig",
    },
];

#[test]
fn explain_names_every_native_object_and_its_reader() {
    let thin = thin();
    let output = thin.build.output_directory();
    let explained = explained(output);
    let mut seen = [0; EXPECTED_NATIVES.len()];
    for (object, reader) in &explained {
        let name = object.display().to_string();
        let place = EXPECTED_NATIVES.iter().position(|expected| {
            let there = name.starts_with(expected.prefix) && name.ends_with(expected.suffix);
            there && reader.starts_with(expected.reader)
        });
        let place = place.unwrap_or_else(|| panic!("{name} was not expected: {reader}"));
        seen[place] += 1;
        assert!(!is_bitcode(&output.join(object)), "{name}");
    }
    // The EFI stub is every object that kbuild compiles and strips for it; nVHE is what the
    // hypervisor links from C; the others are one object each.
    let members = archives(output).unwrap().into_iter().flatten();
    let stub_of = |path: PathBuf| {
        let name = path.display().to_string();
        let object = PathBuf::from(format!("{}.o", name.strip_suffix(".stub.o")?));
        is_compiled(output, &object).unwrap().then_some(object)
    };
    let stubs: BTreeSet<PathBuf> = members.filter_map(stub_of).collect();
    assert_eq!((seen[0], seen[2], seen[3], seen[4]), (1, stubs.len(), 1, 1));
    assert!(seen[1] >= 6, "{explained:?}");
}
