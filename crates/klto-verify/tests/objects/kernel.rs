//! Initcalls, PCI fixups, promoted names and acquire loads of small linked kernels.
//!
//! The kernels have the sections and symbols of a real one and no code that could run.

use std::fmt::Write as _;
use std::path::Path;

use klto_verify::{InitcallLevel, PciPass, acquire_loads, initcalls, pci_fixups, promoted_names};

use crate::toolchain::{Workshop, ask};

/// A target, whether its tables hold distances, and how it writes a pointer.
pub struct Target {
    pub triple: &'static str,
    relative: bool,
    pointer: &'static str,
}

pub const X86_64: Target = target("x86_64-linux-gnu", true, ".quad");
pub const ARM64: Target = target("aarch64-linux-gnu", true, ".quad");
const I386: Target = target("i386-linux-gnu", true, ".long");
const S390X: Target = target("s390x-linux-gnu", false, ".quad");
const ARM: Target = target("armv7-linux-gnueabi", false, ".long");

const fn target(triple: &'static str, relative: bool, pointer: &'static str) -> Target {
    Target {
        triple,
        relative,
        pointer,
    }
}

/// One object of a kernel: assembler source without anything that only one target knows.
pub struct Source<'a> {
    target: &'a Target,
    text: String,
}

impl<'a> Source<'a> {
    pub fn new(target: &'a Target) -> Self {
        let text = String::new();
        Self { target, text }
    }

    pub fn function(&mut self, name: &str) -> &mut Self {
        self.raw(&format!(
            ".text\n.balign 16\n.type {name},%function\n{name}: .space 16\n.size {name}, 16\n"
        ))
    }

    pub fn initcall(&mut self, function: &str, id: &str) -> &mut Self {
        let entry = format!("__initcall_{function}{id}");
        let section = match id {
            "" => ".con_initcall.init".to_owned(),
            _ => format!(".initcall{id}.init"),
        };
        self.raw(&format!(".section {section},\"a\"\n{entry}:\n"))
            .reference(function)
    }

    pub fn fixup(&mut self, pass: &str, vendor: u16, hook: &str) -> &mut Self {
        let align = if self.target.pointer == ".quad" { 8 } else { 4 };
        self.raw(&format!(
            ".section .pci_fixup_{pass},\"a\"\n.balign {align}\n"
        ))
        .raw(&format!(".short {vendor}, 0xffff\n.long 0x20000, 8\n"));
        if !self.target.relative {
            self.raw(&format!(".balign {align}\n"));
        }
        self.reference(hook)
    }

    fn reference(&mut self, function: &str) -> &mut Self {
        let line = if self.target.relative {
            format!(".long {function} - .\n")
        } else {
            format!("{} {function}\n", self.target.pointer)
        };
        self.raw(&line)
    }

    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }
}

/// A linker script that sets the symbols of a kernel's tables.
fn linker_script() -> String {
    let mut script =
        String::from("SECTIONS {\n . = 0x1000000;\n .text : { *(.text) }\n .pci_fixup : {\n");
    for pass in PciPass::ALL.map(PciPass::name) {
        writeln!(
            script,
            "__start_pci_fixups_{pass} = .; KEEP(*(.pci_fixup_{pass}))"
        )
        .unwrap();
        writeln!(script, "__end_pci_fixups_{pass} = .;").unwrap();
    }
    script.push_str("}\n .init.data : {\n__initcall_start = .; KEEP(*(.initcallearly.init))\n");
    for level in ["0", "1", "2", "3", "4", "5", "rootfs", "6", "7"] {
        writeln!(
            script,
            "__initcall{level}_start = .; KEEP(*(.initcall{level}.init))"
        )
        .unwrap();
        writeln!(script, "KEEP(*(.initcall{level}s.init))").unwrap();
    }
    script.push_str("__initcall_end = .;\n__con_initcall_start = .;\n");
    script.push_str("KEEP(*(.con_initcall.init))\n__con_initcall_end = .;\n}\n}\n");
    script
}

/// Links `sources` to a kernel at `name`.
pub fn link_kernel(workshop: &Workshop, target: &Target, sources: &[&Source<'_>], name: &str) {
    let script = workshop.write("vmlinux.lds", &linker_script());
    let script = format!("--script={}", script.display());
    let objects: Vec<_> = (0..)
        .zip(sources)
        .map(|(n, source): (u32, _)| {
            workshop.compile(target.triple, &[], &format!("part{n}.s"), &source.text)
        })
        .collect();
    let objects: Vec<_> = objects.iter().map(AsRef::as_ref).collect();
    workshop.link(&[&script, "--entry=0"], &objects, name);
}

fn two_objects(target: &Target) -> [Source<'_>; 2] {
    let mut first = Source::new(target);
    for name in [
        "late_a",
        "early_a",
        "fs_a",
        "sync_a",
        "console_a",
        "quirk_a",
    ] {
        first.function(name);
    }
    first
        .initcall("late_a", "7")
        .initcall("early_a", "early")
        .initcall("sync_a", "6s")
        .initcall("fs_a", "5")
        .initcall("console_a", "")
        .fixup("final", 0x8086, "quirk_a")
        .fixup("early", 0x1022, "quirk_a");
    let mut second = Source::new(target);
    for name in ["device_b", "root_b", "quirk_b", "late_a"] {
        second.function(name);
    }
    // The other object has a local function of this name too.
    second
        .initcall("late_a", "7")
        .initcall("device_b", "6")
        .initcall("root_b", "rootfs")
        .fixup("early", 0x1b21, "quirk_b");
    [first, second]
}

const TARGETS: [&Target; 5] = [&X86_64, &ARM64, &I386, &S390X, &ARM];

#[test]
fn initcalls_come_in_boot_order_on_every_form_of_table() {
    for target in TARGETS {
        let workshop = Workshop::new();
        let [first, second] = two_objects(target);
        link_kernel(&workshop, target, &[&first, &second], "vmlinux");
        let path = workshop.path().join("vmlinux");
        let list = initcalls(&std::fs::read(&path).unwrap()).unwrap();
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        let expected = [
            "early early_a",
            "5 fs_a",
            "rootfs root_b",
            "6 device_b",
            "6 sync_a",
            "7 late_a",
            "7 late_a",
            "con console_a",
        ];
        assert_eq!(shown, expected, "{}", target.triple);
        let entries: Vec<_> = list
            .iter()
            .filter_map(|call| call.entry.as_deref())
            .collect();
        let names = ask("llvm-nm-22", &["-n", "--format=just-symbols"], &path);
        let bounds = ["__initcall_start", "__initcall_end"];
        let oracle: Vec<_> = names
            .lines()
            .filter(|name| name.starts_with("__initcall_") && !bounds.contains(name))
            .collect();
        assert_eq!(entries, oracle, "{}", target.triple);
    }
}

#[test]
fn pci_fixups_come_pass_by_pass_on_every_form_of_table() {
    for target in TARGETS {
        let workshop = Workshop::new();
        let [first, second] = two_objects(target);
        link_kernel(&workshop, target, &[&first, &second], "vmlinux");
        let bytes = std::fs::read(workshop.path().join("vmlinux")).unwrap();
        let list = pci_fixups(&bytes).unwrap();
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        let expected = [
            "early 1022:ffff class 20000>>8 quirk_a",
            "early 1b21:ffff class 20000>>8 quirk_b",
            "final 8086:ffff class 20000>>8 quirk_a",
        ];
        assert_eq!(shown, expected, "{}", target.triple);
    }
}

#[test]
fn an_alias_is_named_by_the_entry_that_points_at_it() {
    let workshop = Workshop::new();
    let mut source = Source::new(&X86_64);
    source
        .raw(".type an_alias,%function\n.type a_much_longer_name,%function\n")
        .raw("an_alias: a_much_longer_name: .space 16\n")
        .initcall("a_much_longer_name", "6")
        .initcall("an_alias", "6");
    link_kernel(&workshop, &X86_64, &[&source], "vmlinux");
    let bytes = std::fs::read(workshop.path().join("vmlinux")).unwrap();
    let list = initcalls(&bytes).unwrap();
    let names: Vec<&str> = list.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["a_much_longer_name", "an_alias"]);
    assert_eq!(list[0].level, InitcallLevel::Device);
}

#[test]
fn an_entry_without_a_function_is_an_error_that_names_the_table() {
    let workshop = Workshop::new();
    let mut source = Source::new(&X86_64);
    source
        .function("foo")
        .raw(".section .initcall3.init,\"a\"\n__initcall_bar3: .long foo + 4 - .\n");
    link_kernel(&workshop, &X86_64, &[&source], "vmlinux");
    let bytes = std::fs::read(workshop.path().join("vmlinux")).unwrap();
    let error = format!("{:#}", initcalls(&bytes).unwrap_err());
    assert!(error.contains("__initcall3_start"), "{error}");
    assert!(
        error.contains("no function symbol stands at 0x1000004"),
        "{error}"
    );
}

#[test]
fn a_kernel_without_pci_has_no_fixups_and_one_without_initcalls_is_refused() {
    let workshop = Workshop::new();
    let mut source = Source::new(&X86_64);
    source.function("foo");
    let object = workshop.compile(X86_64.triple, &[], "foo.s", &source.text);
    let program = workshop.link(&["--entry=0"], &[&object], "program");
    let bytes = std::fs::read(program).unwrap();
    assert!(pci_fixups(&bytes).unwrap().is_empty());
    let error = initcalls(&bytes).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("__initcall_start"), "{text}");
}

#[test]
fn promoted_names_are_those_that_a_thin_link_leaves() {
    let workshop = Workshop::new();
    let flags = ["-O2", "-flto=thin"];
    let one = "__attribute__((noinline)) static int hidden(int *p) { return *p += 7; }\n\
               int visible(int *p) { return hidden(p) + hidden(p + 1); }\n";
    let other = "int visible(int *); void _start(void) { int a[2]; visible(a); visible(a); }\n";
    let one = workshop.compile(X86_64.triple, &flags, "one.c", one);
    let other = workshop.compile(X86_64.triple, &flags, "other.c", other);
    let program = workshop.link(&[], &[&one, &other], "program");
    let names = promoted_names(&std::fs::read(&program).unwrap()).unwrap();
    let symbols = ask("llvm-nm-22", &["-p", "--format=just-symbols"], &program);
    let oracle: Vec<_> = symbols
        .lines()
        .filter(|name| name.contains(".llvm."))
        .collect();
    assert_eq!(names, oracle);
    assert_eq!(names.len(), 1, "{symbols}");
    assert_eq!(klto_verify::base_name(&names[0]), "hidden");
}

/// How many acquire loads the disassembler sees, and that it sees each of `expected`.
fn disassembled_loads(object: &Path, expected: &[&str]) -> usize {
    let code = ask("llvm-objdump-22", &["-d", "--mattr=+all"], object);
    for mnemonic in expected {
        assert!(
            code.contains(&format!("\t{mnemonic}\t")),
            "{mnemonic}: {code}"
        );
    }
    let is_load = |word: &&str| {
        ["ldar", "ldapr", "ldapur"]
            .iter()
            .any(|load| word.starts_with(load))
    };
    code.split_whitespace().filter(is_load).count()
}

#[test]
fn acquire_loads_of_compiled_code_are_as_many_as_the_disassembler_sees() {
    // The two words of data look like loads.
    let source = "#define LOAD(n, t) \\\n\
        long load_##n(t *p) { return __atomic_load_n(p + 3, __ATOMIC_ACQUIRE); }\n\
        LOAD(u8, unsigned char) LOAD(u16, unsigned short) LOAD(s32, int) LOAD(s64, long)\n\
        long plain(long *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }\n\
        long add(long *p) { return __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST); }\n\
        void store(long *p) { __atomic_store_n(p, 1, __ATOMIC_RELEASE); }\n\
        __asm__(\".text\\n.long 0xc8dffc20, 0x38bfc020\\n\");\n";
    let workshop = Workshop::new();
    for (architecture, expected) in [
        ("armv8-a", ["ldarb", "ldarh", "ldar"]),
        ("armv8.3-a", ["ldaprb", "ldaprh", "ldapr"]),
    ] {
        let flag = format!("-march={architecture}");
        let flags = ["-O2", &flag];
        let object = workshop.compile(ARM64.triple, &flags, "loads.c", source);
        let count = acquire_loads(&std::fs::read(&object).unwrap()).unwrap();
        assert_eq!(count, disassembled_loads(&object, &expected));
        assert_eq!(count, 4);
    }
    let other = workshop.compile(X86_64.triple, &[], "other.c", "int one;\n");
    assert!(acquire_loads(&std::fs::read(other).unwrap()).is_err());
}

#[test]
fn every_form_of_an_acquire_load_counts_and_no_instruction_like_it() {
    let loads = "ldar x0, [x1]\nldar w2, [sp]\nldarb w3, [x4]\nldarh w5, [x30]\n\
        ldapr x0, [x1]\nldapr w2, [sp]\nldaprb w3, [x4]\nldaprh w5, [x30]\n\
        ldapur x0, [x1, #255]\nldapur w2, [x3, #-256]\nldapurb w4, [x5]\nldapurh w6, [x7]\n\
        ldapursb x0, [x1]\nldapursb w0, [x1]\nldapursh x0, [x1, #8]\nldapursw x0, [x1]\n";
    let others = "ldaxr x0, [x1]\nldxr x0, [x1]\nldaxp x0, x2, [x1]\nstlr x0, [x1]\n\
        stlur x0, [x1]\nldlar x0, [x1]\nldr x0, [x1]\nldur x0, [x1]\nldadda x0, x1, [x2]\n\
        ldaddal x0, x1, [x2]\nswpa x0, x1, [x2]\ncasa x0, x1, [x2]\nldp x0, x1, [x2]\n";
    let workshop = Workshop::new();
    let flags = ["-march=armv8.4-a"];
    for (text, expected) in [(loads, 16), (others, 0)] {
        let object = workshop.compile(ARM64.triple, &flags, "loads.s", text);
        let count = acquire_loads(&std::fs::read(&object).unwrap()).unwrap();
        assert_eq!(count, expected);
        assert_eq!(disassembled_loads(&object, &[]), expected);
    }
}
