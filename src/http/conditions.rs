//! Conditional requests (RFC 9110, section 13): whether a request is to be carried out at all, and
//! whether its `Range` counts.

use std::time::UNIX_EPOCH;

use httparse::Header;

use super::ascii::trim;

/// What a representation is compared by.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// Its entity tag, with quotation marks, and `W/` in front of a weak one.
    pub tag: &'a [u8],
    /// When it was last modified, in seconds since 1970.
    pub modified: u64,
}

/// What the conditions of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is carried out, by its `Range` if it has one.
    Proceed,
    /// The same, for the whole representation: what the client has a part of has changed.
    ProceedWhole,
    /// 304: the client has it.
    NotModified,
    /// 412: it is another one than the client thinks.
    Failed,
}

/// Evaluates the conditions among the fields of a GET or HEAD, in the order of RFC 9110, section
/// 13.2.2. A field that is malformed is ignored if it is a date, and matches nothing if it is a list
/// of tags.
#[must_use]
pub fn evaluate(fields: &[Header<'_>], current: &Validators<'_>) -> Outcome {
    let date = |name: &str| {
        let mut values = values(fields, name);
        let value = values.next()?;
        // Two of them say nothing.
        values.next().is_none().then(|| seconds(value)).flatten()
    };
    let tags = |name: &'static str| values(fields, name).peekable();
    let mut if_match = tags("If-Match");
    if if_match.peek().is_some() {
        if !if_match.any(|list| any_tag(list, |tag| is_same_strong(tag, current.tag))) {
            return Outcome::Failed;
        }
    } else if date("If-Unmodified-Since").is_some_and(|since| current.modified > since) {
        return Outcome::Failed;
    }
    let mut if_none_match = tags("If-None-Match");
    if if_none_match.peek().is_some() {
        if if_none_match.any(|list| any_tag(list, |tag| opaque(tag) == opaque(current.tag))) {
            return Outcome::NotModified;
        }
    } else if date("If-Modified-Since").is_some_and(|since| current.modified <= since) {
        return Outcome::NotModified;
    }
    let mut if_range = values(fields, "If-Range");
    match (if_range.next(), if_range.next()) {
        (None, _) => Outcome::Proceed,
        (Some(value), None) if is_same_range(value, current) => Outcome::Proceed,
        _ => Outcome::ProceedWhole,
    }
}

/// The values of all fields of this name.
pub(crate) fn values<'f, 'b>(
    fields: &'f [Header<'b>],
    name: &'f str,
) -> impl Iterator<Item = &'b [u8]> + 'f {
    fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// Whether any field is a condition or a `Range`: most requests have none.
pub(crate) fn has_any(fields: &[Header<'_>]) -> bool {
    fields.iter().any(|field| {
        let name = field.name.as_bytes();
        (name.len() > 7 && name[..3].eq_ignore_ascii_case(b"if-"))
            || name.eq_ignore_ascii_case(b"range")
    })
}

/// RFC 9110, section 13.1.5: a tag is compared strongly; a date must be exactly the one of this
/// representation, and say for certain which one that is (section 8.8.2.2). It does if the tag is
/// strong: neither has been made of a file that was just being changed.
fn is_same_range(value: &[u8], current: &Validators<'_>) -> bool {
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return is_same_strong(value, current.tag);
    }
    !current.tag.starts_with(b"W/") && seconds(value) == Some(current.modified)
}

/// RFC 9110, section 8.8.3.2.
fn is_same_strong(tag: &[u8], current: &[u8]) -> bool {
    tag == current && !tag.starts_with(b"W/")
}

/// A tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of tags is `*`, or has one for which `holds`.
fn any_tag(list: &[u8], holds: impl Fn(&[u8]) -> bool) -> bool {
    let mut rest = trim(list);
    if rest == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', more @ ..] = rest {
            rest = more;
        }
        let weak = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(weak) != Some(&b'"') {
            return false;
        }
        let Some(end) = rest[weak + 1..].iter().position(|byte| *byte == b'"') else {
            return false;
        };
        let (tag, more) = rest.split_at(weak + 1 + end + 1);
        if holds(tag) {
            return true;
        }
        rest = more;
    }
}

/// A date (RFC 9110, section 5.6.7) in seconds since 1970; `None` if it is none.
fn seconds(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(str::from_utf8(trim(value)).ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const MODIFIED: u64 = 784_111_777;

    fn outcome_of(tag: &str, fields: &[(&str, &str)]) -> Outcome {
        let fields: Vec<Header<'_>> =
            fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        evaluate(&fields, &Validators { tag: tag.as_bytes(), modified: MODIFIED })
    }

    fn outcome(fields: &[(&str, &str)]) -> Outcome {
        outcome_of("\"a\"", fields)
    }

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[test]
    fn each_condition_alone() {
        use Outcome::{Failed, NotModified, Proceed, ProceedWhole};
        for (name, value, expected) in [
            ("If-Match", "\"a\"", Proceed),
            ("if-match", "\"b\", \"a\"", Proceed),
            ("If-Match", "*", Proceed),
            ("If-Match", "W/\"a\"", Failed),
            ("If-Match", "\"b\"", Failed),
            ("If-Match", "a", Failed),
            ("If-None-Match", "\"a\"", NotModified),
            ("If-None-Match", "W/\"a\"", NotModified),
            ("If-None-Match", " \"b\" ,, W/\"c\",\"a\"", NotModified),
            ("If-None-Match", "*", NotModified),
            ("If-None-Match", "\"b,\\\"", Proceed),
            ("If-None-Match", "\"a", Proceed),
            ("If-None-Match", "", Proceed),
            ("If-Modified-Since", BEFORE, Proceed),
            ("If-Modified-Since", SAME, NotModified),
            ("If-Modified-Since", AFTER, NotModified),
            // The other two forms of RFC 9110, section 5.6.7.
            ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified),
            ("If-Modified-Since", "Sun Nov  6 08:49:37 1994", NotModified),
            ("If-Modified-Since", "yesterday", Proceed),
            ("If-Modified-Since", "", Proceed),
            ("If-Unmodified-Since", BEFORE, Failed),
            ("If-Unmodified-Since", SAME, Proceed),
            ("If-Unmodified-Since", "x", Proceed),
            ("If-Range", "\"a\"", Proceed),
            ("If-Range", "\"b\"", ProceedWhole),
            ("If-Range", "W/\"a\"", ProceedWhole),
            ("If-Range", SAME, Proceed),
            ("If-Range", BEFORE, ProceedWhole),
            ("If-Range", AFTER, ProceedWhole),
            ("If-Range", "x", ProceedWhole),
        ] {
            assert_eq!(outcome(&[(name, value)]), expected, "{name}: {value}");
        }
        assert_eq!(outcome(&[]), Proceed);
    }

    #[test]
    fn a_tag_comes_before_a_date_and_a_failure_before_a_304() {
        use Outcome::{Failed, NotModified, Proceed, ProceedWhole};
        for (fields, expected) in [
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", AFTER)][..], Proceed),
            (&[("If-Match", "\"a\""), ("If-Unmodified-Since", BEFORE)], Proceed),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], Failed),
            (&[("If-Unmodified-Since", BEFORE), ("If-Modified-Since", AFTER)], Failed),
            (&[("If-Match", "\"a\""), ("If-None-Match", "\"a\"")], NotModified),
            (&[("If-None-Match", "\"b\""), ("If-None-Match", "\"a\"")], NotModified),
            (&[("If-None-Match", "\"b\""), ("If-Range", "\"b\"")], ProceedWhole),
            (&[("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)], Proceed),
            (&[("If-Range", "\"a\""), ("If-Range", "\"a\"")], ProceedWhole),
        ] {
            assert_eq!(outcome(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_weak_tag_is_good_enough_for_304_and_for_nothing_else() {
        let weak = |name, value| outcome_of("W/\"a\"", &[(name, value)]);
        assert_eq!(weak("If-None-Match", "W/\"a\""), Outcome::NotModified);
        assert_eq!(weak("If-None-Match", "\"a\""), Outcome::NotModified);
        assert_eq!(weak("If-Match", "W/\"a\""), Outcome::Failed);
        assert_eq!(weak("If-Match", "*"), Outcome::Proceed);
        assert_eq!(weak("If-Range", "W/\"a\""), Outcome::ProceedWhole);
        assert_eq!(weak("If-Range", SAME), Outcome::ProceedWhole);
    }

    #[test]
    fn requests_without_conditions_are_told_at_a_look() {
        let has = |name: &str| has_any(&[Header { name, value: b"" }]);
        for name in ["If-Match", "if-none-match", "IF-MODIFIED-SINCE", "If-Range", "range"] {
            assert!(has(name), "{name}");
        }
        assert!(!has("Accept") && !has("Iffy") && !has("Ranges"));
    }
}
