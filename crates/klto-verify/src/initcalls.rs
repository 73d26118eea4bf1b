//! Comes in: a linked vmlinux. Goes out: its initcalls in the order in which it runs them.
//!
//! The order is that of `INIT_CALLS` and `CON_INITCALL` in `include/asm-generic/vmlinux.lds.h`.
//! Does not know which function belongs to which object.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use klto_core::Failure;

use crate::image::{EntryForm, Image};
use crate::names::{base_name, is_number};

/// When an initcall runs. The order of the variants is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InitcallLevel {
    /// `early_initcall`, before the other processors start.
    Early,
    /// `pure_initcall`, level 0.
    Pure,
    /// `core_initcall`, level 1, and its `_sync` form.
    Core,
    /// `postcore_initcall`, level 2, and its `_sync` form.
    Postcore,
    /// `arch_initcall`, level 3, and its `_sync` form.
    Arch,
    /// `subsys_initcall`, level 4, and its `_sync` form.
    Subsys,
    /// `fs_initcall`, level 5, and its `_sync` form.
    Fs,
    /// `rootfs_initcall`, which runs at the end of level 5.
    Rootfs,
    /// `device_initcall` and `module_init`, level 6, and its `_sync` form.
    Device,
    /// `late_initcall`, level 7, and its `_sync` form.
    Late,
    /// `console_initcall`: a table of its own, which runs before all others.
    Console,
}

impl InitcallLevel {
    /// What the kernel's macros put between a function and its level: `7` in `__initcall_foo7`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Pure => "0",
            Self::Core => "1",
            Self::Postcore => "2",
            Self::Arch => "3",
            Self::Subsys => "4",
            Self::Fs => "5",
            Self::Rootfs => "rootfs",
            Self::Device => "6",
            Self::Late => "7",
            Self::Console => "con",
        }
    }
}

/// One entry of the initcall table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initcall {
    /// When it runs.
    pub level: InitcallLevel,
    /// The symbol at the address that the entry names, as it stands: perhaps a stub, a CFI jump
    /// table entry or a promoted local.
    pub name: String,
    /// The entry's own symbol, `__initcall_foo7`, if it has one.
    pub entry: Option<String>,
}

impl Initcall {
    /// The name of the function as the source has it.
    ///
    /// Trees from 5.12 on, with LTO, let the entry name a global stub
    /// `__initstub__kmod_<module>__<counter>_<line>_<function><id>` (`include/linux/init.h`).
    pub fn base_name(&self) -> &str {
        let name = base_name(&self.name);
        let Some(stub) = name.strip_prefix("__initstub__") else {
            return name;
        };
        let function = stub_function(stub).unwrap_or(stub);
        let synchronous = function
            .strip_suffix('s')
            .and_then(|rest| rest.strip_suffix(self.level.id()));
        synchronous
            .or_else(|| function.strip_suffix(self.level.id()))
            .unwrap_or(function)
    }
}

impl fmt::Display for Initcall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level.id(), self.base_name())
    }
}

/// What follows the first `__<counter>_<line>_`.
pub(crate) fn stub_function(stub: &str) -> Option<&str> {
    stub.match_indices("__").find_map(|(at, mark)| {
        let rest = stub.get(at + mark.len()..)?;
        let (counter, rest) = rest.split_once('_')?;
        let (line, function) = rest.split_once('_')?;
        (is_number(counter) && is_number(line)).then_some(function)
    })
}

/// Each level with the symbols that bound it.
const LEVELS: [(InitcallLevel, &str, &str); 11] = [
    (
        InitcallLevel::Early,
        "__initcall_start",
        "__initcall0_start",
    ),
    (
        InitcallLevel::Pure,
        "__initcall0_start",
        "__initcall1_start",
    ),
    (
        InitcallLevel::Core,
        "__initcall1_start",
        "__initcall2_start",
    ),
    (
        InitcallLevel::Postcore,
        "__initcall2_start",
        "__initcall3_start",
    ),
    (
        InitcallLevel::Arch,
        "__initcall3_start",
        "__initcall4_start",
    ),
    (
        InitcallLevel::Subsys,
        "__initcall4_start",
        "__initcall5_start",
    ),
    (
        InitcallLevel::Fs,
        "__initcall5_start",
        "__initcallrootfs_start",
    ),
    (
        InitcallLevel::Rootfs,
        "__initcallrootfs_start",
        "__initcall6_start",
    ),
    (
        InitcallLevel::Device,
        "__initcall6_start",
        "__initcall7_start",
    ),
    (InitcallLevel::Late, "__initcall7_start", "__initcall_end"),
    (
        InitcallLevel::Console,
        "__con_initcall_start",
        "__con_initcall_end",
    ),
];

/// The initcalls of `vmlinux` in table order: early, levels 0 to 7, then the consoles' table.
///
/// # Errors
/// `vmlinux` is no linked kernel with symbols, or an entry names an address without a symbol.
pub fn initcalls(vmlinux: &[u8]) -> Result<Vec<Initcall>> {
    let image = Image::parse(vmlinux)?;
    let form = image.entry_form();
    let mut list = Vec::new();
    for (level, start, end) in LEVELS {
        read_level(&image, form, level, image.range(start, end)?, &mut list)
            .with_context(|| format!("reading the initcalls from {start}"))?;
    }
    Ok(list)
}

fn read_level(
    image: &Image<'_>,
    form: EntryForm,
    level: InitcallLevel,
    range: std::ops::Range<u64>,
    list: &mut Vec<Initcall>,
) -> Result<()> {
    let size = image.entry_size(form);
    let mut address = range.start;
    while address < range.end {
        if range.end - address < size {
            bail!(Failure::bad_input(format!(
                "the table's length is no multiple of {size}"
            )));
        }
        let entry = image.initcall_entry_name(address);
        let target = image.target(form, address)?;
        let name = image.function_at(target, entry.unwrap_or_default())?;
        list.push(Initcall {
            level,
            name: name.to_owned(),
            entry: entry.map(str::to_owned),
        });
        address += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(level: InitcallLevel, name: &str) -> String {
        let call = Initcall {
            level,
            name: name.to_owned(),
            entry: None,
        };
        call.base_name().to_owned()
    }

    #[test]
    fn base_name_finds_the_function_behind_a_stub() {
        let stub = "__initstub__kmod_main__123_456_foo7";
        assert_eq!(base(InitcallLevel::Late, stub), "foo");
        let stub = "__initstub__kmod_a__b__1_2_my__3_4_init6s";
        assert_eq!(base(InitcallLevel::Device, stub), "my__3_4_init");
        let stub = "__initstub__kmod_x__1_2_fooscon.llvm.12";
        assert_eq!(base(InitcallLevel::Console, stub), "foos");
        assert_eq!(base(InitcallLevel::Late, "plain7"), "plain7");
        assert_eq!(base(InitcallLevel::Late, "__initstub__é_"), "é_");
    }
}
