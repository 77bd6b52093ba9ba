//! Sessions without sockets, and a peer that sends what no library would: for tests and fuzzing.

use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use sha2::Sha256;

use super::{BATCH, ROOM, Raw, Read, Session, TlsError};

/// The name in the server's certificate.
pub(crate) const SERVER: &str = "proxy.test";

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/certificates/proxy.pem");
const KEY: &[u8] = include_bytes!("../../../tests/certificates/proxy.key");
const ISSUER: &[u8] = include_bytes!("../../../tests/certificates/issuer.pem");

/// What a record holds (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// A server's settings.
pub(crate) fn server_config(version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client's settings. Its secrets are noted.
pub(crate) fn client_config(
    version: &'static SupportedProtocolVersion,
    secrets: &Arc<Secrets>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ISSUER).unwrap()).unwrap();
    let mut provider = default_provider();
    // Of this one the peer below makes records.
    provider.cipher_suites.retain(|suite| {
        let name = suite.suite();
        version.version == rustls::ProtocolVersion::TLSv1_2
            || name == cipher_suite::TLS13_AES_128_GCM_SHA256.suite()
    });
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.key_log = Arc::clone(secrets) as Arc<dyn KeyLog>;
    Arc::new(config)
}

/// The secret with which a client encrypts, once it is known.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<Option<Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap() = Some(secret.to_vec());
        }
    }
}

/// A session, and what is on its way to it and from it.
pub(crate) struct Memory {
    pub session: Session,
    incoming: Vec<u8>,
    has_fin: bool,
    /// What it has sent.
    pub outgoing: Vec<u8>,
    /// What it has received.
    pub plain: Vec<u8>,
    /// The peer has said that it sends no more.
    pub has_ended: bool,
    pub failed: Option<TlsError>,
    /// How much is read at once.
    pub into: usize,
}

impl Memory {
    pub fn new(session: Session) -> Memory {
        Memory {
            session,
            incoming: Vec::new(),
            has_fin: false,
            outgoing: Vec::new(),
            plain: Vec::new(),
            has_ended: false,
            failed: None,
            into: 4096,
        }
    }

    pub fn server(version: &'static SupportedProtocolVersion) -> Memory {
        Memory::new(Session::server(server_config(version)).unwrap())
    }

    pub fn client(version: &'static SupportedProtocolVersion) -> Memory {
        let name = ServerName::try_from(SERVER).unwrap();
        let config = client_config(version, &Arc::default());
        let mut client = Memory::new(Session::client(config, name).unwrap());
        client.turn();
        client
    }

    /// Gives it bytes, and has it do what follows.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        self.turn();
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.has_fin = true;
        self.turn();
    }

    /// As `Conn` does with a socket that is readable.
    ///
    /// # Panics
    /// When it does not come to an end, or keeps more than it may.
    pub fn turn(&mut self) {
        let most = self.incoming.len() + self.session.unread().len() + 8;
        for _ in 0..most {
            let was_handshaking = self.session.is_handshaking();
            let mut into = vec![0; if was_handshaking { 0 } else { self.into }];
            let read = self.receive(&mut into);
            match read {
                Read::Bytes(count) => self.plain.extend_from_slice(&into[..count]),
                Read::Nothing if was_handshaking && !self.session.is_handshaking() => {}
                Read::Nothing => return,
                Read::End => {
                    self.has_ended = true;
                    return;
                }
                Read::Broken(error) => {
                    self.failed.get_or_insert(error);
                    return;
                }
            }
        }
        panic!("it reads on and on");
    }

    /// One read.
    pub(in crate::net) fn receive(&mut self, into: &mut [u8]) -> Read {
        let (incoming, has_fin) = (&mut self.incoming, self.has_fin);
        let read = self.session.receive(into, |records| {
            if incoming.is_empty() {
                return (if has_fin { Raw::End } else { Raw::Nothing }, false);
            }
            let count = records.len().min(incoming.len());
            records[..count].copy_from_slice(&incoming[..count]);
            incoming.drain(..count);
            (Raw::Bytes(count), count == records.len() || has_fin)
        });
        self.outgoing.extend(std::mem::take(self.session.control()));
        assert!(self.session.partial.len() <= ROOM, "{} bytes", self.session.partial.len());
        assert!(self.session.unread().len() <= BATCH + ROOM);
        read
    }

    /// Sends bytes. False if it cannot.
    pub fn send(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let outgoing = &mut self.outgoing;
            let sent = self.session.encrypt([bytes, b""], |control, records| {
                outgoing.append(control);
                outgoing.extend_from_slice(records);
            });
            match sent {
                Ok((count, ())) => bytes = &bytes[count..],
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends its close_notify.
    pub fn close(&mut self) {
        self.session.say_close();
        self.outgoing.append(self.session.control());
    }

    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }
}

/// A client of TLS 1.3 that encrypts by itself, whatever it is told to.
pub(crate) struct Peer {
    reader: ClientConnection,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    sequence: u64,
}

impl Peer {
    /// Makes its handshake with `server`, which is fed with pieces of this many bytes.
    pub fn open(server: &mut Memory, piece: usize) -> Peer {
        let secrets = Arc::default();
        let config = client_config(&rustls::version::TLS13, &secrets);
        let name = ServerName::try_from(SERVER).unwrap();
        let mut reader = ClientConnection::new(config, name).unwrap();
        while reader.is_handshaking() || reader.wants_write() {
            let mut records = Vec::new();
            while reader.wants_write() {
                reader.write_tls(&mut records).unwrap();
            }
            records.chunks(piece).for_each(|piece| server.feed(piece));
            read(&mut reader, &server.take_outgoing());
        }
        read(&mut reader, &server.take_outgoing());
        let secret = secrets.0.lock().unwrap().clone().unwrap();
        let (key, iv) = keys(&secret);
        Peer { reader, secret, key, iv, sequence: 0 }
    }

    /// A record of this kind with this content.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = content.to_vec();
        inner.push(kind);
        let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
        let mut record = vec![DATA, 3, 3, length[0], length[1]];
        let mut nonce: [u8; 12] = self.iv[..].try_into().unwrap();
        for (byte, more) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= more;
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&record), &mut inner).unwrap();
        self.sequence += 1;
        record.extend_from_slice(&inner);
        record
    }

    /// Uses the next keys, as after a KeyUpdate.
    pub fn update(&mut self) {
        self.secret = expand(&self.secret, "traffic upd", 32);
        (self.key, self.iv) = keys(&self.secret);
        self.sequence = 0;
    }

    /// A KeyUpdate, after which the next keys are used.
    pub fn key_update(&mut self, is_asking: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[24, 0, 0, 1, u8::from(is_asking)]);
        self.update();
        record
    }

    /// What the server has sent.
    pub fn receive(&mut self, server: &mut Memory) -> Vec<u8> {
        read(&mut self.reader, &server.take_outgoing())
    }
}

/// Gives records to a library's client; returns what is in them.
fn read(client: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !records.is_empty() {
        client.read_tls(&mut records).unwrap();
        let count = client.process_new_packets().unwrap().plaintext_bytes_to_read();
        let before = plain.len();
        plain.resize(before + count, 0);
        std::io::Read::read_exact(&mut client.reader(), &mut plain[before..]).unwrap();
    }
    plain
}

/// RFC 8446, section 7.3.
fn keys(secret: &[u8]) -> (LessSafeKey, Vec<u8>) {
    let key = expand(secret, "key", 16);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
    (key, expand(secret, "iv", 12))
}

/// HKDF-Expand-Label without a context, for up to 32 bytes (RFC 8446, section 7.1).
fn expand(secret: &[u8], label: &str, length: u8) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let mut info = vec![0, length, u8::try_from(label.len()).unwrap()];
    info.extend_from_slice(label.as_bytes());
    info.extend_from_slice(&[0, 1]);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(&info);
    mac.finalize().into_bytes()[..usize::from(length)].to_vec()
}
