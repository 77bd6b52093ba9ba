//! The protocol of Redis (RESP, version 2), as far as it takes to read a list: no I/O.
//!
//! These few lines are in place of a client library: the usual one brings a dozen crates, and
//! connections, pools and scripts that nothing here needs.

use std::io::Write as _;

/// Deepest nesting of an answer. The answer to EXEC has lists in a list.
const MAX_DEPTH: usize = 3;

/// Most parts of one list: twice those that are asked for.
const MAX_PARTS: usize = 1 << 16;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A text, of one line or with its length before it.
    Text(Vec<u8>),
    Number(i64),
    List(Vec<Answer>),
    Nothing,
    /// The command has failed: what Redis says.
    Error(String),
}

/// A command and its arguments, as they are sent.
pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    // Writes to a vector do not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Parses an answer at the beginning of `bytes`: it, and how many bytes it has. `None` if it has not
/// come whole.
///
/// # Errors
/// It is no answer of Redis.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, &'static str> {
    let mut reader = Reader { bytes, at: 0 };
    let answer = reader.answer(0)?;
    Ok(answer.map(|answer| (answer, reader.at)))
}

const MALFORMED: &str = "it does not answer as Redis does";

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn answer(&mut self, depth: usize) -> Result<Option<Answer>, &'static str> {
        let Some(line) = self.line()? else { return Ok(None) };
        let (kind, rest) = line.split_first().ok_or(MALFORMED)?;
        let rest = rest.to_vec();
        Ok(Some(match kind {
            b'+' => Answer::Text(rest),
            b'-' => Answer::Error(String::from_utf8_lossy(&rest).into_owned()),
            b':' => Answer::Number(number(&rest)?),
            b'$' => match number(&rest)? {
                -1 => Answer::Nothing,
                length => match self.text(usize::try_from(length).map_err(|_| MALFORMED)?)? {
                    Some(text) => Answer::Text(text),
                    None => return Ok(None),
                },
            },
            b'*' => match number(&rest)? {
                -1 => Answer::Nothing,
                count => match self.list(count, depth)? {
                    Some(list) => Answer::List(list),
                    None => return Ok(None),
                },
            },
            _ => return Err(MALFORMED),
        }))
    }

    fn list(&mut self, count: i64, depth: usize) -> Result<Option<Vec<Answer>>, &'static str> {
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PARTS);
        let count = count.filter(|_| depth < MAX_DEPTH).ok_or(MALFORMED)?;
        let mut list = Vec::new();
        for _ in 0..count {
            match self.answer(depth + 1)? {
                Some(answer) => list.push(answer),
                None => return Ok(None),
            }
        }
        Ok(Some(list))
    }

    /// Up to the next CR LF, which is consumed.
    fn line(&mut self) -> Result<Option<&[u8]>, &'static str> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(None) };
        self.at += end + 1;
        rest[..end].strip_suffix(b"\r").map(Some).ok_or(MALFORMED)
    }

    fn text(&mut self, length: usize) -> Result<Option<Vec<u8>>, &'static str> {
        let rest = &self.bytes[self.at..];
        let Some((text, end)) = rest.split_at_checked(length) else { return Ok(None) };
        match end {
            [b'\r', b'\n', ..] => {
                self.at += length + 2;
                Ok(Some(text.to_vec()))
            }
            [] | [b'\r'] => Ok(None),
            _ => Err(MALFORMED),
        }
    }
}

fn number(digits: &[u8]) -> Result<i64, &'static str> {
    let text = std::str::from_utf8(digits).map_err(|_| MALFORMED)?;
    text.parse().map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Answer {
        Answer::Text(text.into())
    }

    #[test]
    fn commands_have_lengths() {
        let sent = command(&[b"LRANGE", b"a b\r\n", b"0"]);
        assert_eq!(sent, b"*3\r\n$6\r\nLRANGE\r\n$5\r\na b\r\n\r\n$1\r\n0\r\n");
    }

    #[test]
    fn answers_are_parsed_wherever_they_are_split() {
        for (bytes, answer) in [
            (&b"+OK\r\n"[..], text("OK")),
            (b"-ERR no\r\n", Answer::Error("ERR no".to_owned())),
            (b":-7\r\n", Answer::Number(-7)),
            (b"$-1\r\n", Answer::Nothing),
            (b"*-1\r\n", Answer::Nothing),
            (b"$0\r\n\r\n", text("")),
            (b"$4\r\na\r\nb\r\n", text("a\r\nb")),
            (b"*0\r\n", Answer::List(Vec::new())),
            (
                b"*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
                Answer::List(vec![Answer::List(vec![text("x")]), Answer::List(Vec::new())]),
            ),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{bytes:?} to {end}");
            }
            let with_more = [bytes, b"+"].concat();
            assert_eq!(parse(&with_more), Ok(Some((answer, bytes.len()))));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b"*-2\r\n",
            b"*99999999999\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n+x\r\n",
        ] {
            assert_eq!(parse(bytes), Err(MALFORMED), "{bytes:?}");
        }
    }
}
