//! A PROXY header: every prefix must lead to the same end, and a second reader finds the same
//! client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::proxy_protocol::{self, Header};

/// No header is longer.
const MOST: usize = 4096;

/// What a peer sends.
pub(super) fn run(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    for end in 0..=bytes.len().min(2 * MOST) {
        match proxy_protocol::parse(&bytes[..end]) {
            Ok(None) => assert!(end < MOST, "undecided after {end} bytes"),
            decided => assert_eq!(decided, whole, "decided after {end} bytes"),
        }
    }
    let Ok(Some(header)) = whole else { return };
    let bytes = &bytes[..header.len];
    let found = if bytes.starts_with(b"PROXY ") { of_line(bytes) } else { of_bytes(bytes) };
    assert_eq!(header.client, found, "{}", bytes.escape_ascii());
    if let Some(client) = header.client {
        let mut out = Vec::new();
        proxy_protocol::write(&mut out, client, SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        assert!(out.len() <= proxy_protocol::MAX_WRITTEN);
        let (len, client) = (out.len(), Some(client));
        assert_eq!(proxy_protocol::parse(&out), Ok(Some(Header { len, client })));
    }
}

/// The client of version 1.
fn of_line(bytes: &[u8]) -> Option<SocketAddr> {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.strip_suffix("\r\n").unwrap().split(' ').collect();
    if words[1] == "UNKNOWN" {
        return None;
    }
    let [_, family, source, _, port, _] = words[..] else { panic!("{text}") };
    let source: IpAddr = source.parse().unwrap();
    assert_eq!(family, if source.is_ipv4() { "TCP4" } else { "TCP6" });
    Some(SocketAddr::new(source.to_canonical(), port.parse().unwrap()))
}

/// The client of version 2.
fn of_bytes(bytes: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match (bytes[12], bytes[13]) {
        (0x21, 0x11) => {
            let source: [u8; 4] = bytes[16..20].try_into().unwrap();
            Some(SocketAddr::from((Ipv4Addr::from(source), port(24))))
        }
        (0x21, 0x21) => {
            let source: [u8; 16] = bytes[16..32].try_into().unwrap();
            Some(SocketAddr::new(Ipv6Addr::from(source).to_canonical(), port(48)))
        }
        _ => None,
    }
}
