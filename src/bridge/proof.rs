//! How a key is proven and not sent (`doc/protocol.md`, "Proof of keys"): the nonces, what is
//! signed, and the backend's requests.
//!
//! A backend sends its BRIDGE with [`WORD`] in place of the hash of each key, and a nonce. The proxy
//! answers with a nonce of its own, and the backend sends the same BRIDGE again, with a proof behind
//! each `proof`: an HMAC under the hash over both nonces and the whole request.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::ascii::{from_lower_hex, hex};

/// The field with a nonce: the backend's in a BRIDGE, the proxy's in its answer.
pub const NONCE: &str = "Cloudbridge-Nonce";

/// What stands in a key in place of its hash. It is no hash: `p` is not a hex digit.
pub(crate) const WORD: &str = "proof";

/// What is between [`WORD`] and a proof.
pub(super) const MARK: char = '-';

/// Begins each signed text: what the signature is for, and the version of the text.
const LABEL: &str = "cloudbridge-proof-1";

/// What ties a proof to its connection where that is plain text: nothing.
pub(crate) const PLAIN_TEXT: &str = "";

/// Bytes of a nonce: 128 bits do not repeat, and cannot be guessed.
pub(crate) const NONCE_BYTES: usize = 16;

/// Bytes of a proof, an HMAC-SHA256.
pub(super) const PROOF_BYTES: usize = 32;

/// A number that is used once. It is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// `random` must come from a cryptographic source.
    #[must_use]
    pub const fn new(random: [u8; NONCE_BYTES]) -> Nonce {
        Nonce(random)
    }

    /// Reads 32 lower-case hex digits.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Nonce> {
        from_lower_hex(str::from_utf8(value).ok()?).map(Nonce)
    }

    fn digits(self) -> String {
        hex(&self.0)
    }

    /// Appends the proxy's answer to a BRIDGE whose keys are to be proven with this nonce. The
    /// connection stays open. `extra` are field lines.
    pub(crate) fn challenge(self, extra: &str, out: &mut Vec<u8>) {
        let text = format!(
            "HTTP/1.1 401 Unauthorized\r\n{NONCE}: {}\r\n{extra}Content-Length: 0\r\n\r\n",
            self.digits()
        );
        out.extend_from_slice(text.as_bytes());
    }
}

/// The digest of a BRIDGE request without its proofs, from the first line to the blank one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestDigest([u8; 32]);

impl RequestDigest {
    pub(crate) fn of(request: &[u8]) -> RequestDigest {
        RequestDigest(Sha256::digest(request).into())
    }
}

/// What a proof is an HMAC over. The request is in it as a digest, so the work for a hundred keys
/// does not grow with its length.
pub(crate) struct SignedText(String);

impl SignedText {
    /// `challenge` is the proxy's nonce; `channel` ties the proof to its connection, or is
    /// [`PLAIN_TEXT`].
    pub(crate) fn new(challenge: Nonce, channel: &str, request: RequestDigest) -> SignedText {
        let (challenge, request) = (challenge.digits(), hex(&request.0));
        SignedText(format!("{LABEL}\n{challenge}\n{channel}\n{request}\n"))
    }

    /// The HMAC under a key's hash, in hex digits. To compare it, see [`Mac::verify_slice`], which
    /// takes the same time whichever byte differs.
    pub(super) fn mac(&self, hash: &str) -> Hmac<Sha256> {
        // RFC 2104, section 2: the key may have any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(hash.as_bytes()).expect("keys of any length");
        mac.update(self.0.as_bytes());
        mac
    }
}

/// The first BRIDGE of a backend that does not send its keys: `request`, which must be one that this
/// program has made, with their hashes left out, and with the backend's nonce. Without a key that has
/// a hash it is `request` itself.
pub(crate) fn ask(request: &[u8], own: Nonce) -> Vec<u8> {
    let without = |out: &mut String, _: &str| out.push_str(WORD);
    rewrite(request, own, without).unwrap_or_else(|| request.to_vec())
}

/// The BRIDGE that follows the proxy's `challenge`: that of [`ask`] with the proofs.
pub(crate) fn answer(request: &[u8], own: Nonce, challenge: Nonce, channel: &str) -> Vec<u8> {
    let digest = RequestDigest::of(&ask(request, own));
    let text = SignedText::new(challenge, channel, digest);
    let proven = |out: &mut String, hash: &str| {
        // Of the old form the digits may be capitals.
        let proof = text.mac(&hash.to_ascii_lowercase()).finalize().into_bytes();
        let _ = write!(out, "{WORD}{MARK}{}", hex(&proof));
    };
    rewrite(request, own, proven).unwrap_or_else(|| request.to_vec())
}

/// Whether a request has a key to prove.
pub(crate) fn has_keys(request: &[u8]) -> bool {
    rewrite(request, Nonce([0; NONCE_BYTES]), |_, _| ()).is_some()
}

/// Replaces the hash of each key by what `put` writes for it, and adds the nonce. `None` if no key has
/// a hash.
fn rewrite(request: &[u8], own: Nonce, put: impl Fn(&mut String, &str)) -> Option<Vec<u8>> {
    let lines = str::from_utf8(request).ok()?.strip_suffix("\r\n")?;
    let (mut out, mut any) = (String::with_capacity(request.len() + 128), false);
    for line in lines.split_inclusive("\r\n") {
        match line.strip_prefix("Host-Key: ").and_then(parts) {
            Some((version, hash, rest)) if !hash.is_empty() => {
                any = true;
                let _ = write!(out, "Host-Key: {version}");
                put(&mut out, hash);
                out.push_str(rest);
            }
            _ => out.push_str(line),
        }
    }
    let _ = write!(out, "{NONCE}: {}\r\n\r\n", own.digits());
    any.then(|| out.into_bytes())
}

/// A key as what is before its hash, the hash, and what is behind it, with the colons. The version is
/// the one word before a hash: `v`, which is no hex digit, and a number.
pub(super) fn parts(key: &str) -> Option<(&str, &str, &str)> {
    let begin = match key.starts_with('v') {
        true => key.find(':')? + 1,
        false => 0,
    };
    let end = begin + key[begin..].find(':')?;
    Some((&key[..begin], &key[begin..end], &key[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::request;
    use crate::http::Limits;

    const OWN: &[u8] = b"00112233445566778899aabbccddeeff";
    const CHALLENGE: &[u8] = b"ffeeddccbbaa99887766554433221100";

    /// Of the tests of both forms: the secrets are `secret` and `old`.
    const REQUEST: &str = "BRIDGE /app HTTP/1.1\r\nExpect: 100-continue\r\nHost: www.a.example.com\r\n\
        Host: *.b.com\r\n\
        Host-Key: 817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a.example.com\r\n\
        Host-Key: v2:c6c5f74e18cc88a3444f3f54e64575f48d1e0a4c4eabb281d01414b6450f59d5:1000:5000:3:b.com\r\n\
        Host-Key: ::a.test\r\n\r\n";

    const ASKED: &str = "BRIDGE /app HTTP/1.1\r\nExpect: 100-continue\r\nHost: www.a.example.com\r\n\
        Host: *.b.com\r\nHost-Key: proof:1234567890:a.example.com\r\n\
        Host-Key: v2:proof:1000:5000:3:b.com\r\nHost-Key: ::a.test\r\n\
        Cloudbridge-Nonce: 00112233445566778899aabbccddeeff\r\n\r\n";

    fn nonce(digits: &[u8]) -> Nonce {
        Nonce::parse(digits).unwrap()
    }

    #[test]
    fn hashes_are_left_out_of_the_first_request() {
        let asked = ask(REQUEST.as_bytes(), nonce(OWN));
        assert_eq!(str::from_utf8(&asked).unwrap(), ASKED);
        assert!(has_keys(REQUEST.as_bytes()));
        let without = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: ::a.test\r\n\r\n";
        assert!(!has_keys(without));
        assert_eq!(ask(without, nonce(OWN)), without);
        assert_eq!(answer(without, nonce(OWN), nonce(CHALLENGE), ""), without);
    }

    /// The vectors of `doc/protocol.md` are made the same way, by openssl.
    #[test]
    fn the_second_request_is_the_first_with_proofs() {
        let answered = answer(REQUEST.as_bytes(), nonce(OWN), nonce(CHALLENGE), PLAIN_TEXT);
        let text = String::from_utf8(answered).unwrap();
        // printf 'cloudbridge-proof-1\nffee...1100\n\n%s\n' "$(printf ASKED | sha256sum | cut -c -64)" |
        //     openssl dgst -sha256 -hmac HASH
        let proofs = [PROOF_LEGACY, PROOF_MODERN];
        let [legacy, modern] = proofs.map(|proof| format!("proof-{proof}:"));
        assert_eq!(text.replace(&legacy, "proof:").replace(&modern, "proof:"), ASKED, "{text}");
    }

    const PROOF_LEGACY: &str = "90908cef3763e13c81d20e075d9bab6ce22a3e11bc64899a4378218690872014";
    const PROOF_MODERN: &str = "01f36fc8e4e3cd8e729d0207461f6f93e73bb06134b9d45c31a1395f177fe95b";

    #[test]
    fn digits_of_the_old_form_may_be_capitals() {
        let shouted = REQUEST.replace(
            "817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb",
            "817D1D4D1F9157057EA40057A7EDFA9AC6F2A4EB",
        );
        let of = |text: &str| answer(text.as_bytes(), nonce(OWN), nonce(CHALLENGE), "");
        assert_eq!(of(REQUEST), of(&shouted));
    }

    #[test]
    fn a_proof_is_of_its_nonces_channel_and_request() {
        let of = |request: &str, own: &[u8], challenge: &[u8], channel: &str| {
            let bytes = answer(request.as_bytes(), nonce(own), nonce(challenge), channel);
            let text = String::from_utf8(bytes).unwrap();
            text.split_once("Host-Key: proof-").unwrap().1[..64].to_owned()
        };
        let proofs = [
            of(REQUEST, OWN, CHALLENGE, ""),
            of(REQUEST, CHALLENGE, CHALLENGE, ""),
            of(REQUEST, OWN, OWN, ""),
            of(REQUEST, OWN, CHALLENGE, "tls-exporter:00"),
            of(&REQUEST.replace("/app", "/ap"), OWN, CHALLENGE, ""),
            of(&REQUEST.replace("Host: *.b.com", "Host: b.com"), OWN, CHALLENGE, ""),
            of(&REQUEST.replace("5000:3:b.com", "5000:4:b.com"), OWN, CHALLENGE, ""),
        ];
        let different: std::collections::BTreeSet<&String> = proofs.iter().collect();
        assert_eq!(different.len(), proofs.len());
    }

    #[test]
    fn what_a_proxy_reads_is_what_was_signed() {
        let parse = |bytes: &[u8]| request::parse(bytes, &Limits::default()).unwrap().unwrap();
        let asked = parse(&ask(REQUEST.as_bytes(), nonce(OWN)));
        assert_eq!((asked.named.len(), asked.keys.len(), asked.digest), (2, 1, None));
        let answered = parse(&answer(REQUEST.as_bytes(), nonce(OWN), nonce(CHALLENGE), ""));
        assert_eq!(answered.named.len(), 2);
        assert_eq!(answered.digest, Some(RequestDigest::of(ASKED.as_bytes())));
    }

    #[test]
    fn malformed_nonces_are_none() {
        for value in ["", "0", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"g".repeat(32)] {
            assert_eq!(Nonce::parse(value.as_bytes()), None, "{value}");
        }
    }
}
