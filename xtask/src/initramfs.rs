//! The initramfs of the boot test, in cpio's newc format.
//!
//! In: the init program and modules in load order. Out: the bytes of the archive. The format is
//! that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive that grows by one entry a call.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const DEVICE: u32 = 0o020_600;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// Builds the archive: `init`, the directories it mounts on, `/modules/order` and the modules, and
/// `others` by name.
///
/// `/dev/console` is what the kernel opens for init, `/dev/kmsg` what init reports to.
pub fn build(init: &[u8], modules: &[(String, Vec<u8>)], others: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    for name in ["dev", "proc", "sys", "modules"] {
        archive.entry(name, DIRECTORY, (0, 0), &[]);
    }
    archive.entry("dev/console", DEVICE, (5, 1), &[]);
    archive.entry("dev/kmsg", DEVICE, (1, 11), &[]);
    archive.entry("init", PROGRAM, (0, 0), init);
    let order: String = modules
        .iter()
        .map(|(name, _)| format!("{name}\n"))
        .collect();
    archive.entry("modules/order", FILE, (0, 0), order.as_bytes());
    for (name, content) in modules {
        archive.entry(&format!("modules/{name}"), FILE, (0, 0), content);
    }
    for (name, content) in others {
        archive.entry(name, FILE, (0, 0), content);
    }
    archive.entry("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

impl Archive {
    /// Thirteen fields of eight hexadecimal digits follow the magic; name and content end at a
    /// multiple of four bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let (major, minor) = device;
        // No entry of this test comes near 4 GiB; the format cannot say more.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let (owner, group, time, check) = (0, 0, 0, 0);
        self.bytes.extend_from_slice(b"070701");
        for field in [
            self.entries,
            mode,
            owner,
            group,
            links,
            time,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            check,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_reads_what_is_written() {
        let modules = [("a.ko".to_owned(), b"12345".to_vec())];
        let archive = build(b"program", &modules, &[]);
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let listed = cpio.wait_with_output().unwrap();
        assert!(listed.status.success());
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<(&str, &str)> = listed
            .lines()
            .map(|line| (&line[..10], line.rsplit(' ').next().unwrap()))
            .collect();
        assert_eq!(lines[3], ("drwxr-xr-x", "modules"));
        assert_eq!(lines[5], ("crw-------", "dev/kmsg"));
        assert_eq!(lines[6], ("-rwxr-xr-x", "init"));
        assert_eq!(lines[8], ("-rw-r--r--", "modules/a.ko"));
        assert_eq!(lines.len(), 9);
    }
}
