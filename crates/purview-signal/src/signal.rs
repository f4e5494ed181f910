//! Signals by number and name, and the cause that one of them is.

use std::{fmt, io};

use crate::sys;

/// A signal that can be listened for.
///
/// ```
/// # #[cfg(unix)] {
/// use purview_signal::Signal;
/// assert_eq!(Signal::INTERRUPT.to_string(), "SIGINT"); // what Ctrl-C sends
/// assert_eq!(Signal::from_raw(Signal::TERMINATE.number()).unwrap(), Signal::TERMINATE);
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// SIGINT: Ctrl-C at the terminal.
    pub const INTERRUPT: Signal = Signal(sys::SIGINT);
    /// SIGTERM: somebody asks the process to end, such as `kill` or a service manager.
    pub const TERMINATE: Signal = Signal(sys::SIGTERM);
    /// SIGHUP: the terminal has gone; to daemons, by custom: read the configuration again.
    pub const HANGUP: Signal = Signal(sys::SIGHUP);
    /// SIGQUIT: Ctrl-\ at the terminal.
    pub const QUIT: Signal = Signal(sys::SIGQUIT);
    /// SIGUSR1: whatever the program says.
    pub const USER1: Signal = Signal(sys::SIGUSR1);
    /// SIGUSR2: whatever the program says.
    pub const USER2: Signal = Signal(sys::SIGUSR2);

    /// The signal with this number, as the system numbers them.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput), if the system has no such signal, or if it is one that cannot be
    /// listened for (SIGKILL, SIGSTOP) or after which the program cannot go on (SIGSEGV, SIGBUS, SIGILL, SIGFPE).
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use purview_signal::Signal;
    /// assert_eq!(Signal::from_raw(2).unwrap(), Signal::INTERRUPT);
    /// assert_eq!(Signal::from_raw(9).unwrap_err().to_string(), "SIGKILL cannot be listened for");
    /// assert_eq!(Signal::from_raw(1000).unwrap_err().to_string(), "there is no signal 1000");
    /// # }
    /// ```
    pub fn from_raw(number: i32) -> io::Result<Signal> {
        let why = if !sys::exists(number) {
            format!("there is no signal {number}")
        } else if sys::UNSTOPPABLE.contains(&number) {
            format!("{} cannot be listened for", Signal(number))
        } else if sys::FAULTS.contains(&number) {
            format!("{} is a fault, which cannot wait for anybody to listen", Signal(number))
        } else {
            return Ok(Signal(number));
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// Its number, as the system numbers them.
    ///
    /// ```
    /// # #[cfg(unix)]
    /// assert_eq!(purview_signal::Signal::HANGUP.number(), 1);
    /// ```
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Its name, such as `SIGINT`; of one that has none, its number: `signal 40`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match sys::NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// That a signal was received: the cause of a context that it ended.
///
/// ```
/// use purview_signal::{Signal, SignalReceived};
///
/// /// What a shell would say of a process that was ended so.
/// fn exit_code(err: &purview::Error) -> i32 {
///     match err.cause().and_then(|cause| cause.downcast_ref::<SignalReceived>()) {
///         Some(received) => 128 + received.signal().number(),
///         None => 1,
///     }
/// }
/// # let (ctx, guard) = purview::Context::background().with_cancel();
/// # guard.cancel();
/// # assert_eq!(exit_code(&ctx.err().unwrap()), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SignalReceived(pub(crate) Signal);

impl SignalReceived {
    /// Which one it was.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use purview::Context;
    /// use purview_signal::{Signal, SignalReceived, notify};
    ///
    /// let (ctx, _signals) = notify(&Context::background(), [Signal::HANGUP]).unwrap();
    /// # std::process::Command::new("sh").args(["-c", "kill -s HUP $PPID"]).status().unwrap();
    /// let err = ctx.done().wait();
    /// let received: &SignalReceived = err.cause().unwrap().downcast_ref().unwrap();
    /// assert_eq!(received.signal(), Signal::HANGUP);
    /// # }
    /// ```
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.0
    }
}

impl fmt::Display for SignalReceived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // "signal 40 received", not "signal signal 40 received".
            signal if sys::NAMES.iter().any(|(number, _)| *number == signal.0) => {
                write!(f, "signal {signal} received")
            }
            signal => write!(f, "{signal} received"),
        }
    }
}

impl std::error::Error for SignalReceived {}
