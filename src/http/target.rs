//! Request targets (RFC 9112, section 3.2).

use super::ParseError;

#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'b> {
    /// Path and query. For an absolute target without a path it begins with the `?`, or is empty.
    pub(super) rest: &'b str,
    /// The path alone; `*` for the server as a whole.
    pub(super) path: &'b str,
    /// The authority of an absolute target, and the default port of its scheme.
    pub(super) authority: Option<(&'b str, u16)>,
}

impl<'b> Target<'b> {
    /// Parses a target. httparse has checked that it has no spaces and control bytes.
    ///
    /// Accepts origin form, absolute form with `http` or `https`, and `*` with OPTIONS. Bytes that
    /// RFC 3986 wants escaped, such as `|`, are accepted: browsers send them, and all recipients
    /// agree on them. A `#` is not, because a recipient that cuts there sees another path.
    pub(super) fn parse(text: &'b str, method: &str) -> Result<Self, ParseError> {
        if !text.is_ascii() {
            return Err(ParseError::malformed("the request target is not ASCII"));
        }
        let bytes = text.as_bytes();
        let end = memchr::memchr2(b'?', b'#', bytes).unwrap_or(bytes.len());
        if memchr::memchr(b'#', &bytes[end..]).is_some() {
            return Err(ParseError::malformed("the request target has a fragment"));
        }
        if text.starts_with('/') {
            return Ok(Self { rest: text, path: &text[..end], authority: None });
        }
        if text == "*" && method == "OPTIONS" {
            return Ok(Self { rest: text, path: text, authority: None });
        }
        Self::absolute(text, method)
    }

    fn absolute(text: &'b str, method: &str) -> Result<Self, ParseError> {
        const BAD: ParseError =
            ParseError::malformed("the request target is neither a path nor an http address");
        let (scheme, after) = text.split_once("://").ok_or(BAD)?;
        let port = if scheme.eq_ignore_ascii_case("http") {
            80
        } else if scheme.eq_ignore_ascii_case("https") {
            443
        } else {
            return Err(BAD);
        };
        let end = memchr::memchr2(b'/', b'?', after.as_bytes()).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        // RFC 9112, section 3.2.4: OPTIONS without path and query is for the server as a whole.
        let (rest, path) = match rest {
            "" if method == "OPTIONS" => ("*", "*"),
            "" => ("", "/"),
            query if query.starts_with('?') => (query, "/"),
            rest => {
                // Faster than `split_once` for the short targets that are usual.
                let end = rest.bytes().position(|byte| byte == b'?').unwrap_or(rest.len());
                (rest, &rest[..end])
            }
        };
        Ok(Self { rest, path, authority: Some((authority, port)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        for (method, text, rest, path, authority) in [
            ("GET", "/", "/", "/", None),
            ("GET", "/a/b?c=/d?e", "/a/b?c=/d?e", "/a/b", None),
            ("GET", "//a", "//a", "//a", None),
            ("GET", "/a|b\"{}", "/a|b\"{}", "/a|b\"{}", None),
            ("OPTIONS", "*", "*", "*", None),
            ("GET", "http://a/b?c", "/b?c", "/b", Some(("a", 80))),
            ("GET", "HTTPS://a:1", "", "/", Some(("a:1", 443))),
            ("GET", "http://a?b/c", "?b/c", "/", Some(("a", 80))),
            ("OPTIONS", "http://a", "*", "*", Some(("a", 80))),
            ("OPTIONS", "http://a/", "/", "/", Some(("a", 80))),
            ("GET", "http://", "", "/", Some(("", 80))),
        ] {
            let target = Target::parse(text, method).unwrap();
            assert_eq!((target.rest, target.path), (rest, path), "{text}");
            assert_eq!(target.authority, authority, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "*", "a", "a/b", "a:80", "?a", "ftp://a/", "http:/a", "http:a", "/a#b", "/\u{e9}",
            "**", "/a?b#",
        ] {
            assert!(Target::parse(text, "GET").is_err(), "{text}");
        }
        assert!(Target::parse("*/a", "OPTIONS").is_err());
    }
}
