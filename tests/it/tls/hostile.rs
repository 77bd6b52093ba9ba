//! Peers that keep to no rule: each costs a bounded amount of time and memory, and nobody else notices.

use super::{Authority, handshakes, proxy};
use crate::common::{
    Bridge, Client, DEADLINE, Process, Proxy, Setup, Stopwatch, eventually, exchange, let_pass,
    under_way,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Memory that all connections of a test together may cost.
const MEMORY: u64 = 24 * 1024 * 1024;

fn start() -> Proxy {
    Setup::new().over_tls().settings("head-timeout 1s\nworkers 2").start()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Reads until the proxy has ended the connection, one way or the other.
fn await_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    let until = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < until, "it is still open");
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The first flight of a library's client.
fn hello() -> Vec<u8> {
    use rustls::pki_types::ServerName;
    let roots = rustls::RootCertStore::empty();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("proxy.test").expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut records = Vec::new();
    client.write_tls(&mut records).expect("a vector");
    records
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let proxy = start();
    let hello = hello();
    let clock = Stopwatch::start();
    let mut stream = connect(proxy.for_clients());
    let mut whole = connect(proxy.for_clients());
    // All but the end of it: and the other one says nothing after it.
    stream.write_all(&hello[..hello.len() - 1]).expect("sent");
    whole.write_all(&hello).expect("sent");
    assert!(await_end(&mut stream).is_empty());
    clock.assert_passed(HEAD_TIMEOUT);
    assert_eq!(await_end(&mut whole).first(), Some(&22), "a ServerHello");
    // A byte now and then does not put it off.
    let mut slow = connect(proxy.for_clients());
    let until = Instant::now() + DEADLINE;
    for byte in hello.iter().cycle() {
        assert!(Instant::now() < until, "it is still open");
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        let_pass(Duration::from_millis(100));
    }
    proxy.await_log("the handshake takes too long");
    eventually("all are counted", || handshakes(&proxy, "failed") == 3);
}

/// A peer that is no TLS client: what it does to its connection.
type Act = fn(&mut TcpStream, &[u8]);

/// Half a ClientHello and then a FIN.
fn half_and_fin(stream: &mut TcpStream, hello: &[u8]) {
    let _ = stream.write_all(&hello[..hello.len() / 2]);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    await_end(stream);
}

/// Half a ClientHello and then a RST.
fn half_and_reset(stream: &mut TcpStream, hello: &[u8]) {
    let _ = stream.write_all(&hello[..hello.len() / 2]);
    let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
}

/// A record longer than a record may be.
fn oversized(stream: &mut TcpStream, _: &[u8]) {
    let _ = stream.write_all(&[22, 3, 1, 0xff, 0xff]);
    let _ = stream.write_all(&[1; 0xffff]);
    await_end(stream);
}

fn garbage(stream: &mut TcpStream, _: &[u8]) {
    let _ = stream.write_all(&[0xa5; 3000]);
    await_end(stream);
}

fn garbage_after_the_hello(stream: &mut TcpStream, hello: &[u8]) {
    let _ = stream.write_all(hello);
    let _ = stream.write_all(&[0xa5; 3000]);
    await_end(stream);
}

/// A handshake message that never comes to its end.
fn endless(stream: &mut TcpStream, _: &[u8]) {
    let mut record = vec![22, 3, 1, 0x3f, 0xf0, 1, 0, 0xff, 0xf0];
    record.resize(5 + 0x3ff0, 7);
    while stream.write_all(&record).is_ok() {
        record = vec![22, 3, 1, 0x3f, 0xf0];
        record.resize(5 + 0x3ff0, 7);
    }
}

/// Records that say nothing.
fn empty_records(stream: &mut TcpStream, hello: &[u8]) {
    let _ = stream.write_all(hello);
    let nothing: Vec<u8> = [20, 3, 3, 0, 1, 1].repeat(1000);
    while stream.write_all(&nothing).is_ok() {}
}

fn text(stream: &mut TcpStream, _: &[u8]) {
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = await_end(stream);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
}

/// It never says anything, and goes when it is told to.
fn silent(stream: &mut TcpStream, hello: &[u8]) {
    let _ = stream.write_all(&hello[..1]);
    await_end(stream);
}

#[test]
fn a_hundred_hostile_peers_harm_nobody_else() {
    const ACTS: [Act; 9] = [
        half_and_fin,
        half_and_reset,
        oversized,
        garbage,
        garbage_after_the_hello,
        endless,
        empty_records,
        text,
        silent,
    ];
    // Long enough for the handshakes of good clients while all the others run.
    let proxy = Setup::new().over_tls().settings("head-timeout 4s").start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.respond_to(&mut client, "first");
    let hello = hello();
    let before = proxy.memory();
    let over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..100)
            .map(|number| {
                let (hello, address) = (&hello, proxy.for_clients());
                scope.spawn(move || {
                    for round in 0..3 {
                        ACTS[(number + round) % ACTS.len()](&mut connect(address), hello);
                    }
                })
            })
            .collect();
        // Meanwhile others are served, over connections that there were and over new ones.
        let good = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                exchange(&mut client, &mut bridge);
                let mut other = Client::get(&proxy, "a.test", "/other");
                bridge.serve_to(&mut other, "other");
                rounds += 1;
            }
            rounds
        });
        let outcomes: Vec<_> = peers.into_iter().map(|peer| peer.join()).collect();
        over.store(true, Ordering::Relaxed);
        let rounds = good.join().expect("good clients are served");
        outcomes.into_iter().for_each(|outcome| outcome.expect("a hostile peer"));
        rounds
    });
    assert!(rounds > 0);
    let after = proxy.peak_memory();
    assert!(after < before + MEMORY, "{before} bytes before, {after} at the peak");
    exchange(&mut client, &mut bridge);
    // Some lines tell of it, not hundreds.
    let lines = proxy.log().lines().filter(|line| line.contains("TLS with ")).count();
    assert!((1..=60).contains(&lines), "{lines} lines");
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
    eventually("all are gone", || proxy.info().number(&["connections", "client_idle"]) <= 1);
}

/// Openssl sends a KeyUpdate for each line with a k or K, which asks for one in return.
#[test]
fn a_flood_of_key_updates_is_ended() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let proxy = proxy(&authority.tls("site"), "");
    for letter in ["k", "K"] {
        // With pauses, or openssl would take the lines together.
        let lines = format!("for i in $(seq 100); do echo {letter}; sleep 0.02; done");
        let input = format!("{{ sleep 1; {lines}; sleep 1; }}");
        let (_, said) = authority.client(proxy.for_clients(), "-tls1_3", &input);
        assert!(said.contains("KEYUPDATE"), "{said}");
    }
    authority.served(&proxy, "-tls1_3");
    let memory = proxy.peak_memory();
    assert!(memory < 64 * 1024 * 1024, "{memory} bytes");
}

/// A few are well, also between the pieces of a request.
#[test]
fn new_keys_in_the_middle_of_requests_are_well() {
    let Some(authority) = Authority::new() else { return };
    authority.issue("site", "DNS:a.test");
    let proxy = proxy(&authority.tls("site"), "");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &proxy.for_clients().to_string()]);
    command.args(["-CAfile", &authority.path("ca.pem"), "-verify_return_error"]);
    command.args(["-tls1_3", "-crlf"]);
    let mut client = Process::spawn("openssl", command.stdin(Stdio::piped()));
    client.await_log("Verify return code: 0 (ok)");
    for line in ["GET / HTTP/1.1", "K", "Host: a.test", "k", "Connection: close", ""] {
        // A letter is a command only at the beginning of what is read at once: what was before it must
        // have been read.
        client.await_asleep();
        let input = client.child().stdin.as_mut().expect("a pipe");
        input.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }
    client.await_log("HTTP/1.1 404 ");
    client.await_log("KEYUPDATE");
}

/// Bytes in place of a record end a connection whatever it is doing, and are passed on to nobody.
#[test]
fn garbage_in_place_of_a_record_ends_an_exchange() {
    let proxy = start();
    const GARBAGE: [u8; 40] = [0xa5; 40];
    // Of a client that waits for its response, which may have come before.
    let (mut client, mut bridge) = under_way(&proxy);
    client.stream().write_all(&GARBAGE).expect("sent");
    bridge.send_if_open(crate::common::ok("good"));
    client.read_to_end();
    // It may have been served, and be parked.
    drop(bridge);
    proxy.await_no_bridges();
    // Of a client in the middle of its body.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf";
    let client = Client::request(&proxy, post);
    bridge.acknowledge();
    bridge.read_head();
    bridge.expect_exact("half");
    client.stream().write_all(&GARBAGE).expect("sent");
    bridge.expect_closed();
    // Of a backend in the middle of its response.
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    client.read_head();
    bridge.stream().write_all(&GARBAGE).expect("sent");
    let (body, _) = client.read_to_end();
    assert!(b"half".starts_with(&body), "{body:?}");
    // Of a backend that is parked.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.stream().write_all(&GARBAGE).expect("sent");
    bridge.read_to_end();
    proxy.await_no_bridges();
}

/// What is ready for a peer that does not read is bounded.
#[test]
fn peers_that_do_not_read_cost_little_memory() {
    const PEERS: usize = 50;
    let proxy = Setup::new().over_tls().start();
    let (mut client, mut first) = under_way(&proxy);
    first.respond_to(&mut client, "first");
    let before = proxy.memory();
    let mut all = Vec::new();
    for _ in 0..PEERS {
        let mut bridge = Bridge::park(&proxy, &["b.test"]);
        let client = Client::get(&proxy, "b.test", "/");
        bridge.accept_request();
        bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let block = vec![b'x'; 256 * 1024];
        // With the proxy asleep before, what is not taken now is not going to be.
        loop {
            let was_asleep = proxy.is_asleep();
            if bridge.send_some(&block).is_err() && was_asleep {
                break;
            }
        }
        all.push((client, bridge));
    }
    let used = proxy.memory().saturating_sub(before);
    assert!(used < PEERS as u64 * 1024 * 1024, "{used} bytes");
    exchange(&mut client, &mut first);
}
