//! `cargo xtask COMMAND`: reads the command line, calls one function for it, and turns a failure
//! into its text and exit code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use klto_core::{Failure, report};
use xtask::cache::Cache;
use xtask::kernel::{self, Configuration, Lto, Tree};
use xtask::{boot, packages, sources};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  setup                                 install the Debian packages, fetch both kernel sources
  configure TREE DIRECTORY [none|thin] [no-modules]
                                        write a .config from the repository's fragments
  reference TREE                        build TREE by plain make, without LTO, into the cache
  boot DIRECTORY TREE                   boot the kernel built in DIRECTORY and check its console
TREE is 5.10 or 6.12";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (text, status) = report(&error);
            eprintln!("{text}");
            ExitCode::from(status.code())
        }
    }
}

fn dispatch(words: &[&str]) -> Result<()> {
    match words {
        ["setup"] => setup(),
        ["configure", tree, directory] => configure(tree, directory, "none", true),
        ["configure", tree, directory, lto] => configure(tree, directory, lto, true),
        ["configure", tree, directory, lto, "no-modules"] => configure(tree, directory, lto, false),
        ["reference", tree] => reference(tree),
        ["boot", directory, tree] => boot_and_show(directory, tree),
        _ => Err(Failure::bad_input("no such command").hint(USAGE).into()),
    }
}

fn setup() -> Result<()> {
    packages::install_missing()?;
    let cache = Cache::open()?;
    for tree in kernel::TREES {
        let source = sources::fetch(&cache, tree)?;
        println!("{}: {}", tree.name, source.display());
    }
    Ok(())
}

fn configure(tree: &str, directory: &str, lto: &str, modules: bool) -> Result<()> {
    let tree = Tree::named(tree)?;
    let source = sources::fetch(&Cache::open()?, tree)?;
    let configuration = Configuration {
        lto: Lto::named(lto)?,
        modules,
    };
    kernel::configure(tree, &source, Path::new(directory), configuration)
}

fn reference(tree: &str) -> Result<()> {
    let tree = Tree::named(tree)?;
    let built = kernel::build_reference(&Cache::open()?, tree)?;
    println!(
        "{}: {} objects in {:.0} s",
        built.directory.display(),
        built.objects,
        built.elapsed.as_secs_f64()
    );
    Ok(())
}

fn boot_and_show(directory: &str, tree: &str) -> Result<()> {
    let booted = boot::boot(Tree::named(tree)?, Path::new(directory))?;
    print!("{}", booted.console);
    boot::verdict(&booted)?;
    println!(
        "boot ok: {} modules, {:.0} s",
        booted.expected.modules.len(),
        booted.elapsed.as_secs_f64()
    );
    Ok(())
}
