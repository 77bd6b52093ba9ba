//! The agent as a child process.

use super::{Proxy, eventually, signal};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often [`Agent::wait_exit`] looks.
const POLL: Duration = Duration::from_millis(2);

/// A running agent. It is killed when this is dropped, and its log is printed if the test is failing.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Agent {
    /// Starts it with these arguments.
    #[track_caller]
    pub fn start<S: AsRef<str>>(args: &[S]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
        command.args(args.iter().map(AsRef::as_ref)).env_remove("RUST_LOG");
        Agent::spawn(command)
    }

    /// Starts what `command` says.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Agent {
        command.env_remove("BRIDGE_HOSTS").env_remove("BRIDGE_KEYS");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent's binary can be started");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let log = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().expect("the log's lock");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Agent { child, log }
    }

    /// Starts it in front of the application at `to`, for every host, with up to `limit` requests at once.
    #[track_caller]
    pub fn serve(to: &str, limit: usize, proxies: &[String]) -> Agent {
        let mut args = vec!["--to".to_owned(), to.to_owned(), format!("-n{limit}")];
        args.extend_from_slice(proxies);
        Agent::start(&args)
    }

    /// Starts one that answers every request itself, with four bridges for each of these hosts.
    #[track_caller]
    pub fn echo(proxy: &Proxy, hosts: &[&str]) -> Agent {
        let proxy = at(proxy);
        let mut args = vec!["--echo", "-n4"];
        args.extend(hosts.iter().flat_map(|host| ["--host", host]));
        args.push(&proxy);
        Agent::start(&args)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log's lock").clone()
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub fn await_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP.
    pub fn reload(&self) {
        self.signal("HUP");
    }

    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end, at most this long.
    #[track_caller]
    pub fn wait_exit(&mut self, longest: Duration) -> ExitStatus {
        let until = Instant::now() + longest;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < until, "the agent still runs after {longest:?}");
            std::thread::sleep(POLL);
        }
    }

    /// The exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }
}

/// Where a proxy takes bridges, as an argument.
#[track_caller]
pub fn at(proxy: &Proxy) -> String {
    proxy.for_bridges().to_string()
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
        }
    }
}
