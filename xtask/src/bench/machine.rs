//! The machine that measures, and its tools.
//!
//! In: `/proc`, and what the tools say of themselves. Out: lines of text. Nothing here measures.

use std::process::Command;

use anyhow::Result;
use fs_err as fs;

use crate::command;

/// Processors, memory and kernel, as each figure keeps them.
pub(super) fn name() -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = value_after(&processor, "model name").unwrap_or("unknown");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kibibytes: u64 = value_after(&memory, "MemTotal")
        .and_then(|value| value.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    Ok(format!(
        "{} × {model}, {} GiB of memory, Linux {}",
        std::thread::available_parallelism()?,
        kibibytes >> 20,
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    ))
}

/// The first lines that the tools print of their versions.
pub(super) fn tools() -> Result<Vec<String>> {
    let version = |tool: &str| -> Result<String> {
        let printed = command::output(Command::new(tool).arg("--version"))?;
        Ok(printed.lines().next().unwrap_or_default().trim().to_owned())
    };
    let tools = ["clang-22", "ld.lld-22", "make", "ccache"];
    tools.into_iter().map(version).collect()
}

fn value_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}
