//! What a backend and the proxy may say to each other beyond the original's protocol (`doc/protocol.md`,
//! "Extensions"): how a backend announces itself, leaves, and gives a request back.

use std::fmt;

use super::ascii::{from_hex, hex};

/// The field of a BRIDGE by which a backend announces that it knows the extensions; its value is a [`BackendToken`].
pub const BACKEND: &str = "Cloudbridge-Backend";

/// The field that makes a BRIDGE request a leave; its value is the [`BackendToken`] of those who leave.
pub const LEAVE: &str = "Cloudbridge-Leave";

/// The field of a proxy's first `100` that says which of the extensions it knows; in a BRIDGE that announces a backend,
/// which of those the backend uses that the proxy has to reckon with (`receipts`).
pub const EXTENSIONS: &str = "Cloudbridge-Extensions";

/// The first `100` to a bridge that has announced itself; to all others, and as a ping, it is
/// [`CONTINUE`](super::request::CONTINUE).
pub const WELCOME: &[u8] =
    b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered\r\n\r\n";

/// The same to one that gives receipts.
pub const WELCOME_RECEIPTS: &[u8] =
    b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered, receipts\r\n\r\n";

/// What an agent says before it gives the first byte of a request to its application, if the request cannot be repeated.
pub const RECEIPT: &[u8] = b"HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n";

/// Bytes of a token: 128 bits, which nobody guesses.
pub const TOKEN_BYTES: usize = 16;

/// Names the bridges that leave together: those of one run of a backend, for one set of hosts, at one proxy.
///
/// Whoever knows it can have those bridges closed, if he holds keys for their hosts too; so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendToken([u8; TOKEN_BYTES]);

impl BackendToken {
    /// The token of these bytes, which must come from a good source of randomness.
    #[must_use]
    pub fn new(random: [u8; TOKEN_BYTES]) -> BackendToken {
        BackendToken(random)
    }

    /// Reads 32 lower-case hex digits; `None` if it is anything else.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<BackendToken> {
        if value.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        from_hex(str::from_utf8(value).ok()?).map(BackendToken)
    }

    /// A field line with the token, CR LF and all. It goes to the proxy and nowhere else.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("{name}: {}\r\n", hex(&self.0))
    }
}

/// Leaves the token out.
impl fmt::Debug for BackendToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendToken")
    }
}

/// What a proxy has said that it knows. Nothing, as long as it has not said so: an older proxy would take a leave for
/// one more bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// It takes a leave.
    pub leave: bool,
    /// It takes a request back that could not be delivered.
    pub undelivered: bool,
    /// Without a receipt it takes a request that cannot be repeated not to have been delivered.
    pub receipts: bool,
}

impl Extensions {
    /// Reads the value of an [`EXTENSIONS`] field: names with commas, of which unknown ones mean nothing.
    #[must_use]
    pub fn parse(value: &[u8]) -> Extensions {
        let mut known = Extensions::default();
        for name in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            known.leave |= name.eq_ignore_ascii_case(b"leave");
            known.undelivered |= name.eq_ignore_ascii_case(b"undelivered");
            known.receipts |= name.eq_ignore_ascii_case(b"receipts");
        }
        known
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
    fn what_is_no_token_is_none() {
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
    fn extensions_are_a_list_in_which_unknown_names_mean_nothing() {
        let known = |value: &str| {
            let Extensions { leave, undelivered, receipts } = Extensions::parse(value.as_bytes());
            (leave, undelivered, receipts)
        };
        assert_eq!(known("leave, undelivered"), (true, true, false));
        assert_eq!(known("Leave"), (true, false, false));
        assert_eq!(known("teleport,undelivered ,receipts"), (false, true, true));
        assert_eq!(known("leave undelivered"), (false, false, false));
        assert_eq!(known(""), (false, false, false));
    }

    #[test]
    fn the_welcome_says_what_is_known() {
        for (welcome, receipts) in [(WELCOME, false), (WELCOME_RECEIPTS, true)] {
            let text = std::str::from_utf8(welcome).unwrap();
            let value = text.split_once(EXTENSIONS).unwrap().1;
            let value = value.strip_prefix(": ").unwrap().trim_end();
            let said = Extensions { leave: true, undelivered: true, receipts };
            assert_eq!(Extensions::parse(value.as_bytes()), said);
        }
    }
}
