//! The name of a backend that stays the same when it comes again (`doc/protocol.md`, "Instances").

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The field of a BRIDGE that has it.
pub const INSTANCE: &str = "Cloudbridge-Instance";

/// Longest name, in bytes.
pub const MAX_INSTANCE: usize = 128;

/// What a name must be, for messages.
pub(crate) const INSTANCE_FORM: &str = "it has 1 to 128 visible characters, and no blanks";

/// The name of an instance: 1 to [`MAX_INSTANCE`] bytes of visible ASCII. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    /// `None` if it is no such name.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<InstanceName> {
        let is_name = (1..=MAX_INSTANCE).contains(&value.len())
            && value.iter().all(|byte| byte.is_ascii_graphic());
        let name = str::from_utf8(value).ok().filter(|_| is_name)?;
        Some(InstanceName(name.into()))
    }

    /// The same for the same name at every proxy. It is no secret.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let digest = Sha256::digest(self.0.as_bytes());
        digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// As it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_visible_ascii() {
        let name = InstanceName::parse(b"web1/localhost:3000").unwrap();
        assert_eq!(name.to_string(), "web1/localhost:3000");
        // SHA-256 of "abc", FIPS 180-4.
        assert_eq!(InstanceName::parse(b"abc").unwrap().digest(), 0xba78_16bf_8f01_cfea);
        assert!(InstanceName::parse(&[b'x'; MAX_INSTANCE]).is_some());
        for bad in [&b""[..], b"a b", b"a\tb", b"\xc3\xbc", &[b'x'; MAX_INSTANCE + 1]] {
            assert_eq!(InstanceName::parse(bad), None);
        }
    }
}
