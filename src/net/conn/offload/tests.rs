//! Connections that the kernel encrypts, with a peer of rustls. Where the kernel has no TLS they are
//! skipped; `tests/guest/ktls/run` runs them in a machine that has.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};

use super::*;
use crate::net::buffer::Pool;
use crate::net::conn::LingerStep;
use crate::net::pipe::Pipes;
use crate::net::tls::Session;
use crate::net::tls::memory::{SERVER, server_config};

const DEADLINE: Duration = Duration::from_secs(60);

const ISSUER: &[u8] = include_bytes!("../../../../tests/certificates/issuer.pem");

/// Every pair of a version and a cipher that is spoken, for the certificate of the tests.
const SUITES: [(&SupportedProtocolVersion, CipherSuite); 6] = [
    (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
    (&TLS13, CipherSuite::TLS13_AES_256_GCM_SHA384),
    (&TLS13, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The first of each version.
const BOTH: [(&SupportedProtocolVersion, CipherSuite); 2] = [SUITES[0], SUITES[3]];

fn has_ktls() -> bool {
    let has = ktls::support().is_available();
    if !has {
        eprintln!("skipped: this kernel has no TLS (its module `tls`)");
    }
    has
}

fn client_config(version: &'static SupportedProtocolVersion, suite: CipherSuite) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ISSUER).unwrap()).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites.retain(|has| has.suite() == suite);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    config
}

fn secret_server(version: &'static SupportedProtocolVersion) -> ServerConfig {
    let mut config = (*server_config(version)).clone();
    config.enable_secret_extraction = true;
    config
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Our side of a connection.
struct Ours {
    conn: Conn,
    poll: Poll,
    pool: Pool,
}

impl Ours {
    fn new(stream: std::net::TcpStream, session: Session) -> Ours {
        stream.set_nonblocking(true).unwrap();
        let mut pool = Pool::default();
        let mut conn = Conn::new(mio::net::TcpStream::from_std(stream));
        let poll = Poll::new().unwrap();
        let interests = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        poll.registry().register(conn.source(), Token(0), interests).unwrap();
        conn.start_tls(session, &mut pool);
        let mut ours = Ours { conn, poll, pool };
        while !ours.conn.step_handshake(&mut ours.pool).unwrap() {
            ours.wait();
        }
        assert!(ours.conn.offload().unwrap() && ours.conn.is_offloaded());
        ours
    }

    /// Waits for an event.
    #[track_caller]
    fn wait(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(DEADLINE)).unwrap();
        assert!(!events.is_empty(), "nothing has come");
        events.iter().for_each(|event| self.conn.latch(event));
    }

    /// Does it again and again until it finds something.
    #[track_caller]
    fn until(&mut self, mut read: impl FnMut(&mut Conn) -> Received) -> Received {
        loop {
            match read(&mut self.conn) {
                Received::Nothing => self.wait(),
                received => return received,
            }
        }
    }

    /// Receives so many bytes.
    #[track_caller]
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (mut all, mut into) = (Vec::new(), vec![0; 100_000]);
        while all.len() < count {
            match self.until(|conn| conn.receive(&mut into)) {
                Received::Bytes(count) => all.extend_from_slice(&into[..count]),
                other => panic!("{other:?} after {} bytes", all.len()),
            }
        }
        all
    }

    #[track_caller]
    fn ends(&mut self) {
        assert!(matches!(self.until(|conn| conn.receive(&mut [0; 10])), Received::End));
        assert!(self.conn.has_ended() && !self.conn.is_readable());
    }

    /// What has ended the connection.
    #[track_caller]
    fn breaks(&mut self) -> String {
        match self.until(|conn| conn.receive(&mut [0; 10])) {
            Received::Broken(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends everything.
    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.conn.send(bytes, &mut self.pool).unwrap();
        while !self.conn.flush(&mut self.pool).unwrap() {
            self.wait();
        }
    }
}

/// A connection whose server is ours, and the client's end of it.
type Client = rustls::StreamOwned<ClientConnection, std::net::TcpStream>;

fn connect(
    server: ServerConfig,
    client: ClientConfig,
    talk: impl FnOnce(Client) -> Vec<u8> + Send + 'static,
) -> (Ours, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let theirs = thread::spawn(move || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = SERVER.try_into().unwrap();
        let mut client =
            Client::new(ClientConnection::new(Arc::new(client), name).unwrap(), stream);
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        talk(client)
    });
    let (stream, _) = listener.accept().unwrap();
    (Ours::new(stream, Session::server(Arc::new(server)).unwrap()), theirs)
}

/// The same with settings of one version.
fn open(
    (version, suite): (&'static SupportedProtocolVersion, CipherSuite),
    talk: impl FnOnce(Client) -> Vec<u8> + Send + 'static,
) -> (Ours, JoinHandle<Vec<u8>>) {
    connect(secret_server(version), client_config(version, suite), talk)
}

fn say_close(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
}

/// Everything up to the close_notify; without one it panics.
fn read_all(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn bytes_go_both_ways_with_every_cipher_and_a_close_notify_is_the_end() {
    if !has_ktls() {
        return;
    }
    for suite in SUITES {
        let (mut ours, theirs) = open(suite, |mut client| {
            client.write_all(&pattern(300_000)).unwrap();
            say_close(&mut client);
            read_all(&mut client)
        });
        assert!(ours.take(300_000) == pattern(300_000));
        ours.ends();
        assert_eq!(ours.conn.unread(), Unread::End);
        ours.send(&pattern(300_000));
        ours.conn.shut_down();
        assert!(theirs.join().unwrap() == pattern(300_000), "{suite:?}");
        let suite_of = ours.conn.tls().unwrap().agreed().protocol_version();
        assert_eq!(suite_of, Some(suite.0.version));
    }
}

#[test]
fn a_fin_without_a_close_notify_is_a_cut() {
    if !has_ktls() {
        return;
    }
    for suite in BOTH {
        let (mut ours, theirs) = open(suite, |mut client| {
            client.write_all(b"half of it").unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            read_all(&mut client)
        });
        assert_eq!(ours.take(10), b"half of it");
        assert_eq!(ours.breaks(), "the connection ended without a close_notify");
        assert!(ours.conn.is_broken() && !ours.conn.has_ended());
        ours.conn.shut_down();
        theirs.join().unwrap();
    }
}

/// What we have ended ourselves is no cut.
#[test]
fn a_connection_that_we_hang_up_has_ended() {
    if !has_ktls() {
        return;
    }
    let (mut ours, theirs) = open(BOTH[0], |client| {
        drop(client);
        Vec::new()
    });
    ours.conn.hang_up();
    ours.ends();
    theirs.join().unwrap();
}

#[test]
fn what_comes_with_the_handshake_is_read_first() {
    if !has_ktls() {
        return;
    }
    for suite in BOTH {
        let (mut ours, theirs) = open(suite, |mut client| {
            // With TLS 1.3 this may come with the last of the handshake.
            client.write_all(b"GET /").unwrap();
            let mut answer = [0; 2];
            client.read_exact(&mut answer).unwrap();
            answer.to_vec()
        });
        while ours.conn.unread() == Unread::Nothing {
            ours.wait();
        }
        assert_eq!(ours.conn.unread(), Unread::Bytes(*b"GET /\0\0\0\0\0\0\0"));
        assert_eq!(ours.take(5), b"GET /");
        assert!(ours.conn.probe_idle());
        ours.send(b"OK");
        assert_eq!(theirs.join().unwrap(), b"OK");
    }
}

#[test]
fn new_keys_of_the_peer_are_taken_or_end_the_connection() {
    if !has_ktls() {
        return;
    }
    let (mut ours, theirs) = open(SUITES[0], |mut client| {
        client.write_all(b"before").unwrap();
        client.conn.refresh_traffic_keys().unwrap();
        client.write_all(b"after").unwrap();
        let mut answer = Vec::new();
        match client.read_to_end(&mut answer) {
            Ok(_) => answer,
            Err(error) => error.to_string().into_bytes(),
        }
    });
    assert_eq!(ours.take(6), b"before");
    if ktls::support().replaces_keys() {
        assert_eq!(ours.take(5), b"after");
        ours.send(b"answer");
        ours.conn.shut_down();
        assert_eq!(theirs.join().unwrap(), b"answer");
    } else {
        eprintln!("skipped: this kernel takes no other keys");
        ours.breaks();
        let seen = String::from_utf8(theirs.join().unwrap()).unwrap();
        assert!(seen.contains("InternalError"), "{seen}");
    }
}

/// The peer's keys and ours, again and again, while bytes are on their way.
#[test]
fn keys_are_replaced_before_they_have_been_used_too_often() {
    if !has_ktls() {
        return;
    }
    let sends = 100;
    let (mut ours, theirs) = open(SUITES[0], move |mut client| {
        let mut all = vec![0; 1000];
        // Where the keys cannot be replaced, less comes.
        let mut count = 0;
        while count < all.len() {
            match client.read(&mut all[count..]) {
                Ok(more) if more > 0 => count += more,
                _ => break,
            }
        }
        all.truncate(count);
        all
    });
    ours.conn.kernel.as_mut().unwrap().set_limit(16);
    let mut sent = 0;
    for at in 0..sends {
        if ours.conn.send(&[at; 10], &mut ours.pool).is_err() {
            break;
        }
        sent += 1;
    }
    if ktls::support().replaces_keys() {
        assert!(sent == sends && !ours.conn.is_worn());
        let expected: Vec<u8> = (0..sends).flat_map(|at| [at; 10]).collect();
        assert!(theirs.join().unwrap() == expected);
    } else {
        // Two tickets came first.
        assert!((10..16).contains(&sent) && ours.conn.is_worn(), "{sent}");
        drop(ours);
        theirs.join().unwrap();
    }
}

#[test]
fn bytes_are_spliced_both_ways_with_every_cipher() {
    if !has_ktls() {
        return;
    }
    const ALL: usize = 3_000_000;
    for suite in SUITES {
        let (mut ours, theirs) = open(suite, |mut client| {
            client.write_all(&pattern(ALL)).unwrap();
            say_close(&mut client);
            read_all(&mut client)
        });
        // Up: out of the kernel's TLS, through a pipe, into a socket that is not encrypted.
        let (sink, mut far) = UnixStream::pair().unwrap();
        let received = thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        let mut pipe = Pipes::default().take().unwrap();
        let mut count = 0;
        loop {
            match ours.until(|conn| conn.receive_into(&mut pipe, 100_000)) {
                Received::Bytes(more) => count += more,
                Received::End => break,
                other => panic!("{other:?} after {count}"),
            }
            while pipe.held() > 0 {
                pipe.drain(&sink).unwrap();
            }
        }
        drop(sink);
        assert!(received.join().unwrap() == pattern(ALL), "{suite:?}");
        // Down: the other way.
        let (source, mut near) = UnixStream::pair().unwrap();
        let sender = thread::spawn(move || near.write_all(&pattern(ALL)));
        let mut count = 0;
        while count < ALL {
            count += pipe.fill(&source, 200_000).unwrap();
            while !ours.conn.send_from(&mut pipe).unwrap() {
                ours.wait();
            }
        }
        sender.join().unwrap().unwrap();
        ours.conn.shut_down();
        assert!(theirs.join().unwrap() == pattern(ALL), "{suite:?}");
    }
}

#[test]
fn a_splice_stops_in_front_of_new_keys_and_a_cut() {
    if !has_ktls() || !ktls::support().replaces_keys() {
        eprintln!("skipped: this kernel takes no other keys");
        return;
    }
    let (mut ours, theirs) = open(SUITES[0], |mut client| {
        client.write_all(b"before").unwrap();
        client.conn.refresh_traffic_keys().unwrap();
        client.write_all(b"after").unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        Vec::new()
    });
    let mut pipe = Pipes::default().take().unwrap();
    let error = loop {
        match ours.until(|conn| conn.receive_into(&mut pipe, 1000)) {
            Received::Bytes(0) => ours.wait(),
            Received::Bytes(_) => {}
            Received::Broken(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    let mut all = [0; 20];
    let count = pipe.read(&mut all).unwrap();
    assert_eq!(&all[..count], b"beforeafter");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    theirs.join().unwrap();
}

/// A FIN comes only after everything that the kernel holds back while the peer does not read.
#[test]
fn a_slow_reader_gets_everything_and_the_close_notify() {
    if !has_ktls() {
        return;
    }
    for suite in BOTH {
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let (mut ours, theirs) = open(suite, move |mut client| {
            begun.recv().unwrap();
            read_all(&mut client)
        });
        // Until the socket is full: what the kernel has taken is in sight of nobody.
        let mut sent = 0;
        while ours.conn.output.is_empty() {
            ours.conn.send(&pattern(251 * 40), &mut ours.pool).unwrap();
            sent += 251 * 40;
        }
        begin.send(()).unwrap();
        let mut scratch = vec![0; 1000];
        loop {
            match ours.conn.step_linger(&mut scratch, &mut ours.pool, 4) {
                (_, LingerStep::Wait) if ours.conn.is_shut() => break,
                (_, LingerStep::Wait) => ours.wait(),
                (_, LingerStep::Busy) => {}
                (_, LingerStep::Close) => panic!("after {sent}"),
            }
        }
        assert!(theirs.join().unwrap() == pattern(sent), "{suite:?}");
    }
}

/// The same when nothing is left in the output.
#[test]
fn a_fin_waits_for_what_the_kernel_holds() {
    if !has_ktls() {
        return;
    }
    for suite in BOTH {
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let (mut ours, theirs) = open(suite, move |mut client| {
            begun.recv().unwrap();
            read_all(&mut client)
        });
        let (mut sent, mut taken) = (0, 1);
        while taken > 0 {
            let bytes = &pattern(251 * 200)[..];
            taken = io::Write::write(&mut ours.conn.stream, &bytes[sent % 251..]).unwrap_or(0);
            sent += taken;
        }
        ours.conn.shut_down();
        assert!(ours.conn.is_shut() && ours.conn.has_unsent());
        begin.send(()).unwrap();
        while ours.conn.has_unsent() {
            ours.wait();
        }
        assert!(theirs.join().unwrap() == pattern(sent), "{suite:?}");
    }
}

#[test]
fn as_many_bytes_are_sent_as_are_counted() {
    if !has_ktls() {
        return;
    }
    for (version, suite) in SUITES {
        let mut server = secret_server(version);
        server.send_tls13_tickets = 0;
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (mut ours, theirs) =
            connect(server, client_config(version, suite), move |mut client| {
                ready.send(()).unwrap();
                let mut records = Vec::new();
                client.sock.read_to_end(&mut records).unwrap();
                records
            });
        is_ready.recv().unwrap();
        ours.send(b"head");
        ours.send(&pattern(40_000));
        let records = ours.conn.kernel.as_ref().unwrap().records_of_last(40_004);
        // Without a close_notify.
        ours.conn.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Some(theirs.join().unwrap().len() as u64), records, "{suite:?}");
    }
}

/// Our side is the client's. It gets tickets after the kernel has its keys.
#[test]
fn tickets_are_kept_for_later_connections() {
    if !has_ktls() {
        return;
    }
    for (version, suite) in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = server_config(version);
        let theirs = thread::spawn(move || {
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                let server = ServerConnection::new(Arc::clone(&server)).unwrap();
                let mut server = rustls::StreamOwned::new(server, stream);
                let mut name = [0; 4];
                server.read_exact(&mut name).unwrap();
                server.write_all(&name).unwrap();
                server.conn.send_close_notify();
                server.flush().unwrap();
                server.sock.shutdown(Shutdown::Write).unwrap();
                server.sock.read_to_end(&mut Vec::new()).unwrap();
            }
        });
        let client = Arc::new(client_config(version, suite));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = std::net::TcpStream::connect(address).unwrap();
            let session = Session::client(Arc::clone(&client), SERVER.try_into().unwrap()).unwrap();
            let mut ours = Ours::new(stream, session);
            assert_eq!(ours.conn.tls().unwrap().agreed().handshake_kind(), Some(kind));
            ours.send(b"ping");
            assert_eq!(ours.take(4), b"ping");
            ours.ends();
            ours.conn.shut_down();
        }
        theirs.join().unwrap();
    }
}

/// Without the kernel's TLS, or where it is switched off, rustls keeps the keys.
#[test]
fn a_session_without_secrets_stays_where_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let mut pool = Pool::default();
    let mut conn = Conn::new(mio::net::TcpStream::from_std(accepted));
    conn.start_tls(Session::server(server_config(&TLS13)).unwrap(), &mut pool);
    assert!(!conn.offload().unwrap() && conn.is_handshaking());
    let client = client_config(&TLS13, SUITES[0].1);
    let mut client = ClientConnection::new(Arc::new(client), SERVER.try_into().unwrap()).unwrap();
    client.write_tls(&mut stream).unwrap();
    conn.expect_input();
    while !conn.step_handshake(&mut pool).unwrap() {
        client.complete_io(&mut stream).unwrap();
        conn.expect_input();
    }
    assert!(!conn.offload().unwrap() && !conn.is_offloaded() && !conn.can_splice());
}
