//! The Connection field (RFC 9110, section 7.6.1; RFC 9112, section 9.3).

use httparse::Header;

use super::ascii::list;
use super::field::may_be_named;
use super::field_lines::{FieldLines, Mask, bit, marked};
use super::{ParseError, Version};

/// Most fields that the Connection fields of a message may name. Each is compared with all fields,
/// so a head full of commas would cost a million comparisons. Real messages name one or two.
const MAX_NAMED: u8 = 32;

/// The options of a message's Connection fields, and its offers to upgrade.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// How many fields they name.
    named: u8,
    /// The Connection fields themselves.
    lines: Mask,
    /// Upgrade fields.
    pub(super) upgrades: Mask,
    /// Whether one of them offers what may not be passed on.
    unpassable: bool,
}

/// An option that is not the name of a field to remove.
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
    /// Parses the Connection field at `index`.
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

    /// Parses the Upgrade field at `index`.
    pub(super) fn take_upgrade(&mut self, index: usize, value: &[u8]) {
        self.upgrades |= bit(index);
        self.unpassable |= !passable(value);
    }

    /// Whether another protocol is offered, and the offer may be passed on.
    pub(super) fn offer(&self) -> bool {
        self.upgrade && self.upgrades != 0 && !self.unpassable
    }

    /// Whether the sender keeps the connection open after this message (RFC 9112, section 9.3).
    pub(super) fn persistent(&self, version: Version) -> bool {
        match version {
            Version::V11 => !self.close,
            Version::V10 => self.keep_alive && !self.close,
        }
    }

    /// Marks the fields that Connection names for removal.
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

/// Whether the value of an Upgrade field may be passed on.
///
/// HTTP/2 without TLS (`h2c`) may not: the proxy would then carry requests that it cannot see, for
/// any host. A list with it is removed completely, which RFC 9110, section 7.8, allows: Upgrade is
/// an offer.
fn passable(value: &[u8]) -> bool {
    let mut any = false;
    for protocol in list(value).filter(|p| !p.is_empty()) {
        if protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2") {
            return false;
        }
        any = true;
    }
    any
}

/// Whether credentials or a challenge are of a scheme that authenticates the connection and not the
/// request (RFC 4559, section 6): the next client on that connection would act with the first one's
/// rights.
pub(super) fn binds_connection(value: &[u8]) -> bool {
    list(value).any(|item| {
        let end = memchr::memchr(b' ', item).unwrap_or(item.len());
        let scheme = &item[..end];
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}
