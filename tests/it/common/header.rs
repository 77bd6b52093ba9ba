//! PROXY headers, as a proxy in front writes them.

use std::net::SocketAddr;

/// The signature of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Where the client has connected to; nobody looks at it.
const TO: &str = "10.0.0.1";

/// A header of version 1 about `client`.
pub fn header_v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (family, to) = if client.is_ipv4() { ("TCP4", TO) } else { ("TCP6", "2001:db8::1") };
    format!("PROXY {family} {} {to} {} 80\r\n", client.ip(), client.port()).into_bytes()
}

/// A header of version 2 about `client`, with these bytes behind the addresses.
pub fn header_v2(client: &str, tlvs: &[u8]) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (family, mut body) = match client {
        SocketAddr::V4(four) => (0x11, [four.ip().octets(), [10, 0, 0, 1]].concat()),
        SocketAddr::V6(six) => (0x21, [six.ip().octets(), [7; 16]].concat()),
    };
    body.extend_from_slice(&client.port().to_be_bytes());
    body.extend_from_slice(&80u16.to_be_bytes());
    body.extend_from_slice(tlvs);
    header(0x21, family, &body)
}

/// A header of version 2 with this command and family.
pub fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body");
    [V2, &[command, family], &length.to_be_bytes(), body].concat()
}
