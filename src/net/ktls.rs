//! TLS in the kernel (Linux: Documentation/networking/tls.rst).
//!
//! rustls makes the handshake and gives its keys away. From then on a socket is read, written and
//! spliced as if it were not encrypted. What is left to be done here is what is not application
//! data: alerts, new keys, and tickets. A [`Kernel`] decides about them and does no I/O; what it wants
//! is done by [`Conn`](super::conn::Conn).
//!
//! Not every machine has the kernel's module `tls`, and not every kernel takes every cipher, or new
//! keys for a connection that has some (Linux 6.14 does). So all of this is tried out once, with
//! connections to ourselves: [`support`].

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;

use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets,
    HandshakeType, InvalidMessage, SupportedCipherSuite,
};

use super::sys;
use super::tls::{Keys, Sent, Session, TlsError};

#[cfg(test)]
mod tests;

/// The most that is in a record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The longest message that a peer may send after its handshake: a ticket has at most 65,535 bytes
/// and a little around them (RFC 8446, section 4.6.1).
const MESSAGE: usize = 68 * 1024;

/// How many records that hold no application data may come until one does.
const BARREN_RECORDS: u8 = 64;

/// How many records the kernel may make of what a pipe holds, beside the full ones: a record is also
/// full when it has come to so many pieces, and a pipe has a limited number of them.
const SPLICED: u64 = 8;

/// Says that all that follows is encrypted by the next keys (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Says that we send no more: a warning (RFC 8446, section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [WARNING, 0];

/// The type of records with application data (RFC 8446, section 5.1).
pub(super) const APPLICATION_DATA: u8 = 23;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A cipher that kernels know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// A version of TLS, as linux/tls.h has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V12 = 0x0303,
    V13 = 0x0304,
}

const CIPHERS: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305];
const VERSIONS: [Version; 2] = [Version::V12, Version::V13];

/// What the kernel of this machine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    ciphers: Vec<(Version, Cipher)>,
    replaces_keys: bool,
}

impl Support {
    /// Whether it can encrypt anything.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.ciphers.is_empty()
    }

    /// Whether it takes other keys for a connection that has some.
    #[must_use]
    pub fn replaces_keys(&self) -> bool {
        self.replaces_keys
    }

    /// Whether it can do what a session has agreed on.
    pub(super) fn has(&self, suite: SupportedCipherSuite) -> bool {
        cipher_of(suite).is_some_and(|ciphers| self.ciphers.contains(&ciphers))
    }
}

/// What the kernel can do. The first call tries it out; it may load the kernel's module, which needs
/// privileges.
pub fn support() -> &'static Support {
    SUPPORT.get_or_init(|| {
        let support = probe().unwrap_or_default();
        log::debug!("the kernel's TLS: {support:?}");
        support
    })
}

/// Whether the kernel has been found to have TLS. It is not tried out for this.
#[must_use]
pub fn is_in_use() -> bool {
    SUPPORT.get().is_some_and(Support::is_available)
}

static SUPPORT: OnceLock<Support> = OnceLock::new();

/// Tries out what the kernel can do.
///
/// # Errors
/// When there is no loopback.
fn probe() -> io::Result<Support> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut support = Support::default();
    for version in VERSIONS {
        for cipher in CIPHERS {
            let dialled = TcpStream::connect(listener.local_addr()?)?;
            let (_accepted, _) = listener.accept()?;
            let key = [1; 32];
            let info = CryptoInfo::new(version, cipher, &key[..cipher.key_length()], &[2; 12], 0);
            if sys::attach_tls(&dialled).is_err() {
                return Ok(support);
            }
            let set = |for_sending| sys::set_tls_keys(&dialled, for_sending, info.bytes()).is_ok();
            if set(true) && set(false) {
                support.ciphers.push((version, cipher));
                support.replaces_keys |= version == Version::V13 && set(true);
            }
        }
    }
    Ok(support)
}

fn cipher_of(suite: SupportedCipherSuite) -> Option<(Version, Cipher)> {
    use rustls::CipherSuite::*;
    let cipher = match suite.suite() {
        TLS13_AES_128_GCM_SHA256
        | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Cipher::Aes128Gcm,
        TLS13_AES_256_GCM_SHA384
        | TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Cipher::Aes256Gcm,
        TLS13_CHACHA20_POLY1305_SHA256
        | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Cipher::Chacha20Poly1305,
        _ => return None,
    };
    let version = if suite.tls13().is_some() { Version::V13 } else { Version::V12 };
    Some((version, cipher))
}

impl Cipher {
    fn key_length(self) -> usize {
        match self {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm | Cipher::Chacha20Poly1305 => 32,
        }
    }

    /// Its number in linux/tls.h.
    fn number(self) -> u16 {
        match self {
            Cipher::Aes128Gcm => 51,
            Cipher::Aes256Gcm => 52,
            Cipher::Chacha20Poly1305 => 54,
        }
    }

    /// How many bytes the beginning of the nonce has that the kernel calls the salt.
    fn salt(self) -> usize {
        match self {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => 4,
            Cipher::Chacha20Poly1305 => 0,
        }
    }
}

/// One of the structures that begin with `struct tls_crypto_info` (linux/tls.h): the version, the
/// cipher, the rest of the nonce, the key, the salt, and the number of the next record. Numbers are
/// in the machine's order but for the last. It is cleared when it is dropped.
pub(super) struct CryptoInfo {
    bytes: [u8; 56],
    length: usize,
}

impl CryptoInfo {
    fn new(version: Version, cipher: Cipher, key: &[u8], nonce: &[u8], next: u64) -> CryptoInfo {
        let mut info = CryptoInfo { bytes: [0; 56], length: 0 };
        let (salt, rest) = nonce.split_at(cipher.salt());
        info.push(&(version as u16).to_ne_bytes());
        info.push(&cipher.number().to_ne_bytes());
        info.push(rest);
        info.push(key);
        info.push(salt);
        info.push(&next.to_be_bytes());
        info
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// What the kernel is given.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for CryptoInfo {
    fn drop(&mut self) {
        self.bytes.fill(0);
        std::hint::black_box(&self.bytes);
    }
}

/// Which way keys are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Sending,
    Receiving,
}

/// What the kernel is told about keys of rustls; `next` is the number of the record that comes next.
fn crypto_info(
    version: Version,
    way: Way,
    secrets: &ConnectionTrafficSecrets,
    next: u64,
) -> Result<CryptoInfo, Error> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Cipher::Chacha20Poly1305, key, iv)
        }
        _ => return Err(Error::General("the kernel does not know this cipher".into())),
    };
    let key = key.as_ref();
    let mut nonce = [0; 12];
    nonce.copy_from_slice(iv.as_ref());
    if key.len() != cipher.key_length() {
        return Err(Error::General("a key has another length than its cipher's".into()));
    }
    if version == Version::V12 && way == Way::Sending && cipher.salt() > 0 {
        nonce = unused(nonce);
    }
    Ok(CryptoInfo::new(version, cipher, key, &nonce, next))
}

/// Where the kernel begins to count, with AES-GCM of TLS 1.2. There a record says by which nonce it
/// is encrypted (RFC 5288, section 3), and none may be used twice. rustls has used the first one, with
/// the number of a record in its last bits; the kernel adds 1 for each. These are at least 2^63 apart.
fn unused(mut nonce: [u8; 12]) -> [u8; 12] {
    nonce[4] ^= 0x80;
    nonce
}

/// What the kernel adds to the contents of a record.
fn overhead(version: Version, cipher: Cipher) -> usize {
    match (version, cipher) {
        // The header, the type of the contents, and the tag.
        (Version::V13, _) => 5 + 1 + 16,
        // The header, the nonce, and the tag (RFC 5288, section 3).
        (Version::V12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => 5 + 8 + 16,
        // RFC 7905, section 2.
        (Version::V12, Cipher::Chacha20Poly1305) => 5 + 16,
    }
}

/// One connection's part of TLS, when the kernel encrypts it.
pub(super) struct Kernel {
    /// What is known of the peer, and what had been decrypted before.
    session: Box<Session>,
    keys: Keys,
    version: Version,
    overhead: usize,
    stage: Stage,
    /// The beginning of a message that has not come whole.
    message: Vec<u8>,
    barren_records: u8,
    /// Records that have been sent with the keys in use; some more at most.
    records: u64,
    /// How many there may be (RFC 8446, section 5.5).
    limit: u64,
    owes: Owes,
    has_said_close: bool,
    sent: Sent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Open,
    /// The peer has sent its close_notify.
    PeerClosed,
    /// Nothing more is read.
    Failed,
}

/// What is to be sent as soon as the socket takes it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Owes {
    pub key_update: bool,
    pub close: bool,
    pub fin: bool,
}

/// What a record that is not application data has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Nothing that is to be answered.
    Nothing,
    /// The peer sends no more.
    Closed,
    /// All that follows is encrypted by the next keys.
    NewKeys,
    /// The peer wants another handshake, which it does not get.
    Renegotiation,
    /// It was application data.
    Data,
}

/// What is wrong with a record, and what the peer is told.
#[derive(Debug)]
pub(super) struct Fault {
    pub error: TlsError,
    pub alert: Option<AlertDescription>,
}

impl Fault {
    fn new(error: impl Into<Error>, alert: AlertDescription) -> Fault {
        Fault { error: TlsError::Protocol(error.into()), alert: Some(alert) }
    }

    /// A record or message that may not come now.
    fn unexpected() -> Fault {
        let error = Error::General("a message came that may not come after a handshake".into());
        Fault::new(error, AlertDescription::UnexpectedMessage)
    }

    fn malformed() -> Fault {
        Fault::new(InvalidMessage::MessageTooShort, AlertDescription::DecodeError)
    }
}

impl Kernel {
    /// What goes on when the kernel has these keys; and the keys as the kernel takes them, for
    /// sending and for receiving.
    ///
    /// # Errors
    /// When the kernel does not know the ciphers, which [`Support::has`] has said already.
    pub fn new(
        session: Box<Session>,
        suite: SupportedCipherSuite,
        secrets: &ExtractedSecrets,
        keys: Keys,
    ) -> Result<(Kernel, [CryptoInfo; 2]), Error> {
        let Some((version, cipher)) = cipher_of(suite) else {
            return Err(Error::General("the kernel does not know this cipher".into()));
        };
        let ((sent, sending), (received, receiving)) = (&secrets.tx, &secrets.rx);
        let infos = [
            crypto_info(version, Way::Sending, sending, *sent)?,
            crypto_info(version, Way::Receiving, receiving, *received)?,
        ];
        let limit = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        let kernel = Kernel {
            session,
            keys,
            version,
            overhead: overhead(version, cipher),
            stage: Stage::Open,
            message: Vec::new(),
            barren_records: 0,
            records: *sent,
            limit,
            owes: Owes::default(),
            has_said_close: false,
            sent: Sent::default(),
        };
        Ok((kernel, infos))
    }

    /// What is known of the peer.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, for what had been decrypted before.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether all that came before the kernel got the keys has been read.
    pub fn is_pure(&self) -> bool {
        self.session.unread().is_empty()
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Application data has come.
    pub fn note_received(&mut self) {
        self.barren_records = 0;
    }

    /// Takes a record that is not application data: its type, and what is in it.
    pub fn hear(&mut self, kind: u8, record: &[u8]) -> Result<Heard, Fault> {
        self.barren_records += 1;
        if self.barren_records > BARREN_RECORDS {
            let alert = Some(AlertDescription::UnexpectedMessage);
            return Err(Fault { error: TlsError::Barren, alert });
        }
        match ContentType::from(kind) {
            ContentType::Alert => self.alert(record),
            ContentType::Handshake => self.messages(record),
            _ => Err(Fault::unexpected()),
        }
    }

    /// RFC 8446, section 6; RFC 5246, section 7.2.
    fn alert(&self, record: &[u8]) -> Result<Heard, Fault> {
        let &[level, description] = record else { return Err(Fault::malformed()) };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Heard::Closed),
            AlertDescription::UserCanceled => Ok(Heard::Nothing),
            _ if self.version == Version::V12 && level == WARNING => Ok(Heard::Nothing),
            description => {
                let error = TlsError::Protocol(Error::AlertReceived(description));
                Err(Fault { error, alert: None })
            }
        }
    }

    /// Takes the messages that are whole by this record.
    fn messages(&mut self, record: &[u8]) -> Result<Heard, Fault> {
        let mut all = std::mem::take(&mut self.message);
        all.extend_from_slice(record);
        let (mut heard, mut rest) = (Heard::Nothing, &all[..]);
        while let [kind, a, b, c, after @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MESSAGE {
                return Err(Fault::malformed());
            }
            let Some((body, after)) = after.split_at_checked(length) else { break };
            // What follows new keys is encrypted by them (RFC 8446, section 5.1).
            if heard == Heard::NewKeys {
                return Err(Fault::unexpected());
            }
            heard = self.message(HandshakeType::from(*kind), body)?;
            rest = after;
        }
        if heard == Heard::NewKeys && !rest.is_empty() {
            return Err(Fault::unexpected());
        }
        self.message = rest.to_vec();
        Ok(heard)
    }

    fn message(&mut self, kind: HandshakeType, body: &[u8]) -> Result<Heard, Fault> {
        match (kind, self.version, &mut self.keys) {
            (HandshakeType::KeyUpdate, Version::V13, _) => match body {
                // Whether ours are wanted, too.
                [asks @ (0 | 1)] => {
                    self.owes.key_update |= *asks == 1;
                    Ok(Heard::NewKeys)
                }
                _ => Err(Fault::new(
                    InvalidMessage::InvalidKeyUpdate,
                    AlertDescription::IllegalParameter,
                )),
            },
            (HandshakeType::NewSessionTicket, Version::V13, Keys::Client(keys)) => {
                let kept = keys.handle_new_session_ticket(body);
                kept.map_err(|error| Fault::new(error, AlertDescription::DecodeError))?;
                Ok(Heard::Nothing)
            }
            (HandshakeType::HelloRequest, Version::V12, Keys::Client(_))
            | (HandshakeType::ClientHello, Version::V12, Keys::Server(_)) => {
                Ok(Heard::Renegotiation)
            }
            _ => Err(Fault::unexpected()),
        }
    }

    /// The next keys (RFC 8446, section 7.2), as the kernel takes them.
    pub fn next_keys(&mut self, way: Way) -> Result<CryptoInfo, Error> {
        let (next, secrets) = match (way, &mut self.keys) {
            (Way::Sending, Keys::Server(keys)) => keys.update_tx_secret()?,
            (Way::Sending, Keys::Client(keys)) => keys.update_tx_secret()?,
            (Way::Receiving, Keys::Server(keys)) => keys.update_rx_secret()?,
            (Way::Receiving, Keys::Client(keys)) => keys.update_rx_secret()?,
        };
        if way == Way::Sending {
            self.records = next;
            self.owes.key_update = false;
        }
        crypto_info(self.version, way, &secrets, next)
    }

    /// Notes that this many bytes have been sent by one call.
    pub fn note_sent(&mut self, bytes: usize) {
        let records = bytes.div_ceil(RECORD);
        self.sent.note(bytes, bytes + records * self.overhead);
        self.count(records as u64);
    }

    /// Notes that this many bytes have been sent from a pipe.
    pub fn note_spliced(&mut self, bytes: usize) {
        self.sent.forget(bytes);
        self.count(bytes.div_ceil(RECORD) as u64 + SPLICED);
    }

    fn count(&mut self, records: u64) {
        self.records = self.records.saturating_add(records);
        let can_replace = self.version == Version::V13 && support().replaces_keys();
        self.owes.key_update |= can_replace && self.is_worn();
    }

    /// Whether the keys for sending should not be used for much longer.
    pub fn is_worn(&self) -> bool {
        self.records >= self.limit - self.limit / 8
    }

    /// Whether they must not be used any more.
    pub fn is_spent(&self) -> bool {
        self.records >= self.limit
    }

    pub fn owes(&self) -> Owes {
        self.owes
    }

    /// Whether anything is to be sent as soon as the socket takes it.
    pub fn is_settled(&self) -> bool {
        self.owes == Owes::default()
    }

    /// A close_notify is to be sent, once.
    pub fn owe_close(&mut self) {
        self.owes.close = !std::mem::replace(&mut self.has_said_close, true) || self.owes.close;
    }

    /// Our FIN is to be sent after it.
    pub fn owe_fin(&mut self) {
        self.owes.fin = true;
    }

    /// The close_notify has been sent.
    pub fn close_sent(&mut self) {
        self.owes.close = false;
    }

    /// The FIN has been sent; or nothing more can be.
    pub fn all_sent(&mut self) {
        self.owes = Owes::default();
    }

    #[cfg(test)]
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// How many bytes of records the last `count` bytes are; `None` if that is not known.
    pub fn records_of_last(&self, count: u64) -> Option<u64> {
        self.sent.records_of_last(count)
    }
}

/// A record that is sent beside application data: its type, and what is in it.
pub(super) enum Record {
    KeyUpdate,
    CloseNotify,
    /// This machine does not renegotiate (RFC 5246, section 7.2.2).
    NoRenegotiation,
    /// The connection ends by an error.
    Fatal(AlertDescription),
}

impl Record {
    /// Its type and its contents.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let alert = u8::from(ContentType::Alert);
        match self {
            Record::KeyUpdate => (ContentType::Handshake.into(), KEY_UPDATE.to_vec()),
            Record::CloseNotify => (alert, CLOSE_NOTIFY.to_vec()),
            Record::NoRenegotiation => {
                (alert, vec![WARNING, AlertDescription::NoRenegotiation.into()])
            }
            Record::Fatal(description) => (alert, vec![FATAL, (*description).into()]),
        }
    }
}
