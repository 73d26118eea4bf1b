//! Comes in: the path of a finished kernel's output directory. Goes out: its initcalls, PCI
//! fixups and module facts as plain text, to hold against nm and modinfo.
//!
//! With a second path, the comparison of both and their byte comparison.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use klto_verify::{
    Comparison, acquire_loads, bit_equal, build_products, initcalls, modinfo, modules, pci_fixups,
    promoted_names,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let build = arguments.next().context("usage: lists BUILD [OTHER]")?;
    let mut out = std::io::stdout().lock();
    match arguments.next() {
        None => write_lists(&build, &mut out),
        Some(other) => {
            write!(out, "{}", Comparison::of(&build, &other)?)?;
            let files = build_products(&build)?;
            write!(out, "{}", bit_equal(&build, &other, &files)?)?;
            Ok(())
        }
    }
}

fn write_lists(build: &Path, out: &mut impl Write) -> Result<()> {
    let vmlinux = fs_err::read(build.join("vmlinux"))?;
    for call in initcalls(&vmlinux)? {
        let entry = call.entry.as_deref().unwrap_or("-");
        writeln!(out, "initcall {call} {} {entry}", call.name)?;
    }
    for fixup in pci_fixups(&vmlinux)? {
        writeln!(out, "pci {fixup}")?;
    }
    for name in promoted_names(&vmlinux)? {
        writeln!(out, "promoted {name}")?;
    }
    // Fails on a kernel for another architecture, which has none to count.
    if let Ok(count) = acquire_loads(&vmlinux) {
        writeln!(out, "acquire loads {count}")?;
    }
    for module in modules(build)? {
        for (key, value) in modinfo(&fs_err::read(build.join(&module))?)? {
            writeln!(out, "modinfo {} {key}={value}", module.display())?;
        }
    }
    Ok(())
}
