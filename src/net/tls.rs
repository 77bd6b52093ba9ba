//! TLS on one connection: RFC 8446, and RFC 5246 for TLS 1.2.
//!
//! rustls speaks the protocol; it is given bytes and returns bytes, and does no I/O. A [`Session`]
//! is one connection's part of it. [`Conn`](super::conn::Conn) has one where its bytes are
//! encrypted, so everything above `net` sees a connection like any other: what it receives is
//! plaintext, and what it sends is encrypted on the way to the socket. [`Conn::output`] holds
//! records that are ready for the socket, in order.
//!
//! An idle session has no buffers of its own. Records are read into, and written from, storage that
//! belongs to the thread.
//!
//! [`Conn::output`]: super::conn::Conn::output

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    CertificateError, ClientConfig, ExtractedSecrets, ServerConfig, SupportedCipherSuite,
};

pub use agreed::Agreed;
use agreed::Kept;

mod agreed;
#[cfg(any(test, fuzzing))]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

/// How many bytes are read or written at once, at most.
const BATCH: usize = 256 * 1024;

/// More than all records of a batch take in addition to their contents, and more than the beginning
/// of a record that is left from the read before (RFC 8446, section 5.2).
const ROOM: usize = 32 * 1024;

/// How many bytes are read at least, so that a record with much in it comes with one read.
const LEAST: usize = 18 * 1024;

/// How many bytes a peer may send before its handshake is done: several times what a long chain of
/// certificates takes.
const HANDSHAKE_BYTES: usize = 64 * 1024;

/// How many reads that bring whole records may do so without a byte for us, until one comes.
const BARREN_READS: u8 = 64;

/// To a client that does not encrypt what it sends.
const NOT_ENCRYPTED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 38\r\nConnection: close\r\n\r\nTLS is spoken here: use https instead\n";

thread_local! {
    /// Lent to the call in progress.
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    /// The name that the client of the handshake in progress asks for. It is seen where a certificate
    /// is chosen, and rustls does not tell it afterwards.
    static SERVER_NAME: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Notes the host name, in lower case, that the client of the handshake in progress asks for (SNI).
pub(crate) fn note_server_name(name: Option<&str>) {
    SERVER_NAME.set(name.map(Arc::from));
}

/// Lends the storage of this thread.
pub(super) fn with_records<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    RECORDS.with_borrow_mut(|records| {
        if records.is_empty() {
            records.resize(BATCH + ROOM, 0);
        }
        work(records)
    })
}

/// One connection's part of TLS.
pub struct Session {
    machine: Machine,
    /// The beginning of a record that has not come whole.
    partial: Vec<u8>,
    /// Bytes in `partial` that have not been looked at.
    is_partial_new: bool,
    plain: Plain,
    /// Records that rustls has made: for handshakes, new keys and alerts.
    control: Vec<u8>,
    stage: Stage,
    /// Bytes that have come before the handshake was done.
    handshake_bytes: usize,
    barren_reads: u8,
    /// Our close_notify is in `control`, or has been sent.
    has_said_close: bool,
    /// A reader has been told that the peer has closed.
    has_told_end: bool,
    sent: Sent,
    identity: Identity,
    /// The keys can be given to the kernel.
    has_secrets: bool,
}

/// Which side of the protocol is ours.
enum Machine {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// The kernel has the keys (see `ktls.rs`), and nothing is done here any more.
    Kernel(Kept),
}

/// What makes new keys of those that the kernel has.
pub(super) enum Keys {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// What both sides have agreed on.
fn agreed_in(machine: &Machine) -> Agreed<'_> {
    match machine {
        Machine::Server(server) => Agreed::Here(server),
        Machine::Client(client) => Agreed::Here(client),
        Machine::Kernel(kept) => Agreed::Kept(kept),
    }
}

/// How far a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Handshake,
    Open,
    /// The peer has sent its close_notify: it sends no more bytes.
    PeerClosed,
    /// Nothing more is read.
    Failed,
}

/// What is known of the peer when the handshake is done.
#[derive(Clone, Default)]
pub struct Identity {
    /// The host name that a client has asked for (SNI, RFC 6066 section 3), in lower case.
    pub server_name: Option<Arc<str>>,
    /// Where the peer has been asked for a certificate, as the owner calls it.
    pub asked_at: Option<Arc<str>>,
}

/// Why a session has failed.
#[derive(Debug)]
pub enum TlsError {
    /// The protocol was broken, or the peer or its certificate is not acceptable.
    Protocol(rustls::Error),
    /// What came is no record but text, such as HTTP.
    NotEncrypted,
    /// More bytes came than a handshake takes.
    LongHandshake,
    /// Records came on and on without a byte in them.
    Barren,
    /// The connection ended in the handshake.
    Ended,
    /// The connection ended before the peer had said that it would (RFC 8446, section 6.1): what has
    /// come may have been cut off.
    Truncated,
    /// The connection broke.
    Io(io::Error),
    /// The handshake took too long.
    Timeout,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Protocol(rustls::Error::InvalidCertificate(why)) => certificate(why, f),
            TlsError::Protocol(error) => error.fmt(f),
            TlsError::NotEncrypted => f.write_str("what came is not encrypted"),
            TlsError::LongHandshake => f.write_str("the handshake is too long"),
            TlsError::Barren => f.write_str("many records without a byte in them"),
            TlsError::Ended => f.write_str("the connection ended in the handshake"),
            TlsError::Truncated => f.write_str("the connection ended without a close_notify"),
            TlsError::Io(error) => error.fmt(f),
            TlsError::Timeout => f.write_str("the handshake takes too long"),
        }
    }
}

/// What is wrong with a peer's certificate, as one who runs the program would say it.
fn certificate(why: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use CertificateError::*;
    match why {
        Expired | ExpiredContext { .. } => {
            f.write_str("its certificate has expired, or this machine's clock is wrong")
        }
        NotValidYet | NotValidYetContext { .. } => {
            f.write_str("its certificate is not valid yet, or this machine's clock is wrong")
        }
        // Also if one of the same name is trusted, such as an issuer that has been made anew.
        UnknownIssuer | BadSignature => {
            f.write_str("its certificate is from an issuer that is not trusted here")
        }
        Revoked => f.write_str("its certificate has been revoked"),
        NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).collect();
            let expected = expected.to_str();
            write!(f, "its certificate is for {}, not for {expected}", names.join(", "))
        }
        why if why.to_string().contains("CaUsedAsEndEntity") => {
            f.write_str("its certificate is an issuer's (CA:TRUE), which no server may show")
        }
        why => write!(f, "its certificate is not valid: {why}"),
    }
}

/// The name in what rustls calls `DnsName("a.test")` or `IpAddress(127.0.0.1)`.
fn plain_name(shown: &str) -> &str {
    shown.split(['"', '(', ')']).find(|part| part.contains('.')).unwrap_or(shown)
}

impl TlsError {
    /// Whether the peer has been told what is wrong.
    #[must_use]
    pub fn is_told(&self) -> bool {
        matches!(self, TlsError::Protocol(_) | TlsError::NotEncrypted)
    }

    /// Whether the reason of this error is that the peer cannot be trusted, or speaks no TLS: trying
    /// again at once would only repeat it.
    #[must_use]
    pub fn is_lasting(error: &io::Error) -> bool {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        matches!(inner, Some(TlsError::Protocol(_) | TlsError::NotEncrypted))
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        match error {
            TlsError::Io(error) => error,
            TlsError::Ended | TlsError::Truncated => {
                io::Error::new(io::ErrorKind::UnexpectedEof, error)
            }
            TlsError::Timeout => io::Error::new(io::ErrorKind::TimedOut, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// What a read from the socket found.
pub(super) enum Raw {
    Bytes(usize),
    Nothing,
    End,
    Broken(io::Error),
}

/// What a read from a session found.
pub(super) enum Read {
    /// This many bytes of plaintext.
    Bytes(usize),
    Nothing,
    /// The peer has said that it sends no more.
    End,
    Broken(TlsError),
}

/// What has been decrypted.
#[derive(Default)]
struct Plain {
    bytes: Vec<u8>,
    start: usize,
}

impl Plain {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.unread().len());
        into[..count].copy_from_slice(&self.unread()[..count]);
        self.start += count;
        if self.start == self.bytes.len() {
            // An idle session keeps no storage.
            *self = Plain::default();
        }
        count
    }
}

/// Where decrypted bytes go: to the reader, as long as it has room, and then aside.
struct Sink<'a> {
    into: &'a mut [u8],
    filled: usize,
    aside: &'a mut Plain,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        let room = if self.aside.unread().is_empty() { self.into.len() - self.filled } else { 0 };
        let (here, aside) = bytes.split_at(bytes.len().min(room));
        self.into[self.filled..self.filled + here.len()].copy_from_slice(here);
        self.filled += here.len();
        self.aside.bytes.extend_from_slice(aside);
    }
}

/// How many bytes of records the last bytes of plaintext have become.
#[derive(Default)]
pub(super) struct Sent {
    /// Plaintext and records so far, after each of the last few sends; the latest last.
    totals: [(u64, u64); Sent::KEPT],
}

impl Sent {
    /// A request is sent with few sends, or is so long that nobody asks.
    const KEPT: usize = 8;

    pub(super) fn note(&mut self, plain: usize, records: usize) {
        let (all_plain, all_records) = self.totals[Sent::KEPT - 1];
        self.totals.rotate_left(1);
        self.totals[Sent::KEPT - 1] = (all_plain + plain as u64, all_records + records as u64);
    }

    /// Plaintext has been sent whose records are not known.
    pub(super) fn forget(&mut self, plain: usize) {
        let (all_plain, all_records) = self.totals[Sent::KEPT - 1];
        self.totals = [(all_plain + plain as u64, all_records); Sent::KEPT];
    }

    /// How many bytes of records the last `count` bytes are, if they began with a send that is known.
    pub(super) fn records_of_last(&self, count: u64) -> Option<u64> {
        let (all_plain, all_records) = self.totals[Sent::KEPT - 1];
        let before = all_plain.checked_sub(count)?;
        let (_, records) = self.totals.iter().find(|(plain, _)| *plain == before)?;
        Some(all_records - records)
    }
}

/// What followed from some records.
enum Step {
    /// There may be more to do.
    Again,
    /// More records are needed.
    Blocked,
    /// Nothing is left to do, and bytes may be sent.
    Open,
    PeerClosed,
    Failed(rustls::Error),
}

/// Does what rustls asks for. Returns how many bytes are to be dropped, and what follows.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    sink: &mut Sink<'_>,
    control: &mut Vec<u8>,
) -> (usize, Step) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.take(record.payload);
                }
                Some(Err(error)) => break Step::Failed(error),
                None => break Step::Again,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            encode(control, |into| message.encode(into));
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(message)) => {
            message.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::PeerClosed,
        Ok(ConnectionState::WriteTraffic(_)) => Step::Open,
        // Early data is never offered. What a later rustls adds is not asked for either.
        Ok(_) => Step::Blocked,
        Err(error) => Step::Failed(error),
    };
    (discard, next)
}

/// Has rustls take one step with these records; see [`step`].
fn take(
    machine: &mut Machine,
    records: &mut [u8],
    sink: &mut Sink<'_>,
    control: &mut Vec<u8>,
) -> (usize, Step) {
    match machine {
        Machine::Server(server) => step(server.process_tls_records(records), sink, control),
        Machine::Client(client) => step(client.process_tls_records(records), sink, control),
        Machine::Kernel(_) => (0, Step::Blocked),
    }
}

/// Appends a message, whose size shows when it does not fit.
fn encode(control: &mut Vec<u8>, mut message: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) {
    let before = control.len();
    let written = match message(&mut []) {
        Err(EncodeError::InsufficientSize(short)) => {
            control.resize(before + short.required_size, 0);
            message(&mut control[before..]).unwrap_or(0)
        }
        _ => 0,
    };
    control.truncate(before + written);
}

/// Whether what stands where a record should begin is text. A record begins with a byte below 32
/// (RFC 8446, section 5.1), and a request or a response with a word.
fn is_text(bytes: &[u8]) -> bool {
    let word = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    word > 0 && bytes[word..].first().is_none_or(|next| matches!(next, b' ' | b'/'))
}

/// How an attempt to encrypt ended.
enum Encrypted {
    Again,
    Done(usize),
    Failed(io::Error),
}

/// Encrypts something, or does what must be done before. Returns how many bytes are to be dropped, and
/// what came of it.
///
/// rustls is always given the bytes that are left from the last read, which it may remember.
fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    control: &mut Vec<u8>,
    write: impl FnOnce(&mut rustls::unbuffered::WriteTraffic<'_, Data>) -> Result<usize, EncryptError>,
) -> (usize, Encrypted) {
    let UnbufferedStatus { discard, state } = status;
    let encrypted = match state {
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            encode(control, |into| message.encode(into));
            Encrypted::Again
        }
        Ok(ConnectionState::TransmitTlsData(message)) => {
            message.done();
            Encrypted::Again
        }
        Ok(ConnectionState::PeerClosed) => Encrypted::Again,
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match write(&mut traffic) {
            Ok(count) => Encrypted::Done(count),
            Err(error) => Encrypted::Failed(io::Error::other(error)),
        },
        Ok(_) => Encrypted::Failed(io::ErrorKind::NotConnected.into()),
        Err(error) => Encrypted::Failed(io::Error::other(error)),
    };
    (discard, encrypted)
}

impl Session {
    /// A session whose peer is a client.
    ///
    /// # Errors
    /// When the settings do not fit together, or no random bytes are to be had.
    pub fn server(config: Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        let has_secrets = config.enable_secret_extraction;
        let server = Box::new(UnbufferedServerConnection::new(config)?);
        Ok(Session::new(Machine::Server(server), has_secrets))
    }

    /// A session whose peer is the server `name`.
    ///
    /// # Errors
    /// When the settings do not fit together, or no random bytes are to be had.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, rustls::Error> {
        let has_secrets = config.enable_secret_extraction;
        let client = Box::new(UnbufferedClientConnection::new(config, name)?);
        Ok(Session::new(Machine::Client(client), has_secrets))
    }

    fn new(machine: Machine, has_secrets: bool) -> Session {
        Session {
            machine,
            partial: Vec::new(),
            is_partial_new: true,
            plain: Plain::default(),
            control: Vec::new(),
            stage: Stage::Handshake,
            handshake_bytes: 0,
            barren_reads: 0,
            has_said_close: false,
            has_told_end: false,
            sent: Sent::default(),
            identity: Identity::default(),
            has_secrets,
        }
    }

    /// What both sides have agreed on.
    #[must_use]
    pub fn agreed(&self) -> Agreed<'_> {
        agreed_in(&self.machine)
    }

    /// The ciphers of a session whose keys can be given to the kernel now: the handshake is done, and
    /// nothing that is left to be done needs them here.
    pub(super) fn movable_ciphers(&self) -> Option<SupportedCipherSuite> {
        let is_at_rest = self.stage == Stage::Open
            && self.partial.is_empty()
            && self.control.is_empty()
            && !self.has_said_close;
        match self.agreed() {
            Agreed::Here(state) if self.has_secrets && is_at_rest => {
                state.negotiated_cipher_suite()
            }
            _ => None,
        }
    }

    /// Gives the keys away. What has been decrypted stays here; nothing else is done with this session.
    ///
    /// # Errors
    /// When rustls does not give them, which has no reason to happen when [`Session::movable_ciphers`]
    /// returns some.
    pub(super) fn give_keys(&mut self) -> Result<(ExtractedSecrets, Keys), rustls::Error> {
        let kept = Machine::Kernel(self.agreed().keep());
        match std::mem::replace(&mut self.machine, kept) {
            Machine::Server(server) => {
                let (secrets, keys) = server.dangerous_into_kernel_connection()?;
                Ok((secrets, Keys::Server(keys)))
            }
            Machine::Client(client) => {
                let (secrets, keys) = client.dangerous_into_kernel_connection()?;
                Ok((secrets, Keys::Client(keys)))
            }
            Machine::Kernel(_) => Err(rustls::Error::HandshakeNotComplete),
        }
    }

    /// What is known of the peer.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Says where the peer is asked for a certificate.
    pub fn set_asked_at(&mut self, at: Option<Arc<str>>) {
        self.identity.asked_at = at;
    }

    /// Whether the peer has sent anything.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.handshake_bytes > 0 || !self.partial.is_empty()
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.stage == Stage::Handshake
    }

    /// Whether nothing more can be read or sent.
    pub(super) fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Records that have come before the session began.
    pub(super) fn begin_with(&mut self, records: &[u8]) {
        self.partial.extend_from_slice(records);
        self.is_partial_new = true;
    }

    /// Whether a read finds something though the socket may be empty.
    pub(super) fn has_unread(&self) -> bool {
        !self.plain.unread().is_empty()
            || self.is_partial_new
            || self.stage == Stage::PeerClosed && !self.has_told_end
    }

    /// Plaintext that has been decrypted before.
    pub(super) fn take_unread(&mut self, into: &mut [u8]) -> usize {
        self.plain.take(into)
    }

    /// Plaintext that has come with something else.
    pub(super) fn put_aside(&mut self, bytes: &[u8]) {
        self.plain.bytes.extend_from_slice(bytes);
    }

    /// Plaintext that nobody has read yet.
    pub(super) fn unread(&self) -> &[u8] {
        self.plain.unread()
    }

    /// Whether a reader has been told that the peer has closed.
    pub(super) fn has_ended(&self) -> bool {
        self.has_told_end
    }

    /// Whether the peer has said that it sends no more, read or not.
    pub(super) fn is_peer_closed(&self) -> bool {
        self.stage == Stage::PeerClosed
    }

    /// Records to be sent after those in the connection's output and before any others.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Reads plaintext into `into`. `read` reads from the socket, and says whether it may hold more.
    pub(super) fn receive(
        &mut self,
        into: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> (Raw, bool),
    ) -> Read {
        if !self.plain.unread().is_empty() {
            // What nobody takes is not added to.
            return if into.is_empty() {
                Read::Nothing
            } else {
                Read::Bytes(self.plain.take(into))
            };
        }
        loop {
            match self.stage {
                Stage::Handshake | Stage::Open => {}
                Stage::PeerClosed => return self.end(into),
                Stage::Failed => return Read::Broken(TlsError::Truncated),
            }
            let found = with_records(|records| self.read_records(records, into, &mut read));
            match found {
                Ok((Raw::Bytes(count), may_hold_more)) => {
                    if count > 0 {
                        return Read::Bytes(count);
                    }
                    // A handshake is done one step after another, and so is a read that only looks.
                    if !self.plain.unread().is_empty() {
                        return Read::Nothing;
                    }
                    if self.stage == Stage::PeerClosed {
                        return self.end(into);
                    }
                    if !may_hold_more {
                        return Read::Nothing;
                    }
                }
                Ok((Raw::Nothing, _)) => return Read::Nothing,
                Ok((Raw::End, _)) if self.is_handshaking() => return self.fail(TlsError::Ended),
                Ok((Raw::End, _)) => return self.fail(TlsError::Truncated),
                Ok((Raw::Broken(error), _)) => return self.fail(TlsError::Io(error)),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// The peer sends no more. A read that only looks has not told anybody.
    fn end(&mut self, into: &[u8]) -> Read {
        self.has_told_end |= !into.is_empty();
        Read::End
    }

    fn fail(&mut self, error: TlsError) -> Read {
        self.stage = Stage::Failed;
        self.partial = Vec::new();
        self.is_partial_new = false;
        Read::Broken(error)
    }

    /// Reads from the socket once and decrypts what has come. [`Raw::Bytes`] says how much of it is
    /// in `into`.
    fn read_records(
        &mut self,
        records: &mut [u8],
        into: &mut [u8],
        read: &mut impl FnMut(&mut [u8]) -> (Raw, bool),
    ) -> Result<(Raw, bool), TlsError> {
        let before = self.partial.len();
        records[..before].copy_from_slice(&self.partial);
        let (mut count, mut may_hold_more) = (0, true);
        if !std::mem::take(&mut self.is_partial_new) || before == 0 {
            let most = into.len().clamp(LEAST, BATCH);
            match read(&mut records[before..before + most]) {
                (Raw::Bytes(bytes), more) => (count, may_hold_more) = (bytes, more),
                // A client begins without having read anything.
                (Raw::Nothing, _) if self.is_handshaking() && before == 0 => may_hold_more = false,
                other => return Ok(other),
            }
        }
        let was_handshaking = self.is_handshaking();
        // One that has failed may have left it.
        SERVER_NAME.set(None);
        if was_handshaking {
            self.handshake_bytes += count;
        }
        let mut sink = Sink { into, filled: 0, aside: &mut self.plain };
        let filled = before + count;
        let mut start = 0;
        loop {
            let unread = &mut records[start..filled];
            let (discard, next) = take(&mut self.machine, unread, &mut sink, &mut self.control);
            start += discard;
            match next {
                Step::Again => {}
                Step::Blocked => break,
                Step::Open => {
                    if self.stage == Stage::Handshake {
                        self.stage = Stage::Open;
                    }
                    break;
                }
                // Before the handshake is done it is no end but a refusal.
                Step::PeerClosed if agreed_in(&self.machine).is_handshaking() => {
                    return Err(TlsError::Ended);
                }
                Step::PeerClosed => {
                    self.stage = Stage::PeerClosed;
                    break;
                }
                Step::Failed(error) => {
                    // What came before it is lost, as with a broken connection. rustls may have something
                    // for the peer: an alert, and what it has to read first.
                    while agreed_in(&self.machine).wants_write() {
                        let unread = &mut records[start..filled];
                        let (discard, _) =
                            take(&mut self.machine, unread, &mut sink, &mut self.control);
                        start += discard;
                    }
                    return Err(match was_handshaking && is_text(&records[start..filled]) {
                        false => TlsError::Protocol(error),
                        true => {
                            self.control.clear();
                            if matches!(self.machine, Machine::Server(_)) {
                                self.control.extend_from_slice(NOT_ENCRYPTED);
                            }
                            TlsError::NotEncrypted
                        }
                    });
                }
            }
        }
        if was_handshaking && let Some(name) = SERVER_NAME.take() {
            self.identity.server_name = Some(name);
        }
        let filled_now = sink.filled;
        let has_found = filled_now > 0 || !self.plain.unread().is_empty();
        if self.partial.len() + records[start..filled].len() > 0 {
            self.partial.clear();
            self.partial.extend_from_slice(&records[start..filled]);
            if self.partial.is_empty() {
                // An idle session keeps no storage.
                self.partial = Vec::new();
            }
        }
        // A message of a handshake, or of those that may follow one, is kept until it is whole.
        if self.partial.len() > ROOM
            || self.is_handshaking() && self.handshake_bytes > HANDSHAKE_BYTES
        {
            return Err(TlsError::LongHandshake);
        }
        if has_found {
            self.barren_reads = 0;
        } else if !self.is_handshaking() && start > 0 {
            self.barren_reads += 1;
            if self.barren_reads > BARREN_READS {
                return Err(TlsError::Barren);
            }
        }
        Ok((Raw::Bytes(filled_now), may_hold_more))
    }

    /// Encrypts the beginning of `bytes`, and gives its records to `send`. What must go before them
    /// is in [`Session::control`]. Returns how many bytes it was, and what `send` has returned.
    ///
    /// # Errors
    /// When nothing can be encrypted: before the handshake is done, after we have said that we close, or
    /// when the keys have been used too often.
    pub(super) fn encrypt<T>(
        &mut self,
        bytes: [&[u8]; 2],
        send: impl FnOnce(&mut Vec<u8>, &[u8]) -> T,
    ) -> io::Result<(usize, T)> {
        if !self.may_send() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let [head, body] = bytes;
        // Together they take fewer records, and one.
        let joined;
        let plain = if head.is_empty() || body.is_empty() {
            if head.is_empty() { body } else { head }
        } else {
            joined = [head, &body[..body.len().min(BATCH.saturating_sub(head.len()))]].concat();
            &joined
        };
        let plain = &plain[..plain.len().min(BATCH)];
        with_records(|records| {
            let count = loop {
                let (discard, encrypted) = match &mut self.machine {
                    Machine::Server(server) => {
                        let status = server.process_tls_records(&mut self.partial);
                        encrypt(status, &mut self.control, |traffic| {
                            traffic.encrypt(plain, records)
                        })
                    }
                    Machine::Client(client) => {
                        let status = client.process_tls_records(&mut self.partial);
                        encrypt(status, &mut self.control, |traffic| {
                            traffic.encrypt(plain, records)
                        })
                    }
                    Machine::Kernel(_) => {
                        (0, Encrypted::Failed(io::ErrorKind::NotConnected.into()))
                    }
                };
                self.partial.drain(..discard);
                match encrypted {
                    Encrypted::Again => {}
                    Encrypted::Done(count) => break count,
                    Encrypted::Failed(error) => {
                        self.stage = Stage::Failed;
                        return Err(error);
                    }
                }
            };
            self.sent.note(plain.len(), count);
            Ok((plain.len(), send(&mut self.control, &records[..count])))
        })
    }

    fn may_send(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::PeerClosed)
    }

    /// Says that we send no more, once: a close_notify is appended to [`Session::control`].
    pub(super) fn say_close(&mut self) {
        if std::mem::replace(&mut self.has_said_close, true) || !self.may_send() {
            return;
        }
        let mut alert = [0; 64];
        loop {
            let (discard, encrypted) = match &mut self.machine {
                Machine::Server(server) => {
                    let status = server.process_tls_records(&mut self.partial);
                    encrypt(status, &mut self.control, |out| out.queue_close_notify(&mut alert))
                }
                Machine::Client(client) => {
                    let status = client.process_tls_records(&mut self.partial);
                    encrypt(status, &mut self.control, |out| out.queue_close_notify(&mut alert))
                }
                Machine::Kernel(_) => return,
            };
            self.partial.drain(..discard);
            match encrypted {
                Encrypted::Again => {}
                Encrypted::Done(count) => return self.control.extend_from_slice(&alert[..count]),
                Encrypted::Failed(_) => {
                    self.stage = Stage::Failed;
                    return;
                }
            }
        }
    }

    /// How many bytes of records the last `count` bytes of plaintext are; `None` if that is not known.
    pub(super) fn records_of_last(&self, count: u64) -> Option<u64> {
        self.sent.records_of_last(count)
    }
}

/// Without keys and contents.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("stage", &self.stage).finish_non_exhaustive()
    }
}
