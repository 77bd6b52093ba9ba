//! What is kept of a request until its line is written. A connection keeps it for its next request.

use std::io::Write;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::config::Field;
use crate::exchange::{Stage, Traffic};
use crate::http::Version;
use crate::http::ascii::{self, decimal};
use crate::http::request::Request;
use crate::net::event_loop::Address;
use crate::time::Micros;

use super::super::request_ids::CurrentId;
use super::end::End;
use super::needs::Needs;

/// How much of a target is logged, in bytes: as much as `max-target` allows by default.
const TARGET: usize = 8 << 10;

/// How much of a header field is logged, in bytes.
const HEADER: usize = 1 << 10;

/// How much of a host or path the program's log has, in bytes.
const SHOWN: usize = 256;

/// How much of a request ID is logged, in bytes.
const ID: usize = 128;

/// Texts of a record, each by its own number.
#[derive(Clone, Copy)]
pub(super) enum Text {
    Host,
    Method,
    Target,
    Referer,
    UserAgent,
    RequestId,
    TraceId,
    Site,
    Route,
    Backend,
    BackendId,
}

/// The port of a request that names none.
const PORT: u16 = 80;

const TEXTS: usize = Text::BackendId as usize + 1;

#[derive(Default)]
pub(in crate::proxy) struct Record {
    /// Its request has no line yet.
    pub(in crate::proxy) is_open: bool,
    /// When the head's first byte came, as far as it is known.
    pub(super) begun: Micros,
    /// When the head was whole.
    pub(super) received: Micros,
    /// `None` if the head is not one.
    pub(super) version: Option<Version>,
    /// That the request names.
    pub(super) port: u16,
    /// Bytes of the head.
    pub(super) head: u64,
    pub(super) attempts: u8,
    /// When the last bridge was found, had acknowledged, and began its response.
    pub(super) matched: Option<Micros>,
    pub(super) acknowledged: Option<Micros>,
    pub(super) answered: Option<Micros>,
    /// What the last exchange has passed, and how it failed.
    pub(in crate::proxy) failure: Option<(End, Traffic)>,
    text: Vec<u8>,
    /// Where each text is in `text`; both 0 if it is not there.
    places: [(u32, u32); TEXTS],
}

/// A bridge that a request has been given to.
pub(in crate::proxy) struct Matched<'a> {
    pub(in crate::proxy) route: &'a str,
    pub(in crate::proxy) backend: Address,
    pub(in crate::proxy) backend_id: &'a str,
}

impl Record {
    /// The same, with no line to come.
    pub(in crate::proxy) fn closed(mut self: Box<Self>) -> Box<Self> {
        self.is_open = false;
        self
    }

    pub(super) fn begin(&mut self, begun: Micros, received: Micros) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Record { is_open: true, begun, received, text, port: PORT, ..Record::default() };
    }

    /// Takes what the format needs of a head.
    pub(super) fn take(&mut self, request: &Request<'_, '_>, needs: &Needs) {
        self.version = Some(request.version);
        self.head = request.len as u64;
        let is_line = needs.has(Field::Request);
        if needs.has(Field::Host) {
            self.put(Text::Host, request.host.as_bytes());
        }
        if needs.has(Field::Port) {
            self.port = port(request.authority).unwrap_or(PORT);
        }
        if is_line || needs.has(Field::Method) {
            self.put(Text::Method, request.method.as_bytes());
        }
        if is_line || needs.has(Field::Target) {
            self.put(Text::Target, first(request.target.as_bytes(), TARGET));
        }
        if needs.headers {
            self.take_headers(request, needs);
        }
    }

    fn take_headers(&mut self, request: &Request<'_, '_>, needs: &Needs) {
        for field in request.fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            let value = field.value;
            match field.name.len() {
                7 if is("Referer") => {
                    self.put_new(Field::Referer, Text::Referer, first(value, HEADER), needs);
                }
                10 if is("User-Agent") => {
                    self.put_new(Field::UserAgent, Text::UserAgent, first(value, HEADER), needs);
                }
                11 if is("traceparent") => {
                    let trace = trace_id(value).unwrap_or_default();
                    self.put_new(Field::TraceId, Text::TraceId, trace, needs);
                }
                12 if is("X-Request-Id") => {
                    self.put_new(Field::RequestId, Text::RequestId, first(value, ID), needs);
                }
                _ => {}
            }
        }
    }

    /// The first field of a name counts.
    fn put_new(&mut self, field: Field, text: Text, value: &[u8], needs: &Needs) {
        if needs.has(field) && self.text(text).is_none() {
            self.put(text, value);
        }
    }

    /// For a head that is not one, or not whole: `len` bytes have come.
    pub(super) fn take_bad(&mut self, len: usize) {
        self.head = len as u64;
    }

    pub(super) fn set_id(&mut self, id: Option<&CurrentId>, needs: &Needs) {
        if needs.has(Field::RequestId) {
            self.put_with(Text::RequestId, |out| id.into_iter().for_each(|id| id.write(out)));
        }
    }

    pub(super) fn set_site(&mut self, site: &str, needs: &Needs) {
        if needs.has(Field::Site) {
            self.put(Text::Site, site.as_bytes());
        }
    }

    pub(super) fn matched(&mut self, bridge: &Matched<'_>, needs: &Needs, now: Micros) {
        self.attempts = self.attempts.saturating_add(1);
        self.matched = Some(now);
        (self.acknowledged, self.answered, self.failure) = (None, None, None);
        if needs.has(Field::Route) {
            self.put(Text::Route, bridge.route.as_bytes());
        }
        if needs.has(Field::Backend) {
            self.put_with(Text::Backend, |out| socket(bridge.backend, out));
        }
        if needs.has(Field::BackendId) {
            self.put(Text::BackendId, bridge.backend_id.as_bytes());
        }
    }

    /// Its exchange has come this far.
    pub(in crate::proxy) fn note(&mut self, stage: Stage, now: Micros) {
        if stage > Stage::Ack && self.acknowledged.is_none() {
            self.acknowledged = Some(now);
        }
        if stage >= Stage::Data && self.answered.is_none() {
            self.answered = Some(now);
        }
    }

    /// Method, host and path for the log, in the form of
    /// [`Named`](crate::exchange::Exchange::named): without the query, which may hold credentials.
    pub(in crate::proxy) fn named(&self) -> Option<String> {
        let [method, host, target] =
            [Text::Method, Text::Host, Text::Target].map(|text| self.text(text));
        let path = target?.split(|byte| *byte == b'?').next()?;
        let [method, host, path] =
            [method?, host.unwrap_or_default(), path].map(|text| first(text, SHOWN).escape_ascii());
        Some(format!(", {method} {host}{path}"))
    }

    /// The bytes of its head, and whatever has been taken of its body.
    pub(in crate::proxy) fn traffic(&self) -> Traffic {
        match &self.failure {
            Some((_, traffic)) => *traffic,
            None => Traffic { request: self.head, ..Traffic::default() },
        }
    }

    /// For the message about a tunnel that goes to another program: the record without its texts,
    /// and these.
    pub(in crate::proxy) fn parts(&self) -> (Value, &[u8]) {
        let micros = |at: Option<Micros>| at.map(|at| at.0);
        let line = json!({
            "begun": self.begun.0,
            "received": self.received.0,
            "version": self.version.map(|version| u8::from(version == Version::V11)),
            "port": self.port,
            "head": self.head,
            "attempts": self.attempts,
            "matched": micros(self.matched),
            "acknowledged": micros(self.acknowledged),
            "answered": micros(self.answered),
            "places": self.places,
        });
        (line, &self.text)
    }

    /// Makes a record of its parts. `None` if they are none.
    pub(in crate::proxy) fn of_parts(line: &Value, text: &[u8]) -> Option<Box<Record>> {
        let number = |name: &str| line[name].as_u64();
        let places = line["places"].as_array()?.iter().map(|place| {
            let (from, to) = (place[0].as_u64()?, place[1].as_u64()?);
            let fits = from <= to && to <= text.len() as u64;
            fits.then_some((u32::try_from(from).ok()?, u32::try_from(to).ok()?))
        });
        Some(Box::new(Record {
            is_open: true,
            begun: Micros(number("begun")?),
            received: Micros(number("received")?),
            version: number("version").map(|minor| match minor {
                0 => Version::V10,
                _ => Version::V11,
            }),
            port: number("port")?.try_into().ok()?,
            head: number("head")?,
            attempts: number("attempts")?.try_into().ok()?,
            matched: number("matched").map(Micros),
            acknowledged: number("acknowledged").map(Micros),
            answered: number("answered").map(Micros),
            failure: None,
            text: text.to_vec(),
            places: places.collect::<Option<Vec<_>>>()?.try_into().ok()?,
        }))
    }

    fn put(&mut self, text: Text, value: &[u8]) {
        self.put_with(text, |out| out.extend_from_slice(value));
    }

    fn put_with(&mut self, text: Text, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.text.len();
        write(&mut self.text);
        self.places[text as usize] = (from as u32, self.text.len() as u32);
    }

    /// The text, if it has been taken and is not empty.
    pub(super) fn text(&self, text: Text) -> Option<&[u8]> {
        let (from, to) = self.places[text as usize];
        (from < to).then(|| &self.text[from as usize..to as usize])
    }
}

/// `address:port`, or the address alone if there is no port.
fn socket(address: Address, out: &mut Vec<u8>) {
    match address {
        Address(ip @ IpAddr::V4(_), port) => {
            ascii::address(out, ip);
            if port != 0 {
                out.push(b':');
                decimal(out, port.into());
            }
        }
        six => _ = write!(out, "{six}"),
    }
}

fn first(value: &[u8], most: usize) -> &[u8] {
    &value[..value.len().min(most)]
}

/// The port of an authority.
fn port(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}

/// The trace of a `traceparent` field (Trace Context, section 3.2).
fn trace_id(value: &[u8]) -> Option<&[u8]> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |text: &[u8]| text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (version.len() == 2 && trace.len() == 32 && is_hex(version) && is_hex(trace)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_made_of_its_parts() {
        let mut record = Record::default();
        record.begin(Micros(5), Micros(7));
        record.put(Text::Method, b"GET");
        record.put(Text::Referer, b"caf\xE9 \"x\"");
        (record.version, record.head, record.attempts) = (Some(Version::V10), 99, 2);
        (record.matched, record.answered) = (Some(Micros(8)), Some(Micros(u64::MAX)));
        let (line, text) = record.parts();
        let line: Value = serde_json::from_str(&line.to_string()).unwrap();
        let again = Record::of_parts(&line, text).unwrap();
        assert_eq!(again.parts(), record.parts());
        assert!(again.is_open && again.version == Some(Version::V10));
        assert_eq!(again.text(Text::Referer), Some(&b"caf\xE9 \"x\""[..]));
        assert_eq!(again.text(Text::Host), None);
        assert!(Record::of_parts(&line, &text[1..]).is_none(), "a place is outside");
        assert!(Record::of_parts(&json!({}), text).is_none());
    }

    #[test]
    fn a_trace_is_32_hexadecimal_digits() {
        let trace = b"4bf92f3577b34da6a3ce929d0e0e4736";
        let whole = [b"00-", &trace[..], b"-00f067aa0ba902b7-01"].concat();
        assert_eq!(trace_id(&whole), Some(&trace[..]));
        for bad in ["", "00", "00-4bf9-00f067aa0ba902b7-01", "0-x-", "00-\x22-"] {
            assert_eq!(trace_id(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_port_is_digits_behind_the_last_colon() {
        assert_eq!(port("a.test:8080"), Some(8080));
        assert_eq!(port("[::1]:80"), Some(80));
        for none in ["a.test", "", "a:"] {
            assert_eq!(port(none), None, "{none}");
        }
    }
}
