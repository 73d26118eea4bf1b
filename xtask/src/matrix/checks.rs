//! What the matrix looks for in a kernel with LTO beside what `klto verify` compares.
//!
//! In: output directories of kernels that were built. Out: what was found, in words for the cell's row, or
//! what two kernels are to have in common. It builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;
use object::{Object as _, ObjectSymbol as _};

use crate::build_log::BuildLog;
use crate::command;
use crate::releases::NEWEST_LLVM;

/// Checks that a `READ_ONCE` is an acquire under LTO: `task_work_add` has one, and no other acquire.
pub(super) fn acquire_loads(reference: &Path, output: &Path) -> Result<String> {
    const FUNCTION: &str = "task_work_add";
    let count = |kernel: &Path| -> Result<usize> {
        let mut objdump = Command::new(format!("llvm-objdump-{NEWEST_LLVM}"));
        objdump.arg(format!("--disassemble-symbols={FUNCTION}"));
        let text = command::output(objdump.arg(kernel.join("vmlinux")))?;
        if !text.contains(&format!("<{FUNCTION}>:")) {
            return Err(Failure::build(format!("vmlinux has no {FUNCTION}")).into());
        }
        // `ldar` and `ldapr`; `ldaxr` is of an atomic.
        Ok(text.matches("\tlda").count() - text.matches("\tldax").count())
    };
    let counts = (count(reference)?, count(output)?);
    match counts {
        (0, 1..) => Ok(", READ_ONCE an acquire".to_owned()),
        (plain, lto) => {
            let what = format!("{FUNCTION} has {plain} acquire loads without LTO, {lto} with it");
            Err(Failure::build(what).into())
        }
    }
}

/// Under Full LTO each unit is one object, and its symbols are in the order of that.
///
/// # Errors
/// `Module.symvers` has other lines, or `modinfo` says something else.
pub(super) fn same_symbols_in_any_order(reference: &Path, output: &Path) -> Result<()> {
    if exports(reference)? != exports(output)? {
        return Err(Failure::build("Module.symvers has other lines").into());
    }
    if descriptions(reference)? != descriptions(output)? {
        return Err(Failure::build("modinfo has other values").into());
    }
    Ok(())
}

/// The lines of `Module.symvers` in any order.
fn exports(output: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(output.join("Module.symvers"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What `modinfo` says of each module, sorted, and with the names of `depends` sorted, which modpost writes
/// in the order of a module's symbols.
fn descriptions(output: &Path) -> Result<BTreeMap<PathBuf, Vec<(String, String)>>> {
    let mut all = BTreeMap::new();
    for module in klto_verify::modules(output)? {
        let mut pairs = klto_verify::modinfo(&fs::read(output.join(&module))?)?;
        for (_, names) in pairs.iter_mut().filter(|(key, _)| key == "depends") {
            let mut sorted: Vec<&str> = names.split(',').collect();
            sorted.sort_unstable();
            *names = sorted.join(",");
        }
        pairs.sort_unstable();
        all.insert(module, pairs);
    }
    Ok(all)
}

/// Checks that the objects of `lib.a` that nothing needs are not in vmlinux, by the names that their
/// natives define; says how many there are.
pub(super) fn members_of_lib_stay_out(output: &Path, log: &BuildLog) -> Result<String> {
    let left_out = log.left_out.get("vmlinux.o").map_or(&[][..], Vec::as_slice);
    let map = fs::read_to_string(output.join("System.map"))?;
    let in_kernel: BTreeSet<&str> = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    let mut names = 0;
    for object in left_out {
        let native = output.join(".klto/units/vmlinux.o/raw").join(object);
        let bytes = fs::read(native)?;
        let file = object::File::parse(&*bytes)?;
        let global = |symbol: &object::Symbol| symbol.is_global() && symbol.is_definition();
        for symbol in file.symbols().filter(global) {
            let name = symbol.name()?;
            if in_kernel.contains(name) {
                return Err(Failure::build(format!("{object} is in the kernel: {name}")).into());
            }
            names += 1;
        }
    }
    if names == 0 {
        return Err(Failure::build("no object of lib.a was left out").into());
    }
    Ok(format!(", {} objects of lib.a left out", left_out.len()))
}
