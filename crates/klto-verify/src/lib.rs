//! Comes in: finished kernel build directories, or the bytes of a vmlinux, a module, an object.
//! Goes out: the lists whose order a kernel depends on, and [`Report`]s that say where two builds
//! differ.
//!
//! Knows nothing of how a kernel was built: it reads only what is there, so that what it says
//! stays true of a kernel that klto never touched.

mod acquire;
mod bits;
mod compare;
mod differences;
mod image;
mod initcalls;
mod module;
mod names;
mod pci;
mod report;
mod symvers;
mod tree;

pub use acquire::acquire_loads;
pub use bits::bit_equal;
pub use compare::Comparison;
pub use initcalls::{Initcall, InitcallLevel, initcalls};
pub use module::{modinfo, module_versions, section_list, symbol_list};
pub use names::{base_name, promoted_names};
pub use pci::{PciFixup, PciPass, pci_fixups};
pub use report::{Report, Row};
pub use symvers::{ExportVersion, export_versions};
pub use tree::{build_products, modules};
