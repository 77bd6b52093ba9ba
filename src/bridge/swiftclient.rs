//! The preamble of a swiftclient backend (`doc/protocol.md`, "swiftclient"): `swiftclient`, an id,
//! two hex digits for the length of a key, and the key. No line end, no answer.
//!
//! The id has twelve hex digits: eight of an IPv4 address and four of a process ID. The original
//! pads the process ID to four digits and does not truncate it, and process IDs have become longer,
//! so an id may have a few digits more. Only what follows, the length and the key of the site,
//! shows where it ends.

use std::fmt;

use subtle::ConstantTimeEq;

const GREETING: &[u8] = b"swiftclient";

/// Digits of an id.
const ID: usize = 12;

/// Most digits of an id: eight of the address, and a process ID up to 4194304 (the kernel's limit),
/// even in decimal.
const MAX_ID: usize = 15;

/// Digits of the key's length.
const LENGTH: usize = 2;

/// Longest preamble, in bytes.
pub(crate) const MAX_PREAMBLE: usize = GREETING.len() + MAX_ID + LENGTH + 255;

/// The id of a backend: 12 to [`MAX_ID`] hex digits, as sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    digits: [u8; MAX_ID],
    len: u8,
}

impl BackendId {
    /// Reads what is written by `Display`.
    pub(crate) fn read(digits: &str) -> Option<BackendId> {
        let is_one = digits.len() <= MAX_ID && digits.bytes().all(|b| b.is_ascii_graphic());
        is_one.then(|| id(digits.as_bytes()))
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digits[..usize::from(self.len)].escape_ascii().fmt(f)
    }
}

impl fmt::Debug for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a backend is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Malformed,
    /// The key is not the site's; either may be missing.
    Key,
    /// Bytes follow the preamble.
    Excess,
    /// It did not arrive in time.
    Late,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Malformed => "it does not speak swiftclient",
            Refused::Key => "its key is not the site's",
            Refused::Excess => "it sent something after its preamble",
            Refused::Late => "its preamble did not arrive in time",
        })
    }
}

/// What the bytes are under the assumption of some length of the id.
enum Reading {
    Impossible,
    Partial,
    Good,
    /// Refused, unless the id is longer.
    Bad(Refused),
}

/// Reads the preamble of a backend from all the bytes received so far; `Ok(None)` until it is
/// whole. `key` is the site's key, empty if it has none. It is compared in constant time.
///
/// A preamble with too short a key, or none, may look like the beginning of one with a longer id.
/// If no more comes, [`late`] says what was wrong with it.
///
/// # Errors
///
/// Final: more bytes do not change it.
pub(crate) fn parse(bytes: &[u8], key: &[u8]) -> Result<Option<BackendId>, Refused> {
    let greeting = bytes.len().min(GREETING.len());
    if bytes[..greeting] != GREETING[..greeting] {
        return Err(Refused::Malformed);
    }
    let rest = &bytes[greeting..];
    let mut partial = false;
    let mut refused = None;
    for len in ID..=MAX_ID {
        match read(rest, len, key) {
            Reading::Good => return Ok(Some(id(&rest[..len]))),
            Reading::Partial => partial = true,
            Reading::Bad(why) if refused != Some(Refused::Excess) => refused = Some(why),
            Reading::Bad(_) | Reading::Impossible => {}
        }
    }
    if partial { Ok(None) } else { Err(refused.unwrap_or(Refused::Malformed)) }
}

/// Why a backend is refused that has sent nothing more after these bytes, which [`parse`] takes for
/// a beginning.
pub(crate) fn late(bytes: &[u8], key: &[u8]) -> Refused {
    let rest = bytes.get(GREETING.len()..).unwrap_or_default();
    match read(rest, ID, key) {
        Reading::Bad(why) => why,
        Reading::Good | Reading::Partial | Reading::Impossible => Refused::Late,
    }
}

/// Reads what follows the greeting as an id of `len` digits, a length and a key. A longer id than
/// [`ID`] is only considered if it is followed by the length of the site's key.
fn read(rest: &[u8], len: usize, key: &[u8]) -> Reading {
    let (id, rest) = rest.split_at(rest.len().min(len));
    let (length, sent) = rest.split_at(rest.len().min(LENGTH));
    if !id.iter().chain(length).all(u8::is_ascii_hexdigit) {
        return Reading::Impossible;
    }
    let expected = format!("{:02x}", key.len());
    if !expected.as_bytes()[..length.len()].eq_ignore_ascii_case(length) {
        return if len > ID { Reading::Impossible } else { Reading::Bad(Refused::Key) };
    }
    if length.len() < LENGTH || sent.len() < key.len() {
        return Reading::Partial;
    }
    let (sent, excess) = sent.split_at(key.len());
    match bool::from(sent.ct_eq(key)) {
        false => Reading::Bad(Refused::Key),
        true if excess.is_empty() => Reading::Good,
        true => Reading::Bad(Refused::Excess),
    }
}

fn id(digits: &[u8]) -> BackendId {
    let mut id = BackendId { digits: [0; MAX_ID], len: digits.len() as u8 };
    id.digits[..digits.len()].copy_from_slice(digits);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(preamble: &[u8], key: &[u8], id: &str) {
        for end in 0..preamble.len() {
            assert_eq!(parse(&preamble[..end], key), Ok(None), "{end} bytes");
        }
        let parsed = parse(preamble, key).map(|id| id.map(|id| id.to_string()));
        assert_eq!(parsed, Ok(Some(id.to_owned())));
        let longer = [preamble, b"G"].concat();
        assert_eq!(parse(&longer, key), Err(Refused::Excess));
    }

    #[track_caller]
    fn bad(preamble: &[u8], key: &[u8], refused: Refused) {
        assert_eq!(parse(preamble, key), Err(refused), "{}", preamble.escape_ascii());
    }

    #[test]
    fn a_preamble_is_read_at_every_split() {
        good(b"swiftclient7f000001123400", b"", "7f0000011234");
        good(b"swiftclient7F00000112ab03abc", b"abc", "7F00000112ab");
        good(b"swiftclient7f000001ffff0A0123456789", b"0123456789", "7f000001ffff");
        let key = [b'k'; 255];
        let preamble = [&b"swiftclient7f0000010001ff"[..], &key].concat();
        good(&preamble, &key, "7f0000010001");
    }

    #[test]
    fn a_key_may_be_any_bytes() {
        good(b"swiftclient7f000001123404\x00\xff\r\n", b"\x00\xff\r\n", "7f0000011234");
        good(b"swiftclient7f00000112340b03abcswift3", b"03abcswift3", "7f0000011234");
    }

    #[test]
    fn id_with_a_long_process_id_is_accepted() {
        good(b"swiftclient7f0000011234503abc", b"abc", "7f00000112345");
        good(b"swiftclient7f000001419430403abc", b"abc", "7f0000014194304");
        good(b"swiftclient7f00000112345600", b"", "7f000001123456");
        // Up to the next to last digit of the length these look like a short id and another key.
        good(b"swiftclient7f0000011230003abc", b"abc", "7f00000112300");
        good(b"swiftclient7f00000110000003abc", b"abc", "7f000001100000");
        // Its end cannot be told from the end of a shorter one before the last byte has come.
        let preamble = b"swiftclient7f000001123000";
        assert_eq!(parse(preamble, b"").unwrap().unwrap().to_string(), "7f0000011230");
        let preamble = b"swiftclient7f0000011234000";
        assert_eq!(parse(preamble, b"").unwrap().unwrap().to_string(), "7f00000112340");
    }

    #[test]
    fn a_wrong_key_is_refused_as_soon_as_it_is_there() {
        bad(b"swiftclient7f000001123403abd", b"abc", Refused::Key);
        bad(b"swiftclient7f000001123402ab", b"abc", Refused::Key);
        bad(b"swiftclient7f000001123404abcd", b"abc", Refused::Key);
        bad(b"swiftclient7f000001123403abc", b"", Refused::Key);
        bad(b"swiftclient7f000001123403abdGET / HTTP/1.1\r\n", b"abc", Refused::Key);
    }

    #[test]
    fn preamble_with_no_key_is_refused_for_that_when_nothing_more_comes() {
        for (preamble, key, why) in [
            (&b"swiftclient7f000001123400"[..], &b"abc"[..], Refused::Key),
            (b"swiftclient7f000001123403ab", b"abc", Refused::Late),
            (b"swiftclient7f0000011", b"abc", Refused::Late),
            (b"swift", b"abc", Refused::Late),
        ] {
            assert_eq!(parse(preamble, key), Ok(None));
            assert_eq!(late(preamble, key), why, "{}", preamble.escape_ascii());
        }
    }

    #[test]
    fn bytes_after_the_preamble_are_refused() {
        bad(b"swiftclient7f000001123403abcHTTP/1.1 200 OK\r\n", b"abc", Refused::Excess);
        bad(b"swiftclient7f000001123400\r\n", b"", Refused::Excess);
    }

    #[test]
    fn malformed_preamble_is_refused_at_its_first_wrong_byte() {
        for (bytes, wrong_at) in [
            (&b"GET / HTTP/1.1\r\n"[..], 0),
            (b"swiftclienT7f", 10),
            (b"swiftclient7f00000112g4", 21),
            (b"swiftclient -f", 11),
            (b"swiftclient7f0000011234+3abc", 23),
            (b"swiftclient7f0000011234\xc3\xbcabc", 23),
            (b"swiftclient7f00000112340 3abc", 24),
        ] {
            assert_eq!(parse(&bytes[..wrong_at], b"abc"), Ok(None), "{}", bytes.escape_ascii());
            bad(&bytes[..=wrong_at], b"abc", Refused::Malformed);
        }
        assert_eq!(parse(b"", b""), Ok(None));
    }

    #[test]
    fn preamble_parser_neither_panics_nor_waits_forever() {
        for byte in 0..=255u8 {
            for len in 0..=MAX_PREAMBLE + 1 {
                let bytes: Vec<u8> = b"swiftclient".iter().copied().chain([byte; 300]).collect();
                let parsed = parse(&bytes[..len], b"abc");
                assert!(len < MAX_PREAMBLE || parsed.is_err(), "{byte} {len}");
            }
        }
    }
}
