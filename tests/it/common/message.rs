//! One HTTP message as a test reads it.

use super::shown;
use std::fmt;

/// A request or a response: its head as it came, the same taken apart, and the body without its
/// framing.
#[derive(Clone, Default)]
pub struct Message {
    /// The whole head, byte for byte, with its empty line.
    pub head: Vec<u8>,
    /// The request line or the status line.
    pub start: String,
    /// The fields in their order, names as they were sent.
    pub fields: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// The trailer lines of a chunked body.
    pub trailers: Vec<String>,
}

impl Message {
    /// Takes a head apart. It must be written as the proxy writes one: `Name: value`, CRLF.
    #[track_caller]
    pub(super) fn parse(head: Vec<u8>) -> Message {
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
                None => panic!("not a field: {line:?} in {}", shown(&head)),
            })
            .collect();
        Message { head, start, fields, ..Message::default() }
    }

    /// The status code of a response.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let code = self.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        match code.and_then(|code| code.parse().ok()) {
            Some(code) => code,
            None => panic!("not a status line of HTTP/1.1: {:?}", self.start),
        }
    }

    /// The values of every field of this name, which is given in lower case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only field of this name; a repeated one fails the test.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times: {self:?}", all.len());
        all.first().copied()
    }

    /// Whether there is a field of this name.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless this is an answer of the proxy's own with this status: one line of text,
    /// framed, and said to be text.
    #[track_caller]
    pub fn assert_own_reply(&self, status: u16) {
        assert_eq!(self.status(), status, "{self:?}");
        let kind = self.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{self:?}");
        assert!(self.has("content-length"), "{self:?}");
        let text = self.text();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "not one line: {self:?}");
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + body {}", shown(&self.head), shown(&self.body))
    }
}
