//! An application as a child process.

use crate::common::{Proxy, eventually, free_address};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one may take to end before it is killed: servers with workers are told, so that they
/// take those with them.
const EXIT_DEADLINE: Duration = Duration::from_secs(3);

/// How often [`Program::drop`] looks whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A running program; it is ended when this is dropped, and what it has said is printed if the test
/// is failing.
pub struct Program {
    child: Child,
    said: PathBuf,
}

impl Program {
    /// Starts it in the directory of the proxy's files. `{port}` and `{address}` in its arguments
    /// stand for where it is to listen; this waits until it does, and returns the `address:port`.
    #[track_caller]
    pub fn start(proxy: &Proxy, words: &[&str]) -> (Program, SocketAddr) {
        let address = free_address();
        let filled = |word: &&str| {
            let word = word.replace("{port}", &address.port().to_string());
            word.replace("{address}", &address.ip().to_string())
        };
        let words: Vec<String> = words.iter().map(filled).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        (Program::start_at(proxy, &words, address), address)
    }

    /// Starts it in the directory of the proxy's files, and waits until it listens at `address`.
    #[track_caller]
    pub fn start_at(proxy: &Proxy, words: &[&str], address: SocketAddr) -> Program {
        let program = Program::spawn(proxy, words);
        eventually("the application listens", || TcpStream::connect(address).is_ok());
        program
    }

    /// Starts it in the directory of the proxy's files, and waits until it listens on the Unix
    /// socket of this name there.
    #[track_caller]
    pub fn start_unix(proxy: &Proxy, words: &[&str], socket: &str) -> Program {
        let program = Program::spawn(proxy, words);
        let socket = proxy.dir().join(socket);
        eventually("the application listens", || UnixStream::connect(&socket).is_ok());
        program
    }

    #[track_caller]
    fn spawn(proxy: &Proxy, words: &[&str]) -> Program {
        let said = proxy.dir().join("application.log");
        let log = File::create(&said).expect("a file of the test");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(proxy.dir()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Program { child: command.spawn().expect("the application can be started"), said }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already; and one that does not listen to TERM is killed.
        let line = format!("kill -TERM {}", self.child.id());
        let _ = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
        let until = Instant::now() + EXIT_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read_to_string(&self.said).unwrap_or_default();
            eprintln!("--- the application said ---\n{said}");
        }
    }
}
