//! A server that the proxy dials: it listens, and speaks HTTP/1.1 on what it accepts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a [`Server`] does after each response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It keeps the connection.
    Keep,
    /// It says `Connection: close` and closes.
    Close,
}

/// A server with a thread for each connection. It answers every request with its name.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    counts: Arc<Counts>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    served: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    stopped: AtomicBool,
    /// While this is locked by the test, no request is answered.
    gate: Mutex<()>,
    streams: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Starts one on a free port.
    #[track_caller]
    pub fn start(name: &str, after: After) -> Server {
        Server::start_at("127.0.0.1:0".parse().expect("an address"), name, after)
    }

    /// Starts one at this address, which may just have been another's.
    #[track_caller]
    pub fn start_at(address: SocketAddr, name: &str, after: After) -> Server {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("its address");
        let counts = Arc::new(Counts::default());
        let (name, shared) = (name.to_owned(), Arc::clone(&counts));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (name, shared) = (name.clone(), Arc::clone(&shared));
                shared.streams.lock().expect("lock").push(stream.try_clone().expect("dup"));
                shared.enter();
                std::thread::spawn(move || {
                    let writer = stream.try_clone().expect("dup");
                    serve(BufReader::new(stream), writer, &name, after, &shared);
                });
            }
        });
        Server { address, counts, acceptor: Some(acceptor) }
    }

    /// Starts one on a Unix socket, for as long as the test runs.
    pub fn start_unix(path: &Path, name: &str) {
        let listener = UnixListener::bind(path).expect("a socket");
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, counts) = (name.clone(), Counts::default());
                std::thread::spawn(move || {
                    let writer = stream.try_clone().expect("dup");
                    serve(BufReader::new(stream), writer, &name, After::Keep, &counts);
                });
            }
        });
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has accepted.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Requests that it has answered.
    pub fn served(&self) -> usize {
        self.counts.served.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// The most connections that were ever open at once.
    pub fn most(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// Keeps requests from being answered until what this returns is dropped.
    pub fn hold(&self) -> impl Drop + '_ {
        self.counts.gate.lock().expect("lock")
    }

    /// Stops listening, and cuts every connection, as a killed process does.
    pub fn kill(mut self) -> SocketAddr {
        self.stop();
        self.address
    }

    fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.counts.stopped.store(true, Ordering::SeqCst);
        // The acceptor sees it when it has accepted once more.
        let _ = TcpStream::connect(self.address);
        let _ = acceptor.join();
        for stream in self.counts.streams.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Counts {
    fn enter(&self) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
    }
}

fn serve(
    mut from: BufReader<impl Read>,
    mut to: impl Write,
    name: &str,
    after: After,
    counts: &Counts,
) {
    let close = if after == After::Close { "Connection: close\r\n" } else { "" };
    while let Some(length) = read_head(&mut from) {
        let mut body = vec![0; length];
        if from.read_exact(&mut body).is_err() {
            break;
        }
        drop(counts.gate.lock().expect("lock"));
        counts.served.fetch_add(1, Ordering::SeqCst);
        if after == After::Close {
            // Counted before it is said: the proxy may dial again as soon as it has heard it.
            counts.open.fetch_sub(1, Ordering::SeqCst);
        }
        let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", name.len());
        if to.write_all((head + name).as_bytes()).is_err() {
            break;
        }
        if after == After::Close {
            return;
        }
    }
    counts.open.fetch_sub(1, Ordering::SeqCst);
}

/// Reads a head, and says how long its body is; `None` at the end.
fn read_head(from: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Some(length);
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}
