//! A request's head: parsed, rewritten, and read again by others.

use std::net::{IpAddr, Ipv4Addr};

use super::input::Input;
use super::lines::Head;
use crate::http::request::{self, Request};
use crate::http::rewrite::{self, Forwarded, ForwardedStyle, Via};
use crate::http::{Framing, Limits, ParseError, RequestId, Stamp, Stamps};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

const SMALL: Limits = Limits { head: 256, fields: 8, target: 64, behind_proxy: false };
const DEFAULT: Limits =
    Limits { head: 16 * 1024, fields: 100, target: 8 * 1024, behind_proxy: false };
const AGENT: Limits = Limits { head: 64 * 1024, fields: 100, target: 8 * 1024, behind_proxy: true };

/// How a rewritten head is read again: it may be longer than the original, by a bounded amount.
const AGAIN: Limits =
    Limits { head: 128 * 1024, fields: 128, target: 16 * 1024, behind_proxy: true };

/// `limits`, `forwarded`, where to split, and the bytes of a connection.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = input.pick(&[DEFAULT, SMALL, AGENT]);
    let forwarded = input.pick(&[Forwarded::Append, Forwarded::Replace, Forwarded::Off]);
    let split = input.byte();
    let bytes = input.rest();
    let style = [ForwardedStyle::X, ForwardedStyle::Rfc7239, ForwardedStyle::Both];
    let id = [Stamp::Pass, Stamp::Remove, Stamp::Set(RequestId::new([7; 2])), Stamp::Pass];
    let via = Via {
        style: style[usize::from(split) % 3],
        stamps: Stamps { id: id[usize::from(split) % 4], ..Stamps::PASS },
        ..Via::new(CLIENT, forwarded)
    };
    let whole = parsed(bytes, &limits, |request| check(request, bytes, &via));
    prefix_agrees(bytes, split, &limits, whole);
}

/// The length of the head, if it is whole, after `look` has seen it.
fn parsed(
    bytes: &[u8],
    limits: &Limits,
    look: impl FnOnce(&Request<'_, '_>),
) -> Result<Option<usize>, ParseError> {
    let mut storage = request::storage();
    let request = request::parse(bytes, &mut storage, limits)?;
    Ok(request.map(|request| {
        look(&request);
        request.len
    }))
}

/// What is whole or refused stays so when more bytes come.
fn prefix_agrees(
    bytes: &[u8],
    split: u8,
    limits: &Limits,
    whole: Result<Option<usize>, ParseError>,
) {
    let end = bytes.len() * usize::from(split) / 256;
    match parsed(&bytes[..end], limits, |_| ()) {
        Ok(None) => {}
        Ok(Some(len)) => assert_eq!(whole, Ok(Some(len)), "whole, and then not"),
        Err(_) => assert!(whole.is_err(), "refused, and then taken: {whole:?}"),
    }
}

fn check(request: &Request<'_, '_>, bytes: &[u8], via: &Via) {
    let head = &bytes[..request.len];
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head ends in an empty line");
    let empty = head.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if end >= empty {
        assert_eq!(request.len, end + 4, "others end the head elsewhere");
    }
    assert_ne!(request.framing, Framing::UntilClose);
    let mut out = Vec::new();
    rewrite::request(&mut out, request, via);
    check_written(request, &Head::read(&out), via);
    let again = parsed(&out, &AGAIN, |again| {
        if via.forwarded != Forwarded::Off {
            assert_eq!(again.last_forwarded(), Some(CLIENT), "{}", out.escape_ascii());
        }
        check_again(request, again, &out);
    });
    assert!(
        matches!(again, Ok(Some(len)) if len == out.len()),
        "{again:?}: {}",
        out.escape_ascii()
    );
}

/// What a simple server reads is what was understood.
fn check_written(request: &Request<'_, '_>, head: &Head<'_>, via: &Via) {
    let target = request.origin_form().concat();
    assert_eq!(head.start, format!("{} {target} HTTP/1.1", request.method));
    assert_eq!(head.values("host"), [request.authority.as_bytes()]);
    let (length, coding) = match request.framing {
        Framing::Length(length) => (vec![length.to_string()], vec![]),
        Framing::Chunked => (vec![], vec!["chunked".to_owned()]),
        Framing::None | Framing::UntilClose => (vec![], vec![]),
    };
    let text = |name| {
        let values = head.values(name).into_iter();
        values.map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(text("content-length"), length);
    assert_eq!(text("transfer-encoding"), coding);
    assert!(!head.has_prefix("cloudbridge-"), "a reserved name is passed on");
    for name in ["proxy", "keep-alive", "proxy-connection", "http2-settings"] {
        assert!(head.values(name).is_empty(), "{name} is passed on");
    }
    assert!(text("te").iter().all(|te| te == "trailers"), "TE is passed on");
    assert_eq!(!head.values("upgrade").is_empty(), request.upgrade);
    assert_eq!(text("connection").concat().contains("upgrade"), request.upgrade);
    let x = via.style != ForwardedStyle::Rfc7239;
    let rfc7239 = via.style != ForwardedStyle::X;
    let count = |name| head.values(name).len();
    match via.forwarded {
        Forwarded::Off => {}
        Forwarded::Append => {
            if x {
                let chain = text("x-forwarded-for");
                assert!(chain.len() == 1 && chain[0].ends_with("192.0.2.7"), "{chain:?}");
            }
            assert!(!rfc7239 || count("forwarded") == 1);
        }
        Forwarded::Replace => {
            if x {
                assert_eq!(text("x-forwarded-for"), ["192.0.2.7"]);
                assert_eq!(text("x-forwarded-proto"), ["http"]);
            } else {
                assert_eq!(count("x-forwarded-for") + count("x-forwarded-proto"), 0);
            }
            assert_eq!(count("x-real-ip"), 0);
            assert_eq!(count("forwarded"), usize::from(rfc7239));
        }
    }
    match via.stamps.id {
        Stamp::Pass => {}
        Stamp::Remove => assert_eq!(count("x-request-id"), 0),
        Stamp::Set(id) => assert_eq!(text("x-request-id"), [id.to_string()]),
    }
    let added = ["host", "content-length", "transfer-encoding", "connection", "te", "max-forwards"];
    for (name, value) in &head.fields {
        let plain = super::lines::plain(name);
        let ours = added.contains(&&*plain)
            || plain.starts_with("x-forwarded-")
            || matches!(&*plain, "forwarded" | "x-request-id");
        let sent = || request.fields.iter().any(|sent| sent.name == *name && sent.value == *value);
        assert!(ours || sent(), "{name} was not sent");
    }
}

/// What was written means the same to us, and is written in the same way.
fn check_again(request: &Request<'_, '_>, again: &Request<'_, '_>, out: &[u8]) {
    assert_eq!((again.method, again.path), (request.method, request.path));
    assert_eq!((again.authority, again.host), (request.authority, request.host));
    assert_eq!(again.origin_form().concat(), request.origin_form().concat());
    assert_eq!((again.framing, again.upgrade), (request.framing, request.upgrade));
    assert_eq!(again.expect_continue, request.expect_continue);
    assert_eq!(again.trailers, request.trailers && !request.upgrade);
    assert_eq!(again.connection_auth, request.connection_auth);
    assert_eq!(again.idempotent(), request.idempotent());
    let mut twice = Vec::new();
    let via = Via::new(CLIENT, Forwarded::Off);
    rewrite::request(&mut twice, again, &via);
    assert_eq!(sorted(&twice), sorted(out), "written differently the second time");
}

/// The lines of a head in a fixed order: those that the proxy adds move to its end.
fn sorted(head: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = head.split(|&b| b == b'\n').collect();
    lines[1..].sort_unstable();
    lines
}
