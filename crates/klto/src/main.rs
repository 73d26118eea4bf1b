//! `klto`: the command line, and nothing that is not the command line.

mod cache;
mod cli;
mod config;
mod doctor;
mod explain;
mod make;
mod stats;
mod variables;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use klto_core::report;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;

/// What writing to standard output says when nobody reads it any more; other pipes and sockets have a context.
fn is_closed_output(error: &anyhow::Error) -> bool {
    let failed = error.downcast_ref::<std::io::Error>();
    failed.is_some_and(|failed| failed.kind() == ErrorKind::BrokenPipe)
        && error.chain().count() == 1
}

/// Prints an answer.
fn show(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(text.as_bytes())
}

fn main() -> ExitCode {
    // A store on a full disk gives an error, not SIGXFSZ; the flag itself is never read.
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored);
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let result = cli::parse(&arguments).and_then(|command| match command {
        cli::Command::Make { request, arguments } => make::run(request, &arguments),
        cli::Command::Config { request, arguments } => config::run(request, &arguments),
        cli::Command::Doctor { request, arguments } => doctor::run(request, &arguments),
        cli::Command::Explain { question, output } => explain::run(&question, &output),
        cli::Command::ExplainNext { request, arguments } => make::explain_next(request, &arguments),
        cli::Command::Stats { output } => stats::run(&output),
        cli::Command::Trace { output } => stats::trace(&output),
        cli::Command::Cache(command) => cache::run(command),
        cli::Command::Print(text) => {
            show(&text)?;
            Ok(0)
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the answer has seen enough, as `head`.
        Err(error) if is_closed_output(&error) => {
            let _ = emulate_default_handler(SIGPIPE);
            ExitCode::FAILURE
        }
        Err(error) => {
            let (text, status) = report(&error);
            eprint!("{text}");
            ExitCode::from(status.code())
        }
    }
}
