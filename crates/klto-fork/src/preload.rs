//! Holds a tool before `main`, and lets a forked child of it go on for each call.
//!
//! Preloaded by [`ld.so(8)`] into the tool's own executable, where its `__libc_start_main` stands before
//! the C library's. In: connections on the socket whose descriptor `KLTO_FORK_LISTEN` names. Out: the
//! wait status of each child. The process has one thread, and the tool's static constructors have run
//! once, as in every run of the tool. A program of its own: it uses the standard library and declares
//! what it needs of the C library.
//!
//! [`ld.so(8)`]: https://man7.org/linux/man-pages/man8/ld.so.8.html

#![allow(unsafe_code)]

#[allow(
    dead_code,
    reason = "the preloaded object decodes, the library encodes"
)]
#[path = "call.rs"]
mod call;

use std::ffi::{CString, c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use call::{Call, DESCRIPTORS, LISTEN_VARIABLE, TAKEN, place};

type Main = unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;
type Hook = Option<unsafe extern "C" fn()>;
type Start =
    unsafe extern "C" fn(Main, c_int, *mut *mut c_char, Hook, Hook, Hook, *mut c_void) -> c_int;
type Handler = usize;

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGQUIT: c_int = 3;
const SIGKILL: c_int = 9;
const SIGPIPE: c_int = 13;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
/// A build's signals reach the whole process group: the calls end by them, the server with klto.
const IGNORED: [c_int; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM];
const SIG_DFL: Handler = 0;
const SIG_IGN: Handler = 1;
/// How long a call that is told to end may clean up.
const GRACE: Duration = Duration::from_secs(2);
const PR_SET_PDEATHSIG: c_int = 1;
const POLLIN: c_short = 0x1;
const POLLRDHUP: c_short = 0x2000;
const SYS_PIDFD_OPEN: c_long = 434;
const SYS_CLOSE_RANGE: c_long = 436;

#[repr(C)]
struct PollFd {
    fd: RawFd,
    events: c_short,
    revents: c_short,
}

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    length: usize,
}

/// `struct msghdr` of a 64-bit Linux, recvmsg(2).
#[repr(C)]
struct MsgHdr {
    name: *mut c_void,
    name_length: c_uint,
    vectors: *mut IoVec,
    vector_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}

/// `struct cmsghdr` with its descriptors, cmsg(3).
#[repr(C)]
struct Descriptors {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptors: [RawFd; DESCRIPTORS],
}

const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn getpid() -> c_int;
    fn getppid() -> c_int;
    fn fchdir(directory: RawFd) -> c_int;
    fn signal(number: c_int, handler: Handler) -> Handler;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn prctl(option: c_int, argument: c_ulong) -> c_int;
    fn recvmsg(socket: RawFd, message: *mut MsgHdr, flags: c_int) -> isize;
    fn dup2(from: RawFd, to: RawFd) -> c_int;
    fn umask(mask: c_uint) -> c_uint;
    fn syscall(number: c_long, first: c_ulong, second: c_ulong, third: c_ulong) -> c_long;
    fn exit(code: c_int) -> !;
    fn _exit(code: c_int) -> !;
}

static MAIN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// The C library's entry point, with another `main`.
///
/// # Safety
///
/// Called by the tool's start code only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: *mut *mut c_char,
    init: Hook,
    fini: Hook,
    loader_fini: Hook,
    stack_end: *mut c_void,
) -> c_int {
    MAIN.store(main as *mut c_void, Ordering::Relaxed);
    // SAFETY: RTLD_NEXT is -1; the next object with this name is the C library, whose function has
    // this type.
    unsafe {
        let next = dlsym(usize::MAX as *mut c_void, c"__libc_start_main".as_ptr());
        let start: Start = std::mem::transmute(next);
        start(held_main, argc, argv, init, fini, loader_fini, stack_end)
    }
}

unsafe extern "C" fn held_main(
    argc: c_int,
    argv: *mut *mut c_char,
    environment: *mut *mut c_char,
) -> c_int {
    let listen = std::env::var(LISTEN_VARIABLE).ok();
    let Some(listen) = listen.and_then(|text| text.parse::<RawFd>().ok()) else {
        // SAFETY: these are main's own arguments.
        return unsafe { original_main(argc, argv, environment) };
    };
    // SAFETY: klto opened the descriptor for this process.
    let listener = unsafe { UnixListener::from_raw_fd(listen) };
    // SAFETY: argv and environment are those that the kernel put on the stack.
    let title = unsafe { Title::of(argv, environment) };
    serve(&listener, &title)
}

unsafe fn original_main(
    argc: c_int,
    argv: *mut *mut c_char,
    environment: *mut *mut c_char,
) -> c_int {
    // SAFETY: `__libc_start_main` stored a `Main`.
    unsafe {
        let main: Main = std::mem::transmute(MAIN.load(Ordering::Relaxed));
        main(argc, argv, environment)
    }
}

/// A call that runs.
struct Running {
    pid: c_int,
    /// Readable when the process is over (pidfd_open(2)).
    handle: OwnedFd,
    stream: UnixStream,
    /// Since when it is told to end.
    ending: Option<Instant>,
}

/// What a child needs to be as the tool would be.
struct Server<'a> {
    listener: &'a UnixListener,
    /// What the ignored signals did before.
    handlers: [Handler; IGNORED.len()],
    /// The same for SIGCHLD.
    child_handler: Handler,
    title: &'a Title,
    pid: c_int,
    place: Vec<u8>,
}

fn serve(listener: &UnixListener, title: &Title) -> c_int {
    let Ok(place) = place() else {
        return 1;
    };
    if !has_system_calls() {
        return 1;
    }
    // SAFETY: signals are ignored or left to the system; no handler is installed.
    let server = unsafe {
        Server {
            listener,
            handlers: IGNORED.map(|number| signal(number, SIG_IGN)),
            // Ignored, children would be reaped before anybody asks for their status.
            child_handler: signal(SIGCHLD, SIG_DFL),
            title,
            pid: getpid(),
            place,
        }
    };
    let mut calls: Vec<Running> = Vec::new();
    let mut open = true;
    while open || !calls.is_empty() {
        let news = wait(open.then_some(listener), &calls);
        let (closed, asked) = (open && news[0], open && news[1]);
        let mut of_calls = news[2..].chunks(2);
        calls.retain_mut(|call| {
            let Some([over, gone]) = of_calls.next() else {
                return true;
            };
            if *over {
                call.answer();
            } else if *gone || closed {
                call.end();
            }
            !over
        });
        calls.iter().for_each(Running::end_for_good);
        open &= !closed;
        if asked && open {
            server.take_call(&mut calls);
        }
    }
    0
}

/// pidfd_open is of Linux 5.3, close_range of 5.9, and a sandbox may refuse either.
fn has_system_calls() -> bool {
    // SAFETY: the first gives a descriptor, which stays open; the second closes none.
    unsafe {
        let handle = syscall(SYS_PIDFD_OPEN, getpid() as c_ulong, 0, 0);
        let last = c_ulong::from(c_uint::MAX);
        handle >= 0 && syscall(SYS_CLOSE_RANGE, last, last, 0) == 0
    }
}

/// Waits for news: whether klto closed standard input, whether somebody connects, and for each call
/// whether it is over and whether its caller is gone.
fn wait(listener: Option<&UnixListener>, calls: &[Running]) -> Vec<bool> {
    let waited = |fd, events| PollFd {
        fd,
        events,
        revents: 0,
    };
    // poll(2) skips negative descriptors.
    let listener = listener.map(AsRawFd::as_raw_fd);
    let mut waits = vec![
        waited(if listener.is_some() { 0 } else { -1 }, POLLIN),
        waited(listener.unwrap_or(-1), POLLIN),
    ];
    for call in calls {
        let stream = match call.ending {
            Some(_) => -1,
            None => call.stream.as_raw_fd(),
        };
        waits.push(waited(call.handle.as_raw_fd(), POLLIN));
        waits.push(waited(stream, POLLRDHUP));
    }
    let ending = calls.iter().any(|call| call.ending.is_some());
    let timeout = if ending { 50 } else { -1 };
    // SAFETY: the vector holds as many entries as are passed.
    let count = unsafe { poll(waits.as_mut_ptr(), waits.len() as c_ulong, timeout) };
    waits
        .iter()
        .map(|wait| count > 0 && wait.revents != 0)
        .collect()
}

impl Server<'_> {
    fn take_call(&self, calls: &mut Vec<Running>) {
        // A descriptor that is certainly there for the handle of the child.
        let spare = self.listener.try_clone();
        let (Ok(spare), Ok((stream, _))) = (spare, self.listener.accept()) else {
            // Out of descriptors: until a call is over.
            std::thread::sleep(Duration::from_millis(1));
            return;
        };
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            0 => {
                drop(spare);
                calls.clear();
                self.run(stream)
            }
            pid if pid > 0 => {
                drop(spare);
                calls.extend(Running::of(pid, stream));
            }
            _ => {}
        }
    }

    /// In the child: the call, from the first byte to its end.
    fn run(&self, mut stream: UnixStream) -> ! {
        let Some(call) = self.receive(&stream) else {
            // Nothing of the tool has run, and no status may be taken for its own.
            let _ = stream.shutdown(Shutdown::Both);
            // SAFETY: ends this process.
            unsafe { _exit(127) }
        };
        // A caller that is gone needs no answer.
        let _ = stream.write_all(&[TAKEN]);
        std::mem::forget(stream);
        self.title.set(&call.arguments);
        let arguments = strings(call.arguments);
        let environment = strings(call.environment);
        // SAFETY: everything above the standard descriptors belongs to the server, and nothing that
        // owns one of them is used or dropped any more. Both lists are arrays of C strings that end
        // with a null pointer and live for ever.
        unsafe {
            syscall(SYS_CLOSE_RANGE, 3, c_uint::MAX.into(), 0);
            umask(call.umask);
            for (number, handler) in IGNORED.iter().zip(self.handlers) {
                signal(*number, handler);
            }
            signal(SIGCHLD, self.child_handler);
            environ = environment.as_mut_ptr();
            let count = (arguments.len() - 1) as c_int;
            exit(original_main(
                count,
                arguments.as_mut_ptr(),
                environment.as_mut_ptr(),
            ))
        }
    }

    /// Receives the call, takes its standard descriptors and goes to its directory; `None` when the
    /// caller has to start the tool itself.
    fn receive(&self, mut stream: &UnixStream) -> Option<Call> {
        // SAFETY: plain system calls; the process has one thread.
        unsafe {
            prctl(PR_SET_PDEATHSIG, SIGKILL as c_ulong);
            // The server may have ended before the call above.
            if getppid() != self.pid {
                return None;
            }
        }
        let mut length = [0; 4];
        let mut vector = IoVec {
            base: length.as_mut_ptr().cast(),
            length: length.len(),
        };
        let mut control = Descriptors {
            length: 0,
            level: 0,
            kind: 0,
            descriptors: [-1; DESCRIPTORS],
        };
        let mut message = MsgHdr {
            name: std::ptr::null_mut(),
            name_length: 0,
            vectors: &mut vector,
            vector_count: 1,
            control: (&raw mut control).cast(),
            control_length: size_of::<Descriptors>(),
            flags: 0,
        };
        // SAFETY: every pointer in the message is to a live buffer of the stated length.
        let received = unsafe { recvmsg(stream.as_raw_fd(), &mut message, MSG_CMSG_CLOEXEC) };
        if received != 4 || (control.level, control.kind) != (SOL_SOCKET, SCM_RIGHTS) {
            return None;
        }
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).ok()?;
        let call = Call::decode(&body)?;
        if call.arguments.is_empty() || call.place != self.place {
            return None;
        }
        let [directory, streams @ ..] = control.descriptors;
        for (to, from) in streams.into_iter().enumerate() {
            // SAFETY: the standard descriptors are open, so those received are others.
            if unsafe { dup2(from, to as RawFd) } < 0 {
                return None;
            }
        }
        // SAFETY: a plain system call.
        (unsafe { fchdir(directory) } == 0).then_some(call)
    }
}

impl Running {
    fn of(pid: c_int, stream: UnixStream) -> Option<Self> {
        // SAFETY: pidfd_open takes a process and flags, and gives a descriptor.
        let handle = unsafe { syscall(SYS_PIDFD_OPEN, pid as c_ulong, 0, 0) };
        if handle < 0 {
            // SAFETY: the child is not reaped yet.
            unsafe {
                kill(pid, SIGKILL);
                waitpid(pid, &mut 0, 0);
            }
            return None;
        }
        // SAFETY: the descriptor is new and nobody else's.
        let handle = unsafe { OwnedFd::from_raw_fd(handle as RawFd) };
        Some(Self {
            pid,
            handle,
            stream,
            ending: None,
        })
    }

    /// It is over: its caller learns how.
    fn answer(&mut self) {
        let mut status = 0;
        // SAFETY: the child is over and not reaped yet.
        if unsafe { waitpid(self.pid, &mut status, 0) } == self.pid {
            // A caller that is gone needs no answer.
            let _ = self.stream.write_all(&status.to_le_bytes());
        }
    }

    /// Tells it to end; it may clean up.
    fn end(&mut self) {
        if self.ending.is_none() {
            self.ending = Some(Instant::now());
            // SAFETY: the child is not reaped yet, so the number is its own.
            unsafe { kill(self.pid, SIGTERM) };
        }
    }

    fn end_for_good(&self) {
        if self.ending.is_some_and(|since| since.elapsed() > GRACE) {
            // SAFETY: the child is not reaped yet, so the number is its own.
            unsafe { kill(self.pid, SIGKILL) };
        }
    }
}

/// C strings and a null pointer, never freed.
fn strings(texts: Vec<Vec<u8>>) -> &'static mut [*mut c_char] {
    let texts = texts.into_iter().filter_map(|text| CString::new(text).ok());
    let mut pointers: Vec<*mut c_char> = texts.map(CString::into_raw).collect();
    pointers.push(std::ptr::null_mut());
    pointers.leak()
}

/// Where the kernel keeps the arguments that `ps` shows.
struct Title {
    start: *mut u8,
    length: usize,
}

impl Title {
    /// The longest stretch of strings that follow one another, from the first argument on.
    ///
    /// # Safety
    ///
    /// Both are arrays of C strings that end with a null pointer.
    unsafe fn of(argv: *mut *mut c_char, environment: *mut *mut c_char) -> Self {
        // SAFETY: as above.
        unsafe {
            let start = (*argv).cast::<u8>();
            let mut end = start;
            'lists: for list in [argv, environment] {
                let mut entry = list;
                while !(*entry).is_null() {
                    if (*entry).cast::<u8>() != end {
                        break 'lists;
                    }
                    end = end.add(std::ffi::CStr::from_ptr(*entry).count_bytes() + 1);
                    entry = entry.add(1);
                }
            }
            let length = end.offset_from(start) as usize;
            Self { start, length }
        }
    }

    fn set(&self, arguments: &[Vec<u8>]) {
        let mut text = arguments.join(&0);
        text.resize(self.length, 0);
        if let Some(last) = text.last_mut() {
            *last = 0;
        }
        // SAFETY: the stretch belongs to the process, is writable, and nothing reads it any more.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.start, self.length) };
    }
}
