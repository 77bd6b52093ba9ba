//! The clients: each sends one GET after the other over a connection that it keeps, and checks every
//! answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many there are: as many as two backends serve at once, so that some wait while one is away.
pub(super) const CLIENTS: u64 = 8;

/// How long an answer may take. It is an error if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// How many errors are described.
const SHOWN: usize = 5;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    requests: AtomicU64,
    errors: AtomicU64,
    /// In microseconds.
    slowest: AtomicU64,
    shown: Mutex<Vec<String>>,
}

/// What the clients have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Requests that are over, with or without an error.
    pub requests: u64,
    pub errors: u64,
    /// The longest that an answer took.
    pub slowest: Duration,
    /// The first errors.
    pub shown: Vec<String>,
}

/// Clients that run, each in a thread.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts all of them.
    pub fn start(proxy: SocketAddr) -> Clients {
        let shared = Arc::<Shared>::default();
        let threads = (0..CLIENTS)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || client(proxy, number, &shared))
            })
            .collect();
        Clients { shared, threads }
    }

    /// What they have seen so far.
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            requests: shared.requests.load(Ordering::Relaxed),
            errors: shared.errors.load(Ordering::Relaxed),
            slowest: Duration::from_micros(shared.slowest.load(Ordering::Relaxed)),
            shown: shared.shown.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Has each get the answer that it waits for, but does not wait longer than `timeout`.
    pub fn stop(self, timeout: Duration) -> Counts {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let until = Instant::now() + timeout;
        while Instant::now() < until && !self.threads.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
        self.counts()
    }
}

fn client(proxy: SocketAddr, client: u64, shared: &Shared) {
    let mut stream = None;
    for number in 0_u64.. {
        let begun = Instant::now();
        let target = format!("/{client}/{number}");
        let result = exchange(&mut stream, proxy, &target);
        // What ends while everything is ended is no error.
        if shared.stopping.load(Ordering::Relaxed) && result.is_err() {
            return;
        }
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.slowest.fetch_max(took, Ordering::Relaxed);
        if let Err(error) = result {
            stream = None;
            shared.errors.fetch_add(1, Ordering::Relaxed);
            let mut shown = shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.len() < SHOWN {
                shown.push(format!("GET {target}: {error}"));
            }
            drop(shown);
            thread::sleep(PAUSE);
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Sends a GET and checks that the answer is a good one, and the one to this request.
fn exchange(kept: &mut Option<TcpStream>, proxy: SocketAddr, target: &str) -> io::Result<()> {
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(proxy)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            kept.insert(stream)
        }
    };
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {proxy}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..count]);
        match check(&answer, target) {
            Ok(true) => return Ok(()),
            Ok(false) if count == 0 || answer.len() > MAX_ANSWER => {
                return Err(io::Error::other(format!("{} bytes and the end", answer.len())));
            }
            Ok(false) => {}
            Err(what) => return Err(io::Error::other(what)),
        }
    }
}

/// Whether the answer is whole, and the one that an application gives to this request.
fn check(answer: &[u8], target: &str) -> Result<bool, String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let size = match head.parse(answer) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(false),
        Err(error) => return Err(format!("no HTTP: {error}")),
    };
    let length =
        head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let length: usize = length.ok_or("an answer without a length")?;
    let body = &answer[size..];
    if body.len() < length {
        return Ok(false);
    }
    let body = String::from_utf8_lossy(body);
    match head.code {
        Some(200) if body.starts_with(&format!("{target} from ")) => Ok(true),
        status => Err(format!("{} {:?}", status.unwrap_or(0), body.trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_request_is_good() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n/1/2 from backend\n";
        for end in 0..answer.len() {
            assert_eq!(check(&answer[..end], "/1/2"), Ok(false), "{end}");
        }
        assert_eq!(check(answer, "/1/2"), Ok(true));
        let other = Err("200 \"/1/2 from backend\"".to_owned());
        assert_eq!(check(answer, "/1/20"), other);
        let refused = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nwhy\n";
        assert_eq!(check(refused, "/1/2"), Err("502 \"why\"".to_owned()));
    }
}
