//! The setting `access-log`: where the lines go, and what is in them (`doc/logs.md`).

use super::values::{path, quoted};
use std::fmt;
use std::path::{Path, PathBuf};

/// In front of the path of a datagram socket.
const DATAGRAM: &str = "unix-datagram:";

/// In front of the format.
const FORMAT: &str = "format=";

/// What stands before and behind the name of a field.
const OPEN: &str = "%{";
const CLOSE: char = '}';

/// Combined Log Format, as Apache and nginx write it.
const COMBINED: &str = "%{client} - - [%{time_clf}] \"%{request}\" %{status_clf} %{body_out} \
                        \"%{referer}\" \"%{user_agent}\"";

/// Where each request is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go.
    pub to: LogTo,
    /// What a line is.
    pub format: LogFormat,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// A file; `-` is standard output.
    File(PathBuf),
    /// A Unix datagram socket, such as that of a syslog daemon: one datagram a line.
    Datagram(PathBuf),
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Unix time, client, host, method, target, status, body bytes, and milliseconds.
    Plain,
    /// A JSON object with every field.
    Json,
    /// Text with fields. The word that named it, for the two that have one.
    Text(&'static str, Vec<Part>),
}

/// A piece of a text format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Written as it is.
    Text(String),
    /// The value of a field.
    Field(Field),
}

/// What [`Field::visit`] calls.
pub(crate) trait VisitFields {
    /// Takes a field, and what stands before its value in a JSON object, behind another member.
    fn field(&mut self, field: Field, member: &'static str);
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal,)*) => {
        /// Something that is known of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[doc = $doc])* $variant,)* }

        impl Field {
            /// All of them, in the order in which a JSON line has them.
            pub(crate) const ALL: &[Field] = &[$(Field::$variant,)*];

            /// Its name in a format, and in a JSON line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }

            /// Visits all of them in that order. The calls are written out, so that in each of them
            /// the field is a constant.
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "a third of what a line of JSON costs")]
            pub(crate) fn visit(visitor: &mut impl VisitFields) {
                $(visitor.field(Field::$variant, concat!(",\"", $name, "\":"));)*
            }
        }
    };
}

fields! {
    /// When the request ended: UTC, RFC 3339, with milliseconds.
    Time "time",
    /// The same, as Apache writes it.
    TimeClf "time_clf",
    /// The same, in seconds since 1970 with milliseconds.
    TimeUnix "time_unix",
    /// The number of the worker, from 0.
    Worker "worker",
    /// The address of the client.
    Client "client",
    /// The address of the other end of the client's connection.
    Peer "peer",
    /// Its port.
    PeerPort "peer_port",
    /// The value of X-Request-Id.
    RequestId "request_id",
    /// The trace of `traceparent`.
    TraceId "trace_id",
    /// The host that the request names, without its port.
    Host "host",
    /// The port that it names, or 80.
    Port "port",
    /// The request line.
    Request "request",
    /// The method.
    Method "method",
    /// The target: path and query.
    Target "target",
    /// `HTTP/1.0` or `HTTP/1.1`.
    Version "version",
    /// The status; 0 if the client was sent none.
    Status "status",
    /// The same, but 499 or 444 instead of 0.
    StatusClf "status_clf",
    /// Bytes of the request, head and body.
    BytesIn "bytes_in",
    /// Bytes of its body.
    BodyIn "body_in",
    /// Bytes of the response, head and body.
    BytesOut "bytes_out",
    /// Bytes of its body.
    BodyOut "body_out",
    /// The value of Referer.
    Referer "referer",
    /// The value of User-Agent.
    UserAgent "user_agent",
    /// The site of the settings.
    Site "site",
    /// The first name of the route.
    Route "route",
    /// The address of the backend.
    Backend "backend",
    /// Its public ID.
    BackendId "backend_id",
    /// How many bridges the request was given to.
    Attempts "attempts",
    /// How long the head took to come.
    HeadTime "head_time",
    /// How long the request waited for a bridge.
    QueueTime "queue_time",
    /// How long the bridge took to acknowledge.
    AckTime "ack_time",
    /// How long the backend took to begin its response.
    FirstByteTime "first_byte_time",
    /// From the first byte of the head to the end.
    TotalTime "total_time",
    /// Who ended it, and in which phase.
    End "end",
    /// Why the proxy answered by itself.
    Reason "reason",
}

impl AccessLog {
    /// Reads the words of the line.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn parse(words: &[&str]) -> Result<AccessLog, String> {
        let (to, options) = words.split_first().ok_or("has no value")?;
        let to = match to.strip_prefix(DATAGRAM) {
            Some(socket) => LogTo::Datagram(path(socket)?),
            None if to.starts_with(FORMAT) => return Err("the file comes first".to_owned()),
            None => LogTo::File(path(to)?),
        };
        let format = match options {
            [] => LogFormat::Plain,
            [option] => match option.strip_prefix(FORMAT) {
                Some(format) => LogFormat::parse(format)?,
                None => return Err(format!("{} is not {FORMAT}...", quoted(option))),
            },
            [_, more, ..] => {
                let what = "is one word too many; a format with spaces is quoted";
                return Err(format!("{} {what}", quoted(more)));
            }
        };
        Ok(AccessLog { to, format })
    }

    /// Whether it is standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.to == LogTo::File(PathBuf::from("-"))
    }

    /// The file that is opened, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.to {
            LogTo::File(path) => Some(path),
            LogTo::Datagram(_) => None,
        }
    }
}

impl LogFormat {
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "" => Err(format!("{FORMAT} has no value")),
            "json" => Ok(LogFormat::Json),
            "combined" => Ok(LogFormat::Text("combined", parts(COMBINED)?)),
            "vcombined" => {
                let text = format!("%{{host}}:%{{port}} {COMBINED}");
                Ok(LogFormat::Text("vcombined", parts(&text)?))
            }
            // One of the words above was meant.
            text if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                let what = "is no format: combined, vcombined, json, or a text with fields such as \
                            %{status}";
                Err(format!("{} {what}", quoted(text)))
            }
            text => Ok(LogFormat::Text("", parts(text)?)),
        }
    }
}

/// The pieces of a text: `%{name}` is a field, `%%` a `%`.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("%%") {
            plain.push('%');
            rest = after;
            continue;
        }
        let Some((name, after)) = rest.strip_prefix(OPEN).and_then(|rest| rest.split_once(CLOSE))
        else {
            let what = "a % in a format begins a field such as %{status}; %% is a % itself";
            return Err(what.to_owned());
        };
        let Some(field) = Field::ALL.iter().find(|field| field.name() == name) else {
            let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
            return Err(format!(
                "there is no field {}; there are {}",
                quoted(name),
                names.join(", ")
            ));
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Field(*field));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// A word as it would be written in the file.
fn word(text: &str) -> String {
    let is_plain = !text.contains([' ', '\t']) && !text.starts_with(['#', '"']);
    if is_plain && !text.contains("=\"") { text.to_owned() } else { in_quotes(text) }
}

fn in_quotes(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// As it would be written in the file.
impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            LogTo::File(path) => f.write_str(&word(&path.display().to_string()))?,
            LogTo::Datagram(path) => {
                f.write_str(&word(&format!("{DATAGRAM}{}", path.display())))?;
            }
        }
        match &self.format {
            LogFormat::Plain => Ok(()),
            LogFormat::Json => write!(f, " {FORMAT}json"),
            LogFormat::Text("", parts) => {
                let mut format = String::new();
                for part in parts {
                    match part {
                        Part::Field(field) => {
                            format.push_str(&format!("{OPEN}{}{CLOSE}", field.name()));
                        }
                        Part::Text(text) => format.push_str(&text.replace('%', "%%")),
                    }
                }
                write!(f, " {FORMAT}{}", in_quotes(&format))
            }
            LogFormat::Text(word, _) => write!(f, " {FORMAT}{word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wrong(words: &[&str], expected: &str) {
        assert_eq!(AccessLog::parse(words).unwrap_err(), expected);
    }

    #[test]
    fn a_line_is_shown_as_it_was_written() {
        for words in [
            &["/var/log/access"][..],
            &["-", "format=json"],
            &["unix-datagram:/dev/log", "format=combined"],
            &["a", "format=vcombined"],
        ] {
            assert_eq!(AccessLog::parse(words).unwrap().to_string(), words.join(" "));
        }
        let quoted = AccessLog::parse(&["a b", "format=json"]).unwrap();
        assert_eq!(quoted.to_string(), "\"a b\" format=json");
        let own = AccessLog::parse(&["a", "format=100%% \"%{host}\" \\"]).unwrap();
        assert_eq!(own.to_string(), r#"a format="100%% \"%{host}\" \\""#);
    }

    #[test]
    fn a_format_is_text_and_fields() {
        let text = |text: &str| Part::Text(text.to_owned());
        let format = |words: &str| AccessLog::parse(&["a", words]).unwrap().format;
        assert_eq!(
            format("format={%{status}%{end}%%} x"),
            LogFormat::Text(
                "",
                vec![text("{"), Part::Field(Field::Status), Part::Field(Field::End), text("%} x"),]
            )
        );
        let LogFormat::Text("vcombined", parts) = format("format=vcombined") else { panic!() };
        assert_eq!(parts[..2], [Part::Field(Field::Host), text(":")]);
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        wrong(&[], "has no value");
        wrong(&["format=json"], "the file comes first");
        wrong(&["unix-datagram:"], "the path is empty");
        wrong(&["a", "json"], "\"json\" is not format=...");
        wrong(
            &["a", "format=%{host}", "%{status}"],
            "\"%{status}\" is one word too many; a format with spaces is quoted",
        );
        wrong(&["a", "format="], "format= has no value");
        wrong(
            &["a", "format=jsonl"],
            "\"jsonl\" is no format: combined, vcombined, json, or a text with fields such as \
             %{status}",
        );
        for text in ["format=%{host", "format=% x", "format=%h %", "format=%{"] {
            let what = "a % in a format begins a field such as %{status}; %% is a % itself";
            wrong(&["a", text], what);
        }
        let unknown = AccessLog::parse(&["a", "format=%{nonsense} x"]).unwrap_err();
        assert!(unknown.starts_with("there is no field \"nonsense\"; there are time, time_clf, "));
    }
}
