//! The child processes: how they are started, so that none outlives the demo, and how they end.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::sys::{self, Signal};

/// How many lines of the processes' logs are kept, in case something goes wrong.
const LINES: usize = 40;

/// How long each kind of process may take to end before it is killed.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a process that is to end is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The last lines that the processes have logged.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Prints them on standard error.
    pub fn print(&self) {
        for line in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("    {line}");
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    proxy: PathBuf,
    agent: PathBuf,
}

impl Programs {
    /// This program, and the agent beside it or in `PATH`.
    ///
    /// # Errors
    /// When the kernel does not say where this program is.
    pub fn find() -> io::Result<Programs> {
        let proxy = std::env::current_exe()?;
        let beside = proxy.with_file_name("cloudbridge-agent");
        let agent = if beside.exists() { beside } else { "cloudbridge-agent".into() };
        Ok(Programs { proxy, agent })
    }

    /// A proxy.
    pub fn proxy(&self) -> Command {
        Command::new(&self.proxy)
    }

    /// An agent.
    pub fn agent(&self) -> Command {
        Command::new(&self.agent)
    }

    /// One of the small applications, at this port.
    pub fn application(&self, name: &str, port: u16) -> Command {
        let mut command = Command::new(&self.proxy);
        command.args(["demo", "--application", name, &port.to_string()]);
        command
    }
}

/// A child process. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`, whose standard error goes to the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: Command, log: &Log) -> io::Result<Process> {
        Process::start_with(name, command, "", log, |_| {})
    }

    /// The same; also returns the lines of its standard error as they come. It gets `input`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_and_listen(
        name: &str,
        command: Command,
        input: &str,
        log: &Log,
    ) -> io::Result<(Process, Receiver<String>)> {
        let (tell, lines) = mpsc::channel();
        let each = move |line: &str| _ = tell.send(line.to_owned());
        Ok((Process::start_with(name, command, input, log, each)?, lines))
    }

    fn start_with(
        name: &str,
        mut command: Command,
        input: &str,
        log: &Log,
        mut each: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Process> {
        // A process group of its own: Ctrl-C is for the demo, which ends the others in order. The
        // environment may have settings for agents, and a socket of systemd.
        command.env_clear().process_group(0);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::kill_with_parent(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let started = command.spawn();
        let mut child = started
            .map_err(|error| io::Error::other(format!("cannot start {program}: {error}")))?;
        let mut stdin = child.stdin.take();
        let mut process = Process { name: name.to_owned(), child };
        if let Some(stdin) = &mut stdin {
            stdin.write_all(input.as_bytes())?;
        }
        drop(stdin);
        if let Some(stderr) = process.child.stderr.take() {
            let (log, name) = (log.clone(), name.to_owned());
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    each(&line);
                    log.push(format!("{name}: {line}"));
                }
            });
        }
        Ok(process)
    }

    /// Reads the first line of its standard output.
    ///
    /// # Errors
    /// When there is none.
    pub fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            // A line of a few bytes from our own program.
            BufReader::new(stdout.take(64)).read_line(&mut line)?;
        }
        if line.is_empty() {
            return Err(io::Error::other(format!("{} does not start", self.name)));
        }
        Ok(line)
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} has ended by itself: {status}", self.name))
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it finish what it does and end.
    pub fn terminate(&mut self) {
        if self.is_running() {
            // It has not been waited for, so the number is still its own.
            let _ = sys::send_signal(self.child.id(), Signal::Terminate);
        }
    }

    /// Ends it at once, and waits for that.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has it finish and end, and kills it if that takes longer than `timeout`, or at another
    /// signal.
    pub fn stop(&mut self, signals: &Receiver<()>, timeout: Duration) {
        self.terminate();
        let until = Instant::now() + timeout;
        while self.is_running() && Instant::now() < until {
            if signals.recv_timeout(POLL) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
