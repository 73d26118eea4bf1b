//! `klto config`: the LTO choice of a `.config`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use klto_core::Failure;
use klto_kbuild::{ConfigChange, Invocation, LtoRequest, Reconfiguration};
use klto_session::hold_output;

/// Changes the `.config`; it stays as it was when Kconfig does not take the choice.
pub fn run(request: LtoRequest, words: &[OsString]) -> anyhow::Result<u8> {
    let invocation = Invocation::of_process(None, words)?;
    let change = match Reconfiguration::of(&invocation, request)? {
        Reconfiguration::Nothing(why) => {
            println!("klto: nothing to change: {why}");
            return Ok(0);
        }
        Reconfiguration::Remember(file) => return remember(request, &file),
        Reconfiguration::Change(change) => change,
    };
    let _held = hold_output(&change.output)?;
    let before = fs_err::read(&change.config)?;
    let done = carry_out(&change, &invocation.directory);
    if !matches!(done, Ok(true)) {
        klto_core::publish(&change.config, &before)?;
    }
    match done? {
        true => {
            let option = change.wanted;
            println!(
                "klto: {} has CONFIG_{option}=y now",
                change.config.display()
            );
            Ok(0)
        }
        false => {
            let message = format!(
                "Kconfig does not take CONFIG_{}=y; {} is as it was",
                change.wanted,
                change.config.display()
            );
            let hint = "klto doctor, with the same arguments, says what excludes it";
            Err(Failure::bad_input(message).hint(hint).into())
        }
    }
}

/// The choice for a tree without an option; `klto make` without `--lto` goes by it.
fn remember(request: LtoRequest, file: &Path) -> anyhow::Result<u8> {
    let _held = file.parent().map(hold_output).transpose()?;
    match request {
        LtoRequest::Thin | LtoRequest::Full => {
            klto_core::publish(file, format!("{request}\n").as_bytes())?;
        }
        LtoRequest::None => match fs_err::remove_file(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        },
    }
    println!("klto: --lto={request} is what klto make does here now");
    Ok(0)
}

fn carry_out(change: &ConfigChange, directory: &Path) -> anyhow::Result<bool> {
    let mut script = change.script.iter();
    let program = script
        .next()
        .ok_or_else(|| Failure::bug("a command without a program"))?;
    let mut edit = Command::new(program);
    let mut make = Command::new("make");
    for command in [edit.args(script), make.args(change.make.words())] {
        let program = command.get_program().to_owned();
        let starting = || format!("starting {}", program.display());
        let status = command.current_dir(directory).status();
        if !status.with_context(starting)?.success() {
            let message = format!("{} failed", program.display());
            return Err(Failure::build(message).into());
        }
    }
    change.is_done()
}
