//! Heads put together and broken at random: nothing panics, and what is refused early is refused
//! whole.

use super::*;
use crate::http::rewrite::{self, Forwarded, Toward, Via};
use crate::http::{Framing, Version};

const LINES: [&[u8]; 26] = [
    b"Host: a.example\r\n",
    b"host:b:80\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 007 \r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: keep-alive, x-a\r\n",
    b"Connection: close, upgrade, host,,\r\n",
    b"X-A:1\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\n",
    b"x-forwarded-for:\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"X_Forwarded_Host: h\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"TE: trailers\r\n",
    b"TE: gzip\r\n",
    b"Max-Forwards: 3\r\n",
    b"Accept:  */*\t\r\n",
    b"Cloudbridge-X: y\r\n",
    b"Authorization: NTLM a\r\n",
    b"A: b\n",
    b" folded\r\n",
    b"\r\n",
];

const STARTS: [&[u8]; 10] = [
    b"GET / HTTP/1.1\r\n",
    b"\r\nPOST /a?b HTTP/1.1\r\n",
    b"GET http://a.example/b HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404\r\n",
    b"HTTP/1.1 101 Go\r\n",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 100 Continue\r\n",
];

fn message(random: &mut Random) -> Vec<u8> {
    let mut message = random.pick(&STARTS).to_vec();
    if random.below(3) > 0 {
        message.extend_from_slice(b"Host: a.example\r\n");
    }
    for _ in 0..random.below(8) {
        message.extend_from_slice(random.pick(&LINES));
    }
    message.extend_from_slice(b"\r\n");
    // One in two is damaged: a byte changed, taken out or doubled.
    if random.below(2) == 0 {
        let at = random.below(message.len());
        match random.below(3) {
            0 => message[at] = random.next() as u8,
            1 => drop(message.remove(at)),
            _ => message.insert(at, message[at]),
        }
    }
    message
}

fn checked_request(bytes: &[u8]) -> Result<Option<()>, ParseError> {
    with_request(bytes, |r| {
        assert!(r.len <= bytes.len());
        assert_ne!(r.framing, Framing::UntilClose);
        let mut out = Vec::new();
        for forwarded in [Forwarded::Append, Forwarded::Replace, Forwarded::Off] {
            out.clear();
            let via = Via::new("2001:db8::1".parse().unwrap(), forwarded);
            rewrite::request(&mut out, r, &via);
            if !r.authority.is_empty() {
                good(&out, |again| {
                    assert_eq!((again.method, again.path, again.host), (r.method, r.path, r.host));
                    assert_eq!(
                        (again.framing, again.len, again.upgrade),
                        (r.framing, out.len(), r.upgrade)
                    );
                });
            }
        }
    })
}

fn checked_response(bytes: &[u8], to_head: bool) -> Result<Option<()>, ParseError> {
    with_response(bytes, to_head, |r| {
        assert!(r.len <= bytes.len());
        let toward = Toward { version: Version::V11, close: !r.persistent, decode_chunked: false };
        let mut out = Vec::new();
        rewrite::response(&mut out, r, &toward);
        let again = with_response(&out, to_head, |again| (again.status, again.framing, again.len));
        assert_eq!(again, Ok(Some((r.status, r.framing, out.len()))));
    })
}

/// A prefix may be partial; if it is refused or whole, so is everything that begins with it.
fn agrees(prefix: Result<Option<()>, ParseError>, whole: Result<Option<()>, ParseError>) -> bool {
    match prefix {
        Ok(None) => true,
        Ok(Some(())) => whole == prefix,
        Err(_) => whole.is_err(),
    }
}

#[test]
fn random_heads_do_not_panic_and_prefixes_agree() {
    let mut random = Random(0x5eed_5eed);
    let mut taken = 0;
    for _ in 0..20_000 {
        let bytes = message(&mut random);
        let end = random.below(bytes.len());
        let request = checked_request(&bytes);
        assert!(agrees(checked_request(&bytes[..end]), request), "{}", bytes.escape_ascii());
        let to_head = random.below(2) == 0;
        let response = checked_response(&bytes, to_head);
        assert!(
            agrees(checked_response(&bytes[..end], to_head), response),
            "{}",
            bytes.escape_ascii()
        );
        taken += usize::from(request == Ok(Some(()))) + usize::from(response == Ok(Some(())));
    }
    // Otherwise the test tries nothing but refusals.
    assert!(taken > 2_000, "{taken}");
}
