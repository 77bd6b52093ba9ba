//! [`AsyncBridgeListener`]: bridges for servers on tokio, such as hyper and axum.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc as queue;

use super::sockets::Socket;
use super::{BridgeListener, BridgeStream, Builder, Places, Refused};

/// The pause after a refusal: an operator has to fix the key.
const REFUSED: Duration = Duration::from_secs(30);

/// The pause after "too many bridges", unless the proxy names one, and the longest that it may
/// name.
const FULL: Duration = Duration::from_secs(5);
const LONGEST_FULL: Duration = Duration::from_secs(60);

/// What the threads need, which only wait: far less than the default.
const STACK: usize = 256 * 1024;

/// Listens for requests at a proxy, under tokio (feature `tokio`). With the feature `axum`,
/// `axum::serve` takes it in place of a `TcpListener`.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn example() -> std::io::Result<()> {
/// use cloudbridge::client::{AsyncBridgeListener, BridgeListener};
/// use std::time::Duration;
///
/// let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello\n" }));
/// let listener = BridgeListener::builder("proxy.example.com:8079").host("app.example.com").build()?;
/// let bridges = AsyncBridgeListener::new(listener, 16)?;
/// let leave = bridges.leave(Duration::from_secs(30));
/// axum::serve(bridges, app)
///     .with_graceful_shutdown(async {
///         tokio::signal::ctrl_c().await.expect("a signal handler");
///         // Requests in flight and those that still come are served meanwhile.
///         leave.await;
///     })
///     .await
/// # }
/// ```
///
/// Servers must not close a connection between two requests, for one may be on its way: hyper and
/// axum keep them open until the proxy closes them.
#[derive(Debug)]
pub struct AsyncBridgeListener {
    listeners: Vec<BridgeListener>,
    accepted: queue::UnboundedReceiver<(BridgeStream, Slot)>,
    holders: Arc<Holders>,
}

/// An accepted bridge: its next bytes are a request. When it is dropped another takes its place, so
/// one that has become a tunnel is counted until it ends.
#[derive(Debug)]
pub struct Bridge {
    socket: Socket,
    _slot: Slot,
}

/// Wakes the thread that waits for the end of its bridge, by being dropped.
#[derive(Debug)]
struct Slot {
    _open: mpsc::Sender<()>,
}

/// The threads that hold a bridge each.
#[derive(Debug, Default)]
struct Holders {
    count: Mutex<usize>,
    changed: Condvar,
    /// The last refusal: it is logged once, and not by each thread.
    refusal: Mutex<String>,
}

impl AsyncBridgeListener {
    /// Keeps `connections` bridges at the proxy of `listener`: the number of requests from it that
    /// are served at once. Each waits in a thread of its own with a small stack. Refusals are
    /// logged, and asked again.
    ///
    /// # Errors
    ///
    /// `InvalidInput` without connections; the system has no more threads.
    pub fn new(listener: BridgeListener, connections: usize) -> io::Result<AsyncBridgeListener> {
        AsyncBridgeListener::of(vec![listener], connections)
    }

    /// Serves so many requests at once, from several proxies, each with a builder of its own. At each
    /// it keeps `connections` bridges, in as many threads, and all of them share that number of
    /// [`Places`].
    ///
    /// ```no_run
    /// # use cloudbridge::client::{AsyncBridgeListener, BridgeListener};
    /// # fn example() -> std::io::Result<AsyncBridgeListener> {
    /// let proxies = ["a.example.com:8079", "b.example.com:8079"];
    /// let builders = proxies.map(|proxy| BridgeListener::builder(proxy).host("app.example.com"));
    /// AsyncBridgeListener::several(builders, 16)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput` without proxies or connections, and as [`Builder::build`]; the system has no more
    /// threads.
    pub fn several(
        proxies: impl IntoIterator<Item = Builder>,
        connections: usize,
    ) -> io::Result<AsyncBridgeListener> {
        let mut builders: Vec<Builder> = proxies.into_iter().collect();
        if builders.len() > 1 {
            let places = Places::new(connections);
            builders = builders.into_iter().map(|builder| builder.places(&places)).collect();
        }
        let listeners: io::Result<_> = builders.into_iter().map(Builder::build).collect();
        AsyncBridgeListener::of(listeners?, connections)
    }

    fn of(listeners: Vec<BridgeListener>, connections: usize) -> io::Result<AsyncBridgeListener> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if connections == 0 {
            return invalid("no connections");
        }
        if listeners.is_empty() {
            return invalid("no proxies");
        }
        let (matched, accepted) = queue::unbounded_channel();
        let holders = Arc::new(Holders::default());
        for listener in listeners.iter().flat_map(|one| std::iter::repeat_n(one, connections)) {
            *holders.lock() += 1;
            let holder = Holder { listener: listener.clone(), holders: Arc::clone(&holders) };
            let matched = matched.clone();
            let thread = thread::Builder::new().name("bridge".to_owned()).stack_size(STACK);
            thread
                .spawn(move || holder.run(&matched))
                .inspect_err(|_| listeners.iter().for_each(shut_down))?;
        }
        Ok(AsyncBridgeListener { listeners, accepted, holders })
    }

    /// Waits for a request and returns the connection that it comes over. Cancelling it loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// `NotConnected` after [`leave`](AsyncBridgeListener::leave); the runtime cannot watch one
    /// more socket.
    pub async fn accept(&mut self) -> io::Result<Bridge> {
        let ended =
            || io::Error::new(io::ErrorKind::NotConnected, "the listener has been shut down");
        let (stream, slot) = self.accepted.recv().await.ok_or_else(ended)?;
        Ok(Bridge { socket: Socket::new(stream)?, _slot: slot })
    }

    /// A future that ends the listener without losing a request, as [`BridgeListener::shutdown`]
    /// does, and then waits until the proxies have closed the accepted bridges too, until `grace` is
    /// over. A proxy that does not answer may take some seconds more. Meanwhile the server must go on accepting and serving. Nothing happens before
    /// it is awaited; awaited in any task of the runtime.
    pub fn leave(&self, grace: Duration) -> impl Future<Output = ()> + Send + 'static {
        let (listeners, holders) = (self.listeners.clone(), Arc::clone(&self.holders));
        async move {
            let waiting = tokio::task::spawn_blocking(move || {
                let until = Instant::now() + grace;
                thread::scope(|scope| {
                    for listener in &listeners {
                        scope.spawn(|| {
                            if let Err(error) = listener.shutdown() {
                                log::warn!(
                                    "bridges are closed without the proxy's consent: {error}"
                                );
                            }
                        });
                    }
                });
                let grace = until.saturating_duration_since(Instant::now());
                let some = |count: &mut usize| *count > 0;
                let (left, _) = holders
                    .changed
                    .wait_timeout_while(holders.lock(), grace, some)
                    .unwrap_or_else(PoisonError::into_inner);
                if *left > 0 {
                    log::warn!("grace period over: {} bridges are cut", *left);
                }
            });
            // It does not panic, and is not cancelled.
            let _ = waiting.await;
        }
    }
}

/// What is dropped serves nothing more, so no proxy may match a request with its bridges.
impl Drop for AsyncBridgeListener {
    fn drop(&mut self) {
        self.listeners.iter().filter(|listener| !listener.is_shut_down()).for_each(shut_down);
    }
}

/// Ends a listener, in a thread of its own: the proxies take part.
fn shut_down(listener: &BridgeListener) {
    let listener = listener.clone();
    let end = move || {
        if let Err(error) = listener.shutdown() {
            log::debug!("bridges are closed without the proxy's consent: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("shutdown".to_owned()).spawn(end) {
        log::warn!("bridges stay until the program ends: {error}");
    }
}

impl Holders {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread: passes one bridge after another to the server.
struct Holder {
    listener: BridgeListener,
    holders: Arc<Holders>,
}

impl Holder {
    fn run(self, matched: &queue::UnboundedSender<(BridgeStream, Slot)>) {
        for bridge in self.listener.incoming() {
            match bridge {
                Ok(stream) => {
                    self.said(String::new());
                    let (open, closed) = mpsc::channel();
                    if matched.send((stream, Slot { _open: open })).is_err() {
                        return;
                    }
                    // An error, when the bridge is dropped.
                    let _ = closed.recv();
                }
                Err(error) => {
                    let pause = match Refused::of(&error) {
                        Some(refused) if refused.status == 503 => {
                            refused.retry_after.unwrap_or(FULL).min(LONGEST_FULL)
                        }
                        _ => REFUSED,
                    };
                    self.said(format!("{error}; asking again every {} s", pause.as_secs()));
                    self.listener.shared.parked.sleep(pause);
                }
            }
        }
    }

    /// Logs a refusal, unless the last was the same.
    fn said(&self, refusal: String) {
        let mut last = self.holders.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != refusal {
            if !refusal.is_empty() {
                log::warn!("{refusal}");
            }
            *last = refusal;
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        *self.holders.lock() -= 1;
        self.holders.changed.notify_all();
    }
}

impl Bridge {
    /// The proxy's address.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }
}

impl AsyncRead for Bridge {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Bridge {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for AsyncBridgeListener {
    type Io = Bridge;
    /// The proxy's; the client's is in `X-Forwarded-For`.
    type Addr = Option<SocketAddr>;

    async fn accept(&mut self) -> (Bridge, Self::Addr) {
        loop {
            match AsyncBridgeListener::accept(self).await {
                Ok(bridge) => {
                    let address = bridge.peer_addr().ok();
                    return (bridge, address);
                }
                // The server ends when its own signal comes.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    std::future::pending().await
                }
                Err(error) => log::warn!("a bridge is lost: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(None)
    }
}
