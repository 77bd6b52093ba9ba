//! An application of the test's: one thread for each connection, and an answer that the test makes.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
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

/// An address of this machine's own network that no other test uses, nor another run of the tests
/// at the same time. The kernel gives no port there to a connection that is dialled (that one comes
/// from 127.0.0.1), so a port that a test has had stays free until it takes it again.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let run = std::process::id();
    let [high, low] = [1 + run / 250 % 250, 1 + run % 250].map(|part| part as u8);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(number < u8::MAX, "more addresses than there are");
    IpAddr::from([127, high, low, number])
}

/// An address where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

struct Shared {
    answer: Box<Answer>,
    over: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

/// A running application. Dropped, it is gone at once, and its connections with it.
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

    /// Starts one here.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> App {
        let listener = TcpListener::bind(address).expect("a port for the application");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
        });
        let listening = OwnedFd::from(listener.try_clone().expect("a second handle")).into();
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let clone = stream.try_clone().expect("a second handle");
                accepting.open.lock().expect("lock").push(clone);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    serve(&stream, &shared);
                    // The other handle would keep it open.
                    let _ = stream.shutdown(Shutdown::Both);
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
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection that is open now, whatever it is doing.
    pub fn close_connections(&self) {
        for stream in self.shared.open.lock().expect("lock").drain(..) {
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
    let shared = Arc::new(Shared {
        answer: Box::new(answer),
        over: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        open: Mutex::new(Vec::new()),
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve(&stream, &shared));
        }
    });
}

/// Answers request after request.
fn serve(mut stream: impl Read + Write, shared: &Shared) {
    let mut held = Vec::new();
    let mut connection = 0;
    while let Some((head, body)) = read_request(&mut stream, &mut held) {
        if connection == 0 {
            connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        }
        let answer = (shared.answer)(&Seen { head, body, connection });
        let closes = answer.is_empty() || contains(&answer, b"Connection: close");
        if stream.write_all(&answer).is_err() || closes {
            return;
        }
    }
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
