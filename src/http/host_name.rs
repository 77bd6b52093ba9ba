//! The one rule for host names, in requests, host patterns and settings.

use std::fmt;

/// Longest host name, in bytes (RFC 1035, section 2.3.4: 255 on the wire, 253 as text).
pub(crate) const MAX_NAME: usize = 253;

/// Longest label between two dots, in bytes (RFC 1035, section 2.3.4).
pub(crate) const MAX_LABEL: usize = 63;

/// Why a host name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNameError {
    /// There is none.
    Empty,
    /// It has more than 253 bytes.
    TooLong,
    /// A label is empty or has more than 63 bytes.
    Label,
    /// A byte is not a letter, digit, hyphen, underscore or dot.
    Character,
}

impl fmt::Display for HostNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostNameError::Empty => "the name is empty",
            HostNameError::TooLong => "the name is longer than 253 bytes",
            HostNameError::Label => "a label is empty or longer than 63 bytes",
            HostNameError::Character => "a host name has only letters, digits, '-', '_' and '.'",
        })
    }
}

impl std::error::Error for HostNameError {}

/// Checks a host name or IPv4 address without a final dot.
///
/// Stricter than RFC 3986, which allows almost any byte: escapes and user names are refused,
/// because recipients differ in how they read them. The underscore is not legal in a host name, but
/// it is in use; so are hyphens at either end of a label.
pub(crate) fn check(name: &[u8]) -> Result<(), HostNameError> {
    if name.is_empty() {
        return Err(HostNameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(HostNameError::TooLong);
    }
    let mut start = 0;
    for (at, b) in name.iter().enumerate() {
        if IN_LABEL[*b as usize] {
            continue;
        }
        if *b != b'.' {
            return Err(HostNameError::Character);
        }
        check_label(at - start)?;
        start = at + 1;
    }
    check_label(name.len() - start)
}

fn check_label(len: usize) -> Result<(), HostNameError> {
    if (1..=MAX_LABEL).contains(&len) { Ok(()) } else { Err(HostNameError::Label) }
}

/// The bytes of a label. A table, because each request's host is checked byte by byte.
const IN_LABEL: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < table.len() {
        table[b] = matches!(b as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_');
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use_are_accepted() {
        for name in
            ["a", "A.Example.COM", "my_app.x-y.local", "-a-.b", "127.0.0.1", "xn--bcher-kva.de"]
        {
            assert_eq!(check(name.as_bytes()), Ok(()), "{name}");
        }
    }

    #[test]
    fn labels_and_names_are_bounded() {
        let label = "a".repeat(MAX_LABEL);
        assert_eq!(check(label.as_bytes()), Ok(()));
        for name in [format!("{label}a"), format!("{label}a.b"), format!("b.{label}a")] {
            assert_eq!(check(name.as_bytes()), Err(HostNameError::Label));
        }
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!((longest.len(), check(longest.as_bytes())), (MAX_NAME, Ok(())));
        assert_eq!(check(format!("{longest}b").as_bytes()), Err(HostNameError::TooLong));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(check(b""), Err(HostNameError::Empty));
        for name in [".", ".a", "a.", "a..b"] {
            assert_eq!(check(name.as_bytes()), Err(HostNameError::Label), "{name}");
        }
        for name in ["a b", "a,b", "u@a", "a%41", "a:80", "*", "a\\b", "a\0", "b\u{fc}cher.de"] {
            assert_eq!(check(name.as_bytes()), Err(HostNameError::Character), "{name}");
        }
    }
}
