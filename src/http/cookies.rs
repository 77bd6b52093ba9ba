//! Cookies of a request (RFC 6265, section 4.2).

use httparse::Header;

use super::field_lines::{Mask, bit, marked};
use super::request::Request;

/// The name of the field.
const COOKIE: &str = "Cookie";

/// One `name=value` as it was sent.
#[derive(Clone, Copy)]
struct Pair<'a> {
    text: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
}

/// The values of a cookie, in the order sent. A client sends several if it has been set for several
/// paths.
pub(crate) fn values<'a>(
    fields: &'a [Header<'a>],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    let cookies =
        fields.iter().filter(|field| is_cookie(field)).flat_map(|field| pairs(field.value));
    cookies.filter(move |pair| pair.name == name.as_bytes()).map(|pair| pair.value)
}

/// All cookies of a request, in an order in which one is found among thousands.
pub(super) struct Cookies<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Cookies<'a> {
    pub(super) fn of(fields: &'a [Header<'a>]) -> Self {
        let cookies = fields.iter().filter(|field| is_cookie(field));
        let pairs = cookies.flat_map(|field| pairs(field.value));
        let mut all: Vec<_> = pairs.map(|pair| (pair.name, pair.value)).collect();
        all.sort_unstable();
        Cookies(all)
    }

    /// Whether there is one of this name, and of this value if one is given.
    pub(super) fn has(&self, name: &str, value: Option<&[u8]>) -> bool {
        let wanted = (name.as_bytes(), value.unwrap_or_default());
        let at = self.0.partition_point(|pair| *pair < wanted);
        let found = self.0.get(at).filter(|(name, _)| *name == wanted.0);
        found.is_some_and(|(_, found)| value.is_none_or(|value| value == *found))
    }
}

/// The fields that have a cookie of this name.
pub(super) fn fields_with(request: &Request<'_, '_>, name: &str) -> Mask {
    let has = |field: &Header<'_>| {
        is_cookie(field) && pairs(field.value).any(|pair| pair.name == name.as_bytes())
    };
    let found = request.fields.iter().enumerate().filter(|(_, field)| has(field));
    found.fold(0, |mask, (at, _)| mask | bit(at))
}

/// Appends these fields without the cookie of this name, and none that has no other.
pub(super) fn write_others(out: &mut Vec<u8>, request: &Request<'_, '_>, fields: Mask, name: &str) {
    for field in marked(request.fields, fields & !request.lines.drop) {
        let others = pairs(field.value).filter(|pair| pair.name != name.as_bytes());
        for (at, pair) in others.enumerate() {
            out.extend_from_slice(if at == 0 { b"Cookie: " } else { b"; " });
            out.extend_from_slice(pair.text);
        }
        if !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn is_cookie(field: &Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case(COOKIE)
}

/// What is between the semicolons, but for what is empty.
fn pairs(value: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let texts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    texts.filter(|text| !text.is_empty()).map(|text| {
        let (name, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (text[..at].trim_ascii_end(), text[at + 1..].trim_ascii_start()),
            None => (text, &b""[..]),
        };
        Pair { text, name, value }
    })
}

/// Whether it can be the name of a cookie (RFC 6265, section 4.1.1: a token).
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(super::ascii::is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(fields: &'a [Header<'a>], name: &'a str) -> Vec<&'a str> {
        values(fields, name).map(|value| std::str::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn a_cookie_is_found_in_every_form_that_clients_send() {
        let field = |name, value: &'static str| Header { name, value: value.as_bytes() };
        let fields = [
            field("X-Cookie", "a=0"),
            field("Cookie", "a=1; b=\"2\";a=3 ;; c"),
            field("cookie", " a = 4;A=5; ab=6;a=b=c"),
        ];
        assert_eq!(found(&fields, "a"), ["1", "3", "4", "b=c"]);
        assert_eq!(found(&fields, "b"), ["\"2\""]);
        assert_eq!(found(&fields, "c"), [""]);
        assert_eq!(found(&fields, "d"), [""; 0]);
    }

    #[test]
    fn a_cookie_is_found_among_many() {
        let field = |value: &'static [u8]| Header { name: "Cookie", value };
        let fields = [field(b"b=2; a=1; ab=3"), field(b"a=0; a=2;c")];
        let cookies = Cookies::of(&fields);
        for (name, value, is_there) in [
            ("a", None, true),
            ("a", Some("0"), true),
            ("a", Some("2"), true),
            ("a", Some("3"), false),
            ("a", Some(""), false),
            ("c", Some(""), true),
            ("ab", Some("3"), true),
            ("A", None, false),
            ("", None, false),
            ("d", None, false),
        ] {
            assert_eq!(cookies.has(name, value.map(str::as_bytes)), is_there, "{name} {value:?}");
        }
    }

    #[test]
    fn a_name_is_a_token() {
        assert!(is_name("cloudbridge") && is_name("__Host-x.y"));
        assert!(!["", "a b", "a=b", "a;b", "ü"].into_iter().any(is_name));
    }
}
