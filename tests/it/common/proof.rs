//! Proofs of host keys, made here as `doc/protocol.md` says and not by the program's own code.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Bridge, Message, Proxy};

/// A backend's nonce.
pub const NONCE: &str = "00112233445566778899aabbccddeeff";

/// The hash of a key, and the key with something in its place.
fn parts(key: &str) -> (&str, impl Fn(&str) -> String) {
    let version = ["v2:", "v3:"].into_iter().find(|version| key.starts_with(version));
    let version = version.unwrap_or_default();
    let rest = &key[version.len()..];
    let (hash, terms) = rest.split_once(':').expect("a key");
    (hash, move |word: &str| format!("{version}{word}:{terms}"))
}

/// A key as the first BRIDGE names it.
#[track_caller]
pub fn named(key: &str) -> String {
    parts(key).1("proof")
}

/// The first BRIDGE of a backend with this key, for these hosts and with these field lines more.
#[track_caller]
pub fn first_bridge(hosts: &[&str], key: &str, fields: &str) -> String {
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    let key = named(key);
    format!(
        "BRIDGE / HTTP/1.1\r\n{hosts}Host-Key: {key}\r\n{fields}Cloudbridge-Nonce: {NONCE}\r\n\r\n"
    )
}

/// The second, which answers a proxy's nonce.
#[track_caller]
pub fn second_bridge(first: &str, key: &str, nonce: &str) -> String {
    let with = parts(key).1;
    let proof = proof(key, nonce, first.as_bytes());
    first.replace(&with("proof"), &with(&format!("proof-{proof}")))
}

/// The proof of a key in answer to a nonce, over the first request.
#[track_caller]
pub fn proof(key: &str, nonce: &str, first: &[u8]) -> String {
    let digest = digits(&Sha256::digest(first));
    let hash = parts(key).0.to_ascii_lowercase();
    let mut mac = Hmac::<Sha256>::new_from_slice(hash.as_bytes()).expect("any length");
    mac.update(format!("cloudbridge-proof-1\n{nonce}\n\n{digest}\n").as_bytes());
    digits(&mac.finalize().into_bytes())
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A proxy's answer that asks for proofs.
pub fn challenge(nonce: &str) -> String {
    format!("HTTP/1.1 401 Unauthorized\r\nCloudbridge-Nonce: {nonce}\r\nContent-Length: 0\r\n\r\n")
}

impl Message {
    /// The nonce of a proxy that asks for proofs, which must have said no more.
    #[track_caller]
    pub fn nonce(&self) -> String {
        let nonce = self.field("cloudbridge-nonce").expect("a nonce").to_owned();
        assert_eq!(String::from_utf8_lossy(&self.head), challenge(&nonce));
        nonce
    }
}

impl Bridge {
    /// Connects, sends the first BRIDGE, and reads the nonce.
    #[track_caller]
    pub fn ask(proxy: &Proxy, first: &str) -> (Bridge, String) {
        let mut bridge = Bridge::connect(proxy);
        bridge.send(first);
        let nonce = bridge.read_head().nonce();
        (bridge, nonce)
    }

    /// Registers for these hosts by proof of this key.
    #[track_caller]
    pub fn prove(proxy: &Proxy, hosts: &[&str], key: &str) -> Bridge {
        let first = first_bridge(hosts, key, "");
        let (mut bridge, nonce) = Bridge::ask(proxy, &first);
        bridge.send(second_bridge(&first, key, &nonce));
        bridge.expect_exact(super::ACK);
        bridge
    }
}
