//! The Debian packages that building and booting the test kernels needs.
//!
//! In: the dpkg database. Out: nothing is missing, or a failure whose hint is the one command that
//! installs the rest.

use std::process::Command;

use anyhow::Result;
use klto_core::Failure;

use crate::command;

/// All of them, by the part of the work that needs them.
pub const PACKAGES: &[&str] = &[
    // The toolchain under test.
    "clang-22",
    "lld-22",
    "llvm-22",
    // What kbuild runs.
    "bc",
    "bison",
    "cpio",
    "flex",
    "gcc",
    "kmod",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "openssl",
    "perl",
    "python3",
    "rsync",
    "xz-utils",
    // What its Debian packages need.
    "build-essential",
    "debhelper",
    "dpkg-dev",
    "libdw-dev",
    // The machines that boot the kernels.
    "ovmf",
    "qemu-efi-aarch64",
    "qemu-system-arm",
    "qemu-system-x86",
    // Surroundings that the tests put klto into.
    "ccache",
    "clangd-22",
    "fakeroot",
    "strace",
    // The commit that a benchmark names, and the memory that it measures.
    "git",
    "time",
];

/// The packages of [`PACKAGES`] that are not installed, in that order.
pub fn missing() -> Result<Vec<&'static str>> {
    missing_of(PACKAGES)
}

fn missing_of<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    // Its exit code is 1 as soon as one package is unknown; the known ones are printed still.
    let output = query.args(wanted).output()?;
    Ok(not_installed(
        wanted,
        &String::from_utf8_lossy(&output.stdout),
    ))
}

/// Installs what is missing as root; otherwise fails with the command in the hint.
pub fn install_missing() -> Result<()> {
    install(&missing()?)
}

/// The same for these major versions of LLVM.
pub fn install_llvm(versions: &[u32]) -> Result<()> {
    let mut wanted = Vec::new();
    for version in versions {
        wanted.extend(["clang", "lld", "llvm"].map(|name| format!("{name}-{version}")));
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    install(&missing_of(&wanted)?)
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        let list = missing.join(" ");
        let message = format!("{} Debian packages are missing", missing.len());
        let hint = format!(
            "sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends {list}'"
        );
        return Err(Failure::environment(message).hint(hint).into());
    }
    update_lists();
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command::run(&mut install)
}

/// Refreshes the machine's package lists. A source of somebody else that fails stops nothing: the
/// next apt call says what it cannot find.
pub fn update_lists() {
    if let Err(error) = command::run(Command::new("apt-get").arg("update")) {
        eprintln!("xtask: warning: {error:#}");
    }
}

fn not_installed<'a>(wanted: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = known
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    let is_missing = |package: &&str| !installed.contains(package);
    wanted.iter().copied().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_left_only_its_configuration_is_missing() {
        let all: String = PACKAGES
            .iter()
            .map(|package| match *package {
                "flex" => "flex config-files\n".to_owned(),
                other => format!("{other} installed\n"),
            })
            .collect();
        assert_eq!(not_installed(PACKAGES, &all), ["flex"]);
    }
}
