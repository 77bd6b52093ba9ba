//! Once it is warm, a worker allocates nothing: not for a request, not for a body, not for a wait.
//!
//! The workers run in this process, under an allocator that counts what threads named `worker N`
//! ask it for. Clients and bridges are plain sockets on other threads.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use cloudbridge::config::{Address, Listen, Serves, Settings, Source};
use cloudbridge::proxy::Config;
use cloudbridge::proxy::start::Proxy;

/// Nothing here takes longer unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a move between workers may cost: the box that carries the bridge. Saving it would need a
/// pool shared by two workers, and moves are rare or slow anyway: each is several system calls.
const ALLOCATIONS_PER_MOVE: u64 = 1;

/// Tables of the moves that the crowd may have left smaller than they come to be: mailboxes, which
/// double, and the memory of a route on which a worker asks another for the first time.
const GROWTHS: u64 = 16;

const OFFER: &str = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const UPGRADE: &str = "HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";
const GET: &str = "GET /some/page?q=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: test\r\n\r\n";
const POST: &str = "POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nhello=world";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ndone";
const ASK_STATE: &str = "GET /state.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

// ---- counting ----

/// Allocations by workers since [`Counting::begin`].
static COUNT: AtomicU64 = AtomicU64::new(0);
static ARMED: AtomicBool = AtomicBool::new(false);
/// Where they were made: the first of each size, a few in all.
static TRACES: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
const TRACES_KEPT: usize = 6;

thread_local! {
    /// Making a backtrace allocates; that is not to be counted.
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note("allocates", layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note("allocates", layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note("grows to", size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

fn note(what: &str, size: usize) {
    if !ARMED.load(SeqCst) || TRACING.get() || !is_worker() {
        return;
    }
    COUNT.fetch_add(1, SeqCst);
    TRACING.set(true);
    let mut traces = TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    if traces.len() < TRACES_KEPT && traces.iter().all(|trace| trace.0 != size) {
        traces.push((size, format!("{what} {size} bytes:\n{}", Backtrace::force_capture())));
    }
    drop(traces);
    TRACING.set(false);
}

/// Whether this thread is one of the proxy's. Asked of the kernel, because `std::thread::current`
/// may allocate.
fn is_worker() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the last of them 0, to its argument (prctl(2)).
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"worker ")
}

/// How many allocations the workers make while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    COUNT.store(0, SeqCst);
    ARMED.store(true, SeqCst);
    work();
    ARMED.store(false, SeqCst);
    COUNT.load(SeqCst)
}

#[track_caller]
fn check(count: u64, bound: u64, what: &str) {
    let traces = TRACES.lock().unwrap_or_else(PoisonError::into_inner);
    let traces: Vec<&str> = traces.iter().map(|trace| trace.1.as_str()).collect();
    let traces = traces.join("\n");
    assert!(count <= bound, "{what}: {count} allocations, at most {bound} expected:\n{traces}");
}

// ---- the proxy ----

/// The counter and the log belong to one proxy at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where the proxy listens, as its log says.
static LISTENING: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

struct Ears;

impl log::Log for Ears {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let address = text.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next());
        if let Some(address) = address.and_then(|address| address.parse().ok()) {
            LISTENING.lock().unwrap().push(address);
        }
    }

    fn flush(&self) {}
}

fn listen(serves: Serves) -> Listen {
    let address = Address::parse("127.0.0.1:0").unwrap();
    Listen { address, serves, mode: None, accept_proxy: None, tls: None, redirect_https: None }
}

/// A proxy in this process, ended with the test.
struct Running {
    proxy: Option<Proxy>,
    address: SocketAddr,
    admin: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

impl Running {
    fn start(workers: usize) -> Running {
        static EARS: OnceLock<()> = OnceLock::new();
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        EARS.get_or_init(|| log::set_logger(&Ears).unwrap());
        log::set_max_level(log::LevelFilter::Info);
        let settings = Settings {
            listen: [Serves::Both, Serves::Admin].map(listen).to_vec(),
            workers,
            ..Settings::default()
        };
        let config = Config::without_files(settings);
        let proxy = Proxy::start(config, &Source::default(), |_| {}, None, Vec::new()).unwrap();
        let addresses = std::mem::take(&mut *LISTENING.lock().unwrap());
        let [address, admin] = addresses[..] else { panic!("{addresses:?}") };
        log::set_max_level(log::LevelFilter::Error);
        Running { proxy: Some(proxy), address, admin, _alone: alone }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Bridges that have been let in, each served by a thread of its own until the proxy leaves.
    fn add_bridges(&self, count: usize) {
        for _ in 0..count {
            let mut bridge = self.connect();
            bridge.write_all(OFFER.as_bytes()).unwrap();
            expect(&mut bridge, CONTINUE);
            thread::spawn(move || serve(bridge));
        }
    }

    /// How many bridges have moved between workers since the start.
    fn moves(&self) -> u64 {
        let mut asking = TcpStream::connect(self.admin).unwrap();
        asking.set_read_timeout(Some(DEADLINE)).unwrap();
        asking.write_all(ASK_STATE.as_bytes()).unwrap();
        let mut text = String::new();
        asking.read_to_string(&mut text).unwrap();
        let (_, rest) = text.split_once("\"moves\":").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.handle.drain();
            proxy.workers.into_iter().for_each(|worker| worker.join().unwrap());
        }
    }
}

#[track_caller]
fn expect(stream: &mut TcpStream, text: &str) {
    let mut got = [0; 128];
    let got = &mut got[..text.len()];
    stream.read_exact(got).unwrap();
    assert_eq!(str::from_utf8(got), Ok(text));
}

/// The life of a bridge that has been let in: it answers every request with [`ANSWER`].
fn serve(mut bridge: TcpStream) {
    let mut came = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match bridge.read(&mut piece) {
            Ok(count) if count > 0 => came.extend_from_slice(&piece[..count]),
            _ => return,
        }
        while let Some(end) = message_end(&came) {
            let ping = came[..end] == *CONTINUE.as_bytes();
            let upgrade = came[..end] == *UPGRADE.as_bytes();
            let reply = if upgrade { CONTINUE } else { ANSWER };
            came.drain(..end);
            if !ping && bridge.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Where the first message of `bytes` ends, if all of it is there. A body is that of [`POST`].
fn message_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let body = if bytes.starts_with(b"POST") { "hello=world".len() } else { 0 };
    (bytes.len() >= head + body).then_some(head + body)
}

/// Has every client send one request and read its answer, `rounds` times; the two requests take
/// turns.
fn drive(clients: &mut [TcpStream], requests: [&str; 2], rounds: usize) {
    for round in 0..rounds {
        for (index, client) in clients.iter_mut().enumerate() {
            client.write_all(requests[(round + index) % 2].as_bytes()).unwrap();
        }
        for client in clients.iter_mut() {
            expect(client, ANSWER);
        }
    }
}

/// Clients that warm the proxy: so many more than are measured that no table meets a peak later
/// that it has not met by then. They send the longer request alone, so that every piece of storage
/// has room for either.
const CROWD: usize = 256;
const CROWD_ROUNDS: usize = 10;

/// Closing warms tables too, on whichever worker the kernel gives a connection to. So many
/// connections that one of two workers misses all of them once in 65,536 runs.
const CLOSED: usize = 17;

const REQUESTS: usize = 10_000;

/// Allocations and moves while clients of a warm proxy have [`REQUESTS`] answered.
fn measure(workers: usize, clients: usize, bridges: usize) -> (u64, u64) {
    let running = Running::start(workers);
    running.add_bridges(bridges);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| running.connect()).collect();
    drive(&mut crowd, [POST, POST], CROWD_ROUNDS);
    drop(crowd);
    let mut clients: Vec<_> = (0..clients).map(|_| running.connect()).collect();
    drive(&mut clients, [GET, POST], 100);
    let before = (0..CLOSED).map(|_| running.moves()).last().unwrap_or_default();
    let rounds = REQUESTS.div_ceil(clients.len());
    let count = allocations(|| drive(&mut clients, [GET, POST], rounds));
    (count, running.moves() - before)
}

#[test]
fn requests_that_find_a_bridge_allocate_nothing() {
    let (count, moves) = measure(2, 4, 12);
    assert_eq!(moves, 0, "every worker has bridges enough");
    check(count, 0, "matched at once");
}

#[test]
fn requests_that_wait_allocate_nothing() {
    let (count, _) = measure(1, 16, 3);
    check(count, 0, "waiting, one worker");
}

#[test]
fn only_moves_between_workers_allocate() {
    let (count, moves) = measure(2, 16, 3);
    check(count, moves * ALLOCATIONS_PER_MOVE + GROWTHS, "waiting, two workers");
}
