//! What a backend and the proxy may use beyond the original's protocol (`doc/protocol.md`,
//! "Extensions"): announcement, deregistration, and requests that could not be delivered.

use std::fmt;
use std::ops::BitOr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ascii::{from_lower_hex, hex};

/// The field of a BRIDGE that announces support for the extensions; its value is a
/// [`BackendToken`].
pub const BACKEND: &str = "Cloudbridge-Backend";

/// The field that makes a BRIDGE request a deregistration, of the bridges with this
/// [`BackendToken`].
pub const LEAVE: &str = "Cloudbridge-Leave";

/// The field of a proxy's first `100` that lists the extensions it supports. In a BRIDGE it lists
/// those that the backend uses, but for `leave`.
pub const EXTENSIONS: &str = "Cloudbridge-Extensions";

/// The field of a BRIDGE that says what program the backend is (RFC 9110, section 10.1.5).
pub const AGENT: &str = "User-Agent";

/// What the agent says there.
pub const AGENT_OF_AGENT: &str = concat!("cloudbridge-agent/", env!("CARGO_PKG_VERSION"));

/// What the Rust library says there.
pub const AGENT_OF_LIBRARY: &str = concat!("cloudbridge-rust/", env!("CARGO_PKG_VERSION"));

/// What the agent lists in its BRIDGE.
pub const OF_AGENT: &str = "undelivered, receipts, retries, probes";

/// What the Rust library lists there if its program has several proxies.
pub const OF_LIBRARY_OF_SEVERAL: &str = "undelivered, probes, places";

/// What an agent lists there whose service has several proxies.
pub const OF_AGENT_OF_SEVERAL: &str = "undelivered, receipts, retries, probes, places";

/// What an agent sends before the first byte of a request reaches its application, if the request
/// must not be repeated.
pub const RECEIPT: &[u8] = b"HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n";

/// Bytes of a public ID, in hex digits: enough to tell the backends of one proxy apart.
const PUBLIC_BYTES: usize = 4;

/// Bytes of a token: 128 bits cannot be guessed.
pub const TOKEN_BYTES: usize = 16;

/// Identifies the bridges that are deregistered together: those of one run of a backend, for one
/// set of hosts, at one proxy.
///
/// With the token and keys for the hosts one can have these bridges closed, so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendToken([u8; TOKEN_BYTES]);

impl BackendToken {
    /// How many digits one has.
    pub(crate) const DIGITS: usize = 2 * TOKEN_BYTES;

    /// `random` must come from a cryptographic source.
    #[must_use]
    pub fn new(random: [u8; TOKEN_BYTES]) -> BackendToken {
        BackendToken(random)
    }

    /// Reads 32 lower-case hex digits.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<BackendToken> {
        from_lower_hex(str::from_utf8(value).ok()?).map(BackendToken)
    }

    /// Whether it is the same, compared in constant time.
    pub(crate) fn is_same(&self, other: &BackendToken) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Names the backend in public: the beginning of a digest, from which nobody gets the token.
    #[must_use]
    pub fn public_id(&self) -> String {
        hex(&Sha256::digest(self.0)[..PUBLIC_BYTES])
    }

    /// Whether `text` has the form of a public ID.
    #[must_use]
    pub fn is_public_id(text: &str) -> bool {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        text.len() == 2 * PUBLIC_BYTES && digits
    }

    /// A field line with the token and CR LF.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("{name}: {}\r\n", self.digits())
    }

    /// What [`BackendToken::parse`] reads. It must not be shown.
    #[must_use]
    pub fn digits(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for BackendToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendToken")
    }
}

/// The extensions that a proxy has said it supports. By default none: an older proxy would take a
/// deregistration for one more bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Deregistration.
    pub leave: bool,
    /// A backend may give back a request that could not be delivered.
    pub undelivered: bool,
    /// Without a receipt, a request that must not be repeated counts as not delivered.
    pub receipts: bool,
    /// The proxy alone repeats requests that an application may have seen, and counts them.
    pub retries: bool,
    /// The proxy may send a 101 on a bridge that has served before, and the backend acknowledges it.
    pub probes: bool,
    /// A backend says how many requests it takes at once, and gives back what crosses that.
    pub places: bool,
}

impl Extensions {
    /// Reads the value of an [`EXTENSIONS`] field: a comma-separated list. Unknown names are
    /// ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Extensions {
        let mut known = Extensions::default();
        for name in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            known.leave |= name.eq_ignore_ascii_case(b"leave");
            known.undelivered |= name.eq_ignore_ascii_case(b"undelivered");
            known.receipts |= name.eq_ignore_ascii_case(b"receipts");
            known.retries |= name.eq_ignore_ascii_case(b"retries");
            known.probes |= name.eq_ignore_ascii_case(b"probes");
            known.places |= name.eq_ignore_ascii_case(b"places");
        }
        known
    }

    /// Their names, for [`Extensions::parse`].
    #[must_use]
    pub fn list(self) -> Vec<&'static str> {
        let all = [
            (self.leave, "leave"),
            (self.undelivered, "undelivered"),
            (self.receipts, "receipts"),
            (self.retries, "retries"),
            (self.probes, "probes"),
            (self.places, "places"),
        ];
        all.iter().filter(|(listed, _)| *listed).map(|(_, name)| *name).collect()
    }

    /// Appends the first `100` to a bridge that has announced itself and has listed these. All
    /// others, and pings, are [`CONTINUE`](super::request::CONTINUE).
    pub fn welcome(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n");
        self.line(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the field with which the proxy lists what it supports, for a bridge that has listed
    /// these.
    pub(super) fn line(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Cloudbridge-Extensions: leave, undelivered");
        for (listed, name) in [
            (self.receipts, &b", receipts"[..]),
            (self.retries, b", retries"),
            (self.probes, b", probes"),
            (self.places, b", places"),
        ] {
            out.extend_from_slice(if listed { name } else { b"" });
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl BitOr for Extensions {
    type Output = Extensions;

    /// Those of both: a field may be repeated.
    fn bitor(self, other: Extensions) -> Extensions {
        Extensions {
            leave: self.leave || other.leave,
            undelivered: self.undelivered || other.undelivered,
            receipts: self.receipts || other.receipts,
            retries: self.retries || other.retries,
            probes: self.probes || other.probes,
            places: self.places || other.places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let digits = b"00ff123456789abcdef0a1b2c3d4e5f6";
        let token = BackendToken::parse(digits).unwrap();
        assert_eq!(token.field(LEAVE), "Cloudbridge-Leave: 00ff123456789abcdef0a1b2c3d4e5f6\r\n");
        assert_eq!(format!("{token:?}"), "BackendToken");
    }

    #[test]
    fn malformed_token_is_none() {
        for value in [
            "",
            "00ff123456789abcdef0a1b2c3d4e5f",
            "00ff123456789abcdef0a1b2c3d4e5f60",
            "00FF123456789abcdef0a1b2c3d4e5f6",
            "00gf123456789abcdef0a1b2c3d4e5f6",
            " 0ff123456789abcdef0a1b2c3d4e5f6",
        ] {
            assert!(BackendToken::parse(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn unknown_extensions_are_ignored() {
        let none = Extensions::default();
        for (value, known) in [
            ("leave, undelivered", Extensions { leave: true, undelivered: true, ..none }),
            ("Leave", Extensions { leave: true, ..none }),
            (
                "teleport,undelivered ,receipts",
                Extensions { undelivered: true, receipts: true, ..none },
            ),
            ("retries", Extensions { retries: true, ..none }),
            ("leave undelivered", none),
            ("", none),
        ] {
            assert_eq!(Extensions::parse(value.as_bytes()), known, "{value}");
        }
    }

    #[test]
    fn the_welcome_says_what_is_known() {
        for listed in ["", "receipts", "retries", "probes", "places", OF_AGENT, OF_AGENT_OF_SEVERAL]
        {
            let said = Extensions::parse(listed.as_bytes());
            let mut welcome = Vec::new();
            said.welcome(&mut welcome);
            let text = std::str::from_utf8(&welcome).unwrap();
            let value = text.split_once(EXTENSIONS).unwrap().1;
            let value = value.strip_prefix(": ").unwrap().trim_end();
            let said = Extensions { leave: true, undelivered: true, ..said };
            assert_eq!(Extensions::parse(said.list().join(", ").as_bytes()), said);
            assert_eq!(Extensions::parse(value.as_bytes()), said);
        }
    }
}
