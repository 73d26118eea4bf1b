//! One run of QEMU by emulation, from start to power-off or to a time limit.
//!
//! In: a machine, a kernel image, an initramfs. Out: everything that came over the serial console,
//! and how the run ended. It does not know what the text means.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use klto_core::die_with_parent;

/// An emulated machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The QEMU program.
    pub program: &'static str,
    /// What makes the machine; image, initramfs and console come with each run.
    pub arguments: &'static [&'static str],
    /// How many processors it has.
    pub processors: u32,
    /// The kernel's name of the first serial line.
    pub console: &'static str,
}

/// QEMU's virt with EFI firmware and a CPU that has EL2 but no VHE. ACPI is off: the firmware then
/// hands the device tree to the kernel.
pub static ARM64_EFI: Machine = Machine {
    program: "qemu-system-aarch64",
    arguments: &[
        "-machine",
        "virt,virtualization=on,acpi=off,accel=tcg",
        "-cpu",
        "cortex-a57",
        "-bios",
        "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    ],
    processors: 2,
    console: "ttyAMA0",
};

/// The same machine without firmware: QEMU itself starts the kernel and hands the device tree to it.
pub static ARM64_DIRECT: Machine = Machine {
    program: "qemu-system-aarch64",
    arguments: &["-machine", "virt,accel=tcg", "-cpu", "cortex-a57"],
    processors: 2,
    console: "ttyAMA0",
};

/// A PC without firmware tables that the kernel reads: the test kernel has no ACPI.
pub static X86_64_PC: Machine = Machine {
    program: "qemu-system-x86_64",
    arguments: &["-machine", "pc,accel=tcg", "-cpu", "max"],
    processors: 2,
    console: "ttyS0",
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The guest went down and QEMU left with this status.
    Exited(ExitStatus),
    /// The time was over; QEMU was killed.
    TimedOut,
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// The console with line feeds only; bytes that are no UTF-8 are replaced.
    pub console: String,
    /// How it ended.
    pub ending: Ending,
}

/// Boots `image` with `initramfs`, which is also the content of a read-only virtio disk.
///
/// `kernel` is the image and more words for its command line.
pub fn run(
    machine: &Machine,
    kernel: (&Path, &str),
    initramfs: &Path,
    limit: Duration,
) -> Result<Run> {
    let mut child = die_with_parent(&mut command_line(machine, kernel, initramfs))
        .spawn()
        .with_context(|| format!("starting {}", machine.program))?;
    let mut serial = child.stdout.take().context("a pipe was asked for")?;
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = serial.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let finished = collect(&mut child, &receiver, Instant::now() + limit);
    // The pipe is at its end now: QEMU has left, or was killed.
    let _ = reader.join();
    finished
}

fn command_line(
    machine: &Machine,
    (image, parameters): (&Path, &str),
    initramfs: &Path,
) -> Command {
    let mut disk = OsString::from("if=none,id=disk,format=raw,readonly=on,file=");
    disk.push(initramfs);
    let mut qemu = Command::new(machine.program);
    qemu.args(machine.arguments)
        .args(["-m", "512", "-no-reboot", "-nodefaults"])
        .args(["-smp", &machine.processors.to_string()])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-device", "virtio-blk-pci,drive=disk", "-drive"])
        .arg(disk)
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        // Without devkmsg=on the kernel drops most of what init says.
        .arg(format!(
            "console={} printk.devkmsg=on {parameters}",
            machine.console
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu
}

fn collect(child: &mut Child, chunks: &Receiver<Vec<u8>>, end: Instant) -> Result<Run> {
    let mut bytes = Vec::new();
    let ending = loop {
        match chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(RecvTimeoutError::Disconnected) => break Ending::Exited(child.wait()?),
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                break Ending::TimedOut;
            }
        }
    };
    let console = String::from_utf8_lossy(&bytes).replace('\r', "");
    Ok(Run { console, ending })
}
