//! A Node server with WebSockets, as its `ws` package would speak them, and chunked bodies both
//! ways.

use super::program::Program;
use crate::common::{Agent, Client, Proxy, at, installed, pattern};

/// It says what it was asked, and echoes the frames of a WebSocket: text and binary as they came, a
/// ping as a pong, a close as a close.
const NODE: &str = r#"
const crypto = require('crypto');
const server = require('http').createServer((request, response) => {
    let body = '';
    request.on('data', (data) => body += data);
    request.on('end', () => {
        response.write(`${request.method} ${request.url} `);
        response.end(body);
    });
});

function frame(opcode, payload) {
    let head = Buffer.from([0x80 | opcode, payload.length]);
    if (payload.length > 0xffff) {
        head = Buffer.alloc(10);
        head.writeUInt16BE((0x80 | opcode) << 8 | 127);
        head.writeUInt32BE(payload.length, 6);
    } else if (payload.length > 125) {
        head = Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 255]);
    }
    return Buffer.concat([head, payload]);
}

// The first frame of the bytes that have come, or nothing while its end is not there.
function first(bytes) {
    if (bytes.length < 2) return null;
    let length = bytes[1] & 127, at = 2;
    if (length == 126) { if (bytes.length < 4) return null; length = bytes.readUInt16BE(2); at = 4; }
    else if (length == 127) { if (bytes.length < 10) return null; length = bytes.readUInt32BE(6); at = 10; }
    const end = at + 4 + length;
    if (bytes.length < end) return null;
    const mask = bytes.subarray(at, at + 4);
    const payload = Buffer.from(bytes.subarray(at + 4, end)).map((byte, index) => byte ^ mask[index & 3]);
    return { opcode: bytes[0] & 15, payload, rest: bytes.subarray(end) };
}

server.on('upgrade', (request, socket, early) => {
    const accept = crypto.createHash('sha1')
        .update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    let held = early;
    const take = (data) => {
        held = Buffer.concat([held, data]);
        for (let one; (one = first(held)); held = one.rest) {
            socket.write(frame(one.opcode == 9 ? 10 : one.opcode, one.payload));
            if (one.opcode == 8) socket.end();
        }
    };
    socket.on('data', take);
    take(Buffer.alloc(0));
});
const [port, address] = process.argv.slice(2);
server.listen(port, address);
"#;

/// A proxy and an agent before a Node server, if that is there.
fn served() -> Option<(Proxy, Program, Agent)> {
    if !installed("node", &["node", "--version"]) {
        return None;
    }
    let proxy = Proxy::start();
    proxy.write("server.js", NODE);
    let (node, address) = Program::start(&proxy, &["node", "server.js", "{port}", "{address}"]);
    let agent = Agent::serve(&address.to_string(), 2, &[at(&proxy)]);
    Some((proxy, node, agent))
}

#[test]
fn node_serves_requests_with_chunked_bodies() {
    let Some((proxy, _node, _agent)) = served() else { return };
    let mut client = Client::get(&proxy, "a.test", "/x");
    let response = client.read_response();
    assert_eq!(response.text(), "GET /x ");
    assert_eq!(response.field("transfer-encoding"), Some("chunked"));
    client.send(
        "POST /y HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "POST /y body");
    client.send(
        "POST /z HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 100);
    client.send("more");
    assert_eq!(client.read_response().text(), "POST /z more");
    client.send("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.read_head().status(), 200);
    client.send_get("a.test", "/last");
    assert_eq!(client.read_response().text(), "GET /last ");
}

/// With the examples of RFC 6455, sections 1.3 and 5.7.
#[test]
fn node_echoes_over_a_web_socket() {
    let Some((proxy, _node, _agent)) = served() else { return };
    let mut client = Client::connect(&proxy);
    // The first frame comes with the handshake, before there is a tunnel.
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\
          \x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    );
    let head = client.read_head();
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.expect_exact(b"\x81\x05Hello");
    client.send(b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    client.expect_exact(b"\x8a\x05Hello");
    // Past 65,535 bytes, and more than any buffer on the way; the mask of zeros leaves it as it is.
    let body = pattern(0, 1_000_000);
    let length = (body.len() as u64).to_be_bytes();
    let mut message = [&b"\x82\xff"[..], &length, &[0; 4]].concat();
    message.extend_from_slice(&body);
    client.send(message);
    client.expect_exact(b"\x82\x7f");
    client.expect_exact(length);
    assert!(client.read_exactly(body.len()) == body, "not what was sent");
    client.send(b"\x88\x82\0\0\0\0\x03\xe8");
    client.expect_exact(b"\x88\x02\x03\xe8");
    client.expect_closed();
    // The place is free again.
    assert_eq!(Client::get(&proxy, "a.test", "/after").read_response().text(), "GET /after ");
}
