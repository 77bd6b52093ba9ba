//! Child processes: what they say is collected, and none outlives its test.

use super::{DEADLINE, POLL, encryption, eventually};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// A running program. It is killed when this is dropped, and its log is printed if the test is
/// failing.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`, whose two outputs become the log.
    #[track_caller]
    pub fn spawn(name: &'static str, command: &mut Command) -> Process {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name}: {error}"),
        };
        let (log, id) = (Arc::default(), child.id());
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), &log, id),
            collect(child.stderr.take().expect("a pipe"), &log, id),
        ];
        Process { name, child, log, readers }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its standard input.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Everything that it has written to its outputs.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log's lock").clone()
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub fn await_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Sends the signal of this name.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        super::signal(self.id(), name);
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn reload(&self) {
        self.signal("HUP");
    }

    /// The exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end; the log is complete then.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(&format!("{} ends", self.name), || {
            status = self.exit_status();
            status.is_some()
        });
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader's thread"));
        status.expect("it has ended")
    }

    /// Stops it where it stands, so that what the test does until [`Process::thaw`] happens at one
    /// moment for it.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal("STOP");
        eventually("every thread is stopped", || self.all_threads_are('T'));
    }

    /// Lets it go on after [`Process::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits until it has nothing to do. A thread that waits for bytes is runnable from the moment
    /// at which they come, so with all of them asleep everything that was sent to it has been read
    /// and acted on.
    #[track_caller]
    pub fn await_asleep(&self) {
        eventually("every thread sleeps", || self.is_asleep());
    }

    /// Whether it has nothing to do (see [`Process::await_asleep`]).
    pub fn is_asleep(&self) -> bool {
        // The threads are looked at one after the other, and one may wake another meanwhile.
        (0..3).all(|_| self.all_threads_are('S'))
    }

    fn all_threads_are(&self, state: char) -> bool {
        all_threads_are(self.id(), state)
    }
}

/// Whether all threads of a process are in this state. They are looked at one after the other.
pub fn all_threads_are(process: u32, state: char) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    tasks.expect("/proc").flatten().all(|task| {
        // A thread may end between the two looks.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(state))
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        encryption::forget(self.id());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of {} ---\n{}", self.name, self.log());
        }
    }
}

/// Puts what comes from a process into its log, until neither it nor a child of it can write more.
fn collect(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<String>>,
    process: u32,
) -> JoinHandle<()> {
    let log = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            encryption::note(&line, process);
            log.lock().expect("the log's lock").push_str(&(line + "\n"));
        }
        encryption::forget(process);
    })
}

/// Starts nginx with this file. It has no master, so that no worker outlives the test.
#[track_caller]
pub fn nginx(file: &Path) -> Process {
    let mut command = Command::new("nginx");
    let settings = "daemon off; master_process off;";
    command.args(["-e", "stderr", "-g", settings, "-c"]).arg(file).stdin(Stdio::null());
    Process::spawn("nginx", &mut command)
}

/// Runs a program to its end, and until nobody holds its outputs any more. It fails the test if
/// that takes too long.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let out = read_all(child.stdout.take().expect("a pipe"));
    let err = read_all(child.stderr.take().expect("a pipe"));
    let until = Instant::now() + DEADLINE;
    loop {
        let status = child.try_wait().expect("the child can be waited for");
        if let Some(status) = status.filter(|_| out.is_finished() && err.is_finished()) {
            let [stdout, stderr] = [out, err].map(|all| all.join().expect("a reader's thread"));
            return Output { status, stdout, stderr };
        }
        if Instant::now() >= until {
            let _ = child.kill();
            let held = if status.is_some() { "has outputs that somebody holds" } else { "runs" };
            panic!("{command:?} still {held} after {DEADLINE:?}");
        }
        std::thread::sleep(POLL);
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// Runs a program to its end, which must be a good one, and returns what it has printed.
#[track_caller]
pub fn run_well(command: &mut Command) -> String {
    let output = run(command.stdin(Stdio::null()));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether `words`, a command that must come to a good end, shows that what a test needs is there.
/// If not, says that the test is skipped for want of `what`.
pub fn installed(what: &str, words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok_and(|status| status.success());
    if !there {
        super::skipped(&format!("{what} is not installed"));
    }
    there
}
