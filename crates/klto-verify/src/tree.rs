//! Comes in: a kernel's output directory. Goes out: the paths of what was built in it.
//!
//! Does not know the source tree, and runs nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The modules of a build, relative to `build_dir`, in the order of `modules.order`; none where
/// the configuration has no modules.
///
/// Linux 5.10 writes `.ko` paths, 6.12 the `.o` paths that they are made from.
///
/// # Errors
/// `modules.order` cannot be read though the configuration has modules.
pub fn modules(build_dir: &Path) -> Result<Vec<PathBuf>> {
    if !has_modules(build_dir) {
        return Ok(Vec::new());
    }
    let text = fs_err::read_to_string(build_dir.join("modules.order"))?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| Path::new(line).with_extension("ko"))
        .collect())
}

/// Whether the build has modules. A directory of external modules has no `auto.conf`.
pub(crate) fn has_modules(build_dir: &Path) -> bool {
    match fs_err::read_to_string(build_dir.join("include/config/auto.conf")) {
        Ok(text) => text.lines().any(|line| line == "CONFIG_MODULES=y"),
        Err(_) => true,
    }
}

/// What a build is judged by, relative to `build_dir`: `vmlinux`, `System.map`, the boot images
/// that are there, and with modules `Module.symvers`, `modules.order` and every module.
///
/// # Errors
/// A directory or `modules.order` cannot be read.
pub fn build_products(build_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut products = vec![PathBuf::from("vmlinux"), PathBuf::from("System.map")];
    products.extend(boot_images(build_dir)?);
    if has_modules(build_dir) {
        products.push(PathBuf::from("Module.symvers"));
        products.push(PathBuf::from("modules.order"));
        products.extend(modules(build_dir)?);
    }
    Ok(products)
}

/// The boot images by the names that the architectures' makefiles give them. Links are left out:
/// `arch/x86_64/boot/bzImage` is one to `arch/x86`.
fn boot_images(build_dir: &Path) -> Result<Vec<PathBuf>> {
    const NAMES: [&str; 6] = [
        "bzImage",
        "Image",
        "Image.gz",
        "zImage",
        "uImage",
        "vmlinuz.efi",
    ];
    let mut found = Vec::new();
    let architectures = build_dir.join("arch");
    if !architectures.is_dir() {
        return Ok(found);
    }
    for entry in fs_err::read_dir(architectures)? {
        let boot = Path::new("arch").join(entry?.file_name()).join("boot");
        found.extend(NAMES.iter().map(|name| boot.join(name)).filter(|path| {
            fs_err::symlink_metadata(build_dir.join(path)).is_ok_and(|file| file.is_file())
        }));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_and_module_paths_both_name_modules_in_order() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("modules.order"), "b/b.ko\na/a-x.o\n").unwrap();
        let list = modules(directory.path()).unwrap();
        assert_eq!(list, [Path::new("b/b.ko"), Path::new("a/a-x.ko")]);
    }

    #[test]
    fn a_missing_list_is_an_error_only_where_modules_are_configured() {
        let directory = tempfile::tempdir().unwrap();
        assert!(modules(directory.path()).is_err());
        let configuration = directory.path().join("include/config");
        std::fs::create_dir_all(&configuration).unwrap();
        std::fs::write(configuration.join("auto.conf"), "CONFIG_PCI=y\n").unwrap();
        assert!(modules(directory.path()).unwrap().is_empty());
    }
}
