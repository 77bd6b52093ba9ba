//! Splits a line of a settings file into words.

use std::borrow::Cow;

const BLANK: [char; 2] = [' ', '\t'];

/// The words of a line up to its comment. A value with white space, or one that begins with `#` or
/// `"`, is quoted, as a word or after a `=`; `\"` and `\\` are `"` and `\` there.
///
/// # Errors
/// One sentence that repeats nothing of the line, which may contain a key.
pub(super) fn split(text: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(BLANK);
    while !rest.is_empty() && !rest.starts_with('#') {
        let plain = rest.find(BLANK).unwrap_or(rest.len());
        let quote = match rest[..plain].find("=\"") {
            _ if rest.starts_with('"') => Some(0),
            equals => equals.map(|at| at + 1),
        };
        let (word, after) = match quote {
            None => (Cow::Borrowed(&rest[..plain]), &rest[plain..]),
            Some(at) => {
                let (value, after) = unquote(&rest[at + 1..])?;
                (Cow::Owned(format!("{}{value}", &rest[..at])), after)
            }
        };
        words.push(word);
        rest = after.trim_start_matches(BLANK);
    }
    Ok(words)
}

/// A word as it is written on a line, which [`split`] makes the same word again. It holds no control
/// characters but tabs.
pub(crate) fn quote(word: &str) -> Cow<'_, str> {
    let is_plain = !word.is_empty()
        && !word.starts_with(['#', '"'])
        && !word.contains(BLANK)
        && !word.contains("=\"");
    if is_plain {
        return Cow::Borrowed(word);
    }
    // After the name of an option, or else around everything.
    let (start, value) = match word.split_once('=') {
        Some((name, value)) if !name.starts_with(['#', '"']) && !name.contains(BLANK) => {
            (format!("{name}=\""), value)
        }
        _ => ("\"".to_owned(), word),
    };
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
    Cow::Owned(format!("{start}{escaped}\""))
}

/// Splits after the closing quotation mark, and removes the escapes before it.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(['"', '\\']).ok_or("a quotation mark is not closed")?;
        value.push_str(&rest[..end]);
        let (mark, after) = rest[end..].split_at(1);
        match (mark, after.chars().next()) {
            ("\\", Some(escaped @ ('"' | '\\'))) => {
                value.push(escaped);
                rest = &after[1..];
            }
            ("\\", _) => {
                value.push('\\');
                rest = after;
            }
            (_, None | Some(' ' | '\t')) => return Ok((value, after)),
            _ => return Err("a word continues after its closing quotation mark".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(line: &str, expected: &[&str]) {
        assert_eq!(split(line).unwrap(), expected, "{line}");
    }

    #[test]
    fn words_are_separated_by_white_space() {
        good("", &[]);
        good(" \t# a", &[]);
        good(" a \t b#c # d", &["a", "b#c"]);
    }

    #[test]
    fn value_with_white_space_is_quoted() {
        good(r#""a b" c"#, &["a b", "c"]);
        good(r#""a#b" # c"#, &["a#b"]);
        good(r#"x="a # b"	y"#, &["x=a # b", "y"]);
        good(r#"x="\"\\\." a=b"c "#, &[r#"x="\\."#, r#"a=b"c"#]);
        good(r#""" x="" "#, &["", "x="]);
        good("\"é é\"", &["é é"]);
    }

    #[test]
    fn quoted_words_are_split_into_the_same() {
        for (word, quoted) in [
            ("a=b", "a=b"),
            ("a b", r#""a b""#),
            ("x=a b", r#"x="a b""#),
            ("#a", r##""#a""##),
            ("a#", "a#"),
            ("", r#""""#),
            ("x=", "x="),
            (r#"x="a"#, r#"x="\"a""#),
            (r#"x==""#, r#"x="=\"""#),
            (r"x=\", r"x=\"),
            (r"x=\ y\", r#"x="\\ y\\""#),
            ("a b=c", r#""a b=c""#),
            (r#""a=b c"#, r#""\"a=b c""#),
            ("x=a\tb", "x=\"a\tb\""),
        ] {
            assert_eq!(quote(word), quoted);
            assert_eq!(split(&format!("{quoted} y")).unwrap(), [word, "y"]);
        }
    }

    #[test]
    fn unclosed_quotation_mark_is_not_quoted() {
        for line in [r#"k="secret"#, r#"k="secret\""#, "\""] {
            assert_eq!(split(line).unwrap_err(), "a quotation mark is not closed");
        }
        let what = split(r#"k="secret"x"#).unwrap_err();
        assert_eq!(what, "a word continues after its closing quotation mark");
    }
}
