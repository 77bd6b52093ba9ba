//! Chunked bodies at every split.

use super::*;
use crate::http::chunked::{Decoder, Piece};

/// What came out of a body given in pieces.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Complete, after so many bytes.
    Done { data: Vec<u8>, used: usize },
    /// More is needed.
    Open { data: Vec<u8> },
    /// Refused.
    Refused(u16),
}

fn decode(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::new();
    let (mut data, mut used) = (Vec::new(), 0);
    for mut piece in pieces.iter().copied() {
        loop {
            let taken = match decoder.next(piece) {
                Err(bad) => return Outcome::Refused(bad.status),
                Ok(None) => break,
                Ok(Some(Piece::Framing(n) | Piece::End(n))) => n,
                Ok(Some(Piece::Data(n))) => {
                    data.extend_from_slice(&piece[..n]);
                    n
                }
            };
            assert!(taken > 0);
            used += taken;
            piece = &piece[taken..];
        }
    }
    if decoder.is_done() { Outcome::Done { data, used } } else { Outcome::Open { data } }
}

fn bytewise(body: &[u8]) -> Vec<&[u8]> {
    body.chunks(1).collect()
}

const GOOD: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n00a\r\n, world.\r\n\r\n0000\r\n\r\n", b"hello, world.\r\n"),
    (b"a;x=y;z=\"q;, q\"\r\n0123456789\r\n0;last\r\n\r\n", b"0123456789"),
    (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n"),
    (b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY:\r\nHosts: a\r\nContent-MD5: \xff\t\r\n\r\n", b"abc"),
    // Blanks after the size, as padding and before an extension.
    (b"5  \r\nhello\r\n0 \t\r\n\r\n", b"hello"),
    (b"5 ; a = \"b\"\r\nhello\r\n0\t;x\r\n\r\n", b"hello"),
];

#[test]
fn chunked_body_is_decoded_at_every_split() {
    for (body, data) in GOOD {
        let whole = decode(&[body]);
        assert_eq!(whole, Outcome::Done { data: data.to_vec(), used: body.len() });
        assert_eq!(decode(&bytewise(body)), whole);
        for first in 0..=body.len() {
            for second in first..=body.len() {
                assert_eq!(decode(&[&body[..first], &body[first..second], &body[second..]]), whole);
            }
        }
    }
}

#[test]
fn every_prefix_is_open() {
    for (body, _) in GOOD {
        for end in 0..body.len() {
            assert!(matches!(decode(&[&body[..end]]), Outcome::Open { .. }));
        }
    }
}

#[test]
fn bytes_after_the_body_are_not_consumed() {
    let body = b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!(decode(&[body]), Outcome::Done { data: b"a".to_vec(), used: 11 });
    assert_eq!(Decoder::new().scan(body), Ok((11, true)));
}

#[test]
fn pieces_are_as_long_as_they_can_be() {
    let mut decoder = Decoder::new();
    let body = b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\nrest";
    let mut at = 0;
    let mut take = |len: usize| {
        let piece = decoder.next(&body[at..]).unwrap();
        at += len;
        piece
    };
    assert_eq!(take(3), Some(Piece::Framing(3)));
    assert_eq!(take(5), Some(Piece::Data(5)));
    assert_eq!(take(5), Some(Piece::Framing(5)));
    assert_eq!(take(5), Some(Piece::Data(5)));
    assert_eq!(take(7), Some(Piece::End(7)));
    assert_eq!(take(0), None);
}

#[test]
fn skipped_data_is_counted() {
    let mut decoder = Decoder::new();
    assert_eq!(decoder.data_left(), 0);
    assert_eq!(decoder.scan(b"7fffffffffffffff\r\nab"), Ok((20, false)));
    assert_eq!(decoder.data_left(), i64::MAX as u64 - 2);
    decoder.skip(0);
    decoder.skip(i64::MAX as u64 - 5);
    assert_eq!(decoder.data_left(), 3);
    decoder.skip(3);
    assert_eq!(decoder.data_left(), 0);
    assert_eq!(decoder.scan(b"\r\n0\r\n\r\n"), Ok((7, true)));
    assert_eq!(decoder.scan(b"x"), Ok((0, true)));
}

const HOSTILE: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b" 5\r\n",
    b"5 5\r\n",
    b"5 \n",
    b"5 \rx",
    b"5\t\x0b\r\n",
    b" \r\n",
    b"+5\r\n",
    b"-1\r\n",
    b"0x5\r\n",
    b"5_0\r\n",
    b"g\r\n",
    b";x\r\n",
    b"5\n",
    b"5\rhello",
    b"5\r\r\n",
    b"5\0\r\n",
    b"8000000000000000\r\n",
    b"ffffffffffffffff\r\n",
    b"10000000000000005\r\n",
    b"00000000000000005\r\n",
    b"5;x\n",
    b"5;x\0\r\n",
    b"5;x\ry\r\n",
    b"5;\x7f\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\n: x\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: y\rz\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n",
    b"0\r\n\n",
    b"0\r\n\rX",
    b"0\n\r\n",
    b"0\r\nX(: y\r\n\r\n",
];

#[test]
fn bad_framing_is_refused_at_every_split() {
    for body in HOSTILE {
        assert_eq!(decode(&[body]), Outcome::Refused(400), "{}", body.escape_ascii());
        for split in 0..=body.len() {
            let parts = [&body[..split], &body[split..]];
            assert_eq!(decode(&parts), Outcome::Refused(400), "{}", body.escape_ascii());
        }
        assert_eq!(decode(&bytewise(body)), Outcome::Refused(400));
    }
}

#[test]
fn forbidden_trailer_fields_are_refused() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Transfer_Encoding",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "TE",
        "Trailer",
        "Expect",
        "Upgrade",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Cache-Control",
        "Forwarded",
        "X-Forwarded-For",
        "Cloudbridge-Anything",
        "If-Match",
        "if_none_match",
        "Max-Forwards",
        "Pragma",
        "Proxy",
        "Range",
        "Via",
        "X-Real-IP",
        "x_real_ip",
    ] {
        let body = format!("0\r\nX-Ok: 1\r\n{name}: 1\r\n\r\n");
        assert_eq!(decode(&[body.as_bytes()]), Outcome::Refused(400), "{name}");
        assert_eq!(decode(&bytewise(body.as_bytes())), Outcome::Refused(400), "{name}");
    }
    for name in [
        "Hos",
        "Hostx",
        "T",
        "TEx",
        "Content-Lengt",
        "Content-Length-X",
        "ETag",
        "X-Forwarded",
        "Prox",
        "Proxyx",
        "If",
        "Iff-Match",
        "Ranges",
        "X-Real-IPs",
    ] {
        let body = format!("0\r\n{name}: 1\r\n\r\n");
        assert!(matches!(decode(&[body.as_bytes()]), Outcome::Done { .. }), "{name}");
    }
}

#[test]
fn long_trailer_name_is_not_forbidden() {
    let body = format!("0\r\n{}te: 1\r\n\r\n", "x".repeat(256));
    assert!(matches!(decode(&[body.as_bytes()]), Outcome::Done { .. }));
}

#[test]
fn extensions_have_a_limit() {
    let chunk = |len: usize| format!("1;{}\r\na\r\n", "x".repeat(len - 1));
    let ended = |mut body: String| {
        body.push_str("0\r\n\r\n");
        decode(&[body.as_bytes()])
    };
    assert!(matches!(ended(chunk(256)), Outcome::Done { .. }));
    assert_eq!(ended(chunk(257)), Outcome::Refused(400));
    // Blanks count as part of it.
    let padded = |len: usize| format!("1{}\r\na\r\n", " ".repeat(len));
    assert!(matches!(ended(padded(256)), Outcome::Done { .. }));
    assert_eq!(ended(padded(257)), Outcome::Refused(400));
    assert_eq!(ended(padded(129).repeat(128)), Outcome::Refused(400));
    // One byte of data makes up for one of extension.
    assert!(matches!(ended(chunk(129).repeat(127)), Outcome::Done { .. }));
    assert_eq!(ended(chunk(129).repeat(128)), Outcome::Refused(400));
    // Chunks that carry more than they say of themselves may go on forever.
    let signed = format!("80;{}\r\n{}\r\n", "x".repeat(85), "d".repeat(128));
    assert!(matches!(ended(signed.repeat(1000)), Outcome::Done { .. }));
}

#[test]
fn a_trailer_has_a_limit() {
    let trailer = |lines: String| decode(&[format!("0\r\n{lines}\r\n").as_bytes()]);
    assert!(matches!(trailer("X: y\r\n".repeat(100)), Outcome::Done { .. }));
    assert_eq!(trailer("X: y\r\n".repeat(101)), Outcome::Refused(431));
    let long = |len: usize| format!("X:{}\r\n", "y".repeat(len - 4));
    assert!(matches!(trailer(long(16 * 1024 - 2)), Outcome::Done { .. }));
    assert_eq!(trailer(long(16 * 1024 - 1)), Outcome::Refused(431));
}

#[test]
fn the_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 32);
}

/// Bodies put together at random, some of them broken, mean the same however they are cut.
#[test]
fn random_bodies_decode_the_same_at_every_split() {
    const PARTS: [&[u8]; 14] = [
        b"5\r\nhello\r\n",
        b"1\r\n\r\r\n",
        b"2;ext=\"v\"\r\n\r\n\r\n",
        b"0\r\n",
        b"\r\n",
        b"X: y\r\n",
        b"Host: a\r\n",
        b"\n",
        b"\r",
        b"7fffffffffffffff",
        b"c\r\n",
        b"Te",
        b": ",
        b"\0",
    ];
    let mut random = Random(0x0bad_5eed);
    for _ in 0..20_000 {
        let mut body = Vec::new();
        for _ in 0..=random.below(7) {
            body.extend_from_slice(random.pick(&PARTS));
        }
        let whole = decode(&[&body]);
        assert_eq!(decode(&bytewise(&body)), whole, "{}", body.escape_ascii());
        let (a, b) = (random.below(body.len() + 1), random.below(body.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        assert_eq!(
            decode(&[&body[..a], &body[a..b], &body[b..]]),
            whole,
            "{}",
            body.escape_ascii()
        );
    }
}
