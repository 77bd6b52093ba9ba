//! In the old program: starts the new one, and learns whether it serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::channel::{Channel, VARIABLE};
use super::super::{activation, watchdog};
use super::parent;
use crate::net::sys;

/// How long the new program may take until it serves: it reads its settings, which may be on a slow
/// disk.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to receive a message. It has a thread for nothing else.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for the workers, which have other things to do.
const WORKER_TIMEOUT: Duration = Duration::from_millis(20);

/// How often to look whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Whether a program that is being started is not wanted any more: the one that starts it ends.
#[derive(Clone, Debug, Default)]
pub struct Unwanted(Arc<AtomicBool>);

impl Unwanted {
    /// From now on it is not.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the new program is given before it serves: messages with descriptors.
pub struct Offer(Vec<(Value, Vec<OwnedFd>)>);

/// A program that serves in place of this one.
pub struct Successor {
    /// Its process.
    pub process: u32,
    /// What it has said of itself before it served.
    pub serves: Vec<Value>,
    channel: Channel,
    child: Child,
}

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Without the name of the program.
    pub args: Vec<OsString>,
}

impl Program {
    /// What this process was started as. The file may be another by the time it is started again:
    /// that is what an upgrade is for.
    ///
    /// # Errors
    /// When the kernel does not say where the program is.
    pub fn of_this_process() -> io::Result<Program> {
        let path = std::env::current_exe()?;
        Ok(Program { path, args: std::env::args_os().skip(1).collect() })
    }

    /// Starts it, offers it what this program has, and waits until it serves, or until it is not
    /// wanted any more.
    ///
    /// # Errors
    /// Why it does not serve, one sentence each. It has ended then.
    pub fn start(&self, offer: &Offer, unwanted: &Unwanted) -> Result<Successor, Vec<String>> {
        parent::adopt_later_programs();
        let shown = self.path.display();
        let cannot = |error: io::Error| vec![format!("cannot start {shown}: {error}")];
        let (channel, theirs) = Channel::pair().map_err(cannot)?;
        channel.set_timeouts(Some(SEND_TIMEOUT), Some(START_TIMEOUT)).map_err(cannot)?;
        let mut command = Command::new(&self.path);
        command.args(&self.args).env(VARIABLE, "1").stdin(theirs.into_stdio());
        activation::hide(&mut command);
        watchdog::transfer(&mut command);
        let mut child = command.spawn().map_err(cannot)?;
        // It holds the other end until it is dropped, and then our end would never see the end.
        drop(command);
        match greet(&channel, offer, unwanted) {
            Ok(serves) => Ok(Successor { process: child.id(), serves, channel, child }),
            Err(problems) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(problems)
            }
        }
    }
}

/// Offers what there is, and reads the answer: what it serves, if it says that.
fn greet(channel: &Channel, offer: &Offer, unwanted: &Unwanted) -> Result<Vec<Value>, Vec<String>> {
    let mut sent = Ok(());
    for (line, files) in &offer.0 {
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        sent = sent.and_then(|()| channel.send(&line.to_string(), b"", &files));
    }
    let until = Instant::now() + START_TIMEOUT;
    let mut serves = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = left.clamp(Duration::from_millis(1), LOOK);
        let answer = channel.set_timeouts(Some(SEND_TIMEOUT), Some(wait));
        let answer = match answer.and_then(|()| channel.receive()) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                return Err(vec![match sent {
                    Err(error) if !is_end(&error) => {
                        format!("the new program does not take what it is offered: {error}")
                    }
                    _ => "the new program ended before it served".to_owned(),
                }]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if unwanted.0.load(Ordering::SeqCst) {
                    return Err(vec!["this program has been told to end".to_owned()]);
                }
                if !left.is_zero() {
                    continue;
                }
                let seconds = START_TIMEOUT.as_secs();
                return Err(vec![format!(
                    "the new program did not serve within {seconds} seconds"
                )]);
            }
            Err(error) => return Err(vec![format!("cannot talk to the new program: {error}")]),
        };
        let line = answer.line();
        match line["kind"].as_str() {
            Some("serves") => serves.push(line),
            Some("serving") => return Ok(serves),
            Some("refused") => {
                let problems = line["problems"].as_array().into_iter().flatten();
                return Err(problems.filter_map(Value::as_str).map(str::to_owned).collect());
            }
            _ => return Err(vec!["the new program does not understand this one".to_owned()]),
        }
    }
}

/// Whether a message could not be sent because nobody is there.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Successor {
    /// A thread's work: waits until the new program ends.
    #[must_use]
    pub fn watch(self) -> (Channel, Watch) {
        // If this fails, a worker waits longer for a program that does not receive.
        let _ = self.channel.set_timeouts(Some(WORKER_TIMEOUT), None);
        parent::watch();
        (self.channel, Watch { child: self.child })
    }

    /// Ends it: this program is to end, too.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The new program's process.
pub struct Watch {
    child: Child,
}

impl Watch {
    /// Waits until it ends. If it was killed, or has broken down, says how; otherwise it was told to
    /// end. (One that is replaced itself ends after this program.)
    pub fn wait(mut self) -> Option<String> {
        let ended = self.child.wait();
        parent::ended(ended.as_ref().ok().map(sys::exit_code));
        match ended {
            Ok(status) if status.code().is_some() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Offer {
    /// An offer that begins with this message, by which the new program knows whether it understands
    /// the others.
    #[must_use]
    pub fn new(hello: Value) -> Offer {
        Offer(vec![(hello, Vec::new())])
    }

    /// Adds a message.
    pub fn add(&mut self, line: Value, files: Vec<OwnedFd>) {
        self.0.push((line, files));
    }

    /// Adds the lock of the pidfile.
    pub fn add_pidfile(&mut self, file: OwnedFd) {
        self.add(json!({ "kind": "pidfile" }), vec![file]);
    }

    /// Nothing more is offered.
    pub fn finish(&mut self) {
        self.add(json!({ "kind": "offered" }), Vec::new());
    }
}
