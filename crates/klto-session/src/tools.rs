//! The tools of a build: where they are, what stands for them, how they are started, and what they are.
//!
//! In: a plan and the environment. Out: the table of shims, fork servers, identities. It does not know what
//! the tools are called for.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use klto_fork::{ForkServer, socket_beside};
use klto_kbuild::{LtoBuild, Role, ToolHook};
use klto_wire::ShimRole;

use crate::build::Settings;
use crate::session::{Session, tool_environment};

pub(crate) const MAKE: &str = "make";
pub(crate) const PERL: &str = "perl";

/// How much a build may have to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What reads some sources.
    Edit,
    /// Anything.
    Whole,
}

/// An executable, as PATH leads to it.
pub(crate) fn find_program(name: &str, settings: &Settings) -> Option<PathBuf> {
    let path = settings.environment.get("PATH").unwrap_or_default();
    let mut places =
        std::env::split_paths(path).map(|place| settings.directory.join(place).join(name));
    // klto may run under another klto.
    let shim = settings.shim_program.file_name();
    let is_program = |path: &PathBuf| {
        let metadata = std::fs::metadata(path);
        let real = std::fs::canonicalize(path).unwrap_or_default();
        real.file_name() != shim
            && metadata.is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
    };
    places.find(is_program)
}

/// What each shim stands for, as the variable tells it.
pub(crate) fn shim_table(build: &LtoBuild, settings: &Settings) -> std::ffi::OsString {
    let mut table = std::ffi::OsString::new();
    for (name, role) in [(MAKE, ShimRole::Make), (PERL, ShimRole::Perl)] {
        let Some(program) = find_program(name, settings) else {
            continue;
        };
        table.push(format!("{name}\t{}\t", role.word()));
        table.push(program);
        table.push("\n");
    }
    for (role, hook) in &build.hooks {
        let shim_role = match role {
            Role::Compiler => ShimRole::Compiler,
            Role::Linker => ShimRole::Linker,
            Role::ObjectCopier | Role::Stripper => ShimRole::ObjectRewriter,
            Role::Archiver => ShimRole::Archiver,
            Role::SymbolLister => ShimRole::SymbolLister,
            _ => ShimRole::ObjectReader,
        };
        let Some(program) = &build.toolchain.tool(*role).resolved else {
            continue;
        };
        table.push(format!("{}\t{}\t", hook.name(), shim_role.word()));
        table.push(program);
        table.push("\n");
    }
    for name in build.steps.iter().filter_map(|step| step.stand_in()) {
        // Its first argument is the program.
        table.push(format!("{name}\t{}\t\n", ShimRole::AfterCompile.word()));
    }
    table
}

/// The tools that a build calls so often that each has a fork server: after an edit few calls are to come,
/// and to load a tool takes as long as several.
fn hooks_with_servers(build: &LtoBuild, extent: Extent) -> impl Iterator<Item = &(Role, ToolHook)> {
    let is_called_often = move |role| match extent {
        Extent::Whole => true,
        Extent::Edit => matches!(role, Role::Compiler | Role::Linker),
    };
    let hooks = build.hooks.iter();
    hooks.filter(move |(role, _)| is_called_often(*role))
}

/// Finds out what compiler and linker are, while make begins; the first action needs it.
pub(crate) fn identify_tools(session: &Arc<Session>, build: &LtoBuild, make: &Command) {
    let given = make
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let environment = tool_environment(&given.collect::<Vec<_>>());
    for role in [Role::Compiler, Role::Linker] {
        let Some(program) = build.toolchain.tool(role).resolved.clone() else {
            continue;
        };
        let (session, environment) = (Arc::clone(session), environment.clone());
        // An action that finds nothing asks again, and has the error.
        std::thread::spawn(move || drop(session.identity(&program, &environment)));
    }
}

/// One for each tool that is called often, by the name of its shim. Another is started for each call.
pub(crate) fn start_fork_servers(
    (build, settings): (&LtoBuild, &Settings),
    extent: Extent,
    (session, socket): (&Session, &Path),
) -> anyhow::Result<Vec<ForkServer>> {
    let preload = session.scratch.path("preload.so");
    ForkServer::write_preload(&preload)?;
    let mut servers = Vec::new();
    let mut sockets = HashMap::new();
    for (role, hook) in hooks_with_servers(build, extent) {
        let Some(program) = &build.toolchain.tool(*role).resolved else {
            continue;
        };
        let place = socket_beside(socket, hook.name());
        if place.exists() {
            // Two roles of one tool.
            continue;
        }
        match ForkServer::start(program, settings.environment.iter(), &preload, &place) {
            Ok(server) => {
                servers.push(server);
                sockets.insert(program.clone(), place);
            }
            Err(error) => session.log.line(&format!(
                "started for each call {}: {error}",
                program.display()
            )),
        }
    }
    session.engine.use_fork_servers(sockets);
    Ok(servers)
}
