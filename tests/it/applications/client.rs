//! A client that takes every answer and every loss as a fact to be told.

use crate::common::Stream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// With an answer, whole.
    Answered(Answer),
    /// The connection could not be made.
    Refused,
    /// The connection ended or fell silent. Told is whether anything of an answer had come.
    Lost { begun: bool, why: io::Error },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The id that it says it answers.
    pub id: Option<String>,
    /// Its body.
    pub body: String,
}

/// A client with one connection, which it makes anew when it has none.
pub struct Client {
    /// The proxies that it may ask, and which of them it asks now.
    to: Vec<SocketAddr>,
    at: usize,
    stream: Option<Stream>,
}

impl Client {
    /// One that has not connected yet. It asks these proxies, beginning with the one at this place,
    /// and the next when one is not there.
    pub fn new(to: &[SocketAddr], at: usize) -> Client {
        Client { to: to.to_vec(), at: at % to.len(), stream: None }
    }

    /// Closes the connection, if there is one, and goes to the next proxy.
    pub fn renew(&mut self) {
        self.stream = None;
        self.at = (self.at + 1) % self.to.len();
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &str) -> Outcome {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match Stream::connect(self.to[self.at]) {
                Ok(stream) => stream,
                Err(_) => {
                    self.renew();
                    return Outcome::Refused;
                }
            },
        };
        let mut held = Vec::new();
        if let Err(why) = stream.write_all(request.as_bytes()) {
            return Outcome::Lost { begun: false, why };
        }
        match read(&mut stream, &mut held) {
            Ok((answer, stays)) => {
                self.stream = stays.then_some(stream);
                Outcome::Answered(answer)
            }
            Err(why) => Outcome::Lost { begun: !held.is_empty(), why },
        }
    }
}

/// Reads an answer that has a Content-Length; told is too whether the connection stays.
fn read(stream: &mut Stream, held: &mut Vec<u8>) -> io::Result<(Answer, bool)> {
    let mut scratch = [0; 4096];
    loop {
        if let Some(whole) = whole(held) {
            return Ok(whole);
        }
        match stream.read(&mut scratch)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => held.extend_from_slice(&scratch[..count]),
        }
    }
}

fn whole(held: &[u8]) -> Option<(Answer, bool)> {
    let end = held.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length: usize = field("Content-Length: ").map_or(0, |text| text.parse().expect("digits"));
    let body = held.get(end..end + length)?;
    let answer = Answer {
        status: head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0),
        id: field("X-Id: ").map(str::to_owned),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    Some((answer, field("Connection: ") != Some("close")))
}
