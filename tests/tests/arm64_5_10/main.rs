//! Linux 5.10 for arm64, a tree that has no LTO support: built with ThinLTO from an empty store,
//! booted, held against plain kbuild, edited, cleaned and installed.
//!
//! All tests share one build. Those that change it put it back.

// Steps outside of `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

mod code;
#[path = "../external/mod.rs"]
mod external;
mod members;
mod names;
#[path = "../prepared/mod.rs"]
mod prepared;
mod reuse;

use std::path::{Path, PathBuf};

use klto_tests::{
    Build, Outcome, PrivateSource, Shared, assert_like_reference, fresh_directory, reference, step,
};
use klto_verify::Comparison;
use xtask::boot;
use xtask::kernel::Tree;

/// The build from an empty store in a fresh directory, of a source that a test may edit.
struct Thin {
    build: Build,
    source: PrivateSource,
    first: Outcome,
}

fn thin() -> &'static Thin {
    static THIN: Shared<Thin> = Shared::new();
    THIN.get(|| {
        let source = PrivateSource::of(Tree::named("5.10")?, "arm64")?;
        let build = Build::new("5.10", "arm64-thin")?
            .source(source.path())
            .store(&fresh_directory("arm64-store")?);
        build.configure_fresh()?;
        let first = step("thin build of 5.10 from nothing", || build.succeed());
        Ok(Thin {
            build,
            source,
            first,
        })
    })
}

#[test]
fn boots() {
    let thin = thin();
    let booted = step("boot", || {
        boot::boot(thin.build.tree(), thin.build.output_directory()).unwrap()
    });
    boot::verdict(&booted).unwrap();
}

#[test]
fn equals_the_reference() {
    let thin = thin();
    let reference = reference(thin.build.tree()).unwrap();
    let report = Comparison::of(&reference, thin.build.output_directory()).unwrap();
    eprintln!("{report}");
    assert_like_reference(&report);
}

#[test]
fn external_modules_build_load_and_are_found_again() {
    external::build_load_and_find_again(&thin().build, "arm64-external");
}

#[test]
fn a_module_of_a_dkms_package_builds_and_loads() {
    external::build_and_load_dkms_package(&thin().build, "vpoll-dkms", "arm64-dkms");
}

/// Each module's unit, by the object that kbuild names it after.
fn module_units(output: &Path) -> Vec<PathBuf> {
    let modules = klto_verify::modules(output).unwrap();
    assert!(modules.len() > 6, "{modules:?}");
    modules
        .iter()
        .map(|path| path.with_extension("o"))
        .collect()
}

/// The native of an object of vmlinux, as its backend wrote it.
fn native(output: &Path, object: &str) -> PathBuf {
    output.join(".klto/units/vmlinux.o/raw").join(object)
}
