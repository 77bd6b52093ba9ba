//! The application of a load. It knows every request by its id, and ends in good order or without.

use crate::common::{Process, let_pass};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many there are behind a proxy, each with its agent.
pub const MEMBERS: usize = 4;

/// How often a connection on which nothing comes looks whether its application is ending.
const TICK: Duration = Duration::from_millis(20);

/// How long one that has said its last word reads on (RFC 9112, 9.6). The agent closes at once when
/// it sees the FIN.
const LINGER: Duration = Duration::from_secs(2);

/// What has become of a POST at the applications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// How many times it has come.
    pub received: u32,
    /// How many times it was done.
    pub executed: u32,
}

/// What all applications have seen together.
#[derive(Default)]
pub struct Ledger {
    posts: Mutex<HashMap<String, Fate>>,
    served: [AtomicU64; MEMBERS],
}

impl Ledger {
    /// The POSTs by their ids.
    pub fn posts(&self) -> MutexGuard<'_, HashMap<String, Fate>> {
        self.posts.lock().expect("no thread died with it")
    }

    /// How many requests this member has answered.
    pub fn served(&self, member: usize) -> u64 {
        self.served[member].load(Ordering::SeqCst)
    }

    fn note(&self, request: &Request, what: impl FnOnce(&mut Fate)) {
        if request.is_post {
            what(self.posts().entry(request.id.clone()).or_default());
        }
    }
}

/// What an application is at.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Life {
    /// It serves.
    Serving,
    /// It finishes what it has in hand, says `Connection: close`, and reads what was on its way
    /// without doing it.
    Ending,
    /// It is gone, and so are its connections.
    Crashed,
}

struct Shared {
    member: usize,
    ledger: Arc<Ledger>,
    life: AtomicU8,
    /// The connection that the application makes to itself when it stops: the last that it accepts.
    last: Mutex<Option<SocketAddr>>,
    open: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

impl Shared {
    /// Ends the connections, and returns when all of them have ended.
    fn end(&self, life: Life) {
        self.life.store(life as u8, Ordering::SeqCst);
        let open = std::mem::take(&mut *self.open.lock().expect("lock"));
        for (stream, thread) in open {
            if life == Life::Crashed {
                let _ = stream.shutdown(Shutdown::Both);
            }
            // The clone would keep the connection open.
            drop(stream);
            let _ = thread.join();
        }
    }

    fn is(&self, life: Life) -> bool {
        self.life.load(Ordering::SeqCst) == life as u8
    }
}

/// A running application.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The listening socket once more, to shut it down.
    listening: TcpStream,
    thread: JoinHandle<()>,
}

impl Backend {
    /// Starts one as this member of the fleet.
    #[track_caller]
    pub fn start(address: SocketAddr, member: usize, ledger: &Arc<Ledger>) -> Backend {
        let listener = TcpListener::bind(address).expect("a port for the application");
        let address = listener.local_addr().expect("an address");
        let listening = OwnedFd::from(listener.try_clone().expect("a second handle")).into();
        let shared = Arc::new(Shared {
            member,
            ledger: Arc::clone(ledger),
            life: AtomicU8::new(Life::Serving as u8),
            last: Mutex::new(None),
            open: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                if *accepting.last.lock().expect("lock") == Some(from) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                let clone = stream.try_clone().expect("a second handle");
                let thread = std::thread::spawn(move || serve(stream, &shared));
                let mut open = accepting.open.lock().expect("lock");
                open.retain(|(_, thread)| !thread.is_finished());
                open.push((clone, thread));
            }
        });
        Backend { address, shared, listening, thread }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a server with manners does: no further connection, every request in hand is
    /// answered, and idle connections are closed. `dialler`, which alone connects to it, is stopped
    /// while the listener is closed: the kernel would reset what it has taken for the application
    /// by then.
    #[track_caller]
    pub fn stop(self, dialler: &Process) {
        dialler.freeze();
        let mut last = self.shared.last.lock().expect("lock");
        let own = TcpStream::connect(self.address).expect("it still listens");
        *last = Some(own.local_addr().expect("an address"));
        drop(last);
        let _ = self.thread.join();
        // The listener is gone, but a child that another test is just starting may hold it too.
        let _ = self.listening.shutdown(Shutdown::Both);
        dialler.thaw();
        self.shared.end(Life::Ending);
    }

    /// Ends it as a crash does: every connection is cut, whatever it is doing.
    pub fn crash(self) {
        // On Linux this ends the listening and wakes the thread that accepts.
        let _ = self.listening.shutdown(Shutdown::Both);
        let _ = self.thread.join();
        self.shared.end(Life::Crashed);
    }
}

/// A request as far as it matters here.
struct Request {
    is_post: bool,
    id: String,
    /// How long it takes, from the query.
    work: Duration,
}

/// What waiting for a request has come to.
enum Came {
    Request(Request),
    /// Nothing, and the application is ending.
    Nothing,
    /// The end of the connection.
    End,
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(TICK));
    let _ = stream.set_nodelay(true);
    let mut held = Vec::new();
    loop {
        let request = match next(&mut stream, &mut held, || !shared.is(Life::Serving)) {
            Came::Request(request) => request,
            Came::Nothing => break,
            Came::End => return,
        };
        shared.ledger.note(&request, |fate| fate.received += 1);
        let_pass(request.work);
        if shared.is(Life::Crashed) {
            return;
        }
        shared.ledger.note(&request, |fate| fate.executed += 1);
        let ending = shared.is(Life::Ending);
        if stream.write_all(answer(&request, ending).as_bytes()).is_err() {
            return;
        }
        shared.ledger.served[shared.member].fetch_add(1, Ordering::SeqCst);
        if ending {
            break;
        }
    }
    // What comes now was sent before the FIN was seen: it is not done, and its sender cannot know
    // that.
    let _ = stream.shutdown(Shutdown::Write);
    let until = Instant::now() + LINGER;
    while let Came::Request(request) = next(&mut stream, &mut held, || Instant::now() > until) {
        shared.ledger.note(&request, |fate| fate.received += 1);
    }
}

fn answer(request: &Request, ending: bool) -> String {
    let Request { id, .. } = request;
    let close = if ending { "Connection: close\r\n" } else { "" };
    let length = id.len();
    format!("HTTP/1.1 200 OK\r\n{close}X-Id: {id}\r\nContent-Length: {length}\r\n\r\n{id}")
}

/// Waits for the next request, or until `give_up` says so between two of them.
fn next(stream: &mut TcpStream, held: &mut Vec<u8>, give_up: impl Fn() -> bool) -> Came {
    let mut scratch = [0; 4096];
    loop {
        if let Some(request) = take(held) {
            return Came::Request(request);
        }
        match stream.read(&mut scratch) {
            Ok(0) => return Came::End,
            Ok(count) => held.extend_from_slice(&scratch[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if held.is_empty() && give_up() {
                    return Came::Nothing;
                }
            }
            Err(_) => return Came::End,
        }
    }
}

/// Takes the request at the front, if all of it is there.
fn take(held: &mut Vec<u8>) -> Option<Request> {
    let end = held.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = field("Content-Length: ").map_or(0, |length| length.parse().expect("digits"));
    if held.len() < end + length {
        return None;
    }
    let id = field("X-Id: ").expect("every request has its id").to_owned();
    let is_post = head.starts_with("POST ");
    if is_post {
        assert_eq!(&held[end..end + length], id.as_bytes(), "the body of another request");
    }
    held.drain(..end + length);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let work = target.split_once('?').map_or(0, |(_, ms)| ms.parse().expect("milliseconds"));
    Some(Request { is_post, id, work: Duration::from_millis(work) })
}
