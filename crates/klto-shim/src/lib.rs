//! The stand-in for each tool that kbuild calls.
//!
//! In: a tool call, under the tool's own name. Out: what the tool does, or what the session answers. A call
//! that no session can have an opinion on goes to the tool at once, without a message; so does every call
//! outside a session. A probe of kbuild's may have its answer in a file (`probe.rs`). The tool is run by its
//! fork server where that can be, and otherwise takes the shim's place. It knows the shape of tool calls and
//! nothing of kernels.

mod probe;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use klto_fork::socket_beside;
use klto_wire::{
    ANSWERS_NAME, Finished, MOST_PRINTED, Reply, Request, SENT_VARIABLES, SHIMS_VARIABLE,
    SOCKET_VARIABLE, ShimRole, is_initcall_script, is_kallsyms_source,
};
use probe::{Answer, Input, Probe, memory_file};
use rustix::process::{Resource, Rlimit, getpid, kill_process, setrlimit};

/// What a shim prints when it cannot do its work; the exit code is the environment's, 3.
fn fail(what: &str) -> ExitCode {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "klto: error: {what}");
    ExitCode::from(3)
}

/// Runs the shim; returns only when the call did not become another program.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let invoked = PathBuf::from(arguments.next().unwrap_or_default());
    let mut arguments: Vec<OsString> = arguments.collect();
    let Some(name) = invoked.file_name() else {
        return fail("a shim was started without a name");
    };
    let Some((role, mut program)) = stands_for(name) else {
        return match next_in_path(name) {
            Some(program) => exec(&program, program.as_os_str(), &arguments),
            None => fail(&format!("{}: not found behind klto's shim", name.display())),
        };
    };
    if role == ShimRole::AfterCompile {
        if arguments.is_empty() {
            return fail(&format!("{}: no program is named", name.display()));
        }
        program = PathBuf::from(arguments.remove(0));
    }
    let called = match role {
        // make calls itself by this name, so that the next one comes here too.
        ShimRole::Make => invoked.as_os_str(),
        _ => program.as_os_str(),
    }
    .to_owned();
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from) else {
        return exec(&program, &called, &arguments);
    };
    let fork_server = socket_beside(&socket, &name.to_string_lossy());
    if !session_may_care(role, &arguments) {
        let answers = socket.with_file_name(ANSWERS_NAME);
        if role == ShimRole::Compiler && answers.is_dir() {
            return end_as_probe(&answers, &fork_server, &program, &arguments);
        }
        return end_as_program(&fork_server, &program, &arguments);
    }
    let answers_alone =
        only_answers(role, &arguments).then(|| (program.clone(), arguments.clone()));
    match converse(&socket, &fork_server, (role, &called), program, arguments) {
        Ok(code) => code,
        Err(error) => match answers_alone {
            Some((program, arguments)) => exec(&program, &called, &arguments),
            None => fail(&format!(
                "{}: the klto session is gone, build again: {error}",
                name.display()
            )),
        },
    }
}

/// Whether a call makes nothing but what it prints, and the tool prints the same. It is at the head of a pipe, where
/// kbuild would take an error for an answer.
fn only_answers(role: ShimRole, arguments: &[OsString]) -> bool {
    let preprocesses = || arguments.iter().any(|argument| argument == "-E");
    role == ShimRole::SymbolLister || role == ShimRole::Compiler && preprocesses()
}

/// Looks the shim's name up in [`SHIMS_VARIABLE`].
fn stands_for(name: &OsStr) -> Option<(ShimRole, PathBuf)> {
    let table = std::env::var_os(SHIMS_VARIABLE)?;
    table
        .as_bytes()
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let mut fields = line.split(|byte| *byte == b'\t');
            let known = fields.next()? == name.as_bytes();
            let role = ShimRole::from_word(std::str::from_utf8(fields.next()?).ok()?)?;
            let program = PathBuf::from(OsStr::from_bytes(fields.next()?));
            known.then_some((role, program))
        })
}

/// The next executable of this name in PATH that is not this shim.
fn next_in_path(name: &OsStr) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| path.canonicalize().is_ok_and(|real| real != this))
}

/// Whether the session can have an opinion on a call of this shape.
///
/// A compile of kernel code defines KBUILD_MODNAME (scripts/Makefile.lib), one of bitcode names its index; a
/// compiler call that neither compiles, assembles nor preprocesses links; version and option probes name no
/// file.
fn session_may_care(role: ShimRole, arguments: &[OsString]) -> bool {
    let has = |wanted: &[&str]| {
        arguments
            .iter()
            .any(|argument| wanted.iter().any(|word| argument == word))
    };
    let ends = |endings: &[&[u8]]| {
        arguments
            .iter()
            .any(|argument| endings.iter().any(|end| argument.as_bytes().ends_with(end)))
    };
    let begins = |beginnings: &[&[u8]]| {
        arguments.iter().any(|argument| {
            let bytes = argument.as_bytes();
            beginnings.iter().any(|start| bytes.starts_with(start))
        })
    };
    match role {
        ShimRole::Compiler if has(&["-c"]) => {
            begins(&[b"-DKBUILD_MODNAME=", b"-fthinlto-index="])
                || arguments
                    .iter()
                    .any(|argument| is_kallsyms_source(argument))
        }
        ShimRole::Compiler if has(&["-E"]) => has(&["-D__GENKSYMS__"]),
        ShimRole::Compiler => !has(&["-S", "-M", "-MM"]) && ends(&[b".o", b".a"]),
        ShimRole::Linker => {
            let writes = has(&["-o"]) || begins(&[b"--thinlto-index-only="]);
            !has(&["-v", "-V", "--version", "--help"]) && writes
        }
        ShimRole::ObjectRewriter | ShimRole::ObjectReader => arguments
            .iter()
            .any(|argument| !argument.as_bytes().starts_with(b"-")),
        ShimRole::Archiver => arguments.first().is_some_and(|operation| {
            let operation = operation.as_bytes();
            operation == b"t" || operation.contains(&b'r') || operation.contains(&b'm')
        }),
        ShimRole::Perl => arguments
            .first()
            .is_some_and(|script| is_initcall_script(script)),
        ShimRole::SymbolLister => match arguments {
            // Of machine code there is little to list.
            [file] if file.as_bytes().ends_with(b".o") => is_bitcode(Path::new(file)),
            [_, file] if file.as_bytes().ends_with(b".o") => false,
            [file] | [_, file] => !file.as_bytes().starts_with(b"-"),
            _ => false,
        },
        ShimRole::AfterCompile | ShimRole::Make => true,
    }
}

/// Whether a file begins as bitcode does (LLVM, llvm/BinaryFormat/Magic.cpp).
fn is_bitcode(file: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"BC\xc0\xde"
}

/// Ends as the compiler did when it was asked the same before, if this is a probe; the first time, and else,
/// as it does.
fn end_as_probe(
    answers: &Path,
    fork_server: &Path,
    program: &Path,
    arguments: &[OsString],
) -> ExitCode {
    let as_program = || end_as_program(fork_server, program, arguments);
    let Ok(directory) = std::env::current_dir() else {
        return as_program();
    };
    let Some(mut probe) = Probe::of(arguments, &directory) else {
        return as_program();
    };
    let [Ok(mut input), Ok(stdout), Ok(stderr)] = [(); 3].map(|()| memory_file()) else {
        return as_program();
    };
    if probe.reads_input {
        match Input::read(&mut io::stdin()) {
            Ok(Input::Whole(text)) => {
                if input
                    .write_all(&text)
                    .and_then(|()| input.rewind())
                    .is_err()
                {
                    return end_with_input(program, arguments, &text);
                }
                probe = probe.with_input(&text);
            }
            Ok(Input::Other(text)) => return end_with_input(program, arguments, &text),
            Err(_) => return as_program(),
        }
    }
    if let Some(known) = probe.known(answers) {
        let object = known.object.as_ref();
        let written = object.map_or(Ok(()), |object| std::fs::write(&probe.output, object));
        if written.is_ok() && print(io::stderr(), &known.printed).is_ok() {
            return ExitCode::from(known.code);
        }
    }
    let streams = [&input, &stdout, &stderr].map(AsFd::as_fd);
    let ended = run(fork_server, (program, arguments), &directory, streams);
    let ended = ended.and_then(|status| Ok((status, text_of(stdout)?, text_of(stderr)?)));
    let (status, stdout, stderr) = match ended {
        Ok(ended) => ended,
        Err(error) => return fail(&format!("{}: {error}", program.display())),
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.filter(|_| stdout.is_empty());
    // Whoever reads it may have gone away.
    let _ = print(io::stdout(), &stdout).and_then(|()| print(io::stderr(), &stderr));
    if let Some(code) = code {
        let answer = Answer {
            code,
            printed: stderr,
            object: std::fs::read(&probe.output).ok(),
        };
        probe.keep(answers, &answer);
    }
    end_as(status)
}

/// Ends as the program does that reads `text`, and then what is left of standard input.
fn end_with_input(program: &Path, arguments: &[OsString], text: &[u8]) -> ExitCode {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn();
    let ended = started.and_then(|mut child| {
        if let Some(mut pipe) = child.stdin.take() {
            // It need not read all.
            let _ = pipe
                .write_all(text)
                .and_then(|()| io::copy(&mut io::stdin(), &mut pipe));
        }
        child.wait()
    });
    match ended {
        Ok(status) => end_as(status),
        Err(error) => fail(&format!("{}: {error}", program.display())),
    }
}

/// What was written to a file from its beginning.
fn text_of(mut file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Holds the conversation; `fork_server` is the socket of the tool's own, `called` its name where it is
/// started.
fn converse(
    socket: &Path,
    fork_server: &Path,
    (role, called): (ShimRole, &OsStr),
    program: PathBuf,
    arguments: Vec<OsString>,
) -> io::Result<ExitCode> {
    let mut stream = UnixStream::connect(socket)?;
    let environment = SENT_VARIABLES
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect();
    let directory = std::env::current_dir()?;
    Request {
        role,
        program,
        arguments,
        directory,
        environment,
    }
    .write(&mut stream)?;
    loop {
        match Reply::read(&mut stream)? {
            Reply::Exec { program, arguments } if role == ShimRole::Make => {
                return Ok(exec(&program, called, &arguments));
            }
            Reply::Exec { program, arguments } => {
                return Ok(end_as_program(fork_server, &program, &arguments));
            }
            Reply::Done {
                code,
                stdout,
                stderr,
            } => {
                print(io::stdout(), &stdout)?;
                print(io::stderr(), &stderr)?;
                return Ok(ExitCode::from(code));
            }
            Reply::RunThenReport {
                program,
                arguments,
                directory,
                quiet,
            } => {
                let printed = match quiet {
                    true => Some(memory_file()?),
                    false => None,
                };
                let call = (program.as_path(), arguments.as_slice());
                let own = (io::stdin(), io::stdout(), io::stderr());
                let streams = match &printed {
                    Some(file) => [own.0.as_fd(), file.as_fd(), file.as_fd()],
                    None => [own.0.as_fd(), own.1.as_fd(), own.2.as_fd()],
                };
                let status = run(fork_server, call, &directory, streams)?;
                let signalled = 128 + status.signal().unwrap_or(0);
                let code = u8::try_from(status.code().unwrap_or(signalled)).unwrap_or(u8::MAX);
                let printed = match printed {
                    Some(file) => printed_to(file)?,
                    None => Vec::new(),
                };
                Finished { code, printed }.write(&mut stream)?;
            }
        }
    }
}

/// What a program wrote to `file`, up to the byte after the most that is sent.
fn printed_to(mut file: File) -> io::Result<Vec<u8>> {
    let mut printed = Vec::new();
    file.rewind()?;
    file.take(MOST_PRINTED as u64 + 1)
        .read_to_end(&mut printed)?;
    Ok(printed)
}

/// Prints what the session answers; a reader that went away (`objdump -h … | grep -q`) is no error.
fn print(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Runs a program to its end, with these standard streams.
fn run(
    fork_server: &Path,
    (program, arguments): (&Path, &[OsString]),
    directory: &Path,
    streams: [BorrowedFd<'_>; 3],
) -> io::Result<ExitStatus> {
    if let Ok(status) = run_forked(fork_server, (program, arguments), directory, streams) {
        return Ok(status);
    }
    let [stdin, stdout, stderr] = streams.map(|stream| stream.try_clone_to_owned());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command.stdin(stdin?).stdout(stdout?).stderr(stderr?);
    command.status()
}

/// Ends as the program does: by a fork server, or by becoming it.
fn end_as_program(fork_server: &Path, program: &Path, arguments: &[OsString]) -> ExitCode {
    let own = (io::stdin(), io::stdout(), io::stderr());
    let streams = [own.0.as_fd(), own.1.as_fd(), own.2.as_fd()];
    let ended = std::env::current_dir().map_err(klto_fork::Unfit::from);
    let ended = ended
        .and_then(|directory| run_forked(fork_server, (program, arguments), &directory, streams));
    match ended {
        Ok(status) => end_as(status),
        Err(_) => exec(program, program.as_os_str(), arguments),
    }
}

/// Becomes the program, which sees itself `called` so.
fn exec(program: &Path, called: &OsStr, arguments: &[OsString]) -> ExitCode {
    let mut command = Command::new(program);
    let error = command.arg0(called).args(arguments).exec();
    fail(&format!("{}: {error}", program.display()))
}

fn run_forked(
    fork_server: &Path,
    (program, arguments): (&Path, &[OsString]),
    directory: &Path,
    streams: [BorrowedFd<'_>; 3],
) -> Result<ExitStatus, klto_fork::Unfit> {
    let words = std::iter::once(program.as_os_str());
    klto_fork::run(
        fork_server,
        words.chain(arguments.iter().map(OsString::as_os_str)),
        std::env::vars_os(),
        directory,
        streams,
    )
}

/// Exits with the same code, or dies of the same signal without a second core dump. SIGPIPE is one that
/// Rust programs ignore: 141 then, as a shell says it.
fn end_as(status: ExitStatus) -> ExitCode {
    let signal = status.signal().unwrap_or(0);
    if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(Resource::Core, none);
        let _ = kill_process(getpid(), signal);
    }
    let code = status.code().unwrap_or(128 + signal);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_a_part_in_lto_stay_with_the_tool() {
        let may_care = |role, call: &str| {
            let arguments: Vec<OsString> = call.split(' ').map(OsString::from).collect();
            session_may_care(role, &arguments)
        };
        for (role, call) in [
            (ShimRole::Compiler, "-DKBUILD_MODNAME=a -c -o a.o a.c"),
            (
                ShimRole::Compiler,
                "-x ir -fthinlto-index=a.o.thinlto.bc -c -o a.thinlto-native.o a.o",
            ),
            (ShimRole::Linker, "-r -o vmlinux.o a.o"),
            (
                ShimRole::Linker,
                "-r --thinlto-index-only=vmlinux.thinlto-index @builtin.order",
            ),
            (ShimRole::Archiver, "cDPrS --thin vmlinux.a a.o"),
            (ShimRole::Archiver, "t vmlinux.a"),
            (ShimRole::SymbolLister, "-n vmlinux"),
        ] {
            assert!(may_care(role, call), "{call}");
        }
        for (role, call) in [
            (ShimRole::Compiler, "-c -o a a.c"),
            (ShimRole::Compiler, "-S -o a.s a.c"),
            (ShimRole::Linker, "-v"),
            (ShimRole::Archiver, "d lib.a a.o"),
            (ShimRole::SymbolLister, "a.o"),
            (ShimRole::SymbolLister, "--version"),
        ] {
            assert!(!may_care(role, call), "{call}");
        }
    }

    #[test]
    fn symbols_of_bitcode_concern_the_session() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.o");
        let cares = || session_may_care(ShimRole::SymbolLister, &[file.clone().into()]);
        std::fs::write(&file, b"\x7fELF").unwrap();
        assert!(!cares());
        std::fs::write(&file, b"BC\xc0\xde").unwrap();
        assert!(cares());
    }
}
