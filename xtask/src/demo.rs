//! The demonstration: a tree without any LTO support becomes a ThinLTO kernel that boots.
//!
//! In: nothing. Out: the kernel in the development cache, and a report of what was built, how much
//! of it went through ThinLTO, and where the time went. Each run builds from nothing, with a store
//! of its own that begins empty.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fs_err as fs;

use crate::boot::{self, Booted};
use crate::build_log::BuildLog;
use crate::cache::Cache;
use crate::kernel::{self, Configuration, Feature, TREES, Tree};
use crate::observe::{self, Observed};
use crate::{modules, packages, product, qemu, sources};

/// The 5.10 tree with the smallest configuration that boots.
static TREE: Tree = Tree {
    name: "5.10-demo",
    fragments: &["5.10-arm64-demo.config"],
    machine: &qemu::ARM64_DIRECT,
    features: &[Feature::Vdso],
    boot_proofs: &[],
    ..TREES[0]
};

/// The line of make that ends the compiles: from here on the kernel is linked.
const LINK_BEGINS: &str = "  LD      vmlinux.o";

/// A step of the demonstration and how long it took.
type Stage = (&'static str, Duration);

/// Does all of it.
pub fn run() -> Result<()> {
    let begin = Instant::now();
    packages::install_missing()?;
    let cache = Cache::open()?;
    let source = sources::fetch(&cache, &TREE)?;
    let mut stages = vec![("packages and sources", begin.elapsed())];
    let klto = timed(&mut stages, "klto itself (release)", product::build_klto)?;
    let place = Place::empty(&cache)?;
    timed(&mut stages, "configuration", || {
        kernel::configure(&TREE, &source, &place.output, Configuration::default())
    })?;
    let build = build(&klto, &source, &place)?;
    let log = BuildLog::parse(&fs::read_to_string(place.output.join(".klto/log"))?);
    stages.extend(build_stages(&build, &log));
    let booted = boot::boot(&TREE, &place.output)?;
    print!("{}", booted.console);
    boot::verdict(&booted)?;
    stages.push(("boot in QEMU", booted.elapsed));
    print!("{}", what_was_built(&place, &log, &booted)?);
    print!("{}", time_table(&stages, begin.elapsed()));
    Ok(())
}

fn timed<T>(
    stages: &mut Vec<Stage>,
    name: &'static str,
    step: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let begin = Instant::now();
    let result = step()?;
    stages.push((name, begin.elapsed()));
    Ok(result)
}

struct Place {
    output: PathBuf,
    store: PathBuf,
}

impl Place {
    /// The demonstration's directories, without what an earlier run left.
    fn empty(cache: &Cache) -> Result<Self> {
        let root = cache.builds()?.join("demo");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let output = root.join("kernel");
        fs::create_dir_all(&output)?;
        Ok(Self {
            output,
            store: root.join("store"),
        })
    }
}

fn build(klto: &Path, source: &Path, place: &Place) -> Result<Observed> {
    let jobs = std::thread::available_parallelism()?;
    let mut make = Command::new(klto);
    make.args(["make", "--lto=thin", &format!("-j{jobs}")])
        .args(kernel::make_arguments(&TREE, source, &place.output))
        .args(TREE.goals(Configuration::default()))
        .envs(kernel::REPRODUCIBLE)
        .env("KLTO_CACHE", &place.store);
    observe::run(&mut make, &[LINK_BEGINS]).context("building the kernel of the demonstration")
}

/// The time of make, cut where its lines and klto's log allow it.
fn build_stages(build: &Observed, log: &BuildLog) -> Vec<Stage> {
    let vmlinux = log.units.get("vmlinux.o").cloned().unwrap_or_default();
    let compiles = build.seen[0].unwrap_or(build.elapsed);
    let thin_link = Duration::from_secs_f64(vmlinux.thin_link);
    let backends = Duration::from_secs_f64(vmlinux.backends);
    let known = compiles + thin_link + backends;
    vec![
        ("compiles, to bitcode", compiles),
        ("thin-link of vmlinux", thin_link),
        ("backends of vmlinux", backends),
        (
            "links, symbols, image, modules",
            build.elapsed.saturating_sub(known),
        ),
    ]
}

fn what_was_built(place: &Place, log: &BuildLog, booted: &Booted) -> Result<String> {
    let objects = modules::linked_objects(&place.output)?;
    let image = fs::metadata(place.output.join(TREE.image))?.len();
    let bitcode = log.inputs();
    let mut text = format!(
        "\nbuilt: Linux 5.10 for arm64, unpatched, {objects} objects compiled from C and assembly; \
         Image of {} KiB, modules {}\n",
        image / 1024,
        booted.expected.modules.join(" ")
    );
    text += &format!(
        "from bitcode: {bitcode} objects ({} %), the rest is assembly or native\n",
        bitcode * 100 / objects.max(1)
    );
    for (name, unit) in &log.units {
        text += &format!("  {name}: {} objects\n", unit.inputs.len());
    }
    for (object, reader) in &log.native {
        text += &format!("  native: {object}, read by {reader}\n");
    }
    Ok(text)
}

fn time_table(stages: &[Stage], total: Duration) -> String {
    let mut text = "time:\n".to_owned();
    for (name, elapsed) in stages.iter().chain([&("all", total)]) {
        text += &format!("  {name:<32} {:>7.1} s\n", elapsed.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_log::Unit;

    #[test]
    fn what_no_line_names_is_left_for_the_links() {
        let build = Observed {
            seen: vec![Some(Duration::from_secs(60))],
            elapsed: Duration::from_secs(100),
        };
        let vmlinux = Unit {
            inputs: vec![String::new(); 400],
            promoted: Default::default(),
            thin_link: 1.0,
            backends: 29.0,
        };
        let log = BuildLog {
            units: [("vmlinux.o".to_owned(), vmlinux)].into(),
            ..BuildLog::default()
        };
        let seconds: Vec<u64> = build_stages(&build, &log)
            .iter()
            .map(|(_, elapsed)| elapsed.as_secs())
            .collect();
        assert_eq!(seconds, [60, 1, 29, 10]);
    }

    #[test]
    fn the_demonstration_is_the_tree_without_lto() {
        assert_eq!(TREE.source, "linux-5.10");
        assert!(!TREE.has_lto_option);
    }
}
