//! What can be wrong with a key.

use std::fmt;

use crate::bridge::pattern::PatternError;

/// Most caveats of a key: five kinds, and some of them narrowed twice or three times on the way from
/// the proxy's owner to the last holder. Each costs the proxy an HMAC when the key is checked, and two more if keys are revoked.
pub(super) const MOST_CAVEATS: usize = 12;

/// Why a text is not a host key. Never shows any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Fewer than two colons, or bytes beyond ASCII.
    Shape,
    /// A modern key with fewer than five colons.
    ModernShape,
    /// A later version.
    Version,
    /// The hash is neither 40 hex digits nor empty.
    Hash,
    /// The hash of a modern key is not 64 hex digits in lower case.
    ModernHash,
    /// The proof of a key without its hash is not 64 hex digits in lower case.
    Proof,
    /// The timestamp is not a number of 64 bits.
    Timestamp,
    /// The expiry of a modern key is not such a number.
    Expiry,
    /// The limit of a modern key is neither empty nor a number from 1 to 2^32 - 1.
    Bridges,
    /// The name is not a host pattern.
    Name(PatternError),
    /// A narrowed key without a key or a caveat.
    NarrowedShape,
    /// A caveat of no known kind, or one that is not written in its only way.
    Caveat,
    /// Too many caveats.
    Caveats,
    /// The caveats exclude each other.
    Nothing,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::Shape => "it is not hash:timestamp:name",
            KeyError::ModernShape => "it is not v2:hash:timestamp:expiry:bridges:name",
            KeyError::Version => "only v2, v3 and the old form are known",
            KeyError::Hash => "the hash is not 40 hex digits",
            KeyError::ModernHash => "the hash is not 64 hex digits in lower case",
            KeyError::Proof => "the proof is not 64 hex digits in lower case",
            KeyError::Timestamp => "the timestamp is not a number of seconds",
            KeyError::Expiry => "the expiry is not a number of seconds",
            KeyError::Bridges => "the limit of bridges is neither empty nor a number from 1",
            KeyError::NarrowedShape => "it is not v3:hash:key+caveat",
            KeyError::Caveat => {
                "a caveat is not known, or not written in its only way: host=NAME, prefix=/PATH, \
                 method=GET/HEAD, bridges=COUNT or expiry=SECOND"
            }
            KeyError::Caveats => return write!(f, "it has more than {MOST_CAVEATS} caveats"),
            KeyError::Nothing => "its caveats exclude each other, so it allows nothing",
            KeyError::Name(bad) => return write!(f, "in its name, {bad}"),
        })
    }
}

impl std::error::Error for KeyError {}

/// Why a well-formed key is invalid. Times are in Unix seconds.
///
/// The expiry and date of a key are only checked once it is known to be genuine, so that a forger
/// learns nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKey {
    /// It has no hash. With the original and no secrets configured, `::name` only names the backend
    /// in the statistics.
    Unsigned,
    /// It is of the old form, and only modern keys are accepted.
    OldForm,
    /// It was sent as it is, and only proofs are accepted.
    Bare,
    /// The proof is not that of this key, for this request on this connection.
    Unproven,
    /// All secrets lie in the future.
    NoSecretYet,
    /// No secret was in force when it was made.
    TooOld,
    /// It was made with another secret, or it was changed.
    Mismatch,
    /// It was valid until then.
    Expired(u64),
    /// It has been taken back.
    Revoked,
    /// It is dated then, further in the future than clocks differ.
    TooNew(u64),
    /// It was narrowed to a path, and the BRIDGE is for another.
    Path,
    /// It was narrowed to some methods, and the BRIDGE does not say that it takes no others.
    Method,
}

impl fmt::Display for InvalidKey {
    /// What comes after "the key".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidKey::Unsigned => f.write_str("has no hash and proves nothing"),
            InvalidKey::OldForm => {
                f.write_str("is of the old form, which `legacy-keys no` turns off; ask for a v2 key")
            }
            InvalidKey::Bare => f.write_str(
                "was sent as it is, which `bearer-keys no` refuses; a backend that proves it is needed, \
                 without --bearer-keys",
            ),
            InvalidKey::Unproven => f.write_str(
                "is not proven: it was changed, or not made with the secret in force at its time, or \
                 the proof is for another request or connection",
            ),
            InvalidKey::NoSecretYet => f.write_str("cannot be checked: no secret is in force yet"),
            InvalidKey::TooOld => f.write_str("is older than every secret"),
            InvalidKey::Mismatch => f.write_str(
                "does not check out: it was changed, or not made with the secret in force at its time",
            ),
            InvalidKey::Expired(at) => write!(f, "expired at {at} (Unix time)"),
            InvalidKey::Revoked => f.write_str("has been revoked"),
            InvalidKey::Path => {
                f.write_str("was narrowed to a path, and the target of this BRIDGE is not below it")
            }
            InvalidKey::Method => f.write_str(
                "was narrowed to some methods, and this BRIDGE does not say by If-Method that it takes \
                 no others",
            ),
            InvalidKey::TooNew(made) => write!(f, "is dated {made} (Unix time), which is in the future"),
        }
    }
}
