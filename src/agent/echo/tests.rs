//! The echo over connections that are scripts: what it reads in which pieces, and all it wrote.

use super::*;

/// A connection: pieces to be read one at a time, and the bytes written.
struct Script {
    pieces: Vec<io::Result<Vec<u8>>>,
    written: Vec<u8>,
    /// What had been written when each piece was read.
    written_before: Vec<usize>,
}

impl Script {
    fn new(pieces: Vec<io::Result<Vec<u8>>>) -> Script {
        let pieces = pieces.into_iter().rev().collect();
        Script { pieces, written: Vec::new(), written_before: Vec::new() }
    }

    fn of(pieces: &[&[u8]]) -> Script {
        Script::new(pieces.iter().map(|piece| Ok(piece.to_vec())).collect())
    }

    #[track_caller]
    fn wrote(&self, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&self.written), expected);
    }
}

impl Read for Script {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.pop() else {
            return Ok(0);
        };
        let mut piece = piece?;
        self.written_before.push(self.written.len());
        let count = piece.len().min(into.len());
        into[..count].copy_from_slice(&piece[..count]);
        let rest = piece.split_off(count);
        if !rest.is_empty() {
            self.pieces.push(Ok(rest));
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer that echoes `body` and keeps the connection.
fn echoed(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Keep-Alive: timeout=60\r\n\r\n{body}"
    )
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 1\r\n\r\n";

#[test]
fn requests_are_echoed_at_every_split() {
    let all = [GET, POST, CHUNKED, GET].concat();
    let answers = [GET, POST, CHUNKED, GET].map(echoed).concat();
    for cut in 0..all.len() {
        let pieces = [&all.as_bytes()[..cut], &all.as_bytes()[cut..]];
        let pieces: Vec<&[u8]> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        let mut script = Script::of(&pieces);
        serve(&mut script).unwrap();
        script.wrote(&answers);
    }
    let bytes: Vec<&[u8]> = all.as_bytes().chunks(1).collect();
    let mut script = Script::of(&bytes);
    serve(&mut script).unwrap();
    script.wrote(&answers);
}

#[test]
fn a_request_is_answered_before_the_next_is_waited_for() {
    let mut script = Script::of(&[GET.as_bytes(), GET.as_bytes()]);
    serve(&mut script).unwrap();
    assert_eq!(script.written_before, [0, echoed(GET).len()]);
}

#[test]
fn head_is_answered_without_body() {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut script = Script::of(&[head.as_bytes(), GET.as_bytes()]);
    serve(&mut script).unwrap();
    let answer = echoed(head);
    let answer = answer.strip_suffix(head).expect("a body");
    script.wrote(&format!("{answer}{}", echoed(GET)));
}

#[test]
fn close_is_honoured() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut script = Script::of(&[request.as_bytes(), GET.as_bytes()]);
    serve(&mut script).unwrap();
    script.wrote(&echoed(request).replacen("Keep-Alive: timeout=60", "Connection: close", 1));
    assert_eq!(script.pieces.len(), 1, "the next request was read");
}

#[test]
fn expect_100_continue_is_answered_once() {
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut script = Script::of(&[head.as_bytes(), b"h", b"i"]);
    serve(&mut script).unwrap();
    let asked = "HTTP/1.1 100 Continue\r\n\r\n";
    script.wrote(&format!("{asked}{}", echoed(&format!("{head}hi"))));

    // Not if it has begun on its own, nor if there is none.
    let mut script = Script::of(&[format!("{head}h").as_bytes(), b"i"]);
    serve(&mut script).unwrap();
    script.wrote(&echoed(&format!("{head}hi")));
    let none = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
    let mut script = Script::of(&[none.as_bytes()]);
    serve(&mut script).unwrap();
    script.wrote(&echoed(none));
}

#[test]
fn a_body_of_1_mib_comes_back() {
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY}\r\n\r\n{}",
        "x".repeat(MAX_BODY)
    );
    let mut script = Script::of(&[request.as_bytes()]);
    serve(&mut script).unwrap();
    assert!(script.written == echoed(&request).as_bytes());
}

/// Everything after a refusal is read, so that closing does not reset the connection.
#[track_caller]
fn refused(request: &[u8], status: &str) {
    let mut script = Script::of(&[request, b"more"]);
    serve(&mut script).unwrap();
    let answer = String::from_utf8_lossy(&script.written);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(script.pieces.is_empty());
}

#[test]
fn a_larger_body_is_413() {
    let status = "413 Content Too Large";
    let length = MAX_BODY + 1;
    refused(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
        status,
    );
    let chunk = format!("{length:x}\r\n{}", "x".repeat(length));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(format!("{head}{chunk}").as_bytes(), status);
    refused(format!("{head}{chunk}\r\n0\r\n\r\n").as_bytes(), status);
}

#[test]
fn large_body_gets_no_100_continue() {
    let head =
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n";
    refused(head, "413 Content Too Large");
}

#[test]
fn malformed_request_is_400_and_endless_one_431() {
    refused(b"\x16\x03\x01", "400 Bad Request");
    refused(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "400 Bad Request",
    );
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(LIMITS.head));
    refused(long.as_bytes(), "431 Request Header Fields Too Large");
}

#[test]
fn an_idle_bridge_is_given_up_without_error() {
    let idle = || Err(ErrorKind::WouldBlock.into());
    let mut script = Script::new(vec![Ok(GET.into()), idle()]);
    serve(&mut script).unwrap();
    script.wrote(&echoed(GET));
    let mut script = Script::new(vec![Ok(b"GET".to_vec()), idle()]);
    assert_eq!(serve(&mut script).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn end_of_connection_within_a_request_is_an_error() {
    for request in [GET, POST, CHUNKED] {
        for end in 1..request.len() {
            let mut script = Script::of(&[&request.as_bytes()[..end]]);
            let error = serve(&mut script).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "at {end}");
            script.wrote("");
        }
    }
}

#[test]
fn memory_of_a_large_request_is_freed() {
    let body = "x".repeat(MAX_BODY);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY}\r\n\r\n{body}");
    let mut script = Script::of(&[request.as_bytes()]);
    let mut connection = Connection { stream: &mut script, held: Vec::new(), answer: Vec::new() };
    connection.turn().unwrap();
    assert!(connection.held.capacity() <= SCRATCH);
    assert!(connection.answer.capacity() <= SCRATCH);
}
