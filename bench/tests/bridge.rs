//! The backend as a bridge, seen from the proxy's side: the handshake, requests on one bridge, and
//! dialling again.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

/// Nothing here takes longer unless it hangs.
const DEADLINE: Duration = Duration::from_secs(10);

const OFFER: &str = "BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.bench\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const UPGRADE: &str = "HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n\
    Content-Length: 3\r\n\r\n...";

/// A backend process, ended with the test.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (TcpListener, Backend) {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let backend = Command::new(env!("CARGO_BIN_EXE_backend"))
        .args(["--bridge", &address, "--bridges", "1"])
        .args(["--host", "a.bench", "--body", "3"])
        .spawn()
        .unwrap();
    (proxy, Backend(backend))
}

#[track_caller]
fn expect(bridge: &mut TcpStream, text: &str) {
    bridge.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut got = vec![0; text.len()];
    bridge.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[track_caller]
fn say(bridge: &mut TcpStream, text: &str) {
    bridge.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_bridge_acknowledges_its_101_and_serves_request_after_request() {
    let (proxy, _backend) = start();
    let (mut bridge, _) = proxy.accept().unwrap();
    expect(&mut bridge, OFFER);
    say(&mut bridge, CONTINUE);
    say(&mut bridge, CONTINUE);
    say(&mut bridge, UPGRADE);
    expect(&mut bridge, CONTINUE);
    say(&mut bridge, "GET / HTTP/1.1\r\nHost: a.bench\r\n\r\n");
    expect(&mut bridge, ANSWER);
    // Parked again: no handshake, but perhaps a ping.
    say(&mut bridge, CONTINUE);
    say(&mut bridge, "GET / HTTP/1.1\r\nHost: a.bench\r\n\r\n");
    expect(&mut bridge, ANSWER);
}

#[test]
fn the_handshake_may_come_byte_by_byte_and_with_the_request() {
    let (proxy, _backend) = start();
    let (mut bridge, _) = proxy.accept().unwrap();
    bridge.set_nodelay(true).unwrap();
    expect(&mut bridge, OFFER);
    let all = format!("{CONTINUE}{UPGRADE}GET / HTTP/1.1\r\nHost: a.bench\r\n\r\n");
    for byte in all.bytes() {
        bridge.write_all(&[byte]).unwrap();
    }
    expect(&mut bridge, CONTINUE);
    expect(&mut bridge, ANSWER);
}

#[test]
fn an_upload_is_counted() {
    let (proxy, _backend) = start();
    let (mut bridge, _) = proxy.accept().unwrap();
    expect(&mut bridge, OFFER);
    say(&mut bridge, CONTINUE);
    say(&mut bridge, UPGRADE);
    expect(&mut bridge, CONTINUE);
    say(
        &mut bridge,
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    );
    let head = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n";
    expect(&mut bridge, &format!("{head}Content-Length: 2\r\n\r\n11"));
}

#[test]
fn a_bridge_that_is_closed_is_dialled_again() {
    let (proxy, _backend) = start();
    for _ in 0..3 {
        let (mut bridge, _) = proxy.accept().unwrap();
        expect(&mut bridge, OFFER);
        say(&mut bridge, CONTINUE);
    }
}

#[test]
fn after_a_refusal_the_bridge_hangs_up_and_dials_again() {
    let (proxy, _backend) = start();
    let (mut bridge, _) = proxy.accept().unwrap();
    expect(&mut bridge, OFFER);
    say(&mut bridge, "HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n\r\n");
    bridge.set_read_timeout(Some(DEADLINE)).unwrap();
    match bridge.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the bridge is still there: {other:?}"),
    }
    let (mut bridge, _) = proxy.accept().unwrap();
    expect(&mut bridge, OFFER);
}
