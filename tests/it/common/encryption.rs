//! The same tests over TLS: with [`VARIABLE`] set, the listeners of every proxy speak TLS, and so do
//! the clients, backends and agents of the tests. `tests/over-tls/run` does that.
//!
//! A listener says in the log that it speaks TLS. All that connect to its address do, too.

use super::{DEADLINE, Ending, logged};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What in the environment has all tests use TLS.
const VARIABLE: &str = "TESTS_OVER_TLS";

/// The certificate of the proxies, which is for this name.
const SERVER_NAME: &str = "proxy.test";

/// The certificate, the key that goes with it, and who has issued it.
const CERTIFICATE: &str = include_str!("../../certificates/proxy.pem");
const KEY: &str = include_str!("../../certificates/proxy.key");
const ISSUER: &str = include_str!("../../certificates/issuer.pem");

/// The issuer's certificate as a file.
const ISSUER_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/issuer.pem");

/// Bytes asked of the kernel per read.
const READ_SIZE: usize = 64 * 1024;

/// Tickets that a server of TLS 1.3 sends after its handshake. They are awaited: a client that
/// closes before they have come would reset its connection.
const TICKETS: u32 = 2;

/// Whether the tests use TLS.
pub fn over_tls() -> bool {
    static IS_SET: LazyLock<bool> = LazyLock::new(|| std::env::var_os(VARIABLE).is_some());
    *IS_SET
}

/// The addresses of listeners that speak TLS, each with the process whose log says so.
static ENCRYPTED: LazyLock<Mutex<HashMap<SocketAddr, u32>>> = LazyLock::new(Mutex::default);

fn encrypted_listeners() -> MutexGuard<'static, HashMap<SocketAddr, u32>> {
    ENCRYPTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what a line of this process's log says of a listener.
pub(super) fn note(line: &str, process: u32) {
    if let Some((address, kinds)) = super::proxy::listener(line) {
        match kinds.contains("by TLS") {
            true => encrypted_listeners().insert(address, process),
            false => encrypted_listeners().remove(&address),
        };
    } else if let Some((_, address)) = line.split_once(logged::NOT_LISTENING)
        && let Ok(address) = address.parse()
    {
        encrypted_listeners().remove(&address);
    }
}

/// Somebody listens here without TLS, where a proxy that spoke it may have listened before.
pub(super) fn note_plain(address: SocketAddr) {
    encrypted_listeners().remove(&address);
}

/// A process is about to end, or has ended. The kernel may give its ports to others, whose logs
/// nobody notes; but not at an address that one test has for itself, where the next program listens.
pub(super) fn forget(process: u32) {
    let is_shared = |address: &SocketAddr| {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&address.ip())
    };
    encrypted_listeners().retain(|address, of| *of != process || !is_shared(address));
}

/// Whether the listener at this address speaks TLS.
fn is_encrypted(address: SocketAddr) -> bool {
    encrypted_listeners().contains_key(&address)
}

/// The files that the settings need which [`encrypted`] returns.
pub(super) fn files() -> [(&'static str, &'static str); 2] {
    [("tls.pem", CERTIFICATE), ("tls.key", KEY)]
}

/// These settings, with TLS on every listener of clients and bridges. Their directory is `dir`.
pub(super) fn encrypted(settings: &str, dir: &str) -> String {
    let mut text = String::new();
    for line in settings.lines() {
        text.push_str(line);
        let is_plain = !["unix:", "systemd:", " admin", " tls="].iter().any(|w| line.contains(w));
        if line.starts_with("listen ") && is_plain {
            text.push_str(&format!(" tls={dir}/tls.pem,{dir}/tls.key"));
        }
        text.push('\n');
    }
    text
}

/// These arguments of an agent, which dials its proxies by TLS if they speak it.
pub(super) fn agent_arguments(args: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    let mut is_changed = false;
    for (at, arg) in args.iter().enumerate() {
        let is_other = at > 0 && ["--to", "--healthz"].contains(&args[at - 1].as_str());
        let address = arg.parse().ok().filter(|_| !is_other);
        if address.is_some_and(is_encrypted) {
            is_changed = true;
            all.push(format!("tls://{arg}"));
        } else {
            all.push(arg.clone());
        }
    }
    if is_changed {
        let more = ["--ca", ISSUER_FILE, "--server-name", SERVER_NAME].map(str::to_owned);
        all.splice(0..0, more);
    }
    all
}

/// The client's part of TLS on one connection, which may have several handles.
pub(super) struct Encryption {
    state: Mutex<State>,
    /// Held while records are sent, so that they leave in order. Nobody who reads waits for it.
    sending: Mutex<()>,
}

struct State {
    session: ClientConnection,
    /// What has been decrypted and not read.
    plain: Vec<u8>,
    /// Records that the kernel has not taken.
    unsent: Vec<u8>,
    ended: Option<Ending>,
    is_open: bool,
}

/// What a read found.
pub(super) enum Found {
    Bytes(Vec<u8>),
    Ended(Ending),
    Nothing,
}

impl State {
    fn decrypt(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            self.session.read_tls(&mut records)?;
            let state = match self.session.process_new_packets() {
                Ok(state) => state,
                // The proxy has ended it, and says why.
                Err(rustls::Error::AlertReceived(_)) => {
                    self.ended = Some(Ending::Reset);
                    return Ok(());
                }
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
            };
            let count = state.plaintext_bytes_to_read();
            let before = self.plain.len();
            self.plain.resize(before + count, 0);
            self.session.reader().read_exact(&mut self.plain[before..])?;
            if state.peer_has_closed() {
                self.ended = Some(Ending::Closed);
            }
        }
        Ok(())
    }

    /// A read of the socket has ended like this.
    fn take(&mut self, outcome: io::Result<usize>, records: &[u8]) -> io::Result<()> {
        match outcome {
            // Without a close_notify before it.
            Ok(0) => self.ended = Some(self.ended.unwrap_or(Ending::Reset)),
            Ok(count) => self.decrypt(&records[..count])?,
            Err(error) if is_nothing(&error) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                self.ended = Some(Ending::Reset);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn records(&mut self) -> Vec<u8> {
        let mut records = std::mem::take(&mut self.unsent);
        while self.session.wants_write() {
            self.session.write_tls(&mut records).expect("a vector takes all");
        }
        records
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Encryption {
    /// For a connection to this address, if its listener speaks TLS.
    pub fn of(address: SocketAddr) -> Option<Encryption> {
        if !is_encrypted(address) {
            return None;
        }
        static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(config);
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let session = ClientConnection::new(Arc::clone(&CONFIG), name);
        let mut session = session.expect("settings of TLS");
        session.set_buffer_limit(None);
        let (plain, unsent) = (Vec::new(), Vec::new());
        let state = State { session, plain, unsent, ended: None, is_open: false };
        Some(Encryption { state: Mutex::new(state), sending: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the handshake, if it has not been made.
    fn open(&self, mut stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        if self.state().is_open {
            return Ok(());
        }
        let _sending = self.sending();
        let mut state = self.state();
        let until = Instant::now() + timeout;
        let mut bytes = vec![0; READ_SIZE];
        while !state.is_open {
            if state.ended.is_some() {
                return Err(ErrorKind::ConnectionReset.into());
            }
            let records = state.records();
            stream.write_all(&records)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let outcome = stream.read(&mut bytes);
            state.take(outcome, &bytes)?;
            let session = &state.session;
            state.is_open =
                !session.is_handshaking() && session.tls13_tickets_received() >= TICKETS;
        }
        Ok(())
    }

    /// Sends all of `bytes`.
    pub fn write(&self, mut stream: &TcpStream, bytes: &[u8], most: Duration) -> io::Result<()> {
        self.open(stream, most)?;
        let _sending = self.sending();
        let mut state = self.state();
        state.session.writer().write_all(bytes)?;
        let records = state.records();
        drop(state);
        stream.write_all(&records)
    }

    /// Sends `bytes` unless the kernel takes no more for now. What it does not take of them is sent
    /// before any others.
    pub fn write_some(&self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.open(stream, DEADLINE)?;
        let _sending = self.sending();
        let mut state = self.state();
        let is_full = !state.unsent.is_empty();
        if !is_full {
            state.session.writer().write_all(bytes)?;
        }
        let records = state.records();
        stream.set_nonblocking(true)?;
        let mut at = 0;
        let outcome = loop {
            match stream.write(&records[at..]) {
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
            if at == records.len() {
                break Ok(());
            }
        };
        stream.set_nonblocking(false)?;
        outcome?;
        state.unsent = records[at..].to_vec();
        match is_full && !state.unsent.is_empty() {
            true => Err(ErrorKind::WouldBlock.into()),
            false if is_full => Ok(0),
            false => Ok(bytes.len()),
        }
    }

    /// Says that nothing more is sent.
    pub fn half_close(&self, mut stream: &TcpStream) -> io::Result<()> {
        self.open(stream, DEADLINE)?;
        let _sending = self.sending();
        let mut state = self.state();
        state.session.send_close_notify();
        let records = state.records();
        drop(state);
        // The other side may have closed already.
        let _ = stream.write_all(&records);
        match stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    /// Waits until something has come, but not longer than `left`.
    pub fn read(&self, mut stream: &TcpStream, left: Duration) -> io::Result<Found> {
        if let Err(error) = self.open(stream, left) {
            return match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Ok(Found::Ended(Ending::Reset))
                }
                _ if is_nothing(&error) => Ok(Found::Nothing),
                _ => Err(error),
            };
        }
        if let Some(found) = self.found() {
            return Ok(found);
        }
        stream.set_read_timeout(Some(left))?;
        let mut bytes = vec![0; READ_SIZE];
        let outcome = stream.read(&mut bytes);
        self.state().take(outcome, &bytes)?;
        Ok(self.found().unwrap_or(Found::Nothing))
    }

    fn found(&self) -> Option<Found> {
        let mut state = self.state();
        if state.plain.is_empty() {
            return state.ended.map(Found::Ended);
        }
        Some(Found::Bytes(std::mem::take(&mut state.plain)))
    }

    /// What has been read and is to be read again.
    fn put_back(&self, bytes: &[u8]) {
        self.state().plain.splice(0..0, bytes.iter().copied());
    }

    /// Looks once. Whether there are bytes, and whether the other side has closed.
    pub fn look(&self, mut stream: &TcpStream) -> (bool, bool) {
        let mut state = self.state();
        if state.is_open && state.plain.is_empty() && state.ended.is_none() {
            let mut bytes = vec![0; READ_SIZE];
            stream.set_nonblocking(true).expect("non-blocking");
            let outcome = stream.read(&mut bytes);
            stream.set_nonblocking(false).expect("blocking");
            state.take(outcome, &bytes).expect("records");
        }
        (!state.plain.is_empty(), state.plain.is_empty() && state.ended.is_some())
    }

    /// The connection is about to be closed. With bytes unread that is a reset, as without TLS.
    pub fn close(&self, mut stream: &TcpStream) {
        let (has_bytes, _) = self.look(stream);
        let mut state = self.state();
        if !state.is_open {
            return;
        }
        if has_bytes {
            return reset_on_close(stream);
        }
        state.session.send_close_notify();
        let records = state.records();
        let _ = stream.set_nonblocking(true);
        // If it is not taken, it looks cut off, and nobody waits for it.
        let _ = stream.write(&records);
        let _ = stream.set_nonblocking(false);
    }
}

/// A connection that is read and written as if it were not encrypted, wherever it leads.
#[derive(Debug)]
pub struct Stream {
    stream: TcpStream,
    tls: Option<Encryption>,
}

impl Stream {
    /// # Errors
    /// When nobody listens at this address.
    pub fn connect(address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Stream { stream, tls: Encryption::of(address) })
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.stream.read(into) };
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            match tls.read(&self.stream, DEADLINE)? {
                Found::Bytes(bytes) => {
                    let count = bytes.len().min(into.len());
                    into[..count].copy_from_slice(&bytes[..count]);
                    tls.put_back(&bytes[count..]);
                    return Ok(count);
                }
                Found::Ended(Ending::Closed) => return Ok(0),
                Found::Ended(Ending::Reset) => return Err(ErrorKind::ConnectionReset.into()),
                Found::Nothing => {}
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.write(&self.stream, bytes, DEADLINE).map(|()| bytes.len()),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = &self.tls {
            tls.close(&self.stream);
        }
    }
}

/// Makes the close of a connection a reset.
pub(super) fn reset_on_close(stream: &TcpStream) {
    let set = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    set.expect("SO_LINGER");
}

fn config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let issuer = CertificateDer::from_pem_slice(ISSUER.as_bytes()).expect("a certificate");
    roots.add(issuer).expect("an issuer");
    let builder = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(builder.with_no_client_auth())
}

/// Without keys.
impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}
