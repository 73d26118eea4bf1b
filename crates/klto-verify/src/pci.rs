//! Comes in: a linked vmlinux. Goes out: its PCI fixups in the order in which it applies them.
//!
//! The layout is that of `struct pci_fixup` (`include/linux/pci.h`), the bounds those of
//! `include/asm-generic/vmlinux.lds.h`. Does not know what a fixup does.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use klto_core::Failure;

use crate::image::{EntryForm, Image};
use crate::initcalls::stub_function;
use crate::names::{base_name, is_number};

/// When the kernel applies a fixup. The order of the variants is that of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PciPass {
    /// Before base address registers are probed.
    Early,
    /// After the configuration header was read.
    Header,
    /// The last phase of finding devices.
    Final,
    /// When a device is enabled.
    Enable,
    /// When a device resumes.
    Resume,
    /// When a device resumes, before interrupts are on.
    ResumeEarly,
    /// When a device suspends.
    Suspend,
    /// When a device suspends, after interrupts are off.
    SuspendLate,
}

impl PciPass {
    /// All passes in the order of their tables.
    pub const ALL: [Self; 8] = [
        Self::Early,
        Self::Header,
        Self::Final,
        Self::Enable,
        Self::Resume,
        Self::ResumeEarly,
        Self::Suspend,
        Self::SuspendLate,
    ];

    /// The pass as the kernel's symbols spell it: `early` in `__start_pci_fixups_early`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Header => "header",
            Self::Final => "final",
            Self::Enable => "enable",
            Self::Resume => "resume",
            Self::ResumeEarly => "resume_early",
            Self::Suspend => "suspend",
            Self::SuspendLate => "suspend_late",
        }
    }
}

/// One fixup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciFixup {
    /// When it is applied.
    pub pass: PciPass,
    /// The vendor, `0xffff` for any.
    pub vendor: u16,
    /// The device, `0xffff` for any.
    pub device: u16,
    /// The class, `0xffff_ffff` for any.
    pub class: u32,
    /// By how much a device's class is shifted before it is compared.
    pub class_shift: u32,
    /// The symbol at the address of the function, as it stands.
    pub hook: String,
}

impl PciFixup {
    /// Whether both match the same devices in the same pass.
    pub fn same_devices(&self, other: &Self) -> bool {
        let key = |fixup: &Self| {
            let identity = (fixup.vendor, fixup.device, fixup.class, fixup.class_shift);
            (fixup.pass, identity)
        };
        key(self) == key(other)
    }

    /// Whether this fixup's function is `hook`, or LTO's stub of it.
    ///
    /// Trees from 5.12 on, with LTO, name a global stub `__UNIQUE_ID_<hook><counter>`. A hook may
    /// itself end in digits, so a stub's name alone does not give the hook's. klto's own header for older
    /// trees names it `__pci_fixup_stub__<object>__<counter>_<line>_<hook>`.
    pub fn calls(&self, hook: &str) -> bool {
        let name = base_name(&self.hook);
        if name == hook {
            return true;
        }
        if let Some(stub) = name.strip_prefix("__pci_fixup_stub__") {
            return stub_function(stub) == Some(hook);
        }
        name.strip_prefix("__UNIQUE_ID_")
            .and_then(|rest| rest.strip_prefix(hook))
            .is_some_and(|rest| is_number(rest.strip_prefix('_').unwrap_or(rest)))
    }
}

impl fmt::Display for PciFixup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:04x}:{:04x} class {:x}>>{} {}",
            self.pass.name(),
            self.vendor,
            self.device,
            self.class,
            self.class_shift,
            base_name(&self.hook)
        )
    }
}

/// The PCI fixups of `vmlinux` in table order; none where the kernel has no PCI.
///
/// # Errors
/// `vmlinux` is no linked kernel with symbols, or a fixup names an address without a symbol.
pub fn pci_fixups(vmlinux: &[u8]) -> Result<Vec<PciFixup>> {
    let image = Image::parse(vmlinux)?;
    let form = image.entry_form();
    let mut list = Vec::new();
    // The linker script has the tables only under CONFIG_PCI.
    if image.global("__start_pci_fixups_early").is_none() {
        return Ok(list);
    }
    for pass in PciPass::ALL {
        let start = format!("__start_pci_fixups_{}", pass.name());
        let end = format!("__end_pci_fixups_{}", pass.name());
        read_pass(&image, form, pass, image.range(&start, &end)?, &mut list)
            .with_context(|| format!("reading the PCI fixups from {start}"))?;
    }
    Ok(list)
}

fn read_pass(
    image: &Image<'_>,
    form: EntryForm,
    pass: PciPass,
    range: std::ops::Range<u64>,
    list: &mut Vec<PciFixup>,
) -> Result<()> {
    // Two 16-bit and two 32-bit words, then the hook, aligned to its size.
    let hook_at = 12_u64.next_multiple_of(image.entry_size(form));
    let size = hook_at + image.entry_size(form);
    let mut address = range.start;
    while address < range.end {
        if range.end - address < size {
            bail!(Failure::bad_input(format!(
                "the table's length is no multiple of {size}"
            )));
        }
        let target = image.target(form, address.wrapping_add(hook_at))?;
        list.push(PciFixup {
            pass,
            vendor: image.read_u16(address)?,
            device: image.read_u16(address.wrapping_add(2))?,
            class: image.read_u32(address.wrapping_add(4))?,
            class_shift: image.read_u32(address.wrapping_add(8))?,
            hook: image.function_at(target, "")?.to_owned(),
        });
        address += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_calls_the_hook_that_it_is_named_after() {
        let named = |hook: &str| PciFixup {
            pass: PciPass::Early,
            vendor: 0x8086,
            device: 0xffff,
            class: 0,
            class_shift: 0,
            hook: hook.to_owned(),
        };
        let fixup = named("__UNIQUE_ID_quirk_ich6123");
        assert!(fixup.calls("quirk_ich6"));
        assert!(fixup.calls("quirk_ich"));
        assert!(!fixup.calls("quirk"));
        assert!(!fixup.calls("quirk_ich6123"));
        let of_klto = named("__pci_fixup_stub__drivers_pci_quirks__240_7_quirk_ich6");
        assert!(of_klto.calls("quirk_ich6"));
        assert!(!of_klto.calls("ich6"));
    }
}
