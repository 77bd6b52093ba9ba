//! An application of the test's: one thread for each connection, and an answer that the test makes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A request as the application sees it.
#[derive(Debug)]
pub struct Seen {
    /// Its head, with the empty line.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
    /// Which of the application's connections it came over, counted from 1.
    pub connection: usize,
}

/// What the application answers, as literal bytes; it closes after an answer that says `Connection:
/// close`, and without one if there are none.
pub type Answer = dyn Fn(&Seen) -> Vec<u8> + Send + Sync;

/// A 200 with this body.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// What an [`App`] does after each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It keeps the connection.
    Keep,
    /// It says `Connection: close` and closes.
    Close,
}

struct Shared {
    answer: Box<Answer>,
    over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    /// While this is locked by the test, no request is answered.
    hold: Mutex<()>,
    accepted: AtomicUsize,
    used: AtomicUsize,
    served: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicUsize,
    most: AtomicUsize,
}

impl Shared {
    fn new(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Arc<Shared> {
        Arc::new(Shared {
            answer: Box::new(answer),
            over: AtomicBool::default(),
            streams: Mutex::default(),
            hold: Mutex::default(),
            accepted: AtomicUsize::default(),
            used: AtomicUsize::default(),
            served: AtomicUsize::default(),
            open: AtomicUsize::default(),
            ended: AtomicUsize::default(),
            most: AtomicUsize::default(),
        })
    }

    /// Serves a connection.
    fn connection(&self, stream: impl Read + Write) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        if !self.serve(stream) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Answers request after request. Tells whether the connection is no longer among the open
    /// ones.
    fn serve(&self, mut stream: impl Read + Write) -> bool {
        let mut held = Vec::new();
        let mut connection = 0;
        while let Some((head, body)) = read_request(&mut stream, &mut held) {
            if connection == 0 {
                connection = self.used.fetch_add(1, Ordering::SeqCst) + 1;
            }
            drop(self.hold.lock().unwrap_or_else(PoisonError::into_inner));
            let answer = (self.answer)(&Seen { head, body, connection });
            self.served.fetch_add(1, Ordering::SeqCst);
            let closes = answer.is_empty() || contains(&answer, b"Connection: close");
            if closes {
                // Counted before it is told: another connection may come as soon as that is heard.
                self.open.fetch_sub(1, Ordering::SeqCst);
            }
            if stream.write_all(&answer).is_err() || closes {
                return closes;
            }
        }
        false
    }
}

/// A running application, or a server that the proxy dials. Dropped, it is gone at once, and its
/// connections with it.
pub struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The listening socket once more, to shut it down.
    listening: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl App {
    /// Starts one on a free port.
    pub fn start(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> App {
        App::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts one that answers every request with its name.
    pub fn named(name: &'static str, after: After) -> App {
        match after {
            After::Keep => App::start(move |_| ok(name)),
            After::Close => App::start(move |_| {
                let length = name.len();
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{name}"
                )
                .into_bytes()
            }),
        }
    }

    /// Starts one that holds requests at a gate, if their path begins like this, and answers them
    /// with `answer`. Others are answered `served`.
    pub fn gated(path: &'static str, answer: &'static str) -> (App, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let app = App::start(move |seen| {
            let asked = seen.head.split(' ').nth(1);
            if asked.is_some_and(|asked| asked.starts_with(path)) {
                held.pass();
                return ok(answer);
            }
            ok("served")
        });
        (app, gate)
    }

    /// Starts one here.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> App {
        let listener = TcpListener::bind(address).expect("a port for the application");
        let address = listener.local_addr().expect("an address");
        let shared = Shared::new(answer);
        let listening = OwnedFd::from(listener.try_clone().expect("a second handle")).into();
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let clone = stream.try_clone().expect("a second handle");
                accepting.streams.lock().expect("lock").push(clone);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    shared.connection(&stream);
                    // The other handle would keep it open.
                    let _ = stream.shutdown(Shutdown::Both);
                    shared.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        App { address, shared, listening, thread: Some(thread) }
    }

    /// Where it listens, as the agent's `--to`.
    pub fn to(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many of its connections have carried a request.
    pub fn connections(&self) -> usize {
        self.shared.used.load(Ordering::SeqCst)
    }

    /// Connections that it has accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Requests that it has answered.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Whether every connection that it has accepted is closed, and nothing more comes over it. One
    /// that is no longer [`open`](App::open) may have its answer still before it.
    pub fn has_ended_all(&self) -> bool {
        let ended = self.shared.ended.load(Ordering::SeqCst);
        ended == self.accepted()
    }

    /// The most connections that were ever open at once.
    pub fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// Keeps requests from being answered until what this returns is dropped.
    pub fn hold(&self) -> impl Drop + '_ {
        self.shared.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every connection that is open now, whatever it is doing.
    pub fn close_connections(&self) {
        for stream in self.shared.streams.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // To close it would not be enough: a child that another test is just starting may hold it
        // for a moment longer. On Linux this ends the listening, and wakes the thread that accepts.
        let _ = self.listening.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.close_connections();
    }
}

/// Serves one application on a Unix socket until the test's process ends.
pub fn serve_unix(path: &Path, answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).expect("a socket for the application");
    let shared = Shared::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.connection(&stream));
        }
    });
}

fn read_request(stream: &mut impl Read, held: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut scratch = [0; 4096];
    loop {
        if let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&held[..end + 4]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |length| length.parse::<usize>().expect("digits"));
            if held.len() >= end + 4 + length {
                let body = held[end + 4..end + 4 + length].to_vec();
                held.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return None,
            Ok(count) => held.extend_from_slice(&scratch[..count]),
        }
    }
}

fn contains(bytes: &[u8], sought: &[u8]) -> bool {
    bytes.windows(sought.len()).any(|window| window == sought)
}

/// Lets requests through as the test says, and counts those inside.
#[derive(Default)]
pub struct Gate {
    state: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Default)]
struct Inside {
    now: usize,
    most: usize,
    permits: usize,
}

impl Gate {
    /// Waits inside until the test lets one out.
    pub fn pass(&self) {
        let mut state = self.state.lock().expect("lock");
        state.now += 1;
        state.most = state.most.max(state.now);
        while state.permits == 0 {
            state = self.changed.wait(state).expect("lock");
        }
        state.permits -= 1;
        state.now -= 1;
    }

    /// Lets so many out.
    pub fn let_out(&self, count: usize) {
        self.state.lock().expect("lock").permits += count;
        self.changed.notify_all();
    }

    /// How many are inside now.
    pub fn inside(&self) -> usize {
        self.state.lock().expect("lock").now
    }

    /// The most that have been inside together.
    pub fn most(&self) -> usize {
        self.state.lock().expect("lock").most
    }
}
