//! Comes in: the text of `Module.symvers`. Goes out: its lines as values.
//!
//! The format is in `Documentation/kbuild/modules.rst`. Does not know who uses an export.

use std::fmt;

use anyhow::{Context as _, Result};
use klto_core::Failure;

/// One exported symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportVersion {
    /// The checksum of its type, 0 without `CONFIG_MODVERSIONS`.
    pub crc: u32,
    /// The symbol.
    pub symbol: String,
    /// Who exports it: `vmlinux`, or a module's path without suffix.
    pub module: String,
    /// `EXPORT_SYMBOL`, `EXPORT_SYMBOL_GPL` or what else the tree has.
    pub export: String,
    /// The namespace, empty for none.
    pub namespace: String,
}

impl fmt::Display for ExportVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} {} {}", self.crc, self.module, self.export)?;
        if !self.namespace.is_empty() {
            write!(f, " {}", self.namespace)?;
        }
        Ok(())
    }
}

/// The exports that `symvers`, the text of a `Module.symvers`, lists, in its order.
///
/// # Errors
/// A line lacks a field, or its checksum is no 32-bit number in hexadecimal.
pub fn export_versions(symvers: &str) -> Result<Vec<ExportVersion>> {
    let parse = |(number, line): (usize, &str)| {
        parse_line(line).with_context(|| {
            Failure::bad_input(format!("line {} is no exported symbol: {line}", number + 1))
        })
    };
    symvers.lines().enumerate().map(parse).collect()
}

fn parse_line(line: &str) -> Option<ExportVersion> {
    let mut fields = line.split('\t');
    let crc = fields.next()?.strip_prefix("0x")?;
    let export = ExportVersion {
        crc: u32::from_str_radix(crc, 16).ok()?,
        symbol: fields
            .next()
            .filter(|symbol| !symbol.is_empty())?
            .to_owned(),
        module: fields.next()?.to_owned(),
        export: fields.next()?.to_owned(),
        namespace: fields.next().unwrap_or_default().to_owned(),
    };
    fields.next().is_none().then_some(export)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_a_namespace_are_read_in_order() {
        let text = "0x8a4fa83b\tmemcpy\tvmlinux\tEXPORT_SYMBOL\t\n\
                    0x00000000\tfoo\tfs/ext4/ext4\tEXPORT_SYMBOL_GPL\tNS\n";
        let exports = export_versions(text).unwrap();
        assert_eq!(exports.len(), 2);
        assert_eq!(exports[0].crc, 0x8a4f_a83b);
        assert_eq!(exports[0].to_string(), "0x8a4fa83b vmlinux EXPORT_SYMBOL");
        assert_eq!(exports[1].symbol, "foo");
        assert_eq!(exports[1].namespace, "NS");
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for bad in [
            "",
            "memcpy",
            "0x1\tfoo",
            "0x1ffffffff\ta\tb\tc\t",
            "0xz\ta\tb\tc\t",
        ] {
            let text = format!("0x00000000\tfoo\tvmlinux\tEXPORT_SYMBOL\t\n{bad}\n");
            let error = export_versions(&text).unwrap_err();
            assert!(error.to_string().starts_with("line 2 "), "{error}");
        }
    }
}
