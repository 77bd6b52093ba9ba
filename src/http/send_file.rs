//! Responses that name a file in place of a body: `X-Sendfile`, as Swiftiply, lighttpd and Apache know
//! it, and `X-Accel-Redirect`, as nginx does.

use super::field_lines::{Mask, bit};
use super::response::Response;

/// The file that a response names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'b> {
    /// By `X-Sendfile`: a path in the file system, as it is.
    Path(&'b [u8]),
    /// By `X-Accel-Redirect`: a path of a URI, with escapes.
    Uri(&'b [u8]),
}

/// A response that names a file.
#[derive(Debug, Clone, Copy)]
pub struct SendFile<'b> {
    /// The file.
    pub named: Named<'b>,
    /// The value of its `Content-Type`.
    pub content_type: Option<&'b [u8]>,
    drop: Mask,
}

/// Fields about the body that the response does not have, or that are made anew for the file, in
/// lower case.
const REPLACED: [&str; 8] = [
    "x-sendfile",
    "content-type",
    "content-length",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
    "date",
];

/// What nginx calls the fields that are for the proxy.
const ACCEL: &[u8] = b"x-accel-";

impl<'b> SendFile<'b> {
    /// The file that `response` names, if it does. Of several names the first counts, and an empty one
    /// is none.
    #[must_use]
    pub fn of(response: &Response<'b, '_>) -> Option<SendFile<'b>> {
        let mut found = None;
        let (mut content_type, mut drop) = (None, response.codings);
        for (index, field) in response.fields.iter().enumerate() {
            let name = field.name.as_bytes();
            let is_accel =
                name.len() > ACCEL.len() && name[..ACCEL.len()].eq_ignore_ascii_case(ACCEL);
            if is_accel || REPLACED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            {
                drop |= bit(index);
            }
            if name.eq_ignore_ascii_case(b"content-type") {
                content_type = content_type.or(Some(field.value));
            }
            let named = match name {
                _ if field.value.is_empty() => continue,
                name if name.eq_ignore_ascii_case(b"x-sendfile") => Named::Path(field.value),
                name if name.eq_ignore_ascii_case(b"x-accel-redirect") => Named::Uri(field.value),
                _ => continue,
            };
            found.get_or_insert(named);
        }
        Some(SendFile { named: found?, content_type, drop })
    }

    /// Appends the field lines of `response` that go on to the client with the file.
    pub fn write_fields(&self, response: &Response<'_, '_>, out: &mut Vec<u8>) {
        response.lines.copy(out, response.fields, self.drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, response};

    fn read(fields: &str) -> (Option<(String, String)>, Option<Vec<u8>>) {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let mut storage = response::storage();
        let parsed = response::parse(text.as_bytes(), &mut storage, &Limits::default(), true);
        let response = parsed.unwrap().unwrap();
        let Some(file) = SendFile::of(&response) else { return (None, None) };
        let mut out = Vec::new();
        file.write_fields(&response, &mut out);
        let named = format!("{:?}", file.named);
        (Some((named, String::from_utf8(out).unwrap())), file.content_type.map(<[u8]>::to_vec))
    }

    #[test]
    fn what_is_not_about_the_body_goes_on() {
        let (file, content_type) = read(
            "Content-Type: text/x\r\nContent-Length: 0\r\nX-Sendfile: /a b%20\r\nSet-Cookie: a=b\r\n\
             ETag: \"x\"\r\nLast-Modified: x\r\nDate: x\r\nAccept-Ranges: none\r\nX-Accel-Buffering: no\r\n\
             Cache-Control: private\r\nConnection: close\r\nContent-Disposition:attachment\r\n",
        );
        let (named, kept) = file.unwrap();
        assert_eq!(named, format!("{:?}", Named::Path(b"/a b%20")));
        assert_eq!(
            kept,
            "Set-Cookie: a=b\r\nCache-Control: private\r\nContent-Disposition: attachment\r\n"
        );
        assert_eq!(content_type.as_deref(), Some(&b"text/x"[..]));
    }

    #[test]
    fn the_first_name_that_is_not_empty_counts() {
        let named = |fields| read(fields).0.map(|(named, _)| named);
        assert_eq!(named("X-Accel-Redirect: /b\r\n"), Some(format!("{:?}", Named::Uri(b"/b"))));
        let both = "x-sendfile: \r\nx-accel-redirect: /b\r\nX-Sendfile: /c\r\n";
        assert_eq!(named(both), Some(format!("{:?}", Named::Uri(b"/b"))));
        assert_eq!(named("X-Sendfile:\r\n"), None);
        assert_eq!(named("X-Accel-Expires: 5\r\nX-Sendfiles: /a\r\n"), None);
    }
}
