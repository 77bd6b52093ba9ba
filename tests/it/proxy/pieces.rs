//! Peers that write a message in pieces and leave Nagle's algorithm on (RFC 9293, section 3.7.4):
//! each piece but the first waits until the one before it is acknowledged, and a receiver that has
//! nothing to send delays that.

use crate::common::{Agent, Bridge, Client, Proxy, Wire, at};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// The shortest time for which the kernel delays an acknowledgement (TCP_DELACK_MIN).
const DELAYED: Duration = Duration::from_millis(40);

/// After so many exchanges the kernel delays the acknowledgements of a connection. Before that it
/// sends them at once, to help a sender that starts slowly.
const WARM: usize = 24;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const BODY: &str = "hello";

/// A server that answers each request with these pieces, one write each.
fn server(pieces: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut wire = Wire::new(stream);
                wire.stream().set_nodelay(false).expect("TCP_NODELAY");
                while wire.read_request().is_some() {
                    pieces.iter().for_each(|piece| _ = wire.send_if_open(piece));
                }
            });
        }
    });
    address
}

/// Fails if each of many exchanges takes as long as a delayed acknowledgement. One that does not is
/// enough, because the machine may be busy.
#[track_caller]
fn is_not_delayed(mut exchange: impl FnMut()) {
    (0..WARM).for_each(|_| exchange());
    let is_prompt = (0..10 * WARM).any(|_| {
        let began = Instant::now();
        exchange();
        began.elapsed() < DELAYED
    });
    assert!(is_prompt, "each took {DELAYED:?} or longer");
}

#[track_caller]
fn is_asked_without_delay(proxy: &Proxy) {
    let mut client = Client::connect(proxy);
    is_not_delayed(|| {
        client.send_get("a.test", "/");
        assert_eq!(client.read_final_response().text(), BODY);
    });
}

#[test]
fn dialled_server_that_writes_head_and_body_apart_is_not_delayed() {
    let server = server(&[HEAD, BODY]);
    is_asked_without_delay(&Proxy::with(&format!("site a.test servers={server}")));
}

#[test]
fn dialled_server_that_writes_line_by_line_is_not_delayed() {
    let server = server(&["HTTP/1.1 200 OK\r\n", "Content-Length: 5\r\n\r\n", BODY]);
    is_asked_without_delay(&Proxy::with(&format!("site a.test servers={server}")));
}

#[test]
fn dialled_server_that_sends_hints_first_is_not_delayed() {
    let server = server(&["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", HEAD, BODY]);
    is_asked_without_delay(&Proxy::with(&format!("site a.test servers={server}")));
}

#[test]
fn application_of_an_agent_that_writes_head_and_body_apart_is_not_delayed() {
    let server = server(&[HEAD, BODY]);
    let proxy = Proxy::start();
    let _agent = Agent::serve(&server.to_string(), 1, &[at(&proxy)]);
    is_asked_without_delay(&proxy);
}

#[test]
fn bridge_that_writes_head_and_body_apart_is_not_delayed() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.stream().set_nodelay(false).expect("TCP_NODELAY");
    let mut client = Client::connect(&proxy);
    is_not_delayed(|| {
        client.send_get("a.test", "/");
        bridge.accept_request();
        bridge.send(HEAD);
        bridge.send(BODY);
        assert_eq!(client.read_response().text(), BODY);
    });
}

#[test]
fn client_that_writes_head_and_body_apart_is_not_delayed() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    client.stream().set_nodelay(false).expect("TCP_NODELAY");
    is_not_delayed(|| {
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n");
        client.send(BODY);
        bridge.serve_to(&mut client, "ok");
    });
}
