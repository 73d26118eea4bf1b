//! What a shim costs over the plain tool, call by call, while a build with two jobs runs.
//!
//! In: klto's program. Out: a thousand pairs for each kind of call, of the tool itself and of the shim,
//! which has the session's fork server run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::figures::{Figures, Value};
use super::load::{Environment, Load};
use crate::cache::Cache;
use crate::command;

/// The kinds of calls.
pub(super) const SERIES: &[&str] = &[
    "clang --version",
    "ld.lld -v",
    "cc-option probe",
    "llvm-nm",
    "ld.lld -r, by the session",
];

/// Calls of each kind, on each side.
pub(super) const CALLS: usize = 1000;
/// The sides: the tool itself, and the shim.
pub(super) const PLAIN: &str = "plain";
pub(super) const SHIM: &str = "shim";

/// Whether all calls are there.
pub(super) fn is_complete(figures: &Figures) -> bool {
    let count = |series: &&str| figures.of(series, SHIM).count();
    SERIES.iter().all(|series| count(series) >= CALLS)
}

/// Adds the pairs that are missing, kind by kind.
pub(super) fn measure(cache: &Cache, klto: &Path, figures: &mut Figures) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let object = native_object(scratch.path())?;
    let mut load = Load::new(cache, klto)?;
    for series in SERIES {
        let call = Call::of(series, scratch.path(), &object);
        loop {
            let count = figures.of(series, SHIM).count();
            if count >= CALLS {
                break;
            }
            let environment = load.environment()?;
            // A session that ends in the middle of a call fails it: the pair is measured again.
            if let Some(pair) = call.pair(&environment, count % 2 == 1)? {
                for (side, seconds) in [PLAIN, SHIM].into_iter().zip(pair) {
                    let value = Value {
                        seconds,
                        ..Value::default()
                    };
                    figures.add(series, side, value)?;
                }
            }
        }
        println!("{series}: measured");
    }
    Ok(())
}

/// An ELF object for the calls that read one.
fn native_object(directory: &Path) -> Result<PathBuf> {
    let source = directory.join("empty.c");
    fs::write(&source, "int value;\n")?;
    let object = directory.join("empty.o");
    let mut clang = Command::new("clang-22");
    clang
        .args(["--target=aarch64-linux-gnu", "-c", "-o"])
        .arg(&object)
        .arg(&source);
    command::run(&mut clang)?;
    Ok(object)
}

struct Call {
    tool: &'static str,
    arguments: Vec<String>,
}

impl Call {
    fn of(series: &str, scratch: &Path, object: &Path) -> Self {
        let output = scratch.join("tmp").display().to_string();
        let object = object.display().to_string();
        let (tool, words) = match series {
            "clang --version" => ("clang-22", vec!["--version"]),
            "ld.lld -v" => ("ld.lld-22", vec!["-v"]),
            "llvm-nm" => ("llvm-nm-22", vec![object.as_str()]),
            "ld.lld -r, by the session" => ("ld.lld-22", vec!["-r", "-o", &output, &object]),
            // As try-run of scripts/Kbuild.include and cc-option of scripts/Makefile.compiler.
            _ => (
                "clang-22",
                vec![
                    "--target=aarch64-linux-gnu",
                    "-Werror",
                    "-fno-delete-null-pointer-checks",
                    "-c",
                    "-x",
                    "c",
                    "/dev/null",
                    "-o",
                    &output,
                ],
            ),
        };
        Self {
            tool,
            arguments: words.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Seconds of the tool itself and of the shim.
    fn pair(&self, environment: &Environment, shim_first: bool) -> Result<Option<[f64; 2]>> {
        let (shim, plain) = self.programs(environment)?;
        let order = match shim_first {
            true => [&shim, &plain],
            false => [&plain, &shim],
        };
        let mut seconds = [0.0; 2];
        for (program, place) in order.into_iter().zip(&mut seconds) {
            match self.seconds(program, environment)? {
                Some(measured) => *place = measured,
                None if *program == shim => return Ok(None),
                None => bail!("{} fails by itself", plain.display()),
            }
        }
        if shim_first {
            seconds.reverse();
        }
        Ok(Some(seconds))
    }

    /// The shim goes first in the PATH of recipes; the tool is behind it.
    fn programs(&self, environment: &Environment) -> Result<(PathBuf, PathBuf)> {
        let path = environment
            .get(std::ffi::OsStr::new("PATH"))
            .context("make has no PATH")?;
        let mut found = std::env::split_paths(path)
            .map(|directory| directory.join(self.tool))
            .filter(|program| program.exists());
        match (found.next(), found.next()) {
            (Some(shim), Some(plain)) => Ok((shim, plain)),
            _ => bail!("no shim for {} in the PATH of make", self.tool),
        }
    }

    fn seconds(&self, program: &Path, environment: &Environment) -> Result<Option<f64>> {
        let mut call = Command::new(program);
        call.args(&self.arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let begin = Instant::now();
        let status = call
            .status()
            .with_context(|| format!("starting {}", program.display()))?;
        let seconds = begin.elapsed().as_secs_f64();
        Ok(status.success().then_some(seconds))
    }
}
