//! `klto make`: from the words of the command line to the end of make; and what it would do.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use anyhow::Context as _;
use klto_core::Failure;
use klto_kbuild::{Invocation, LtoRequest, MakeArguments, PlainMake, Plan};
use klto_session::{Settings, forecast, hold_output, remove_scratch, run as run_session};
use signal_hook::low_level::emulate_default_handler;

use crate::variables;

/// Runs make, plain or within a session.
pub fn run(request: Option<LtoRequest>, words: &[OsString]) -> anyhow::Result<u8> {
    let invocation = Invocation::of_process(request, words)?;
    match Plan::resolve(&invocation)? {
        Plan::PlainMake(plain) => run_plain(&invocation, plain),
        Plan::Stages(stages) => run_stages(&invocation, stages),
        Plan::Lto(build) => {
            build
                .notes
                .iter()
                .for_each(|note| eprintln!("klto: {note}"));
            Ok(end_as(run_session(*build, &settings(invocation)?)?))
        }
    }
}

/// `klto explain --next`: what the same words would run.
pub fn explain_next(request: Option<LtoRequest>, words: &[OsString]) -> anyhow::Result<u8> {
    let invocation = Invocation::of_process(request, words)?;
    let text = match Plan::resolve(&invocation)? {
        Plan::PlainMake(plain) => format!("plain make runs: {}\n", plain.why),
        Plan::Stages(_) => "make runs: goals that change what a later goal reads\n".to_owned(),
        Plan::Lto(build) => forecast(&build, &settings(invocation)?)?,
    };
    crate::show(&text)?;
    Ok(0)
}

fn settings(invocation: Invocation) -> anyhow::Result<Settings> {
    Ok(Settings {
        store: variables::store(&invocation.environment)?,
        import_limit: variables::import_limit(&invocation.environment)?,
        memory_limit: variables::memory_limit(&invocation.environment)?,
        shim_program: shim_program()?,
        environment: invocation.environment,
        directory: invocation.directory,
    })
}

/// The exit code of a make that ended by itself; otherwise klto dies of the same signal, so that a
/// shell sees a build that was interrupted.
fn end_as(status: ExitStatus) -> u8 {
    let signal = status.signal().unwrap_or(0);
    if signal != 0 {
        let _ = emulate_default_handler(signal);
    }
    u8::try_from(status.code().unwrap_or(128 + signal)).unwrap_or(u8::MAX)
}

/// The shim's executable stands beside klto's.
fn shim_program() -> anyhow::Result<std::path::PathBuf> {
    let shim = std::env::current_exe()
        .context("finding klto's own executable")?
        .with_file_name("klto-shim");
    if shim.is_file() {
        return Ok(shim);
    }
    Err(
        Failure::environment(format!("{} is missing", shim.display()))
            .hint("install klto and klto-shim in the same directory")
            .into(),
    )
}

fn plain_command(invocation: &Invocation, arguments: &MakeArguments) -> Command {
    let mut make = Command::new("make");
    make.args(arguments.words())
        .current_dir(&invocation.directory);
    make
}

/// Becomes make, unless there is something to do after it.
fn run_plain(invocation: &Invocation, plain: PlainMake) -> anyhow::Result<u8> {
    plain
        .notes
        .iter()
        .for_each(|note| eprintln!("klto: {note}"));
    if plain.why.is_surprising() {
        eprintln!("klto: running plain make: {}", plain.why);
    }
    let mut make = plain_command(invocation, &plain.arguments);
    let Some(output) = plain.remove_scratch else {
        let error = make.exec();
        return Err(Failure::environment(format!("make: {error}")).into());
    };
    let _held = hold_output(&output)?;
    let status = make.status().context("starting make")?;
    if status.success() {
        remove_scratch(&output)?;
        if let Some(choice) = plain.remove_choice.filter(|choice| choice.exists()) {
            fs_err::remove_file(choice)?;
        }
    }
    Ok(end_as(status))
}

/// Goals that change what a later goal reads (`defconfig all`) run one after the other.
fn run_stages(invocation: &Invocation, stages: Vec<MakeArguments>) -> anyhow::Result<u8> {
    let this = std::env::current_exe().context("finding klto's own executable")?;
    for stage in stages {
        let mut command = Command::new(&this);
        command.arg("make").current_dir(&invocation.directory);
        if let Some(request) = invocation.request {
            command.arg(format!("--lto={request}"));
        }
        let status = command
            .args(stage.words())
            .status()
            .context("starting klto")?;
        if !status.success() {
            return Ok(end_as(status));
        }
    }
    Ok(0)
}
