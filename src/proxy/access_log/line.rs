//! A record and its outcome as a line.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Field, LogFormat, Part, VisitFields};
use crate::exchange::Traffic;
use crate::http::Version;
use crate::http::ascii::{self, decimal};
use crate::time::Micros;

use super::super::reason::Reason;
use super::clock::Clock;
use super::end::{By, End};
use super::record::{Record, Text};

/// What stands for the request line of a head that is not one, as in haproxy's log.
const BAD: &str = "<BADREQ>";

/// How much of a target the plain format has, in bytes.
const PLAIN_TARGET: usize = 1 << 10;

/// How a request ended.
pub(in crate::proxy) struct Outcome {
    pub(in crate::proxy) worker: usize,
    pub(in crate::proxy) client: IpAddr,
    pub(in crate::proxy) peer: IpAddr,
    /// 0 if it has none.
    pub(in crate::proxy) peer_port: u16,
    /// 0 if the client has been sent none.
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) traffic: Traffic,
    pub(in crate::proxy) end: End,
    /// Why the answer is the proxy's own.
    pub(in crate::proxy) reason: Option<Reason>,
}

pub(super) struct Line<'a> {
    pub(super) record: &'a Record,
    pub(super) outcome: &'a Outcome,
    pub(super) clock: &'a mut Clock,
    /// When the request ended.
    pub(super) now: Micros,
}

/// The value of a field.
enum Value<'v> {
    None,
    Number(u64),
    /// Made by the proxy: nothing in it needs to be escaped.
    Word(&'v str),
    Address(IpAddr),
    End(End),
    Time(Duration),
    /// From a peer.
    Raw(&'v [u8]),
    /// The request line.
    Request,
}

/// Writes a field as a member of a JSON object.
struct Members<'a, 'o> {
    line: Line<'a>,
    out: &'o mut Vec<u8>,
}

impl VisitFields for Members<'_, '_> {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see `Field::visit`")]
    fn field(&mut self, field: Field, member: &'static str) {
        if matches!(field, Field::TimeClf | Field::TimeUnix | Field::StatusClf) {
            // Others say the same.
            return;
        }
        self.out.extend_from_slice(member.as_bytes());
        self.line.with(field, |line, value| line.write_json_value(&value, self.out));
    }
}

impl Line<'_> {
    /// Adds the line, with its line end.
    pub(super) fn write(mut self, format: &LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Plain => self.write_plain(out),
            LogFormat::Json => self.write_json(out),
            LogFormat::Text(_, parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Field(field) => self.with(*field, |line, value| {
                            line.write_text(&value, out);
                        }),
                    }
                }
            }
        }
        out.push(b'\n');
    }

    /// Time, client, host, method, target, status (0 for none), body bytes of a backend, and
    /// milliseconds since the head was whole.
    fn write_plain(&self, out: &mut Vec<u8>) {
        let (record, outcome) = (self.record, self.outcome);
        let time = Clock::now();
        decimal(out, time.as_secs());
        fraction(time.subsec_millis(), out);
        out.push(b' ');
        ascii::address(out, outcome.client);
        out.push(b' ');
        if record.version.is_some() {
            out.extend_from_slice(record.text(Text::Host).unwrap_or_default());
            out.push(b' ');
            out.extend_from_slice(record.text(Text::Method).unwrap_or_default());
            out.push(b' ');
            let target = record.text(Text::Target).unwrap_or_default();
            out.extend_from_slice(&target[..target.len().min(PLAIN_TARGET)]);
        } else {
            let _ = write!(out, "- {BAD} -");
        }
        let bytes = if outcome.reason.is_some() { 0 } else { outcome.traffic.body };
        let _ = write!(out, " {} {bytes} ", outcome.status);
        millis(self.now.since(record.received), out);
    }

    fn write_json(self, out: &mut Vec<u8>) {
        let begin = out.len();
        Field::visit(&mut Members { line: self, out });
        // In place of the comma before the first member.
        out[begin] = b'{';
        out.push(b'}');
    }

    /// Calls `write` with the value of a field.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see `Field::visit`")]
    fn with(&mut self, field: Field, write: impl FnOnce(&Self, Value<'_>)) {
        let (record, outcome, now) = (self.record, self.outcome, self.now);
        let traffic = &outcome.traffic;
        let text = |text| record.text(text).map_or(Value::None, Value::Raw);
        let time = |from: Option<Micros>, to: Option<Micros>| match (from, to) {
            (Some(from), Some(to)) => Value::Time(to.since(from)),
            _ => Value::None,
        };
        let value = match field {
            Field::Time | Field::TimeClf | Field::TimeUnix => {
                let mut time = std::mem::take(&mut self.clock.text);
                time.clear();
                self.clock.write(field, Clock::now(), &mut time);
                write(self, Value::Word(&time));
                self.clock.text = time;
                return;
            }
            Field::Worker => Value::Number(outcome.worker as u64),
            Field::Client => Value::Address(outcome.client),
            Field::Peer => Value::Address(outcome.peer),
            Field::PeerPort if outcome.peer_port == 0 => Value::None,
            Field::PeerPort => Value::Number(outcome.peer_port.into()),
            Field::RequestId => text(Text::RequestId),
            Field::TraceId => text(Text::TraceId),
            Field::Host => text(Text::Host),
            Field::Port => Value::Number(record.port.into()),
            Field::Request => Value::Request,
            Field::Method => text(Text::Method),
            Field::Target => text(Text::Target),
            Field::Version => record.version.map_or(Value::None, |own| Value::Word(version(own))),
            Field::Status => Value::Number(outcome.status.into()),
            Field::StatusClf => Value::Number(self.status_clf().into()),
            Field::BytesIn => Value::Number(traffic.request),
            Field::BodyIn => Value::Number(traffic.request.saturating_sub(record.head)),
            Field::BytesOut => Value::Number(traffic.heads + traffic.body),
            Field::BodyOut => Value::Number(traffic.body),
            Field::Referer => text(Text::Referer),
            Field::UserAgent => text(Text::UserAgent),
            Field::Site => text(Text::Site),
            Field::Route => text(Text::Route),
            Field::Backend => text(Text::Backend),
            Field::BackendId => text(Text::BackendId),
            Field::Attempts => Value::Number(record.attempts.into()),
            Field::HeadTime => time(Some(record.begun), Some(record.received)),
            Field::QueueTime => time(Some(record.received), record.matched),
            Field::AckTime => time(record.matched, record.acknowledged),
            Field::FirstByteTime => time(record.acknowledged, record.answered),
            Field::TotalTime => time(Some(record.begun), Some(now)),
            Field::End => Value::End(outcome.end),
            Field::Reason => {
                outcome.reason.map_or(Value::None, |reason| Value::Word(reason.word()))
            }
        };
        write(self, value);
    }

    /// Readers of Combined Log Format take only a status: without one, nginx's own for a client that
    /// left, and for a connection that was closed without an answer.
    fn status_clf(&self) -> u16 {
        match (self.outcome.status, self.outcome.end) {
            (0, End::By(By::Client | By::ClientTimeout, _)) => 499,
            (0, _) => 444,
            (status, _) => status,
        }
    }

    fn write_text(&self, value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::None => out.push(b'-'),
            Value::Number(number) => decimal(out, *number),
            Value::Word(word) => out.extend_from_slice(word.as_bytes()),
            Value::Address(ip) => ascii::address(out, *ip),
            Value::End(end) => end.write(out),
            Value::Time(time) => millis(*time, out),
            Value::Raw(raw) => escape(raw, out),
            Value::Request => self.write_request(out, escape),
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "see `Field::visit`")]
    fn write_json_value(&self, value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::None => out.extend_from_slice(b"null"),
            Value::Number(number) => decimal(out, *number),
            Value::Time(time) => millis(*time, out),
            Value::Word(word) => quoted(out, |out| out.extend_from_slice(word.as_bytes())),
            Value::Address(ip) => quoted(out, |out| ascii::address(out, *ip)),
            Value::End(end) => quoted(out, |out| end.write(out)),
            Value::Raw(raw) => quoted(out, |out| escape_json(raw, out)),
            Value::Request => quoted(out, |out| self.write_request(out, escape_json)),
        }
    }

    fn write_request(&self, out: &mut Vec<u8>, escape: fn(&[u8], &mut Vec<u8>)) {
        let Some(own) = self.record.version else {
            return out.extend_from_slice(BAD.as_bytes());
        };
        escape(self.record.text(Text::Method).unwrap_or_default(), out);
        out.push(b' ');
        escape(self.record.text(Text::Target).unwrap_or_default(), out);
        out.push(b' ');
        out.extend_from_slice(version(own).as_bytes());
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::V10 => "HTTP/1.0",
        Version::V11 => "HTTP/1.1",
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Milliseconds, with microseconds behind the point.
fn millis(time: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    decimal(out, micros / 1000);
    fraction((micros % 1000) as u32, out);
}

/// A point and three digits.
fn fraction(thousandths: u32, out: &mut Vec<u8>) {
    let digit = |power: u32| b'0' + (thousandths / power % 10) as u8;
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

/// Whether a byte is itself in text and in JSON.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\');
        byte += 1;
    }
    plain
};

fn is_plain(byte: u8) -> bool {
    PLAIN[byte as usize]
}

/// Writes quotation marks, backslashes, and bytes that are not printable ASCII as `\xHH`, as nginx
/// does: a line can be split at spaces and quotation marks, and can be printed.
fn escape(raw: &[u8], out: &mut Vec<u8>) {
    if raw.iter().all(|byte| is_plain(*byte)) {
        return out.extend_from_slice(raw);
    }
    for &byte in raw {
        match is_plain(byte) {
            true => out.push(byte),
            false => _ = write!(out, "\\x{byte:02X}"),
        }
    }
}

/// Writes a text inside a JSON string. Bytes that are not UTF-8 become the text `\xHH`.
fn escape_json(raw: &[u8], out: &mut Vec<u8>) {
    if raw.iter().all(|byte| is_plain(*byte)) {
        return out.extend_from_slice(raw);
    }
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\0'..' ' | '\u{7F}'..='\u{9F}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\\\x{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &[u8], escape: fn(&[u8], &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        escape(raw, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_text_line_has_nothing_that_ends_a_field_or_a_line() {
        let hostile = b"a b\"c\\\n\r\x1B[2J\x7F\xC3\xA9\xFF";
        assert_eq!(text(hostile, escape), r"a b\x22c\x5C\x0A\x0D\x1B[2J\x7F\xC3\xA9\xFF");
    }

    #[test]
    fn a_json_string_is_valid_whatever_is_in_it() {
        let all: Vec<u8> = (0..=255).chain("é\u{2028}\u{10348}".bytes()).collect();
        let written = format!("\"{}\"", text(&all, escape_json));
        let read: String = serde_json::from_str(&written).unwrap();
        assert!(read.starts_with("\0\u{1}\u{2}") && read.contains("!\"#"));
        assert!(read.contains("~\u{7F}\\x80\\x81"), "{read}");
        assert!(read.ends_with("\\xFFé\u{2028}\u{10348}"), "{read}");
        assert!(written.bytes().all(|byte| byte >= 0x20));
    }
}
