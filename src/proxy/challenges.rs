//! Backends that prove their host keys (`doc/protocol.md`, "Proof of keys"): the first BRIDGE names
//! the keys, the proxy answers with a nonce, and the second BRIDGE on the same connection has the
//! proofs.
//!
//! Between the two the proxy knows only the nonce, in the connection's role: 16 bytes for each
//! connection that is asked, of those that may be open. The time for a head runs on, and the nonce is
//! gone with the next BRIDGE, good or bad.

use crate::bridge::Registration;
use crate::bridge::hostkey::{self, NamedKey};
use crate::bridge::proof::{NONCE_BYTES, Nonce, PLAIN_TEXT};
use crate::bridge::ptth;
use crate::http::Reply;
use crate::net::sys;

use super::closing::End;
use super::reason::Reason;
use super::role::{Client, Role};
use super::worker::Worker;

/// What a connection is told that was sent a nonce and sends anything else.
pub(super) const BRIDGE_AWAITED: &str =
    "this connection was asked to prove a Host-Key: the BRIDGE with the proof follows";

/// The same, if it sends nothing.
pub(super) const PROOF_TIMEOUT: &str = "the proof of the Host-Key did not come in time";

impl Client {
    /// Whether it is a backend that has been asked for proofs.
    pub(super) fn must_prove(&self) -> bool {
        self.challenge.is_some()
    }
}

impl Worker {
    /// The registration with the keys that it proves among those that it has. `None` if it has been
    /// answered: with a nonce, because proofs are to follow, or because they are not as they should be.
    pub(super) fn with_proofs(
        &mut self,
        key: usize,
        mut registration: Registration,
    ) -> Option<Registration> {
        let challenge = match self.conns.role_mut(key) {
            Some(Role::ReadingHead { client, .. }) => client.challenge.take().map(|nonce| *nonce),
            _ => None,
        };
        // Without secrets no key is checked.
        let Some(keyring) = &self.config.keyring else { return Some(registration) };
        let unproven = registration.named.iter().find(|named| !named.has_proof());
        let any_proof = registration.named.iter().any(NamedKey::has_proof);
        let extra = if registration.ptth { ptth::CHALLENGE } else { "" };
        match (challenge, unproven) {
            (None, None) if !any_proof => return Some(registration),
            (Some(challenge), None) if any_proof => {
                let now = self.shared.moment().unix.as_secs();
                hostkey::prove(&mut registration, keyring, challenge, PLAIN_TEXT, now);
                return Some(registration);
            }
            (None, Some(_)) if !any_proof => self.challenge(key, extra),
            (None, _) => {
                let text =
                    "the proof of a Host-Key answers a nonce, and this connection was sent none";
                self.refuse_proof(key, text, extra);
            }
            (Some(_), None) => {
                let text = "the proof of the Host-Key is missing that was asked for";
                self.refuse_proof(key, text, extra);
            }
            (Some(_), Some(named)) => {
                let text = format!("the Host-Key for {} comes without the proof", named.name());
                self.refuse_proof(key, &text, extra);
            }
        }
        None
    }

    fn refuse_proof(&mut self, key: usize, text: &str, extra: &str) {
        let reply = Reply { extra, ..Reply::new(401, text) };
        self.reject_bridge(key, Reason::BridgeUnauthorized, reply);
    }

    /// Sends a nonce, and these field lines, which the next BRIDGE on this connection is to answer.
    fn challenge(&mut self, key: usize, extra: &str) {
        let mut random = [0; NONCE_BYTES];
        if let Err(error) = sys::random(&mut random) {
            log::error!("no random bytes: {error}");
            let reply = Reply::new(503, "the proxy cannot ask for a proof now");
            return self.reject_bridge(key, Reason::BridgeUnauthorized, reply);
        }
        let nonce = Nonce::new(random);
        self.stats().challenges.add(1);
        if let Some(Role::ReadingHead { client, .. }) = self.conns.role_mut(key) {
            client.challenge = Some(Box::new(nonce));
            // The time of this head goes on.
            client.head_begun = true;
        }
        let (connection, ws) = self.conns.split(key);
        ws.out.clear();
        nonce.challenge(extra, &mut ws.out);
        if connection.conn.send(&ws.out, &mut ws.pool).is_err() {
            self.end(key, End::Close);
        }
    }
}
