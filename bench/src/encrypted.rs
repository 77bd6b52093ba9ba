//! Loads by TLS: a connection for each request, or large bodies. Threads that block, because it is the proxy's time that is
//! measured, not ours.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Bytes written or read at once.
const PIECE: usize = 256 * 1024;

/// What to do, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The proxy.
    pub to: SocketAddr,
    /// The name asked for, which the proxy's certificate is for.
    pub host: String,
    /// The target of each request.
    pub path: String,
    /// The issuer of the proxy's certificate, in PEM.
    pub ca: PathBuf,
    /// Each connection carries one request.
    pub close: bool,
    /// Handshakes use the ticket of an earlier one.
    pub resume: bool,
    /// Send a body of so many bytes; 0 for none.
    pub upload: u64,
    /// Connections at a time.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Bytes of bodies, in both directions.
    pub bytes: u64,
    /// Requests answered with 200.
    pub requests: u64,
    /// Requests lost or refused.
    pub errors: u64,
    /// The time it took.
    pub took: Duration,
}

/// Asks until the time is up.
///
/// # Errors
/// When the issuer's certificate cannot be used.
pub fn run(plan: &Plan) -> io::Result<Done> {
    let config = config(plan)?;
    let started = Instant::now();
    let until = started + plan.time;
    let threads: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (plan, config) = (plan.clone(), Arc::clone(&config));
            thread::spawn(move || ask(&plan, &config, until))
        })
        .collect();
    let mut all = Done::default();
    for thread in threads {
        let done = thread.join().map_err(|_| io::Error::other("a thread failed"))?;
        all.bytes += done.bytes;
        all.requests += done.requests;
        all.errors += done.errors;
    }
    all.took = started.elapsed();
    Ok(all)
}

fn config(plan: &Plan) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let issuer = CertificateDer::from_pem_file(&plan.ca).map_err(io::Error::other)?;
    roots.add(issuer).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !plan.resume {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// One connection after another, each until it ends.
fn ask(plan: &Plan, config: &Arc<ClientConfig>, until: Instant) -> Done {
    let mut done = Done::default();
    while Instant::now() < until {
        if connection(plan, config, until, &mut done).is_err() {
            done.errors += 1;
        }
    }
    done
}

fn connection(
    plan: &Plan,
    config: &Arc<ClientConfig>,
    until: Instant,
    done: &mut Done,
) -> io::Result<()> {
    let stream = TcpStream::connect(plan.to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let name = ServerName::try_from(plan.host.clone()).map_err(io::Error::other)?;
    let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = BufReader::with_capacity(PIECE, StreamOwned::new(tls, stream));
    let (method, close) = (
        if plan.upload > 0 { "POST" } else { "GET" },
        if plan.close { "close" } else { "keep-alive" },
    );
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: {close}\r\n\r\n",
        plan.path, plan.host, plan.upload
    );
    let piece = vec![b'x'; PIECE];
    while Instant::now() < until {
        stream.get_mut().write_all(head.as_bytes())?;
        let mut left = plan.upload;
        while left > 0 {
            let count = left.min(PIECE as u64);
            stream.get_mut().write_all(&piece[..count as usize])?;
            left -= count;
            done.bytes += count;
            if Instant::now() >= until {
                return Ok(());
            }
        }
        let (good, length) = response(&mut stream)?;
        let mut body = stream.by_ref().take(length);
        let mut left = length;
        while left > 0 {
            let count = body.fill_buf()?.len();
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            body.consume(count);
            left -= count as u64;
            done.bytes += count as u64;
            if Instant::now() >= until {
                return Ok(());
            }
        }
        done.requests += u64::from(good);
        done.errors += u64::from(!good);
        if plan.close {
            // Tickets come with the response; the connection ends when all has been read.
            let _ = stream.read(&mut [0; 1]);
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a head: whether its status is 200, and the length of the body.
fn response(stream: &mut impl BufRead) -> io::Result<(bool, u64)> {
    let (mut good, mut length, mut line) = (false, 0, String::new());
    for number in 0.. {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if number == 0 {
            good = line.starts_with("HTTP/1.1 200 ");
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    Ok((good, length))
}
