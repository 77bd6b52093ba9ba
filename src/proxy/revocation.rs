//! Bridges whose host keys are no longer good (`proofs.rs`), because a key was revoked, its secret
//! removed, or it has expired.
//!
//! Idle ones are closed at once, as after a deregistration. Busy ones are closed after their
//! exchange, which is cut after `revoke-grace`, as is a tunnel. A bridge on its way between workers
//! is checked on arrival.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bridge::Refusal;
use crate::bridge::hostkey::Grant;
use crate::time::Millis;

use super::losses::{Dismissed, bridges};
use super::proofs::{Held, Moment};
use super::role::{Bridge, Role};
use super::state::{Mail, Shared};
use super::worker::Worker;

impl Shared {
    /// Both clocks.
    pub(super) fn moment(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { now: self.now().millis(), unix }
    }
}

impl Worker {
    /// The keys of a registration, to be checked again while its bridge is connected.
    ///
    /// # Errors
    /// A key that has just been revoked.
    pub(super) fn hold_proofs(&self, grants: &[Grant]) -> Result<Box<[Held]>, Refusal> {
        let (keyring, at) = (self.config.keyring.as_ref(), self.shared.moment());
        let hold = |key| self.shared.proofs.hold(key, keyring, at);
        let held = grants.iter().filter_map(|grant| Some((grant, hold(grant.proof.as_ref()?))));
        held.map(|(grant, held)| {
            held.map_err(|error| Refusal {
                status: 401,
                text: format!("the Host-Key for {} {error}", grant.name),
            })
        })
        .collect()
    }

    /// Whether a bridge gets no more requests: its listener or server has been removed, or its key is
    /// no longer good.
    pub(super) fn has_lost(&self, bridge: &Bridge) -> bool {
        bridge.is_orphaned() || bridge.loss(self.config.keyring.as_ref()).is_some()
    }

    /// Dismisses the bridges of this worker that have lost their keys.
    pub(super) fn dismiss_lost(&mut self) -> Dismissed {
        let keyring = self.config.keyring.clone();
        let is_lost = |bridge: &Bridge| bridge.loss(keyring.as_ref()).is_some();
        let here = self.conns.keys_with(|role| role.bridge().is_some_and(is_lost));
        let idle = self.idle_bridges(is_lost);
        let until = self.conns.now().millis() + self.settings().revoke_grace;
        let mut dismissed = Dismissed::default();
        for key in here.into_iter().chain(idle) {
            if matches!(self.conns.role(key), Some(Role::Responding { .. })) {
                dismissed.finishing += 1;
                self.graces.add(self.conns[key].token(), until);
            } else {
                dismissed.closed += 1;
                self.dismiss(key);
            }
        }
        dismissed
    }

    /// When to call [`Worker::revoke`]; read once per turn.
    pub(super) fn next_revocation(&self) -> Millis {
        let expires = self.shared.proofs.expires_at().min(self.shared.certificates.expires_at());
        self.graces.next().map_or(expires, |at| at.min(expires))
    }

    /// Cuts the exchanges of bridges that have lost their keys for too long, and finds out which keys
    /// expire in this turn.
    pub(super) fn revoke(&mut self) {
        let now = self.conns.now().millis();
        if self.shared.proofs.next_expiry().is_some_and(|at| at <= now) {
            self.expire_keys();
        }
        if self.shared.certificates.expires_at() <= now {
            self.expire_certificates();
        }
        if self.graces.next().is_none_or(|at| now < at) {
            return;
        }
        for token in self.graces.over(now) {
            let Some(key) = self.conns.find(token) else { continue };
            let Some(Role::Responding { bridge, .. }) = self.conns.role(key) else { continue };
            // The key may have been put back.
            if bridge.loss(self.config.keyring.as_ref()).is_some() {
                let peer = self.conns[key].peer;
                let what = match bridge.certificate() {
                    Some(certificate) if certificate.loss().is_some() => "certificate",
                    _ => "host key",
                };
                log::info!("backend {peer} is cut off: its {what} is no longer good");
                self.cut_off(key);
            }
        }
    }

    /// Cuts the exchange of bridge `key` off, as if the backend had closed: a request that may go
    /// elsewhere does. Once its response has begun none may, and a client that does not read would
    /// keep the end of the bridge from being noticed.
    pub(super) fn cut_off(&mut self, key: usize) {
        self.dismiss(key);
        if let Some(&Role::Responding { exchange, .. }) = self.conns.role(key)
            && self.exchanges.get_mut(exchange).exchange.status() != 0
        {
            return self.cut(exchange);
        }
        self.conns[key].conn.hang_up();
        self.conns.requeue(key);
    }

    fn expire_keys(&mut self) {
        let (lost, closes) = self.shared.proofs.expire(self.shared.moment());
        if lost.names.is_empty() {
            return;
        }
        let names = lost.shown();
        if !closes {
            let bridges = bridges(lost.bridges);
            log::warn!("host keys have expired, for {names}; {bridges} connected with them stay");
            return;
        }
        log::warn!("host keys have expired, for {names}; {} lose them", bridges(lost.bridges));
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::KeysLost);
        }
        self.dismiss_lost();
    }
}
