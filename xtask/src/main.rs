//! `cargo xtask COMMAND`: reads the command line, calls one function for it, and turns a failure
//! into its text and exit code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use klto_core::{Failure, report};
use xtask::cache::Cache;
use xtask::kernel::{self, Configuration, Lto, Tree};
use xtask::{bench, boot, demo, matrix, oracle, sources, test};

const HELP: &str = "\
usage: cargo xtask COMMAND

  demo                  builds Linux 5.10 with ThinLTO in a small configuration and boots it
  test [FILTER]         checks and tests everything, on both kernel trees
  bench [ROW …]         measures the rows (all: those that have no figures yet) and writes
                        docs/benchmarks.md; `bench --list` names them, `--side=klto` builds on that
                        side alone, `--again` measures anew
  matrix [CELL …]       builds and boots every tree, architecture, mode and LLVM, or those cells
                        whose names begin so, and writes docs/matrix.md; goes on where it was
                        interrupted; `matrix --list` names the cells, `--again` runs them anew
  oracle [PART …]       plays long random sequences of edits, or parts of them as `102:1-20`, holds them
                        against clean builds, and writes docs/oracle.md; goes on where it was
                        interrupted; `--again` plays them anew
  setup                 installs the Debian packages and fetches both kernel sources
  configure TREE DIRECTORY [none|thin|full] [no-modules]
                        writes a .config from the repository's fragments
  reference TREE        builds TREE by plain make, without LTO, into the development cache
  boot DIRECTORY TREE   boots the kernel built in DIRECTORY and checks its console

TREE is 5.10, 6.12 or 5.10-x86_64. Downloads and builds lie in the development cache: KLTO_DEV_CACHE, or
klto-dev under XDG_CACHE_HOME or ~/.cache. Missing Debian packages are installed as root; any
other user is told the command.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    dispatch(&words).unwrap_or_else(|error| {
        let (text, status) = report(&error);
        eprint!("{text}");
        ExitCode::from(status.code())
    })
}

fn dispatch(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["demo"] => demo::run()?,
        ["test"] => return test::run(None).map(ExitCode::from),
        ["test", filter] => return test::run(Some(filter)).map(ExitCode::from),
        ["bench", rows @ ..] => bench::run(rows)?,
        ["matrix", cells @ ..] => matrix::run(cells)?,
        ["oracle", words @ ..] => oracle::run(words)?,
        ["setup"] => test::setup()?,
        ["configure", tree, directory] => configure(tree, directory, "none", true)?,
        ["configure", tree, directory, lto] => configure(tree, directory, lto, true)?,
        ["configure", tree, directory, lto, "no-modules"] => {
            configure(tree, directory, lto, false)?;
        }
        ["reference", tree] => reference(tree)?,
        ["boot", directory, tree] => boot_and_show(directory, tree)?,
        ["--help" | "-h" | "help"] => print!("{HELP}"),
        _ => return Err(Failure::bad_input("no such command").hint(HELP).into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn configure(tree: &str, directory: &str, lto: &str, modules: bool) -> Result<()> {
    let tree = Tree::named(tree)?;
    let source = sources::fetch(&Cache::open()?, tree)?;
    let configuration = Configuration {
        lto: Lto::named(lto)?,
        modules,
        ..Configuration::default()
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
