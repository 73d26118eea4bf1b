//! Has a fork server run a call.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use crate::call::{Call, DESCRIPTORS, TAKEN, place};
use crate::is_for_the_loader;

/// The fork server cannot run this call; start the tool instead.
#[derive(Debug)]
pub struct Unfit(io::Error);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not run by a fork server: {}", self.0)
    }
}

impl std::error::Error for Unfit {}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

/// Runs a call to its end; `arguments` begin with the program's name, `argv[0]`.
///
/// When the caller goes away, the tool gets SIGTERM, and SIGKILL two seconds later. Limits (ulimit),
/// priority and ignored signals are those of the fork server, not of the caller.
pub fn run<'a>(
    socket: &Path,
    arguments: impl Iterator<Item = &'a OsStr>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    directory: &Path,
    descriptors: [BorrowedFd<'_>; 3],
) -> Result<ExitStatus, Unfit> {
    let mut call = Call {
        umask: umask()?,
        place: place()?,
        arguments: arguments.map(|word| word.as_bytes().to_vec()).collect(),
        environment: Vec::new(),
    };
    for (name, value) in environment {
        if is_for_the_loader(&name) {
            let text = format!("{} is set", name.display());
            return Err(io::Error::other(text).into());
        }
        let pair = [name.as_bytes(), b"=", value.as_bytes()];
        call.environment.push(pair.concat());
    }
    if call.arguments.iter().any(|word| names_descriptor(word)) {
        return Err(io::Error::other("an argument names a descriptor").into());
    }
    let mut stream = UnixStream::connect(socket)?;
    let body = call.encode();
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(io::Error::from)?;
    let [input, output, error] = descriptors;
    let descriptors = [directory.as_fd(), input, output, error];
    send_with_descriptors(&stream, &length.to_le_bytes(), &descriptors)?;
    stream.write_all(&body)?;
    let mut taken = [0];
    stream.read_exact(&mut taken)?;
    if taken != [TAKEN] {
        return Err(io::Error::other("another answer than a fork server gives").into());
    }
    // From here on the tool runs; it must not run twice. It dies with its server.
    let mut status = [0; 4];
    let raw = match stream.read_exact(&mut status) {
        Ok(()) => i32::from_le_bytes(status),
        Err(_) => Signal::KILL.as_raw(),
    };
    Ok(ExitStatus::from_raw(raw))
}

/// Only the standard descriptors are passed on.
fn names_descriptor(word: &[u8]) -> bool {
    let places: [&[u8]; 2] = [b"/dev/fd/", b"/proc/self/"];
    places
        .into_iter()
        .any(|place| word.windows(place.len()).any(|text| text == place))
}

/// umask(2) can only ask by setting it, for all threads; proc_pid_status(5) says it too.
fn umask() -> io::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status shows no Umask"))
}

fn send_with_descriptors(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>; DESCRIPTORS],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}
