//! The Connection field and what it decides (RFC 9110, section 7.6.1; RFC 9112, section 9.3).

use httparse::Header;

use super::ascii::list;
use super::field::may_be_named;
use super::field_lines::{FieldLines, Mask, bit, marked};
use super::{ParseError, Version};

/// Fields that the Connection fields of one message may name. Each is looked for among all fields, so without a
/// bound a head of commas would cost a million comparisons. Honest messages name one or two.
const MAX_NAMED: u8 = 32;

/// What the Connection fields of a message say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    /// `close` is among the options.
    pub(super) close: bool,
    keep_alive: bool,
    /// `upgrade` is among the options.
    pub(super) upgrade: bool,
    named: u8,
    /// The Connection fields themselves.
    lines: Mask,
}

/// An option that is not the name of a field to be removed.
enum Known {
    Close,
    KeepAlive,
    Upgrade,
}

fn known(option: &[u8]) -> Option<Known> {
    match option.len() {
        5 if option.eq_ignore_ascii_case(b"close") => Some(Known::Close),
        7 if option.eq_ignore_ascii_case(b"upgrade") => Some(Known::Upgrade),
        10 if option.eq_ignore_ascii_case(b"keep-alive") => Some(Known::KeepAlive),
        _ => None,
    }
}

impl ConnectionOptions {
    /// Takes the Connection field at `index`.
    pub(super) fn take(&mut self, index: usize, value: &[u8]) -> Result<(), ParseError> {
        self.lines |= bit(index);
        for option in list(value) {
            match known(option) {
                Some(Known::Close) => self.close = true,
                Some(Known::KeepAlive) => self.keep_alive = true,
                Some(Known::Upgrade) => self.upgrade = true,
                None if option.is_empty() => {}
                None if self.named == MAX_NAMED => {
                    return Err(ParseError::malformed("Connection names too many fields"));
                }
                None => self.named += 1,
            }
        }
        Ok(())
    }

    /// Whether the sender lets the connection live after this message (RFC 9112, section 9.3), which is decided
    /// nowhere else.
    pub(super) fn persistent(&self, version: Version) -> bool {
        match version {
            Version::V11 => !self.close,
            Version::V10 => self.keep_alive && !self.close,
        }
    }

    /// Marks the fields that Connection names as not to be passed on.
    pub(super) fn drop_named(&self, lines: &mut FieldLines<'_>, fields: &[Header<'_>]) {
        if self.named == 0 {
            return;
        }
        for line in marked(fields, self.lines) {
            for option in list(line.value).filter(|o| !o.is_empty() && known(o).is_none()) {
                for (index, field) in fields.iter().enumerate() {
                    if field.name.as_bytes().eq_ignore_ascii_case(option)
                        && may_be_named(field.name)
                    {
                        lines.drop |= bit(index);
                    }
                }
            }
        }
    }
}

/// Whether the values of Upgrade fields offer a protocol that may be passed on.
///
/// HTTP/2 without TLS (`h2c`) may not: after it the proxy would carry requests that it cannot see, for any host.
/// A list that holds it is left out whole, which RFC 9110, section 7.8, allows: Upgrade is an offer.
pub(super) fn passable(value: &[u8]) -> bool {
    let mut any = false;
    for protocol in list(value).filter(|p| !p.is_empty()) {
        if protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2") {
            return false;
        }
        any = true;
    }
    any
}

/// Whether credentials or a challenge are of a scheme that authenticates the connection and not the request
/// (RFC 4559, section 6): whoever comes next on that connection would speak with the first one's rights.
pub(super) fn binds_connection(value: &[u8]) -> bool {
    list(value).any(|item| {
        let end = memchr::memchr(b' ', item).unwrap_or(item.len());
        let scheme = &item[..end];
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}
