//! Messages between a tool shim and the session, over a Unix stream socket.
//!
//! In: tool calls and answers as values. Out: length-prefixed bytes and back. It decides nothing,
//! and depends on the standard library alone.
//!
//! A conversation is one [`Request`], then [`Reply`]s; after [`Reply::RunThenReport`] the shim
//! sends one [`Finished`] and waits for the next reply. A frame is `u32` length (little endian)
//! and a body; a body is a sequence of length-prefixed byte strings behind one tag byte.

mod frame;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use frame::{Body, BodyReader};

/// The variable that holds the path of the session's socket.
pub const SOCKET_VARIABLE: &str = "KLTO_SOCKET";

/// The directory beside the socket with the compiler's answers to kbuild's probes, where they still hold.
pub const ANSWERS_NAME: &str = "answers";

/// The variable that tells each shim what it stands for: lines of `name`, [`ShimRole`] and the real
/// tool's path, separated by tabs.
pub const SHIMS_VARIABLE: &str = "KLTO_SHIMS";

/// Environment variables that change what a tool does or that the session reads; a shim sends
/// these and no others.
pub const SENT_VARIABLES: [&str; 26] = [
    "CCC_OVERRIDE_OPTIONS",
    "CLANG_CONFIG_FILE_SYSTEM_DIR",
    "CLANG_CONFIG_FILE_USER_DIR",
    "CLANG_NO_DEFAULT_CONFIG",
    "COMPILER_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "GCC_EXEC_PREFIX",
    "HOME",
    "KBUILD_LDS",
    "KBUILD_VMLINUX_LIBS",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
    "PATH",
    "PWD",
    "SOURCE_DATE_EPOCH",
    "SYSROOT",
    "TERM",
    "TMPDIR",
    "TZ",
    "ZERO_AR_DATE",
];

/// What a shimmed tool is to the kernel build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShimRole {
    /// The C compiler; also assembles, preprocesses and links.
    Compiler,
    /// The linker.
    Linker,
    /// A tool that reads objects as ELF and may write them: objcopy, strip.
    ObjectRewriter,
    /// A tool that prints what objects hold: objdump, readelf.
    ObjectReader,
    /// What kbuild runs on an object after its compile, as objtool: a stand-in that is not a tool's
    /// name. Its first argument is the real program, its last one the object.
    AfterCompile,
    /// make, called by a recipe.
    Make,
    /// The archiver.
    Archiver,
    /// Perl, which runs scripts of kbuild's.
    Perl,
    /// The lister of symbols.
    SymbolLister,
}

impl ShimRole {
    const ALL: [(ShimRole, &'static str); 9] = [
        (ShimRole::Compiler, "compiler"),
        (ShimRole::Linker, "linker"),
        (ShimRole::ObjectRewriter, "rewriter"),
        (ShimRole::ObjectReader, "reader"),
        (ShimRole::AfterCompile, "after-compile"),
        (ShimRole::Make, "make"),
        (ShimRole::Archiver, "archiver"),
        (ShimRole::Perl, "perl"),
        (ShimRole::SymbolLister, "symbol-lister"),
    ];

    /// The word for this role in [`SHIMS_VARIABLE`] and in frames.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(role, _)| *role == self)
            .map_or("", |(_, word)| word)
    }

    /// The inverse of [`ShimRole::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(role, _)| *role)
    }
}

/// Whether an argument is the source of the table of kernel symbols: `.tmp_vmlinux1.kallsyms.S`, before 6.10
/// `.tmp_vmlinux.kallsyms1.S`.
pub fn is_kallsyms_source(argument: &OsStr) -> bool {
    let text = argument.as_bytes();
    let name = text.rsplit(|byte| *byte == b'/').next().unwrap_or(text);
    name.starts_with(b".tmp_vmlinux")
        && name.ends_with(b".S")
        && name.windows(8).any(|part| part == b"kallsyms")
}

/// Whether an argument is kbuild's script that finds the order of initcalls, since 5.12.
pub fn is_initcall_script(argument: &OsStr) -> bool {
    argument.as_bytes().ends_with(b"generate_initcall_order.pl")
}

/// A tool call that the shim asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the tool is.
    pub role: ShimRole,
    /// The real tool.
    pub program: PathBuf,
    /// Arguments without the program's name.
    pub arguments: Vec<OsString>,
    /// The working directory.
    pub directory: PathBuf,
    /// Those of [`SENT_VARIABLES`] that are set.
    pub environment: Vec<(OsString, OsString)>,
}

/// What the shim is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// End as this program does.
    Exec {
        /// Path of the program.
        program: PathBuf,
        /// Arguments without the program's name.
        arguments: Vec<OsString>,
    },
    /// Run this program, send [`Finished`], and wait for another reply.
    RunThenReport {
        /// Path of the program.
        program: PathBuf,
        /// Arguments without the program's name.
        arguments: Vec<OsString>,
        /// Where it runs.
        directory: PathBuf,
        /// Whether the session gets what it prints, instead of who called the shim.
        quiet: bool,
    },
    /// The session has done the work: print and exit.
    Done {
        /// Exit code.
        code: u8,
        /// For standard output, byte for byte.
        stdout: Vec<u8>,
        /// For standard error, byte for byte.
        stderr: Vec<u8>,
    },
}

impl Reply {
    /// The call ends with this code and prints nothing.
    pub const fn ended(code: u8) -> Self {
        Self::said(code, Vec::new())
    }

    /// The call succeeds and prints this.
    pub const fn prints(stdout: Vec<u8>) -> Self {
        Self::Done {
            code: 0,
            stdout,
            stderr: Vec::new(),
        }
    }

    /// The call ends with this code and says this on standard error.
    pub const fn said(code: u8, stderr: Vec<u8>) -> Self {
        Self::Done {
            code,
            stdout: Vec::new(),
            stderr,
        }
    }
}

/// The most bytes that a session gets of what a program printed, and one more where there were more.
pub const MOST_PRINTED: usize = 16 << 20;

/// How a program that [`Reply::RunThenReport`] named ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code, or 128 plus the signal's number.
    pub code: u8,
    /// What a quiet one printed on standard output and standard error, in the order in which it did; not all of
    /// it where that is more than [`MOST_PRINTED`].
    pub printed: Vec<u8>,
}

const REQUEST: u8 = 1;
const EXEC: u8 = 2;
const RUN: u8 = 3;
const DONE: u8 = 4;
const FINISHED: u8 = 5;

impl Request {
    /// Writes one frame.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut body = Body::new(REQUEST);
        body.bytes(self.role.word().as_bytes());
        body.bytes(self.program.as_os_str().as_bytes());
        body.bytes(self.directory.as_os_str().as_bytes());
        body.list(self.arguments.iter().map(|argument| argument.as_bytes()));
        body.list(
            self.environment
                .iter()
                .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]),
        );
        body.send(stream)
    }

    /// Reads one frame.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let (_, mut body) = BodyReader::receive(stream, &[REQUEST])?;
        let word = String::from_utf8(body.bytes()?).map_err(|_| frame::invalid("role"))?;
        let role = ShimRole::from_word(&word).ok_or_else(|| frame::invalid("role"))?;
        let program = PathBuf::from(OsString::from_vec(body.bytes()?));
        let directory = PathBuf::from(OsString::from_vec(body.bytes()?));
        let arguments = body.list()?;
        let mut environment = Vec::new();
        let mut words = body.list()?.into_iter();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            environment.push((name, value));
        }
        Ok(Self {
            role,
            program,
            arguments,
            directory,
            environment,
        })
    }
}

impl Reply {
    /// Writes one frame.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let body = match self {
            Self::Exec { program, arguments } => command_body(EXEC, program, arguments),
            Self::RunThenReport {
                program,
                arguments,
                directory,
                quiet,
            } => {
                let mut body = command_body(RUN, program, arguments);
                body.bytes(directory.as_os_str().as_bytes());
                body.bytes(&[u8::from(*quiet)]);
                body
            }
            Self::Done {
                code,
                stdout,
                stderr,
            } => {
                let mut body = Body::new(DONE);
                body.bytes(&[*code]);
                body.bytes(stdout);
                body.bytes(stderr);
                body
            }
        };
        body.send(stream)
    }

    /// Reads one frame.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let (tag, mut body) = BodyReader::receive(stream, &[EXEC, RUN, DONE])?;
        if tag == DONE {
            let code = body.byte()?;
            return Ok(Self::Done {
                code,
                stdout: body.bytes()?,
                stderr: body.bytes()?,
            });
        }
        let program = PathBuf::from(OsString::from_vec(body.bytes()?));
        let arguments = body.list()?;
        Ok(match tag {
            EXEC => Self::Exec { program, arguments },
            _ => Self::RunThenReport {
                program,
                arguments,
                directory: PathBuf::from(OsString::from_vec(body.bytes()?)),
                quiet: body.byte()? != 0,
            },
        })
    }
}

fn command_body(tag: u8, program: &std::path::Path, arguments: &[OsString]) -> Body {
    let mut body = Body::new(tag);
    body.bytes(program.as_os_str().as_bytes());
    body.list(arguments.iter().map(|argument| argument.as_bytes()));
    body
}

impl Finished {
    /// Writes one frame.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut body = Body::new(FINISHED);
        body.bytes(&[self.code]);
        body.bytes(&self.printed);
        body.send(stream)
    }

    /// Reads one frame.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let (_, mut body) = BodyReader::receive(stream, &[FINISHED])?;
        Ok(Self {
            code: body.byte()?,
            printed: body.bytes()?,
        })
    }
}

#[cfg(test)]
mod tests;
