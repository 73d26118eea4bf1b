//! What the backends made of the code: functions of other files inlined, acquire loads.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use klto_formats::elf;
use klto_tests::reference;
use klto_verify::acquire_loads;

use crate::{native, thin};

fn undefined_symbols(object: &Path) -> BTreeSet<String> {
    let symbols = elf::symbols(&fs_err::read(object).unwrap()).unwrap();
    let undefined = symbols
        .iter()
        .filter(|symbol| symbol.place == elf::Place::Undefined);
    undefined
        .map(|symbol| String::from_utf8_lossy(&symbol.name).into_owned())
        .collect()
}

#[test]
fn functions_of_other_files_are_inlined() {
    let thin = thin();
    let output = thin.build.output_directory();
    let reference = reference(thin.build.tree()).unwrap();
    // The object that calls, and the function of another file that its plain object calls.
    let calls = [
        ("kernel/sys.o", "nsec_to_clock_t"),
        ("kernel/exit.o", "exit_task_namespaces"),
        ("kernel/range.o", "sort"),
    ];
    for (object, function) in calls {
        let plain = undefined_symbols(&reference.join(object));
        assert!(
            plain.contains(function),
            "{object} does not call {function}"
        );
        let lowered = undefined_symbols(&native(output, object));
        assert!(!lowered.contains(function), "{object} calls {function}");
    }
}

/// The instructions of `function` in `object`.
fn disassembly(object: &Path, function: &str) -> String {
    let mut objdump = Command::new("llvm-objdump-22");
    objdump.arg(format!("--disassemble-symbols={function}"));
    let text = xtask::command::output(objdump.arg(object)).unwrap();
    assert!(
        text.contains(&format!("<{function}>:")),
        "{function}: {text}"
    );
    text
}

#[test]
fn read_once_is_an_acquire_load() {
    let thin = thin();
    let output = thin.build.output_directory();
    let reference = reference(thin.build.tree()).unwrap();
    let count = |path: &Path| acquire_loads(&fs_err::read(path).unwrap()).unwrap();
    for object in ["lib/llist.o", "kernel/task_work.o", "kernel/irq_work.o"] {
        let (plain, lto) = (
            count(&reference.join(object)),
            count(&native(output, object)),
        );
        eprintln!("    acquire loads of {object}: {plain} plain, {lto} with LTO");
        assert!(lto > plain, "{object}: {plain} and {lto}");
    }
    // One READ_ONCE each, and no other acquire.
    for (object, function) in [
        ("lib/llist.o", "llist_add_batch"),
        ("kernel/task_work.o", "task_work_add"),
    ] {
        let loads = |text: String| text.matches("\tlda").count() - text.matches("\tldax").count();
        let plain = loads(disassembly(&reference.join(object), function));
        let lto = loads(disassembly(&native(output, object), function));
        assert_eq!((plain, lto), (0, 1), "{function}");
    }
}
