//! Signals as Unix has them: the handler, the actions, and the line from the handler to a thread.
//!
//! A handler may interrupt any code on any thread, an allocation or a lock of its own thread's among it. So it does next to
//! nothing: it writes the signal's number to a socket, the line, which wakes a reader and keeps the order. If the line is full,
//! it does not wait, but counts the signal in an atomic: there is a read to come, and who reads looks at the counts after
//! he has emptied the line. But he may have done so in between:
//!
//! ```text
//! handler                        reader
//! cannot write: the line is full
//!                                empties the line; nothing is counted
//! counts
//! writes a byte that says nothing, and that wakes the reader again; or the line is full again
//! ```
//!
//! It is tempting to count every signal, and to use the bytes for nothing but waking. But then of two that come at one go
//! nobody knows which was first.
//!
//! Statics, since a handler is given nothing else. [`OWNER`] is the process that reads [`WRITER`]; it is written after it
//! with Release, and read before it with Acquire. Everything else here is called under the hub's lock.
//!
//! After a fork the child has the handlers, the counts and the sockets, and no thread that reads: a byte from there would be
//! the parent's. Its process id shows it, which is no more than a system call, and a hook (`fork.rs`), since in a namespace of
//! its own a child may have its parent's id; then a signal takes the default
//! action, unless it was ignored before. (A handler of somebody else's that was there before is not looked for: the memory
//! that says so is no atomic.) That is also what a process wants between fork and exec.
#![expect(unsafe_code, reason = "a signal's action is set by C functions, and a handler is one")]

use std::ffi::c_int;
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::signal::Signal;

pub(crate) use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// The system lets nobody listen for these.
pub(crate) const UNSTOPPABLE: [i32; 2] = [libc::SIGKILL, libc::SIGSTOP];

/// After these the interrupted code would only do the same again.
pub(crate) const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// What POSIX names, as far as every system has it.
pub(crate) const NAMES: [(i32, &str); 27] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGWINCH, "SIGWINCH"),
];

/// More than any system has signals, and what a byte can tell.
const NUMBERS: usize = 128;

/// How often each signal has come that the line had no place for.
static COUNTED: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
/// The signals that were ignored before their action became ours.
static IGNORED: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];
/// The process in which the line is read; 0 before there is any, and in the child of a fork.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// How many forks lie between this process and the first.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called in the child of a fork, before anything else there. A new process id is not enough: in a namespace of its own the child may
/// have its parent's.
pub(crate) fn is_child_of_a_fork() {
    OWNER.store(0, Ordering::Release);
    FORKS.fetch_add(1, Ordering::Relaxed);
}
/// The end of the line that the handler writes to.
static WRITER: AtomicI32 = AtomicI32::new(-1);

/// The handler of each signal that is listened for. Only what POSIX calls async-signal-safe happens here.
extern "C" fn on_signal(number: c_int) {
    let index = usize::try_from(number).unwrap_or(NUMBERS);
    let (Some(counted), Some(ignored)) = (COUNTED.get(index), IGNORED.get(index)) else { return };
    let interrupted = errno::errno();
    if process::id() == OWNER.load(Ordering::Acquire) {
        if !write(index as u8) {
            counted.fetch_add(1, Ordering::Release); // pairs with `counted`
            write(NOTHING);
        }
    } else if !ignored.load(Ordering::Relaxed) {
        // SAFETY: no pointers. From here on the signal has its default action, in this process.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        // SAFETY: as above. The signal is blocked in its handler, so it comes again when that returns.
        unsafe { libc::raise(number) };
    }
    errno::set_errno(interrupted);
}

/// A byte that is no signal's number.
const NOTHING: u8 = 0;

/// False if the line is full. Async-signal-safe.
fn write(byte: u8) -> bool {
    let line = WRITER.load(Ordering::Relaxed);
    // SAFETY: one byte is read, from the stack. The line does not block.
    unsafe { libc::write(line, (&raw const byte).cast(), 1) == 1 }
}

/// What a signal does.
pub(crate) struct Action(libc::sigaction);

impl Action {
    fn is_ours(&self) -> bool {
        self.0.sa_sigaction == ours()
    }
}

fn ours() -> libc::sighandler_t {
    on_signal as extern "C" fn(c_int) as libc::sighandler_t
}

/// Whether the system has this signal, and its C library has not kept it for itself.
pub(crate) fn exists(number: i32) -> bool {
    (1..NUMBERS as i32).contains(&number) && action(number).is_ok()
}

fn action(number: i32) -> io::Result<Action> {
    let mut now = MaybeUninit::uninit();
    // SAFETY: nothing is set; what is there is written to `now`.
    let result = unsafe { libc::sigaction(number, ptr::null(), now.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: written, as there was no error.
    Ok(Action(unsafe { now.assume_init() }))
}

/// Makes a signal's action ours, and forgets what was counted of it. Returns the action that it had.
///
/// System calls are restarted, and the handler runs on the stack for signals, if the thread has one: it may interrupt a
/// thread of another language, with next to no stack.
pub(crate) fn take(signal: Signal) -> io::Result<Action> {
    let number = signal.number();
    counted(signal);
    // SAFETY: all zeros is a value of it: no flags, the default action.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = ours();
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: written to. It fails for null only.
    unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    let mut former = MaybeUninit::uninit();
    // SAFETY: the handler is of the kind that the flags say, async-signal-safe, and never goes away.
    let result = unsafe { libc::sigaction(number, &raw const action, former.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: written, as there was no error.
    let former = Action(unsafe { former.assume_init() });
    if !former.is_ours() {
        let ignored = former.0.sa_sigaction == libc::SIG_IGN;
        slot(&IGNORED, signal).store(ignored, Ordering::Relaxed);
    }
    Ok(former)
}

/// Gives a signal the action back that it had, unless the program has set another since.
///
/// Another thread may set its own while this one checks, and the system cannot be asked to exchange an action only if it is ours. So
/// it is exchanged, and what was there is put back if it was not ours. Yet another may have been set between the two: then that one was
/// there at the second exchange, and is put back in turn. In the end the last one that was set is there.
pub(crate) fn restore(signal: Signal, former: &Action) {
    // Without this, the action of one that was set long ago would be away for a moment.
    if !action(signal.number()).is_ok_and(|now| now.is_ours()) {
        return;
    }
    let mut set = former.0;
    let mut expected = ours();
    while let Some(was) = exchange(signal, &set) {
        if was.sa_sigaction == expected {
            return;
        }
        expected = set.sa_sigaction;
        set = was;
    }
}

/// Sets an action that this signal has had, and returns the one before.
fn exchange(signal: Signal, action: &libc::sigaction) -> Option<libc::sigaction> {
    let mut was = MaybeUninit::uninit();
    // SAFETY: an action that was this signal's before; the code that set it keeps its handler.
    let result = unsafe { libc::sigaction(signal.number(), &raw const *action, was.as_mut_ptr()) };
    // SAFETY: written, as there was no error.
    (result == 0).then(|| unsafe { was.assume_init() })
}

/// Takes what was counted of a signal, since the line had no place for it. To be called when that was emptied.
pub(crate) fn counted(signal: Signal) -> u32 {
    slot(&COUNTED, signal).swap(0, Ordering::Acquire) // pairs with the handler
}

fn slot<T>(of: &'static [T; NUMBERS], signal: Signal) -> &'static T {
    &of[signal.number() as usize % NUMBERS] // a signal's number is less: `exists`
}

/// The line from the handler to the thread that reads, in one process. A pair of sockets, and not a pipe: std makes them
/// without `unsafe`, closed on exec.
pub(crate) struct Line {
    process: u32,
    forks: u32,
    writer: UnixStream,
    reader: UnixStream,
}

impl Line {
    pub(crate) fn new() -> io::Result<Line> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Line { process: process::id(), forks: FORKS.load(Ordering::Relaxed), writer, reader })
    }

    /// Has the handler write to it, from here on.
    pub(crate) fn open(&self) {
        WRITER.store(self.writer.as_raw_fd(), Ordering::Relaxed);
        OWNER.store(self.process, Ordering::Release);
    }

    /// Whether it was opened in this process, and not in a parent before a fork.
    pub(crate) fn is_open_here(&self) -> bool {
        self.process == process::id() && self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// Takes out what is in it, in order, and stops when it is empty.
    pub(crate) fn empty(&self, mut each: impl FnMut(u8)) {
        let mut bytes = [0; 256];
        loop {
            match (&self.reader).read(&mut bytes) {
                Ok(0) => return, // somebody has closed what is not his
                Ok(length) => bytes[..length].iter().for_each(|&byte| each(byte)),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => return, // it would block
            }
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader(self.reader.as_raw_fd())
    }
}

/// The end that the thread waits at. By number: in the child of a fork the line is closed by who has it, and not kept open by
/// a thread that is not there.
pub(crate) struct Reader(RawFd);

impl Reader {
    /// Waits until there is something in the line. False if there is no line any more.
    pub(crate) fn wait(&self) -> bool {
        let mut line = libc::pollfd { fd: self.0, events: libc::POLLIN, revents: 0 };
        loop {
            // SAFETY: one of them, which is written to.
            let ready = unsafe { libc::poll(&raw mut line, 1, -1) };
            if ready == 1 {
                return line.revents == libc::POLLIN;
            }
            if io::Error::last_os_error().kind() != ErrorKind::Interrupted {
                return false;
            }
        }
    }
}
