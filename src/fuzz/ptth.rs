//! A PTTH request: what it registers is what a BRIDGE may register, and every piece of it is as
//! good as the whole.

use crate::bridge::{pattern, ptth};
use crate::http::Limits;
use crate::http::request;

/// Longest refusal, in bytes: one line of a log.
const LONGEST_REFUSAL: usize = 512;

/// The bytes of a request.
pub(super) fn run(bytes: &[u8]) {
    let mut storage = request::storage();
    let Ok(Some(request)) = request::parse(bytes, &mut storage, &Limits::default()) else { return };
    if !ptth::is_one(&request) {
        return;
    }
    let lower = bytes.to_ascii_lowercase();
    let has = |text: &[u8]| memchr::memmem::find(&lower, text).is_some();
    assert!(has(b"upgrade:") && has(b"ptth") && has(b"connection:"), "nobody asked for it");
    match ptth::read(&request) {
        Ok(registration) => {
            assert!(has(b"alpn:") && has(b"http%2f1.1"), "it speaks something else");
            assert!(bytes.trim_ascii_start().starts_with(b"GET "));
            assert_eq!(registration.len, request.len);
            assert!(registration.ptth && !registration.patterns.is_empty());
            for host in &registration.patterns {
                assert_eq!(pattern::parse(host.as_bytes()).as_deref(), Ok(&**host), "not normal");
            }
            let prefix = &registration.prefix;
            assert!(
                prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/')),
                "{prefix}"
            );
            assert!(!prefix.contains(['?', '#']), "{prefix}");
        }
        Err(refusal) => {
            assert!(matches!(refusal.status, 400..=599), "{}", refusal.status);
            let text = &refusal.text;
            assert!(!text.is_empty() && text.len() <= LONGEST_REFUSAL, "{} bytes", text.len());
            assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text:?}");
        }
    }
}
