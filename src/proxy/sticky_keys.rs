//! The cookies of sticky sites, and the secrets that they are signed with (`doc/protocol.md`, "Sticky
//! sites").
//!
//! A cookie names an instance by its digest. It is signed, so that a client cannot choose a backend,
//! nor make the proxy wait for one; and for one site, so that it is good for no other.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::bridge::{from_hex, hex};
use crate::net::sys;
use crate::routing::InstanceId;

/// What is signed first: the purpose, and the version of this format.
const PURPOSE: &[u8] = b"cloudbridge-sticky-1\n";

/// Hex digits of the instance.
const ID: usize = 16;

/// Bytes of the signature that are sent: 128 bits cannot be guessed.
const MAC: usize = 16;

/// Bytes of a secret of our own.
pub(super) const SECRET: usize = 32;

/// Least bytes of a secret in the file.
const LEAST: usize = 16;

/// The secrets. The first signs; what is signed with another one is good too.
#[derive(Clone, Default)]
pub(super) struct StickyKeys {
    all: Vec<Box<[u8]>>,
    /// They are of our own making, or of the program that this one has replaced.
    is_own: bool,
}

impl StickyKeys {
    /// A secret of our own.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn random() -> Result<StickyKeys, String> {
        let mut secret = [0; SECRET];
        sys::random(&mut secret).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(StickyKeys { all: vec![secret.into()], is_own: true })
    }

    /// Those of another program that had made its own.
    pub(super) fn inherited(secrets: Vec<[u8; SECRET]>) -> StickyKeys {
        StickyKeys { all: secrets.into_iter().map(Into::into).collect(), is_own: true }
    }

    /// Those of a file: one on each line.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence. No secret is shown.
    pub(super) fn parse(text: &str) -> Result<StickyKeys, String> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let mut all: Vec<Box<[u8]>> = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            if line.starts_with('#') {
                // It is more likely to be meant as a comment, and then everybody could guess it.
                return Err(format!("line {number}: a secret does not begin with #"));
            }
            if line.len() < LEAST {
                return Err(format!("line {number}: a secret has at least {LEAST} bytes"));
            }
            all.push(line.as_bytes().into());
        }
        if all.is_empty() {
            return Err("holds no secret".to_owned());
        }
        Ok(StickyKeys { all, is_own: false })
    }

    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// To be given to the program that replaces this one, and shown to nobody else; nothing if they
    /// are from a file.
    pub(super) fn own(&self) -> impl Iterator<Item = &[u8]> {
        self.all.iter().filter(|_| self.is_own).map(|secret| &**secret)
    }

    /// Whether they are from a file, and others than these.
    pub(super) fn differ(&self, others: &StickyKeys) -> bool {
        !(self.is_own && others.is_own) && self.all != others.all
    }

    /// The value of the cookie for an instance at a site.
    pub(super) fn sign(&self, site: &str, id: InstanceId) -> Option<String> {
        let digits = format!("{:0ID$x}", id.number());
        let mac = mac(self.all.first()?, site, &digits).finalize().into_bytes();
        Some(digits + &hex(&mac[..MAC]))
    }

    /// The instance that a cookie of a site names; `None` if it was not made with one of the secrets,
    /// for this site.
    pub(super) fn read(&self, site: &str, value: &[u8]) -> Option<InstanceId> {
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if value.len() != ID + 2 * MAC || !value.iter().all(is_hex) {
            return None;
        }
        let (digits, sent) = str::from_utf8(value).ok()?.split_at(ID);
        let signature: [u8; MAC] = from_hex(sent)?;
        let is_good =
            |secret: &[u8]| mac(secret, site, digits).verify_truncated_left(&signature).is_ok();
        self.all.iter().any(|secret| is_good(secret)).then_some(())?;
        u64::from_str_radix(digits, 16).ok().map(InstanceId::new)
    }
}

fn mac(secret: &[u8], site: &str, digits: &str) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("keys of any length");
    for part in [PURPOSE, site.as_bytes(), b"\n", digits.as_bytes()] {
        mac.update(part);
    }
    mac
}

impl fmt::Debug for StickyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StickyKeys({})", self.all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "correct horse battery staple\n";

    fn keys(text: &str) -> StickyKeys {
        StickyKeys::parse(text).unwrap()
    }

    #[test]
    fn a_cookie_is_read_where_the_secret_is_known() {
        let id = InstanceId::new(0x0123_4567_89ab_cdef);
        let value = keys(ONE).sign("a.test", id).unwrap();
        // printf 'cloudbridge-sticky-1\na.test\n0123456789abcdef' | openssl dgst -sha256 -hmac SECRET
        assert_eq!(value, "0123456789abcdef699e4e4a12c5acc2e01e54d6eab9eb76");
        for others in [ONE, "another secret of some length\n\ncorrect horse battery staple\n"] {
            assert_eq!(keys(others).read("a.test", value.as_bytes()), Some(id));
        }
        assert_eq!(keys("another secret of some length").read("a.test", value.as_bytes()), None);
        assert_eq!(keys(ONE).read("b.test", value.as_bytes()), None);
    }

    #[test]
    fn whatever_is_changed_in_a_cookie_is_noticed() {
        let keys = keys(ONE);
        let value = keys.sign("a.test", InstanceId::new(7)).unwrap();
        for at in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(keys.read("a.test", &forged), None, "{at}");
            assert_eq!(keys.read("a.test", &value.as_bytes()[..at]), None);
        }
        let longer = [value.as_bytes(), b"0"].concat();
        assert_eq!(keys.read("a.test", &longer), None);
        assert_eq!(keys.read("a.test", value.to_uppercase().as_bytes()), None);
        assert_eq!(StickyKeys::default().read("a.test", value.as_bytes()), None);
    }

    #[test]
    fn a_file_has_a_secret_on_each_line() {
        assert_eq!(StickyKeys::parse("\n \n").unwrap_err(), "holds no secret");
        assert_eq!(
            StickyKeys::parse("correct horse battery staple\nshort\n").unwrap_err(),
            "line 2: a secret has at least 16 bytes"
        );
        assert_eq!(
            StickyKeys::parse("# the secrets of example.com\n").unwrap_err(),
            "line 1: a secret does not begin with #"
        );
        let own = StickyKeys::random().unwrap();
        assert_eq!((own.own().count(), keys(ONE).own().count()), (1, 0));
        assert!(keys(ONE).differ(&own) && !own.differ(&StickyKeys::random().unwrap()));
        assert!(!format!("{:?}", keys(ONE)).contains("horse"));
    }
}
