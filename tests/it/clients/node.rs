//! What the module for Node does besides, and WebSockets everywhere.

use super::language::Language;
use super::program::Program;
use crate::common::{Client, Proxy, at};

/// The handshake of RFC 6455, section 1.3, with its key and its answer.
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `Hello`, masked, of RFC 6455, section 5.7, and the same as a server sends it.
const MASKED: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const PLAIN: &[u8] = b"\x81\x05Hello";

/// A WebSocket that is open.
#[track_caller]
pub fn websocket(proxy: &Proxy) -> Client {
    let mut client = Client::request(proxy, UPGRADE);
    let answer = client.read_head();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT));
    client
}

/// Its other end sends back what comes.
#[track_caller]
pub fn echoes(socket: &mut Client) {
    socket.send(MASKED);
    socket.expect_exact(PLAIN);
}

/// Three of them take three bridges away, and the one that the program was told to hold is there
/// all the same.
pub fn websockets_work_and_do_not_use_up_the_bridges(language: Language) {
    let proxy = Proxy::start();
    let mut program = Program::start(language, &at(&proxy), 1, &[("WEBSOCKETS", "yes")]);
    let mut sockets: Vec<Client> = (0..3).map(|_| websocket(&proxy)).collect();
    for _ in 0..3 {
        for socket in &mut sockets {
            echoes(socket);
        }
    }
    proxy.await_count("b", 1);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    for socket in &mut sockets {
        socket.half_close();
        socket.expect_closed();
    }
    program.terminate();
    program.await_end();
}

/// An http.Server without a listener for upgrades answers as though none had been asked for.
#[test]
fn upgrade_without_a_listener_is_an_ordinary_request() {
    if !Language::Node.is_here() {
        return;
    }
    let proxy = Proxy::start();
    let _program = Program::start(Language::Node, &at(&proxy), 1, &[]);
    let mut client = Client::request(&proxy, UPGRADE);
    assert_eq!(client.read_response().text(), "GET /chat for a.test");
}
