//! Child processes of the tasks: they end with us, and a failure names the command.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use klto_core::Failure;
use klto_core::die_with_parent;

/// Runs `command` to its end with our own standard output and error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::environment(format!("{}: {status}", words(command))).into())
}

/// Runs `command` to its end with our own standard output and error, whatever the end is.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    die_with_parent(command.stdin(Stdio::null()))
        .status()
        .with_context(|| format!("starting {}", words(command)))
}

/// Runs `command` to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = die_with_parent(command)
        .output()
        .with_context(|| format!("starting {}", words(command)))?;
    if !output.status.success() {
        let message = format!("{}: {}", words(command), output.status);
        return Err(Failure::environment(message).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as a message shows it.
pub fn words(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    command.get_args().fold(program, |mut line, argument| {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
        line
    })
}
