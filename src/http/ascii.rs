//! Small pieces of text, parsed and written without allocation.

use std::io::Write;
use std::net::IpAddr;

/// Appends `number` in decimal digits.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    /// Digits of `u64::MAX`.
    const DIGITS: usize = 20;
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let mut digits = [b'0'; DIGITS];
    let mut at = DIGITS - 1;
    loop {
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
        at -= 1;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the field line of a name, with its colon and space, and a value.
pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// As [`line`], with a number as the value.
pub(super) fn number_line(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Writes an octet in decimal digits into `text` at `at`; returns its end.
fn octet(text: &mut [u8], mut at: usize, octet: u8) -> usize {
    if octet >= 100 {
        text[at] = b'0' + octet / 100;
        at += 1;
    }
    if octet >= 10 {
        text[at] = b'0' + octet / 10 % 10;
        at += 1;
    }
    text[at] = b'0' + octet % 10;
    at + 1
}

/// Appends an address in the form of X-Forwarded-For, without port and brackets. An IPv4-mapped
/// address is written as IPv4.
pub(crate) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // By hand: it runs once per request, and `write!` takes ten times as long.
            let mut text = *b"255.255.255.255";
            let [first, rest @ ..] = v4.octets();
            let mut end = octet(&mut text, 0, first);
            for next in rest {
                text[end] = b'.';
                end = octet(&mut text, end + 1, next);
            }
            out.extend_from_slice(&text[..end]);
        }
        IpAddr::V6(v6) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// The elements of a comma-separated list, trimmed; may be empty (RFC 9110, section 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

/// Without leading and trailing OWS (RFC 9110, section 5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Whether `b` is allowed in a token (RFC 9110, section 5.6.2).
pub(super) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Whether `b` is allowed in a field value (RFC 9110, section 5.5): no control byte but the tab.
pub(super) const fn is_value(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal_of(number: u64) -> String {
        let mut out = Vec::new();
        decimal(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 12345, u64::MAX] {
            assert_eq!(decimal_of(number), number.to_string());
        }
    }

    #[test]
    fn addresses_are_written_without_brackets_and_mapped_ones_as_ipv4() {
        for (from, to) in [
            ("10.0.200.3", "10.0.200.3"),
            ("255.199.99.255", "255.199.99.255"),
            ("0.9.10.100", "0.9.10.100"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            let mut out = Vec::new();
            address(&mut out, from.parse().unwrap());
            assert_eq!(out, to.as_bytes());
        }
    }

    #[test]
    fn lists_are_split_at_commas_and_trimmed() {
        let items: Vec<_> = list(b" a ,\tb,, c d").collect();
        assert_eq!(items, [&b"a"[..], b"b", b"", b"c d"]);
    }
}
