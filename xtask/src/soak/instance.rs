//! The demo as a process: started, told to stop, waited for, and never left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the demo gives requests after the first signal.
const GRACE: Duration = Duration::from_millis(1_500);
/// By when it promises to be gone after the first: it stops accepting for 0.5 s at the most, drains for its grace, cancels
/// for 2 s and closes for 0.5 s. The rest is for a machine that is busy.
pub(crate) const DRAIN: Duration = Duration::from_millis(500 + 1_500 + 2_000 + 500 + 1_500);
/// After this, it will never say that it listens. A debug build makes its data anew in this time.
const START: Duration = Duration::from_secs(120);
/// The end of what the demo says when it serves.
const GREETING: &str = "Ctrl-C stops it";
const LOOK: Duration = Duration::from_millis(5);

/// How an instance is started, again and again.
pub(crate) struct Place {
    pub(crate) program: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) door: Arc<Door>,
}

/// Where clients find an instance, whichever of its lives it is in.
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Even while it serves. So who sees the same even number before and after has asked somebody who served throughout.
    turns: AtomicU32,
    /// Of the process; zero if there is none.
    pub(crate) id: AtomicU32,
}

impl Door {
    pub(crate) fn new(name: &'static str, number: u16) -> Result<Door, String> {
        let port = free_port(number).ok_or("there is no free port")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Door { name, address, turns: AtomicU32::new(1), id: AtomicU32::new(0) })
    }

    pub(crate) fn turn(&self) -> u32 {
        self.turns.load(Ordering::SeqCst)
    }

    /// Whether it has served since `turn` was read.
    pub(crate) fn has_served_since(&self, turn: u32) -> bool {
        turn % 2 == 0 && self.turn() == turn
    }

    fn next_turn(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }
}

/// Not one that systems give to clients: while nobody listens there, a client that is given it would connect to itself.
fn free_port(number: u16) -> Option<u16> {
    let first = 20_000 + (std::process::id() % 10_000) as u16 + number;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (first..first + 2_000).step_by(2).find(is_free)
}

pub(crate) struct Instance {
    child: Child,
    door: Arc<Door>,
    said: Arc<Mutex<String>>,
    complained: Arc<Mutex<String>>,
}

impl Instance {
    pub(crate) fn name(&self) -> &'static str {
        self.door.name
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn start(place: &Place) -> Result<Instance, String> {
        let door = Arc::clone(&place.door);
        let mut command = mortal(&place.program);
        command.arg("--data").arg(&place.data);
        command.args(["--port", &door.address.port().to_string()]);
        command.args(["--grace-ms", &GRACE.as_millis().to_string()]);
        if let Some(upstream) = place.upstream {
            command.args(["--upstream", &format!("http://{upstream}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|err| format!("{}: {err}", door.name))?;
        let said = heard(child.stdout.take());
        let complained = heard(child.stderr.take());
        let mut instance = Instance { child, door, said, complained };
        let begin = Instant::now();
        while !instance.said().contains(GREETING) {
            instance.is_alive()?;
            if begin.elapsed() > START {
                return Err(instance.tell("does not begin to serve"));
            }
            thread::sleep(LOOK);
        }
        instance.door.id.store(instance.child.id(), Ordering::SeqCst);
        instance.door.next_turn();
        Ok(instance)
    }

    /// It has neither died nor complained.
    pub(crate) fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) if text(&self.complained).is_empty() => Ok(()),
            Ok(None) => Err(self.tell("complains")),
            Ok(Some(status)) => Err(self.tell(&format!("has died: {status}"))),
            Err(err) => Err(err.to_string()),
        }
    }

    /// Sends SIGTERM, and a second one after `again`, if there is to be one; waits until it is gone. Gives how long that took
    /// from the last signal on, and the exit code.
    pub(crate) fn stop(mut self, again: Option<Duration>) -> Result<(Duration, i32), String> {
        self.is_alive()?;
        self.door.next_turn();
        self.terminate()?;
        let mut told = Instant::now();
        let mut status = self.wait(again.unwrap_or(DRAIN))?;
        if again.is_some() && status.is_none() {
            self.terminate()?;
            told = Instant::now();
            status = self.wait(DRAIN)?;
        }
        let took = told.elapsed();
        let Some(status) = status else {
            return Err(self.tell(&format!("was told to stop, and is there after {DRAIN:?}")));
        };
        match status.code() {
            Some(code) if text(&self.complained).is_empty() => Ok((took, code)),
            _ => Err(self.tell(&format!("was told to stop: {status}"))),
        }
    }

    fn terminate(&self) -> Result<(), String> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        sent.map(|_| ()).map_err(|err| format!("kill could not be started: {err}"))
    }

    fn wait(&mut self, longest: Duration) -> Result<Option<ExitStatus>, String> {
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().map_err(|err| err.to_string())?;
            if status.is_some() || begin.elapsed() > longest {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
    }

    fn said(&self) -> String {
        text(&self.said)
    }

    fn tell(&self, what: &str) -> String {
        let (name, said, complained) = (self.door.name, self.said(), text(&self.complained));
        let since = said.split_once(GREETING).map_or(&*said, |(_, since)| since);
        format!("the {name} {what}\n{complained}{}", since.trim())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.door.turn() % 2 == 0 {
            self.door.next_turn(); // nobody need wonder why
        }
        self.door.id.store(0, Ordering::SeqCst);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process is terminated when this one dies, in whatever way. What is dropped in good order is ended by that.
fn mortal(program: &Path) -> Command {
    let setpriv = Command::new("setpriv").args(["--pdeathsig", "TERM", "true"]).status();
    if setpriv.is_ok_and(|status| status.success()) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// All that comes out of a pipe, as it comes.
fn heard(pipe: Option<impl Read + Send + 'static>) -> Arc<Mutex<String>> {
    let all = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&all);
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
                all.push_str(&line);
                all.push('\n');
            }
        });
    }
    all
}

fn text(all: &Mutex<String>) -> String {
    all.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
