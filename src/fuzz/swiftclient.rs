//! The preamble of a swiftclient backend: every prefix must lead to the same end.

use super::input::Input;
use crate::bridge::swiftclient;

/// The length of the site's key, the key, and what a backend sends.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let length = input.below(256);
    let key = input.take(length);
    let bytes = input.rest();
    let mut refused = false;
    for end in 0..=bytes.len().min(2 * swiftclient::MAX_PREAMBLE) {
        let now = &bytes[..end];
        match swiftclient::parse(now, key) {
            Ok(None) => {
                assert!(!refused, "refused, and then undecided after {end} bytes");
                assert!(end < swiftclient::MAX_PREAMBLE, "undecided after {end} bytes");
            }
            Ok(Some(id)) => {
                assert!(!refused, "refused, and then taken after {end} bytes");
                let text = format!("swiftclient{id}{:02x}", key.len());
                assert!(now.len() == text.len() + key.len() && now.ends_with(key));
                assert!(now[..text.len()].eq_ignore_ascii_case(text.as_bytes()));
                // Without a key, a longer id may begin with all of this. It is not asked again.
                return;
            }
            Err(_) => refused = true,
        }
    }
}
