//! TLS for tests that speak literal bytes: what comes to a plain address here goes on by TLS, or the
//! other way round.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use super::encryption::note_plain;
use super::{Authority, Issued};

/// Makes our side of a new connection.
type Begin = Arc<dyn Fn() -> Connection + Send + Sync>;

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    roots
}

fn pair(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    (chain, PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap())
}

/// An address at which connections are taken, and go on by TLS to the server `name` at `to`, which
/// `authority` has certified; with this certificate if it asks for one.
pub fn by_tls(
    to: SocketAddr,
    name: &str,
    authority: &Authority,
    shown: Option<&Issued>,
) -> SocketAddr {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority));
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let (chain, key) = pair(issued);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let (config, name) = (Arc::new(config), ServerName::try_from(name.to_owned()).unwrap());
    let begin = move || ClientConnection::new(Arc::clone(&config), name.clone()).unwrap().into();
    listen(to, true, Arc::new(begin))
}

/// An address at which TLS is spoken with this certificate, and what comes goes on in the clear to
/// `to`. Clients must have a certificate of `asked`, if there is one.
pub fn for_tls(to: SocketAddr, certificate: &Issued, asked: Option<&Authority>) -> SocketAddr {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match asked {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(roots(authority));
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (chain, key) = pair(certificate);
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let begin = move || ServerConnection::new(Arc::clone(&config)).unwrap().into();
    listen(to, false, Arc::new(begin))
}

fn listen(to: SocketAddr, encrypts: bool, begin: Begin) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    note_plain(address);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let begin = Arc::clone(&begin);
            thread::spawn(move || {
                let Ok(on) = TcpStream::connect(to) else { return };
                let (plain, tls) = if encrypts { (stream, on) } else { (on, stream) };
                relay(plain, tls, begin());
            });
        }
    });
    address
}

/// Passes bytes on until both sides have ended.
fn relay(plain: TcpStream, tls: TcpStream, session: Connection) {
    for socket in [&plain, &tls] {
        socket.set_nodelay(true).unwrap();
    }
    let session = Arc::new(Mutex::new(session));
    // A client begins.
    send(&tls, &mut lock(&session));
    let (from_plain, to_tls, theirs) =
        (plain.try_clone().unwrap(), tls.try_clone().unwrap(), Arc::clone(&session));
    let sending = thread::spawn(move || encrypt(from_plain, to_tls, &theirs));
    decrypt(&tls, &plain, &session);
    let _ = sending.join();
}

fn lock(session: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends all records that are to be sent.
fn send(mut tls: &TcpStream, session: &mut Connection) {
    while session.wants_write() {
        if session.write_tls(&mut tls).is_err() {
            return;
        }
    }
}

fn encrypt(mut plain: TcpStream, tls: TcpStream, session: &Mutex<Connection>) {
    let mut bytes = [0; 16 << 10];
    loop {
        let count = plain.read(&mut bytes).unwrap_or(0);
        let mut session = lock(session);
        if count == 0 {
            session.send_close_notify();
            send(&tls, &mut session);
            let _ = tls.shutdown(Shutdown::Write);
            return;
        }
        if session.writer().write_all(&bytes[..count]).is_err() {
            return;
        }
        send(&tls, &mut session);
    }
}

fn decrypt(mut tls: &TcpStream, mut plain: &TcpStream, session: &Mutex<Connection>) {
    let mut bytes = [0; 16 << 10];
    loop {
        let count = tls.read(&mut bytes).unwrap_or(0);
        let mut records = &bytes[..count];
        let mut session = lock(session);
        let mut has_ended = count == 0;
        while !records.is_empty() {
            let state = match session.read_tls(&mut records) {
                Ok(_) => session.process_new_packets(),
                Err(_) => break,
            };
            has_ended |= state.is_err();
            send(tls, &mut session);
            let mut decrypted = Vec::new();
            // `WouldBlock`: nothing is left now.
            match session.reader().read_to_end(&mut decrypted) {
                Ok(_) => has_ended = true,
                Err(error) => has_ended |= error.kind() != std::io::ErrorKind::WouldBlock,
            }
            if plain.write_all(&decrypted).is_err() {
                has_ended = true;
            }
            if has_ended {
                break;
            }
        }
        if has_ended {
            let _ = plain.shutdown(Shutdown::Write);
            return;
        }
    }
}
