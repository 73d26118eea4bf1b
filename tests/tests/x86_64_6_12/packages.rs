//! Packages and installed modules: unpacked, they boot; modules are stripped, signed and compressed, and a
//! kernel that enforces signatures loads them; headers serve a machine without klto.

use std::path::{Path, PathBuf};
use std::process::Command;

use klto_tests::{fresh_directory, step};
use xtask::boot::{Booted, Subject, verdict};
use xtask::command;
use xtask::kernel::Feature;
use xtask::modules::in_order;

use crate::prepared::files_below;
use crate::{external, file, goals, thin};

/// Where kbuild appends a signature (include/linux/module_signature.h).
const SIGNATURE: &[u8] = b"~Module signature appended~\n";

fn is_signed(module: &Path) -> bool {
    fs_err::read(module).unwrap().ends_with(SIGNATURE)
}

fn has_symbols(module: &Path) -> bool {
    let bytes = fs_err::read(module).unwrap();
    let symbols = klto_formats::elf::symbols(&bytes).unwrap();
    symbols.iter().any(|symbol| {
        symbol.name.starts_with(b".L") || symbol.kind == klto_formats::elf::Kind::File
    })
}

/// The modules below `root`, decompressed as modprobe does it, in an order that loads.
fn installed_modules(root: &Path) -> Vec<PathBuf> {
    let compressed = files_below(&root.join("lib/modules"));
    let compressed: Vec<_> = compressed
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".ko.xz"))
        .collect();
    let order = fs_err::read_to_string(file("modules.order")).unwrap();
    assert_eq!(compressed.len(), order.lines().count());
    for module in &compressed {
        command::run(
            Command::new("xz")
                .args(["--decompress", "--keep"])
                .arg(module),
        )
        .unwrap();
    }
    let modules: Vec<PathBuf> = compressed
        .iter()
        .map(|path| path.with_extension(""))
        .collect();
    assert!(modules.iter().all(|module| is_signed(module)));
    in_order(modules).unwrap()
}

/// Boots an unpacked package with signatures enforced, and a module that has none.
fn boot_enforcing(root: &Path, modules: Vec<PathBuf>) -> Booted {
    let tree = thin().build.tree();
    let built = Subject::built(tree, thin().build.output_directory()).unwrap();
    let images = fs_err::read_dir(root.join("boot")).unwrap();
    let mut images = images.map(|entry| entry.unwrap().path());
    let image = images.find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    // A module with a changed CRC has a wrong signature too.
    let mut features = built.features.clone();
    features.retain(|feature| *feature != Feature::Versions);
    features.push(Feature::Signature);
    let subject = Subject {
        image: image.unwrap(),
        modules,
        unsigned: Some(file("fs/autofs/autofs4.ko")),
        features,
        parameters: "module.sig_enforce=1",
        ..built
    };
    step("boot of a package", || subject.boot().unwrap())
}

#[test]
fn a_tar_package_boots_with_stripped_signed_and_compressed_modules() {
    let root = fresh_directory("tar-6.12").unwrap();
    let before = fs_err::read(file("arch/x86/boot/bzImage")).unwrap();
    assert!(
        !is_signed(&file("fs/autofs/autofs4.ko")) && has_symbols(&file("fs/autofs/autofs4.ko"))
    );
    let build = thin()
        .build
        .clone()
        .word("INSTALL_MOD_STRIP=--strip-unneeded");
    step("klto make tar-pkg", || build.goals(&["tar-pkg"]).succeed());
    let listed = fs_err::read_dir(thin().build.output_directory()).unwrap();
    let mut packages = listed
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "tar"));
    let package = packages.next().unwrap();
    let mut tar = Command::new("tar");
    command::run(tar.arg("-xf").arg(&package).arg("-C").arg(&root)).unwrap();
    fs_err::remove_file(package).unwrap();
    let modules = installed_modules(&root);
    assert!(!modules.iter().any(|module| has_symbols(module)));
    let booted = boot_enforcing(&root, modules);
    verdict(&booted).unwrap();
    assert!(fs_err::read(file("arch/x86/boot/bzImage")).unwrap() == before);
}

/// `klto make bindeb-pkg`: the kernel's package boots, and an external module is built by plain make on the
/// headers' package and loads into the kernel.
#[test]
fn debian_packages_boot_and_serve_a_machine_without_klto() {
    let root = external::make_and_unpack_debian_packages(&thin().build, "deb-6.12");
    let booted = boot_enforcing(&root, installed_modules(&root));
    verdict(&booted).unwrap();
    external::build_without_klto(&thin().build, &root);
    goals(&["modules"]);
}
