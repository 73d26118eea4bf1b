//! Two small output directories, equal but for one thing at a time.
//!
//! Each test says which row must tell, and that the others stay equal.

use std::path::{Path, PathBuf};

use klto_verify::{Comparison, Report, bit_equal, build_products};

use crate::kernel::{Source, X86_64, link_kernel};
use crate::module::module_source;
use crate::toolchain::Workshop;

/// What an output directory is made from.
struct Build {
    kernel: String,
    functions: Vec<&'static str>,
    modinfo: Vec<&'static str>,
    versions: Vec<(&'static str, u32)>,
    extra: &'static str,
    symvers: &'static str,
    order: &'static str,
}

const SYMVERS: &str = "0x00000001\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000002\tvfree\tvmlinux\tEXPORT_SYMBOL\t\n";

impl Build {
    fn plain() -> Self {
        Self {
            kernel: initcall("one", "one") + &initcall("two", "two") + &fixup("quirk_7"),
            functions: vec!["one", "two", "quirk_7"],
            modinfo: vec!["license=GPL", "author=somebody"],
            versions: vec![("kfree", 1), ("vfree", 2)],
            extra: "",
            symvers: SYMVERS,
            order: "fs/a.ko\nfs/b.ko\n",
        }
    }

    /// Builds all of it in `name`.
    fn make(&self, workshop: &Workshop, name: &str) -> PathBuf {
        let mut source = Source::new(&X86_64);
        for function in &self.functions {
            source.function(function);
        }
        source.raw(&self.kernel);
        link_kernel(workshop, &X86_64, &[&source], &format!("{name}/vmlinux"));
        let text = module_source(".quad", &self.modinfo, &self.versions) + self.extra;
        let object = workshop.compile(X86_64.triple, &[], "module.s", &text);
        for module in ["fs/a.ko", "fs/b.ko"] {
            workshop.link(&["-r"], &[&object], &format!("{name}/{module}"));
        }
        workshop.write(&format!("{name}/modules.order"), self.order);
        workshop.write(&format!("{name}/Module.symvers"), self.symvers);
        workshop.write(&format!("{name}/System.map"), "0 T one\n1 T two\n");
        workshop.write(&format!("{name}/arch/x86/boot/bzImage"), "image\0");
        workshop.path().join(name)
    }
}

fn initcall(entry: &str, function: &str) -> String {
    format!(".section .initcall6.init,\"a\"\n__initcall_{entry}6: .long {function} - .\n")
}

fn fixup(hook: &str) -> String {
    let ids = ".balign 16\n.short 1, 2\n.long 3, 0\n";
    format!(".section .pci_fixup_early,\"a\"\n{ids}.long {hook} - .\n")
}

fn compare(candidate: &Build) -> Report {
    let workshop = Workshop::new();
    let reference = Build::plain().make(&workshop, "reference");
    let candidate = candidate.make(&workshop, "candidate");
    Comparison::of(&reference, &candidate).unwrap()
}

/// That exactly the rows `expected` differ; gives their differences.
fn differing(report: &Report, expected: &[&str]) -> Vec<String> {
    let rows = report.rows.iter().filter(|row| !row.equal);
    let rows: Vec<_> = rows.collect();
    let names: Vec<&str> = rows.iter().map(|row| row.what.as_str()).collect();
    assert_eq!(names, expected, "{report}");
    rows.iter()
        .flat_map(|row| row.differences.clone())
        .collect()
}

#[test]
fn equal_builds_are_equal_in_every_row_and_no_row_is_empty() {
    let report = compare(&Build::plain());
    assert!(report.equal(), "{report}");
    for row in &report.rows {
        assert!(row.count > 0, "{report}");
    }
    assert_eq!(report.rows.len(), 8);
    assert_eq!(report.row("modinfo").unwrap().count, 4);
}

#[test]
fn another_order_of_initcalls_is_seen() {
    let mut build = Build::plain();
    build.kernel = initcall("two", "two") + &initcall("one", "one") + &fixup("quirk_7");
    let differences = differing(&compare(&build), &["initcalls"]);
    assert_eq!(
        differences[0],
        "order, place 1: reference 6 one, candidate 6 two"
    );
}

#[test]
fn stubs_and_promoted_names_stand_for_their_functions() {
    let mut build = Build::plain();
    let stub = "__initstub__kmod_main__12_345_one6";
    let promoted = "two.llvm.77";
    let hook = "__UNIQUE_ID_quirk_7123";
    build.functions = vec![stub, promoted, hook];
    build.kernel =
        initcall("_kmod_main__12_345_one", stub) + &initcall("two", promoted) + &fixup(hook);
    let report = compare(&build);
    assert!(report.equal(), "{report}");
}

#[test]
fn another_fixup_is_seen() {
    let mut build = Build::plain();
    build.kernel = initcall("one", "one") + &initcall("two", "two") + &fixup("two");
    let differences = differing(&compare(&build), &["PCI fixups"]);
    assert_eq!(
        differences,
        [
            "only in the reference: early 0001:0002 class 3>>0 quirk_7",
            "only in the candidate: early 0001:0002 class 3>>0 two",
        ]
    );
}

#[test]
fn a_changed_checksum_is_one_difference_and_another_order_is_one_too() {
    let mut build = Build::plain();
    build.symvers = "0x00000009\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                     0x00000002\tvfree\tvmlinux\tEXPORT_SYMBOL\t\n";
    let differences = differing(&compare(&build), &["Module.symvers"]);
    let values = "reference 0x00000001 vmlinux EXPORT_SYMBOL";
    let other = "candidate 0x00000009 vmlinux EXPORT_SYMBOL";
    assert_eq!(differences, [format!("kfree: {values}, {other}")]);
    build.symvers = "0x00000002\tvfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                     0x00000001\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n";
    let differences = differing(&compare(&build), &["Module.symvers"]);
    assert!(
        differences[0].starts_with("order, place 1"),
        "{differences:?}"
    );
    // A line given twice is no equal list either.
    build.symvers = "0x00000001\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                     0x00000001\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                     0x00000002\tvfree\tvmlinux\tEXPORT_SYMBOL\t\n";
    differing(&compare(&build), &["Module.symvers"]);
}

#[test]
fn a_missing_module_and_other_module_contents_are_seen() {
    let mut build = Build::plain();
    build.order = "fs/b.ko\n";
    let differences = differing(&compare(&build), &["modules"]);
    assert_eq!(differences, ["only in the reference: fs/a.ko"]);

    let mut build = Build::plain();
    build.modinfo.reverse();
    build.versions.reverse();
    let differences = differing(&compare(&build), &["modinfo"]);
    assert!(
        differences[0].starts_with("fs/a.ko: order, place 1"),
        "{differences:?}"
    );

    let mut build = Build::plain();
    build.versions[1].1 = 3;
    let differences = differing(&compare(&build), &["__versions"]);
    assert_eq!(
        differences[0],
        "fs/a.ko: vfree: reference 0x00000002, candidate 0x00000003"
    );
}

#[test]
fn a_section_that_was_not_merged_is_named_as_left_over() {
    let mut build = Build::plain();
    build.extra = ".section .text.foo,\"ax\"\n.space 4\n.section .other,\"a\"\n.long 1\n";
    let report = compare(&build);
    differing(&report, &["sections", "left-over sections"]);
    let left_over = &report.row("left-over sections").unwrap().differences;
    assert_eq!(left_over, &["fs/a.ko: .text.foo", "fs/b.ko: .text.foo"]);
    assert_eq!(report.row("sections").unwrap().difference_count, 4);
}

#[test]
fn byte_comparison_names_the_section_and_what_is_missing() {
    let workshop = Workshop::new();
    let a = Build::plain().make(&workshop, "a");
    let b = Build::plain().make(&workshop, "b");
    let files = build_products(&a).unwrap();
    let shown: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let expected = [
        "vmlinux",
        "System.map",
        "arch/x86/boot/bzImage",
        "Module.symvers",
        "modules.order",
        "fs/a.ko",
        "fs/b.ko",
    ];
    assert_eq!(shown, expected);
    let report = bit_equal(&a, &b, &files).unwrap();
    assert!(report.equal(), "{report}");

    let module = b.join("fs/a.ko");
    let bytes = std::fs::read(&module).unwrap();
    let text = b"author=somebody";
    let at = bytes.windows(text.len()).position(|window| window == text);
    let mut changed = bytes.clone();
    changed[at.unwrap()] = b'A';
    std::fs::write(&module, changed).unwrap();
    std::fs::remove_file(b.join("fs/b.ko")).unwrap();
    let report = bit_equal(&a, &b, &files).unwrap();
    let differences = differing(&report, &["fs/a.ko", "fs/b.ko"]);
    let first = format!("first at .modinfo+0xc (file offset {:#x})", at.unwrap());
    assert_eq!(differences[0], first);
    assert_eq!(differences[1], "sections that differ: .modinfo");
    assert_eq!(differences[2], format!("missing in {}", b.display()));
}

#[test]
fn a_directory_without_a_kernel_is_an_error_that_names_the_file() {
    let workshop = Workshop::new();
    let build = Build::plain().make(&workshop, "a");
    let error = Comparison::of(&build, Path::new("/nonexistent")).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("/nonexistent/vmlinux"), "{text}");
}
