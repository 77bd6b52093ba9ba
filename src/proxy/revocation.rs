//! Bridges whose host keys are no longer good (`proofs.rs`), because a key was revoked, its secret
//! removed, or it has expired.
//!
//! Idle ones are closed at once, as after a deregistration. Busy ones are closed after their
//! exchange, which is cut after `revoke-grace`, as is a tunnel. A bridge on its way between workers
//! is checked on arrival.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bridge::Refusal;
use crate::bridge::hostkey::Grant;
use crate::net::token::Token;
use crate::time::Millis;

use super::proofs::{Held, Lost, Moment};
use super::role::{Bridge, Role};
use super::state::{Mail, Shared};
use super::worker::Worker;

/// Most names of keys that a line of the log shows.
const NAMES_SHOWN: usize = 10;

/// How many bridges of a worker have lost their keys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Withdrawn {
    pub(super) closed: usize,
    pub(super) finishing: usize,
}

/// The busy bridges of a worker that have lost their keys, and when their exchanges are cut.
#[derive(Default)]
pub(super) struct Graces {
    until: HashMap<u64, Millis>,
    next: Option<Millis>,
}

impl Graces {
    fn add(&mut self, bridge: Token, until: Millis) {
        // One that has lost its key twice has the time of the first.
        let until = *self.until.entry(bridge.word()).or_insert(until);
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// When the first is over.
    pub(super) fn next(&self) -> Option<Millis> {
        self.next
    }

    /// Takes those out that are over.
    fn over(&mut self, now: Millis) -> Vec<Token> {
        let over = self.until.extract_if(|_, until| *until <= now);
        let over = over.map(|(word, _)| Token::from_word(word)).collect();
        self.next = self.until.values().min().copied();
        over
    }
}

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
        bridge.is_orphaned() || bridge.loss(self.config.keyring.is_some()).is_some()
    }

    /// Withdraws the bridges of this worker that have lost their keys.
    pub(super) fn withdraw_lost(&mut self) -> Withdrawn {
        let needs_key = self.config.keyring.is_some();
        let is_lost = |bridge: &Bridge| bridge.loss(needs_key).is_some();
        let here = self.conns.keys_with(|role| role.bridge().is_some_and(is_lost));
        let idle = self.idle_bridges(is_lost);
        let until = self.conns.now().millis() + self.settings().revoke_grace;
        let mut withdrawn = Withdrawn::default();
        for key in here.into_iter().chain(idle) {
            if matches!(self.conns.role(key), Some(Role::Responding { .. })) {
                withdrawn.finishing += 1;
                self.graces.add(self.conns[key].token(), until);
            } else {
                withdrawn.closed += 1;
                self.withdraw(key);
            }
        }
        withdrawn
    }

    /// Cuts the exchanges of bridges that have lost their keys for too long, and finds out which keys
    /// expire in this turn.
    pub(super) fn revoke(&mut self) {
        let now = self.conns.now().millis();
        if self.shared.proofs.next_expiry().is_some_and(|at| at <= now) {
            self.expire_keys();
        }
        if self.graces.next().is_none_or(|at| now < at) {
            return;
        }
        let needs_key = self.config.keyring.is_some();
        for token in self.graces.over(now) {
            let Some(key) = self.conns.find(token) else { continue };
            let Some(Role::Responding { bridge, .. }) = self.conns.role(key) else { continue };
            // The key may have been put back.
            if bridge.loss(needs_key).is_some() {
                let peer = self.conns[key].peer;
                log::info!("backend {peer} is cut off: its host key is no longer good");
                self.cut_off(key);
            }
        }
    }

    /// Cuts the exchange of bridge `key` off, as if the backend had closed: a request that may go
    /// elsewhere does.
    pub(super) fn cut_off(&mut self, key: usize) {
        self.withdraw(key);
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
        self.withdraw_lost();
    }
}

impl Lost {
    /// The names, as a line of the log shows them.
    fn shown(&self) -> String {
        let shown = self.names.iter().take(NAMES_SHOWN).map(String::as_str);
        let shown = shown.collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(NAMES_SHOWN) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    /// What a reload has changed, in a sentence.
    pub(super) fn report(&self, all: &[Withdrawn], grace: Duration) -> String {
        let closed: usize = all.iter().map(|withdrawn| withdrawn.closed).sum();
        let finishing: usize = all.iter().map(|withdrawn| withdrawn.finishing).sum();
        let of = match self.names.is_empty() {
            true => "no host key has become bad".to_owned(),
            false => format!("host keys are no longer good, for {}", self.shown()),
        };
        match (closed, finishing) {
            (0, 0) => format!("{of}; no bridge has lost its key"),
            (closed, 0) => format!("{of}; {} closed", bridges(closed)),
            (closed, finishing) => format!(
                "{of}; {} closed, and {} when their requests are served, within {} s",
                bridges(closed),
                bridges(finishing),
                grace.as_secs_f32()
            ),
        }
    }
}

fn bridges(count: usize) -> String {
    match count {
        1 => "1 bridge".to_owned(),
        count => format!("{count} bridges"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_grace_counts_and_each_ends_once() {
        let mut graces = Graces::default();
        let [one, two] = [1, 2].map(|number| Token::conn(number, 1));
        assert_eq!(graces.next(), None);
        graces.add(one, Millis(100));
        graces.add(two, Millis(90));
        graces.add(one, Millis(300));
        assert_eq!(graces.next(), Some(Millis(90)));
        assert_eq!(graces.over(Millis(89)), []);
        assert_eq!(graces.over(Millis(90)), [two]);
        assert_eq!(graces.next(), Some(Millis(100)));
        assert_eq!(graces.over(Millis(500)), [one]);
        assert_eq!((graces.next(), graces.over(Millis(500))), (None, vec![]));
    }

    #[test]
    fn a_report_is_a_sentence_with_names_alone() {
        let names = |count: usize| (0..count).map(|number| format!("{number}.test")).collect();
        let report = |count, all: &[Withdrawn]| {
            Lost { names: names(count), bridges: 0 }.report(all, Duration::from_secs(30))
        };
        let [one, two] =
            [(1, 0), (1, 2)].map(|(closed, finishing)| Withdrawn { closed, finishing });
        assert_eq!(report(0, &[]), "no host key has become bad; no bridge has lost its key");
        assert_eq!(report(1, &[one]), "host keys are no longer good, for 0.test; 1 bridge closed");
        assert_eq!(
            report(12, &[one, two]),
            "host keys are no longer good, for 0.test, 1.test, 2.test, 3.test, 4.test, 5.test, \
             6.test, 7.test, 8.test, 9.test and 2 more; 2 bridges closed, and 2 bridges when their \
             requests are served, within 30 s"
        );
    }
}
