//! The proxy's own answers, as whole and framed messages.

use super::Version;
use super::ascii::{decimal, line, number_line};

/// The methods that a 405 lists where it does not depend on the target (RFC 9110 section 15.5.6):
/// those that HTTP and RFC 5789 define, without CONNECT.
pub const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";

/// An answer of the proxy itself: `Reply { close: true, ..Reply::new(503, "no bridge is free") }`.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The status code. 1xx, 204 and 304 are sent without a body.
    pub status: u16,
    /// The body; a line end is added.
    pub text: &'a str,
    /// The media type of the body.
    pub content_type: &'a str,
    /// The answer to a HEAD: all fields, no body.
    pub head_only: bool,
    /// The connection is closed after it.
    pub close: bool,
    /// The client's version: an HTTP/1.0 client gets `Connection: keep-alive` if it stays open.
    pub version: Version,
    /// In seconds (RFC 9110, section 10.2.3).
    pub retry_after: Option<u32>,
    /// The value of `Proxy-Status` (RFC 9209); empty for none.
    pub proxy_status: &'a str,
    /// Further field lines, each with CR LF, such as `Allow: GET\r\n`.
    pub extra: &'a str,
}

impl<'a> Reply<'a> {
    /// One line of plain text, to an HTTP/1.1 client, on a connection that stays open. A 405 lists
    /// [`ALLOW`].
    #[must_use]
    pub const fn new(status: u16, text: &'a str) -> Self {
        Self {
            status,
            text,
            content_type: "text/plain; charset=utf-8",
            head_only: false,
            close: false,
            version: Version::V11,
            retry_after: None,
            proxy_status: "",
            extra: if status == 405 { ALLOW } else { "" },
        }
    }

    /// Bytes of the body as [`Reply::write`] writes it.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        if self.head_only || self.is_bodiless() { 0 } else { self.text.len() as u64 + 1 }
    }

    /// RFC 9112, section 6.3, rule 1.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Appends the message. Bytes from a peer in `text`, `content_type` or `extra` must have been
    /// checked for line ends.
    pub fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.extra.is_empty() || self.extra.ends_with("\r\n"));
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal(out, self.status.into());
        line(out, b" ", reason(self.status).as_bytes());
        let bodiless = self.is_bodiless();
        if !bodiless {
            line(out, b"Content-Type: ", self.content_type.as_bytes());
            number_line(out, b"Content-Length: ", self.text.len() as u64 + 1);
        }
        if self.status >= 400 {
            // RFC 9111, section 4.2.2: otherwise a cache may keep a 404 or a 501.
            out.extend_from_slice(b"Cache-Control: no-store\r\n");
        }
        if let Some(seconds) = self.retry_after {
            number_line(out, b"Retry-After: ", seconds.into());
        }
        if !self.proxy_status.is_empty() {
            line(out, b"Proxy-Status: ", self.proxy_status.as_bytes());
        }
        out.extend_from_slice(self.extra.as_bytes());
        if self.close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if self.version == Version::V10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !self.head_only {
            out.extend_from_slice(self.text.as_bytes());
            out.push(b'\n');
        }
    }
}

/// The reason phrase of a status code (RFC 9110, section 15; RFC 6585), or `Unknown`. Never empty.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: Reply<'_>) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_is_a_whole_message() {
        let reply = Reply {
            close: true,
            retry_after: Some(5),
            ..Reply::new(504, "no backend came in time")
        };
        assert_eq!(
            written(reply),
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\n\
             Cache-Control: no-store\r\nRetry-After: 5\r\nConnection: close\r\n\r\nno backend came in time\n"
        );
    }

    #[test]
    fn an_answer_of_a_proxy_says_why() {
        let reply = Reply { proxy_status: "cloudbridge; error=x", ..Reply::new(503, "no") };
        assert_eq!(
            written(reply),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 3\r\nCache-Control: no-store\r\nProxy-Status: cloudbridge; error=x\r\n\r\nno\n"
        );
    }

    #[test]
    fn head_is_answered_with_the_same_fields_and_no_body() {
        let reply = Reply { head_only: true, extra: "Allow: GET\r\n", ..Reply::new(405, "no") };
        assert_eq!(
            written(reply),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Cache-Control: no-store\r\nAllow: GET\r\n\r\n"
        );
    }

    #[test]
    fn a_success_may_be_cached_and_http_1_0_is_told_that_it_stays_open() {
        let reply = Reply {
            content_type: "application/json",
            version: Version::V10,
            ..Reply::new(200, "{}")
        };
        assert_eq!(
            written(reply),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\
             Connection: keep-alive\r\n\r\n{}\n"
        );
    }

    #[test]
    fn a_status_without_a_body_has_no_length() {
        assert_eq!(written(Reply::new(204, "")), "HTTP/1.1 204 No Content\r\n\r\n");
    }

    #[test]
    fn every_status_has_a_phrase() {
        assert!((0..1000).all(|status| !reason(status).is_empty()));
        assert_eq!(reason(431), "Request Header Fields Too Large");
        assert_eq!(reason(599), "Unknown");
    }
}
