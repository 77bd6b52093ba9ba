//! One call of a manager: a GET, or a program that is run. It blocks, and takes a bounded time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Destination, Endpoint, Manager};
use crate::net::sys;
use crate::upstream::blocking::{self, is_timeout, left};

/// The bytes of a status line up to its status: `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// How often to see whether a program has ended: at first, because most end at once, and at last.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// What a manager is told.
pub(super) struct Need<'a> {
    pub(super) site: &'a str,
    /// Empty if the request's was no host name.
    pub(super) host: &'a str,
    /// How many requests wait for the host.
    pub(super) waiting: usize,
    /// How many bridges are connected that could serve one of them.
    pub(super) connected: u32,
}

impl Need<'_> {
    /// Why the manager is called, as its word.
    pub(super) fn reason(&self) -> &'static str {
        if self.connected == 0 { "no-backend" } else { "busy" }
    }

    /// All of them, by their names in the environment of a program. In a query they are in lower case.
    fn named(&self) -> [(&'static str, String); 5] {
        [
            ("SITE", self.site.to_owned()),
            ("HOST", self.host.to_owned()),
            ("WAITING", self.waiting.to_string()),
            ("CONNECTED", self.connected.to_string()),
            ("REASON", self.reason().to_owned()),
        ]
    }
}

/// Calls a manager, for `limit` at most. A program is killed then, and when the process is ending.
///
/// # Errors
/// How the call has failed, in one clause.
pub(super) fn make(
    manager: &Manager,
    need: &Need<'_>,
    limit: Duration,
    is_ending: &AtomicBool,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    match manager {
        Manager::Http(Endpoint { to, host, target }) => {
            let request = request(host, target, need);
            match ask(to, request.as_bytes(), until) {
                Ok(status @ 200..=299) => {
                    log::debug!("site {}: its manager has answered {status}", need.site);
                    Ok(())
                }
                Ok(status) => Err(format!("it has answered {status}")),
                Err(error) if is_timeout(&error) => Err("it does not answer".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        }
        Manager::Program(program) => {
            let mut child = start(program, need).map_err(|error| error.to_string())?;
            wait(&mut child, until, is_ending)
        }
    }
}

fn request(host: &str, target: &str, need: &Need<'_>) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    let mut request = format!("GET {target}{mark}");
    for (at, (name, value)) in need.named().into_iter().enumerate() {
        if at > 0 {
            request.push('&');
        }
        request.push_str(&name.to_ascii_lowercase());
        request.push('=');
        encode(&value, &mut request);
    }
    request.push_str(" HTTP/1.1\r\nHost: ");
    request.push_str(host);
    request + "\r\nUser-Agent: cloudbridge-manager\r\nConnection: close\r\n\r\n"
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
fn encode(value: &str, out: &mut String) {
    for b in value.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(b.into());
            }
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
}

/// Sends a request, and reads the status of its answer.
fn ask(to: &Destination, request: &[u8], until: Instant) -> io::Result<u16> {
    let mut stream = blocking::dial(to, || left(until))?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(request)?;
    let (mut answer, mut have) = ([0; STATUS_END], 0);
    while have < answer.len() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut answer[have..]) {
            Ok(0) => return Err(io::Error::other("it closed the connection without an answer")),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    drain(&mut stream, until);
    status(&answer).ok_or_else(|| io::Error::other("its answer is not HTTP"))
}

/// Takes what follows in the same moment: a close with unread bytes would reset the connection, and a
/// small server may take that for a failure.
fn drain(stream: &mut TcpStream, until: Instant) {
    const MOMENT: Duration = Duration::from_millis(100);
    let wait = left(until).unwrap_or(MOMENT).min(MOMENT);
    if stream.set_read_timeout(Some(wait)).is_ok() {
        let mut rest = [0; 4096];
        // A longer one is cut off.
        let _ = (0..4).find(|_| !matches!(stream.read(&mut rest), Ok(1..)));
    }
}

fn status(line: &[u8; STATUS_END]) -> Option<u16> {
    let digits = line.strip_prefix(b"HTTP/1.")?.strip_prefix(b"0 ".as_slice());
    let digits = digits.or_else(|| line.strip_prefix(b"HTTP/1.1 "))?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// Runs a program, without a shell. What it says goes where this process's log goes: a pipe that
/// nobody reads any more would end what it leaves running.
fn start(program: &Path, need: &Need<'_>) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.env_clear().envs(need.named());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::null()).stdout(io::stderr()).stderr(Stdio::inherit());
    sys::detach_program(&mut command);
    command.spawn()
}

/// Waits until a program has ended, or kills it, with all of its group.
fn wait(child: &mut Child, until: Instant, is_ending: &AtomicBool) -> Result<(), String> {
    let [mut pause, longest] = LOOKS;
    let why = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it has ended with {status}")),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        if is_ending.load(Ordering::SeqCst) {
            break "it was killed: the proxy ends";
        }
        match left(until) {
            Ok(left) => thread::sleep(pause.min(left)),
            Err(_) => break "it took too long, and was killed",
        }
        pause = (pause * 2).min(longest);
    };
    let killed = sys::kill_group(child.id());
    if let Err(error) = killed.and_then(|()| child.wait().map(drop)) {
        log::debug!("process {} could not be killed: {error}", child.id());
    }
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    const NEED: Need<'_> = Need { site: "*.b.test", host: "a.b.test", waiting: 3, connected: 0 };
    static NOT_ENDING: AtomicBool = AtomicBool::new(false);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_told_is_in_the_query() {
        let query = "site=%2A.b.test&host=a.b.test&waiting=3&connected=0&reason=no-backend";
        let rest = "Host: h:81\r\nUser-Agent: cloudbridge-manager\r\nConnection: close\r\n\r\n";
        for (target, mark) in [("/", "?"), ("/start?token=x", "&")] {
            let expected = format!("GET {target}{mark}{query} HTTP/1.1\r\n{rest}");
            assert_eq!(request("h:81", target, &NEED), expected);
        }
        assert_eq!(Need { connected: 1, ..NEED }.reason(), "busy");
    }

    fn http(to: Destination) -> Manager {
        Manager::Http(Endpoint { to, host: "h".to_owned(), target: "/".to_owned() })
    }

    /// What a call makes of an answer.
    fn answered(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let manager = http(Destination::Socket(listener.local_addr().unwrap()));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer).unwrap();
        });
        let result = make(&manager, &NEED, LONG, &NOT_ENDING);
        server.join().unwrap();
        result
    }

    #[test]
    fn a_status_of_success_is_one() {
        let failed = |what: &str| Err(what.to_owned());
        for (answer, result) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", failed("it has answered 404")),
            (b"HTTP/1.1 302 Found\r\n\r\n", failed("it has answered 302")),
            (b"HTTP/1.1 +20 \r\n\r\n", failed("its answer is not HTTP")),
            (b"SSH-2.0-OpenSSH\r\n", failed("its answer is not HTTP")),
            (b"HTTP/1.1", failed("it closed the connection without an answer")),
        ] {
            assert_eq!(answered(answer), result, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn a_server_that_does_not_answer_takes_a_bounded_time() {
        let path = std::env::temp_dir().join(format!("cloudbridge-call-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let manager = http(Destination::Unix(path.clone()));
        let result = make(&manager, &NEED, Duration::from_millis(50), &NOT_ENDING);
        std::fs::remove_file(&path).unwrap();
        drop(listener);
        assert_eq!(result, Err("it does not answer".to_owned()));
    }

    #[test]
    fn a_program_s_end_is_its_answer() {
        let run = |program: &str, limit| {
            make(&Manager::Program(program.into()), &NEED, limit, &NOT_ENDING)
        };
        assert_eq!(run("/bin/true", LONG), Ok(()));
        assert_eq!(run("/bin/false", LONG), Err("it has ended with exit status: 1".to_owned()));
        let missing = "No such file or directory (os error 2)".to_owned();
        assert_eq!(run("/no/such", LONG), Err(missing));
        let killed = "it took too long, and was killed".to_owned();
        let mut child = Command::new("/bin/sleep").arg("infinity").spawn().unwrap();
        // In this process's group, which must not be killed.
        assert_ne!(sys::kill_group(child.id()).map_err(|error| error.kind()), Ok(()));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("infinity");
        sys::detach_program(&mut command);
        let mut child = command.spawn().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(wait(&mut child, soon, &NOT_ENDING), Err(killed));
        assert!(child.try_wait().unwrap().is_some());
    }
}
