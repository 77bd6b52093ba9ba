//! A page of the proxy's own: one document, under a policy that runs nothing but its own script.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// A page, and the field lines that go with it.
pub(super) struct Page {
    pub document: String,
    pub fields: String,
}

impl Page {
    /// Puts style and script into the empty elements that `html` has for them.
    pub fn new(html: &str, style: &str, script: &str) -> Page {
        let document = html
            .replacen("<style></style>", &format!("<style>{style}</style>"), 1)
            .replacen("<script></script>", &format!("<script>{script}</script>"), 1);
        let (script, style) = (hash(script), hash(style));
        let fields = format!(
            "Content-Security-Policy: default-src 'none'; script-src 'sha256-{script}'; \
             style-src 'sha256-{style}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cache-Control: no-cache\r\n"
        );
        Page { document, fields }
    }

    /// Fails unless the page is such that its policy holds.
    #[cfg(test)]
    pub fn check(&self) {
        let Page { document, fields } = self;
        for tag in ["<script>", "</script>", "<style>", "</style>"] {
            assert_eq!(document.matches(tag).count(), 1, "{tag}");
        }
        for part in [
            " src=",
            "<link rel=\"stylesheet",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=\"",
            " onclick=",
        ] {
            assert!(!document.contains(part), "{part}");
        }
        assert!(!document.contains("<style></style>") && !document.contains("<script></script>"));
        assert!(fields.lines().all(|line| line.contains(": ")), "{fields}");
    }
}

/// The hash of an element's text, as a policy names it (CSP level 3, section 2.3.1).
fn hash(text: &str) -> String {
    base64(&Sha256::digest(text.as_bytes()))
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
}
