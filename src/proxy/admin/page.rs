//! The live page: one document, under a policy that runs nothing but its own script.

use std::fmt::Write as _;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// The document.
pub(super) const PAGE: &str = include_str!("page.html");

/// The field lines that go with it.
pub(super) fn fields() -> &'static str {
    static FIELDS: OnceLock<String> = OnceLock::new();
    FIELDS.get_or_init(|| {
        let (script, style) = (hash_of("script"), hash_of("style"));
        format!(
            "Content-Security-Policy: default-src 'none'; script-src 'sha256-{script}'; \
             style-src 'sha256-{style}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cache-Control: no-cache\r\n"
        )
    })
}

/// The hash of the document's only element of this name (CSP level 3, section 2.3.1).
fn hash_of(element: &str) -> String {
    let open = format!("<{element}>");
    let start = PAGE.find(&open).map_or(0, |at| at + open.len());
    let end = PAGE.find(&format!("</{element}>")).unwrap_or(PAGE.len());
    base64(&Sha256::digest(&PAGE.as_bytes()[start..end]))
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let c = match digit <= chunk.len() {
                true => DIGITS[(word >> (18 - 6 * digit)) as usize & 63] as char,
                false => '=',
            };
            let _ = write!(text, "{c}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, digits) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), digits);
        }
    }

    #[test]
    fn the_page_is_one_document_that_loads_nothing() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        for part in [" src=", "@import", "innerHTML", "document.write", " style=\"", " onclick="] {
            assert!(!PAGE.contains(part), "{part}");
        }
        assert!(fields().lines().all(|line| line.contains(": ")));
    }
}
