//! One question to the program that authorises: a POST, and its answer. It blocks, and takes a bounded
//! time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use httparse::Header;
use serde_json::{Map, Value};

use crate::config::{Endpoint, LIMITS, Limits};
use crate::http::conditions::values;
use crate::http::{Decoder, Framing, Limits as HeadLimits, Piece, response};
use crate::upstream::blocking::{self, is_timeout, left};

/// The longest answer, in bytes, with its head. A decision has a few hundred.
const MOST: usize = 64 * 1024;

/// Bounds of its head.
const HEAD: HeadLimits =
    HeadLimits { head: 16 * 1024, fields: 100, target: 0, behind_proxy: false };

/// Most characters of a reason that a backend is told.
const REASON: usize = 200;

/// The longest name of an account, in bytes: that of a host name.
const ACCOUNT: usize = 253;

/// The longest time for which an answer is kept.
const LONGEST: u64 = 86_400;

/// What the program says, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) decision: Decision,
    /// How long it may be used for equal questions; zero for this one alone.
    pub(super) max_age: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed {
        limits: Limits,
        /// What they are counted under, if not under the visitor's name.
        account: Option<String>,
    },
    /// With a reason of one line of printable ASCII, which may be empty.
    Refused(String),
}

/// Asks, until a time.
///
/// # Errors
/// Why there is no answer, in one clause.
pub(super) fn ask(to: &Endpoint, question: &str, until: Instant) -> Result<Answer, String> {
    let answer = exchange(to, question, until).map_err(|error| match is_timeout(&error) {
        true => "it does not answer in time".to_owned(),
        false => error.to_string(),
    })?;
    read(&answer)
}

fn exchange(to: &Endpoint, question: &str, until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = blocking::dial(&to.to, || left(until))?;
    stream.set_write_timeout(Some(left(until)?))?;
    let Endpoint { host, target, .. } = to;
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloudbridge\r\n\
         Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        question.len()
    );
    stream.write_all(&[head.as_bytes(), question.as_bytes()].concat())?;
    receive(&mut stream, until)
}

/// Reads an answer until it is whole.
fn receive(stream: &mut TcpStream, until: Instant) -> io::Result<Vec<u8>> {
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut piece) {
            Ok(0) if parse(&answer, true).is_ok_and(|body| body.is_none()) => {
                return Err(io::Error::other("it closed the connection within its answer"));
            }
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if answer.len() > MOST {
            return Err(io::Error::other("its answer is too long"));
        }
        match parse(&answer, false) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Ok(answer),
        }
    }
}

/// An answer that is whole.
struct Whole {
    status: u16,
    max_age: Duration,
    body: Vec<u8>,
}

/// Takes an answer apart; `None` until it is whole. `ended`: nothing follows.
fn parse(bytes: &[u8], ended: bool) -> Result<Option<Whole>, String> {
    let mut storage = response::storage();
    let parsed = response::parse(bytes, &mut storage, &HEAD, false);
    let Some(head) = parsed.map_err(|bad| bad.reason.to_owned())? else { return Ok(None) };
    let rest = &bytes[head.len..];
    let body = match head.framing {
        Framing::None => Some(Vec::new()),
        Framing::Length(length) => {
            usize::try_from(length).ok().and_then(|length| rest.get(..length)).map(<[u8]>::to_vec)
        }
        Framing::Chunked => decode(rest)?,
        Framing::UntilClose => ended.then(|| rest.to_vec()),
    };
    let max_age = max_age(head.fields);
    Ok(body.map(|body| Whole { status: head.status, max_age, body }))
}

/// The data of a chunked body; `None` until it is whole.
fn decode(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (mut decoder, mut at, mut data) = (Decoder::new(), 0, Vec::new());
    while let Some(piece) = decoder.next(&bytes[at..]).map_err(|bad| bad.reason.to_owned())? {
        match piece {
            Piece::Framing(count) => at += count,
            Piece::Data(count) => {
                data.extend_from_slice(&bytes[at..at + count]);
                at += count;
            }
            Piece::End(_) => return Ok(Some(data)),
        }
    }
    Ok(None)
}

/// How long an answer may be kept (RFC 9111, section 5.2.2); zero if it does not say.
fn max_age(fields: &[Header<'_>]) -> Duration {
    let values = values(fields, "Cache-Control").filter_map(|value| str::from_utf8(value).ok());
    let mut age = 0;
    for directive in values.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Duration::ZERO;
        }
        if name.eq_ignore_ascii_case("max-age") {
            age = value.trim_matches('"').parse().unwrap_or(0);
        }
    }
    Duration::from_secs(age.min(LONGEST))
}

/// What a whole answer says.
fn read(bytes: &[u8]) -> Result<Answer, String> {
    let whole = parse(bytes, true)?.ok_or("its answer is not whole")?;
    if whole.status != 200 {
        return Err(format!("it has answered {}", whole.status));
    }
    let value = serde_json::from_slice(&whole.body).map_err(|_| "its answer is not JSON")?;
    let Value::Object(members) = value else { return Err("its answer is no object".to_owned()) };
    Ok(Answer { decision: decision(&members)?, max_age: whole.max_age })
}

fn decision(members: &Map<String, Value>) -> Result<Decision, String> {
    let text = |name: &str| match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("in its answer {name} is no text")),
    };
    match members.get("allow") {
        Some(Value::Bool(true)) => {
            let account = text("account")?;
            let is_name = |name: &&str| {
                (1..=ACCOUNT).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
            };
            if !account.as_ref().is_none_or(is_name) {
                return Err("in its answer account is no name".to_owned());
            }
            let account = account.map(str::to_owned);
            Ok(Decision::Allowed { limits: limits(members.get("limits"))?, account })
        }
        Some(Value::Bool(false)) => Ok(Decision::Refused(shown(text("reason")?.unwrap_or("")))),
        _ => Err("its answer has no `allow` that is true or false".to_owned()),
    }
}

/// The limits of an answer. One that is not known must not be taken for none.
fn limits(value: Option<&Value>) -> Result<Limits, String> {
    let mut limits = Limits::default();
    let members = match value {
        None | Some(Value::Null) => return Ok(limits),
        Some(Value::Object(members)) => members,
        Some(_) => return Err("in its answer limits is no object".to_owned()),
    };
    for (name, value) in members {
        if !LIMITS.contains(&name.as_str()) {
            return Err(format!("in its answer {} is no limit", name.escape_debug()));
        }
        let number = match value {
            Value::Null => continue,
            value => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        // 0 is no limit in the settings, and here would rather be meant to allow nothing.
        let Some(number @ 1..) = number else {
            return Err(format!("in its answer {name} is no whole number from 1 on"));
        };
        limits.set(name, number).map_err(|what| format!("in its answer, {name}: {what}"))?;
    }
    Ok(limits)
}

/// A reason as one line of printable ASCII.
fn shown(reason: &str) -> String {
    let cut: String = reason.chars().take(REASON).collect();
    let more = if cut.len() < reason.len() { "..." } else { "" };
    let escape = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => c.escape_default().to_string(),
    };
    cut.chars().map(escape).collect::<String>() + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Destination;
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    fn answer(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()).into()
    }

    fn allowed(limits: Limits) -> Decision {
        Decision::Allowed { limits, account: None }
    }

    fn of(body: &str) -> Result<Decision, String> {
        read(&answer("", body)).map(|answer| answer.decision)
    }

    #[test]
    fn an_answer_allows_with_limits_or_refuses_with_a_reason() {
        assert_eq!(of(r#"{"allow":true}"#), Ok(allowed(Limits::default())));
        let all = r#"{"allow":true,"limits":{"bridges":4,"waiting":10,"requests-per-second":50,
                      "bytes-per-second":2048},"account":"alice","more":1}"#;
        let limits = Limits { bridges: 4, waiting: 10, requests: 50, bytes: 2048 };
        let account = Some("alice".to_owned());
        assert_eq!(of(all), Ok(Decision::Allowed { limits, account }));
        let none = r#"{"allow":true,"limits":{"bridges":null},"account":null}"#;
        assert_eq!(of(none), Ok(allowed(Limits::default())));
        assert_eq!(of(r#"{"allow":false}"#), Ok(Decision::Refused(String::new())));
        let reason = Decision::Refused("unpaid\\r\\nX: y \\u{e9}".to_owned());
        assert_eq!(of(r#"{"allow":false,"reason":"unpaid\r\nX: y é"}"#), Ok(reason));
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "x".repeat(9999));
        assert_eq!(of(&long), Ok(Decision::Refused("x".repeat(200) + "...")));
    }

    #[test]
    fn what_is_not_understood_allows_nothing() {
        for (body, what) in [
            ("", "its answer is not JSON"),
            ("[]", "its answer is no object"),
            ("{}", "its answer has no `allow` that is true or false"),
            (r#"{"allow":"true"}"#, "its answer has no `allow` that is true or false"),
            (r#"{"allow":true,"limits":4}"#, "in its answer limits is no object"),
            (r#"{"allow":true,"limits":{"slots":4}}"#, "in its answer slots is no limit"),
            (
                r#"{"allow":true,"limits":{"bridges":0}}"#,
                "in its answer bridges is no whole number from 1 on",
            ),
            (
                r#"{"allow":true,"limits":{"waiting":1.5}}"#,
                "in its answer waiting is no whole number from 1 on",
            ),
            (
                r#"{"allow":true,"limits":{"bytes-per-second":5}}"#,
                "in its answer, bytes-per-second: 5 is less than 1k",
            ),
            (r#"{"allow":true,"account":""}"#, "in its answer account is no name"),
            (r#"{"allow":true,"account":"a b"}"#, "in its answer account is no name"),
            (r#"{"allow":false,"reason":1}"#, "in its answer reason is no text"),
        ] {
            assert_eq!(of(body), Err(what.to_owned()), "{body}");
        }
        let status = read(b"HTTP/1.1 500 No\r\nContent-Length: 14\r\n\r\n{\"allow\":true}");
        assert_eq!(status, Err("it has answered 500".to_owned()));
        assert!(read(b"SSH-2.0\r\n").is_err());
    }

    #[test]
    fn it_is_kept_for_as_long_as_it_says() {
        for (head, seconds) in [
            ("", 0),
            ("Cache-Control: max-age=60\r\n", 60),
            ("cache-control: private, Max-Age=\"5\"\r\n", 5),
            ("Cache-Control: max-age=60, no-store\r\n", 0),
            ("Cache-Control: max-age=60\r\nCache-Control: no-cache\r\n", 0),
            ("Cache-Control: max-age=soon\r\n", 0),
            ("Cache-Control: max-age=9999999\r\n", 86_400),
        ] {
            let read = read(&answer(head, r#"{"allow":true}"#)).unwrap();
            assert_eq!(read.max_age, Duration::from_secs(seconds), "{head}");
        }
    }

    #[test]
    fn every_framing_is_read_to_its_end() {
        let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                               8\r\n{\"allow\"\r\n6\r\n:true}\r\n0\r\n\r\n";
        let length = answer("", r#"{"allow":true}"#);
        for whole in [chunked, &length] {
            assert_eq!(read(whole).unwrap().decision, allowed(Limits::default()));
            for end in 0..whole.len() {
                assert!(parse(&whole[..end], false).unwrap().is_none(), "{end}");
                assert!(read(&whole[..end]).is_err(), "{end}");
            }
        }
        let until_close = b"HTTP/1.0 200 OK\r\n\r\n{\"allow\":true}";
        assert!(parse(until_close, false).unwrap().is_none());
        assert!(read(until_close).is_ok());
    }

    /// What comes of a question, and what a server that answers `bytes` has been sent.
    fn asked(bytes: Vec<u8>) -> (Result<Answer, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Endpoint {
            to: Destination::Socket(listener.local_addr().unwrap()),
            host: "h:81".to_owned(),
            target: "/ask?k".to_owned(),
        };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
            while !seen.ends_with(b"{\"q\":1}") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0);
                seen.extend_from_slice(&piece[..count]);
            }
            // It may have been given up.
            let _ = stream.write_all(&bytes);
            String::from_utf8(seen).unwrap()
        });
        let until = Instant::now() + Duration::from_secs(20);
        (ask(&to, "{\"q\":1}", until), server.join().unwrap())
    }

    #[test]
    fn a_question_is_a_post() {
        let (answer, seen) = asked(answer("", r#"{"allow":true}"#));
        assert_eq!(answer.unwrap().decision, allowed(Limits::default()));
        assert_eq!(
            seen,
            "POST /ask?k HTTP/1.1\r\nHost: h:81\r\nUser-Agent: cloudbridge\r\n\
             Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\
             Connection: close\r\n\r\n{\"q\":1}"
        );
    }

    #[test]
    fn a_bad_server_is_given_up() {
        let huge = answer("", &" ".repeat(MOST));
        assert_eq!(asked(huge).0, Err("its answer is too long".to_owned()));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec();
        let what = "it closed the connection within its answer";
        assert_eq!(asked(cut).0, Err(what.to_owned()));
        assert_eq!(asked(Vec::new()).0, Err(what.to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Destination::Socket(listener.local_addr().unwrap());
        let to = Endpoint { to, host: "h".to_owned(), target: "/".to_owned() };
        let soon = Instant::now() + Duration::from_millis(50);
        assert_eq!(ask(&to, "{}", soon), Err("it does not answer in time".to_owned()));
        // Nobody listens there, and nobody is given the port while the listener has it at 127.0.0.1.
        let closed = SocketAddr::from(([127, 0, 0, 2], listener.local_addr().unwrap().port()));
        let to = Endpoint { to: Destination::Socket(closed), ..to };
        let later = Instant::now() + Duration::from_secs(20);
        assert!(ask(&to, "{}", later).unwrap_err().contains("refused"));
    }
}
