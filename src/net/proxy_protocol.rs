//! The PROXY protocol, versions 1 and 2: what a proxy in front says about a connection before its
//! first byte (`doc/proxy-protocol.txt` of HAProxy).
//!
//! Only text: nothing here touches a socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its CR LF (section 2.1: "the worst case").
const MAX_V1: usize = 107;

/// Longest header of version 2 accepted here. Addresses take at most 216 bytes; the rest is room
/// for TLVs (a certificate's names, a unique ID), which are skipped.
const MAX_V2: usize = 4096;

/// Longest header that [`write()`] writes: two IPv6 addresses.
pub const MAX_WRITTEN: usize = FIXED + 36;

const V1: &[u8] = b"PROXY ";

/// Section 2.2: no other protocol begins with these bytes.
const V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family, and length of version 2.
const FIXED: usize = 16;

/// `PP2_TYPE_CRC32C`.
const TYPE_CRC32C: u8 = 0x03;

/// The greatest address family and transport protocol that section 2.2 defines; both are in one byte.
const LAST_FAMILY: u8 = 3;
const LAST_TRANSPORT: u8 = 2;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes; what follows is the connection's own.
    pub len: usize,
    /// The address of the client. `None` if the proxy speaks for itself (`LOCAL`, a health check),
    /// or for a client without an IP address: then the peer of the socket is the client.
    pub client: Option<SocketAddr>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The connection begins with something else.
    Missing,
    /// A line of version 1 that section 2.1 does not allow.
    Line,
    /// A version, command or family that section 2.2 does not define.
    Version,
    /// Its addresses or TLVs need more bytes than the header says it has.
    Length,
    /// The header is longer than what is accepted here.
    TooLong,
    /// The checksum in the header is not that of the header.
    Checksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Missing => "there is no PROXY header",
            Malformed::Line => "the PROXY line is malformed",
            Malformed::Version => {
                "the PROXY header has an unknown version, command or address family"
            }
            Malformed::Length => "the PROXY header is too short for what is in it",
            Malformed::TooLong => "the PROXY header is too long",
            Malformed::Checksum => "the PROXY header's checksum is wrong",
        })
    }
}

impl std::error::Error for Malformed {}

/// Reads the header at the front of `bytes`; `None` if more bytes are needed.
///
/// # Errors
/// When `bytes` cannot become a header, at the first byte that shows it.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

/// Whether both are equal as far as both go.
fn agree(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if !agree(bytes, V1) {
        return Err(Malformed::Missing);
    }
    let window = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_V1 { Ok(None) } else { Err(Malformed::TooLong) };
    };
    Ok(Some(Header { len: end + 2, client: client_of(&bytes[V1.len()..end])? }))
}

/// The source address of a line of version 1, behind `PROXY `.
fn client_of(line: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    if line.split(|byte| *byte == b' ').next() == Some(b"UNKNOWN") {
        // "the receiver must ignore anything presented before the CRLF".
        return Ok(None);
    }
    let mut words = str::from_utf8(line).map_err(|_| Malformed::Line)?.split(' ');
    let family = words.next().unwrap_or_default();
    let mut word = || words.next().ok_or(Malformed::Line);
    let [source, destination, from, to] = [word()?, word()?, word()?, word()?];
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed::Line),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed::Line),
            _ => Err(Malformed::Line),
        }
    };
    let (client, _) = (address(source)?, address(destination)?);
    let (port, _) = (port(from)?, port(to)?);
    Ok(Some(SocketAddr::new(client.to_canonical(), port)))
}

/// A decimal port without a sign or leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed::Line)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if !agree(bytes, &V2) {
        return Err(Malformed::Missing);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let size = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED + size;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Version),
    };
    if family >> 4 > LAST_FAMILY || family & 0xf > LAST_TRANSPORT {
        return Err(Malformed::Version);
    }
    if len > MAX_V2 {
        return Err(Malformed::TooLong);
    }
    let Some(body) = rest.get(..size) else { return Ok(None) };
    if is_local {
        // "the receiver must [...] discard the protocol block including the family".
        return Ok(Some(Header { len, client: None }));
    }
    let (client, tlvs) = match family {
        0x11 => {
            let (address, tlvs) = body.split_first_chunk::<12>().ok_or(Malformed::Length)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *address;
            let port = u16::from_be_bytes([high, low]);
            (Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port))), tlvs)
        }
        0x21 => {
            let (address, tlvs) = body.split_first_chunk::<36>().ok_or(Malformed::Length)?;
            let mut octets = [0; 16];
            octets.copy_from_slice(&address[..16]);
            let port = u16::from_be_bytes([address[32], address[33]]);
            (Some(SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)), tlvs)
        }
        // Unix sockets: 108 bytes for each path.
        0x31 => (None, body.get(216..).ok_or(Malformed::Length)?),
        // Section 2.2: a receiver treats what it does not support as unspecified, and skips it.
        _ => return Ok(Some(Header { len, client: None })),
    };
    check_tlvs(&bytes[..len], tlvs.len())?;
    Ok(Some(Header { len, client }))
}

/// Checks that the last `size` bytes of `header` are TLVs, and its checksum if one of them is one.
fn check_tlvs(header: &[u8], size: usize) -> Result<(), Malformed> {
    let mut at = header.len() - size;
    while at < header.len() {
        let Some(&[kind, high, low]) = header[at..].first_chunk::<3>() else {
            return Err(Malformed::Length);
        };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(bytes) = header.get(value.clone()) else { return Err(Malformed::Length) };
        if kind == TYPE_CRC32C {
            let sent: [u8; 4] = bytes.try_into().map_err(|_| Malformed::Length)?;
            // Section 2.2.4: computed with zeros in its own place.
            let ours = crc32c(&[&header[..value.start], &[0; 4], &header[value.end..]]);
            if ours != u32::from_be_bytes(sent) {
                return Err(Malformed::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// The checksum of RFC 4960, appendix B, a bit at a time: only a sender that asks for it pays.
fn crc32c(parts: &[&[u8]]) -> u32 {
    /// The polynomial, bits reversed.
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (CASTAGNOLI * (crc & 1)))
    })
}

/// Appends a header of version 2 about a connection from `client` to `local`. Addresses of two
/// families are both written as IPv6.
pub fn write(out: &mut Vec<u8>, client: SocketAddr, local: SocketAddr) {
    out.extend_from_slice(&V2);
    out.push(0x21);
    match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[0x21, 0, 36]);
            out.extend_from_slice(&six(from).octets());
            out.extend_from_slice(&six(to).octets());
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&local.port().to_be_bytes());
}

/// Appends a header of version 2 for a connection of the proxy's own (`LOCAL`), such as a probe.
pub fn write_local(out: &mut Vec<u8>) {
    out.extend_from_slice(&V2);
    out.extend_from_slice(&[0x20, 0, 0, 0]);
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xdc\x04\0\x50";

    fn client(bytes: &[u8]) -> Option<SocketAddr> {
        let header = parse(bytes).unwrap().unwrap();
        assert_eq!(header.len, bytes.len());
        header.client
    }

    /// A header of version 2 with these TLVs behind the addresses.
    fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
        let mut header = V4.to_vec();
        header.extend_from_slice(tlvs);
        let size = u16::try_from(12 + tlvs.len()).unwrap();
        header[14..16].copy_from_slice(&size.to_be_bytes());
        header
    }

    #[test]
    fn the_client_is_the_source_address() {
        let lines: [(&[u8], Option<&str>); 7] = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 80\r\n", Some("192.0.2.7:56324")),
            (b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", Some("[2001:db8::7]:0")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 1 2\r\n", Some("192.0.2.7:1")),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN \xff\xfe\r\n", None),
            (b"PROXY UNKNOWN ffff::1 \0 anything\r\n", None),
            (V4, Some("192.0.2.7:56324")),
        ];
        for (bytes, address) in lines {
            assert_eq!(client(bytes), address.map(|address| address.parse().unwrap()));
        }
    }

    #[test]
    fn a_header_may_be_split_anywhere_and_what_follows_is_left() {
        let line = b"PROXY TCP6 ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n";
        for header in [line, V4, &with_tlvs(b"\x05\0\x02id")] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end}");
            }
            let whole = [header, b"GET / HTTP/1.1"].concat();
            assert_eq!(parse(&whole).unwrap().unwrap().len, header.len());
        }
    }

    #[test]
    fn a_health_check_and_other_families_have_no_client() {
        let mut local = Vec::new();
        write_local(&mut local);
        assert_eq!(client(&local), None);
        let mut checked = V4.to_vec();
        checked[12] = 0x20;
        assert_eq!(client(&checked), None);
        // Even what could not be read as addresses is skipped.
        assert_eq!(client(&[&V2[..], b"\x20\x11\0\x02.."].concat()), None);
        let unix = [&V2[..], b"\x21\x31\0\xd8", &[b'/'; 216]].concat();
        assert_eq!(client(&unix), None);
        assert_eq!(client(&[&V2[..], b"\x21\x12\0\x01x"].concat()), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (from, to) in [
            ("192.0.2.7:1", "10.0.0.1:80"),
            ("[2001:db8::7]:65535", "[::1]:80"),
            ("192.0.2.7:9", "[::1]:80"),
        ] {
            let mut out = Vec::new();
            let from: SocketAddr = from.parse().unwrap();
            write(&mut out, from, to.parse().unwrap());
            assert_eq!(client(&out), Some(from));
        }
    }

    #[test]
    fn malformed_headers_are_refused_at_once() {
        for (bytes, error) in [
            (&b"GET"[..], Malformed::Missing),
            (b"POST", Malformed::Missing),
            (b"\r\n\r\nGET", Malformed::Missing),
            (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Line),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Malformed::Line),
            (b"PROXY \r\n", Malformed::Line),
            (b"PROXY UNKNOWNS\r\n", Malformed::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Malformed::Line),
            (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Malformed::Line),
            (b"PRI * HTTP/2.0\r\n", Malformed::Missing),
            (b"\x16\x03\x01", Malformed::Missing),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x41\0\x0c", Malformed::Version),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x13\0\x0c", Malformed::Version),
            (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", Malformed::Version),
            (b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c", Malformed::Version),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", Malformed::TooLong),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02..", Malformed::Length),
            (&with_tlvs(b"\x05\0\x09id"), Malformed::Length),
            (&with_tlvs(b"\x05\0"), Malformed::Length),
            (&with_tlvs(b"\x03\0\x02ab"), Malformed::Length),
        ] {
            assert_eq!(parse(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
        let endless = [V1, &[b'x'; MAX_V1]].concat();
        assert_eq!(parse(&endless), Err(Malformed::TooLong));
    }

    #[test]
    fn a_checksum_is_checked() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
        let mut header = with_tlvs(b"\x05\0\x02id\x03\0\x04\0\0\0\0");
        assert_eq!(parse(&header), Err(Malformed::Checksum));
        let sum = crc32c(&[&header]).to_be_bytes();
        let end = header.len();
        header[end - 4..].copy_from_slice(&sum);
        assert!(client(&header).is_some());
        header[20] ^= 1;
        assert_eq!(parse(&header), Err(Malformed::Checksum));
    }
}
