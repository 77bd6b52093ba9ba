//! Which form of an error a client understands best (RFC 9110, section 12.5.1).

/// The form of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorForm {
    /// A page or a line, for people.
    Text,
    /// `application/json`.
    Json,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

/// A media range that has been given: its weight in thousandths, and how many came before it.
#[derive(Clone, Copy, Default)]
struct Given {
    weight: u16,
    at: usize,
}

impl Given {
    /// Keeps the heavier of two, and the first of equals.
    fn keep(&mut self, other: Given) {
        if other.weight > self.weight {
            *self = other;
        }
    }
}

impl ErrorForm {
    /// Reads the values of all `Accept` fields in their order. JSON is chosen only if it is named, as
    /// `application/*` does too, and no text is named that weighs more, or that weighs the same and
    /// comes first: a browser, or a client that takes anything, gets text. What is malformed is
    /// skipped.
    #[must_use]
    pub fn of<'a>(accept: impl Iterator<Item = &'a [u8]>) -> ErrorForm {
        let [mut text, mut json, mut problem] = [Given::default(); 3];
        for (at, range) in accept.flat_map(|value| value.split(|b| *b == b',')).enumerate() {
            let mut parts = range.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let Some(weight) = weight(parts) else { continue };
            let given = Given { weight, at };
            match &*media {
                b"application/*" => {
                    json.keep(given);
                    problem.keep(given);
                }
                b"application/problem+json" => problem.keep(given),
                b"application/json" => json.keep(given),
                b"application/xhtml+xml" => text.keep(given),
                media if media.starts_with(b"text/") => text.keep(given),
                media if media.ends_with(b"+json") => json.keep(given),
                _ => {}
            }
        }
        let mut best = json;
        best.keep(problem);
        let text_first =
            text.weight > best.weight || (text.weight == best.weight && text.at < best.at);
        match best.weight {
            0 => ErrorForm::Text,
            _ if text_first => ErrorForm::Text,
            _ if problem.weight >= json.weight => ErrorForm::Problem,
            _ => ErrorForm::Json,
        }
    }
}

/// Whether the values of all `Accept` fields name `text/html`: only a browser that shows a page to a
/// person does. One that takes anything, as an image's or a script's request does, does not count.
#[must_use]
pub fn names_html<'a>(mut accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let is_html = |range: &[u8]| {
        let mut parts = range.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let is_html = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(b"text/html"));
        is_html && weight(parts).is_some_and(|weight| weight > 0)
    };
    accept.any(|value| value.split(|b| *b == b',').any(is_html))
}

/// The weight among a range's parameters, in thousandths: 1000 without one, `None` if it is
/// malformed (RFC 9110, section 12.4.2).
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    for parameter in parameters {
        let [b'q' | b'Q', b'=', value @ ..] = parameter else { continue };
        let (whole, rest) = value.split_first()?;
        let digits = match rest {
            [] => rest,
            [b'.', digits @ ..] if digits.len() <= 3 => digits,
            _ => return None,
        };
        let mut weight = match whole {
            b'0' | b'1' => u16::from(whole - b'0'),
            _ => return None,
        };
        for at in 0..3 {
            let digit = digits.get(at).copied().unwrap_or(b'0');
            if !digit.is_ascii_digit() {
                return None;
            }
            weight = weight * 10 + u16::from(digit - b'0');
        }
        return (weight <= 1000).then_some(weight);
    }
    Some(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_named_by_those_who_show_pages() {
        for (accept, names) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML ; q=0.1", true),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("text/*", false),
            ("*/*", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            assert_eq!(names_html([accept.as_bytes()].into_iter()), names, "{accept:?}");
        }
        assert!(!names_html(std::iter::empty()));
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        use ErrorForm::{Json, Problem, Text};
        for (accept, form) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            ("application/json", Json),
            ("Application/JSON ; charset=utf-8", Json),
            // axios; jQuery.
            ("application/json, text/plain, */*", Json),
            ("application/json, text/javascript, */*; q=0.01", Json),
            ("text/html, application/json", Text),
            ("text/html;q=0.9, application/json", Json),
            ("application/json;q=0.8, text/plain;q=0.9", Text),
            ("application/problem+json", Problem),
            ("application/json, application/problem+json", Problem),
            ("application/json, application/problem+json;q=0.9", Json),
            ("application/vnd.api+json", Json),
            ("application/*", Problem),
            ("application/json;q=0", Text),
            ("application/json;q=0.000, */*", Text),
            ("application/json;q=1.001", Text),
            ("application/json;q=x, application/json;q=0.1", Json),
            ("application/json;q=", Text),
            ("application/json;q=0.0001", Text),
            (",;,=;q,\u{fffd}", Text),
        ] {
            assert_eq!(ErrorForm::of([accept.as_bytes()].into_iter()), form, "{accept:?}");
        }
        let fields: [&[u8]; 2] = [b"text/html", b"application/json"];
        assert_eq!(ErrorForm::of(fields.into_iter()), Text);
        assert_eq!(ErrorForm::of(fields.into_iter().rev()), Json);
        assert_eq!(ErrorForm::of(std::iter::empty()), Text);
    }
}
