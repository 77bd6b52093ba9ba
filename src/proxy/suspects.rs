//! Backends that have gone silent (`backends.rs`): their bridges stand aside until one of them has
//! answered.
//!
//! ```text
//!     Idle, or about to park ──suspect──> Aside ──chosen──> Probed ──acknowledged──> Idle
//!                                           │                 └────late, or ended──> closed
//!                                           └──another of the backend is heard──> Idle
//! ```
//!
//! A bridge aside is not parked: no request finds it. One of each backend at a time is probed, by a
//! 101 that it must acknowledge as before a request: at once while a request waits that it could
//! serve, and otherwise from time to time. So a dead machine costs the first request that finds it
//! dead its time, and no other; and a live one that was only late is back after one round trip.
//!
//! A bridge that expects a plain request and knows no probe is tried with a request that waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::request::{CONTINUE, SWITCH};
use crate::exchange::places::{Heard, Speaker, Word};
use crate::http::response;
use crate::net::conn::Received;
use crate::net::token::Token;

use super::aside::Group;
use super::backends::Backend;
use super::closing::End;
use super::role::{Handshake, Role};
use super::state::Mail;
use super::worker::Worker;

/// How long after a probe the next one follows while no request waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    /// Puts the idle bridges of a backend aside. Connections to a server that the proxy dials are
    /// closed: others are made when the server answers its probes.
    pub(super) fn put_aside(&mut self, backend: &Arc<Backend>) {
        for key in self.idle_bridges(|bridge| Arc::ptr_eq(&bridge.backend, backend)) {
            match self.conns.role(key) {
                Some(role) if role.is_dialled() => self.end(key, End::Close),
                _ => self.park(key),
            }
        }
    }

    /// Puts the bridge in slot `key`, which is not parked, aside.
    pub(super) fn stand_aside(&mut self, key: usize) {
        self.change_role(key, |role| role.with_bridge(Role::Aside));
        let Some(Role::Aside(bridge)) = self.conns.role(key) else { return };
        // It may be dead: the next process need not find out.
        bridge.keeping.set_busy();
        let (backend, route) = (Arc::clone(&bridge.backend), Arc::clone(&bridge.route));
        let deadline = self.idle_timeout(bridge);
        self.conns.set_deadline(key, deadline);
        let (token, due) = (self.conns[key].token(), self.conns.now().millis() + PROBE_INTERVAL);
        let is_it = |group: &&mut Group| {
            Arc::ptr_eq(&group.backend, &backend) && Arc::ptr_eq(&group.route, &route)
        };
        match self.aside.groups.iter_mut().find(is_it) {
            Some(group) => group.bridges.push_back(token),
            None => {
                let bridges = VecDeque::from([token]);
                self.aside.groups.push(Group { backend, route, bridges, due });
            }
        }
    }

    /// A bridge has answered: if its backend was suspect, the other bridges park again.
    pub(super) fn note_alive(&mut self, key: usize) {
        let now = self.conns.now().millis();
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        if bridge.backend.hear(now) {
            self.is_back(key);
        }
    }

    /// The backend of a bridge is suspect no longer.
    #[cold]
    fn is_back(&mut self, key: usize) {
        let peer = self.conns[key].peer;
        let Some(bridge) = self.conns.role_mut(key).and_then(Role::bridge_mut) else { return };
        bridge.on_trial = false;
        bridge.backend.end_probe();
        let backend = Arc::clone(&bridge.backend);
        log::info!("backend {peer} answers again");
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::Alive(Arc::clone(&backend)));
        }
        // Its bridges stand aside until the next turn, so that this one is parked before them.
        self.shared.mailboxes[self.index].send(Mail::Alive(backend));
    }

    /// Parks the bridges of a backend that stand aside.
    pub(super) fn return_aside(&mut self, backend: &Arc<Backend>) {
        let groups = std::mem::take(&mut self.aside.groups);
        for group in groups {
            if !Arc::ptr_eq(&group.backend, backend) {
                self.aside.groups.push(group);
                continue;
            }
            for token in group.bridges {
                if let Some(key) = self.find_aside(token) {
                    self.park(key);
                }
            }
        }
    }

    fn find_aside(&self, token: Token) -> Option<usize> {
        let key = self.conns.find(token)?;
        matches!(self.conns.role(key), Some(Role::Aside(_))).then_some(key)
    }

    /// Probes the bridges aside that are due, or that a request waits for.
    pub(super) fn probe_suspects(&mut self) {
        let now = self.conns.now().millis();
        for at in (0..self.aside.groups.len()).rev() {
            let Some(group) = self.aside.groups.get(at) else { continue };
            let is_wanted = group.route.is_wanted(group.backend.instance_id());
            if !is_wanted && now < group.due {
                continue;
            }
            let backend = Arc::clone(&group.backend);
            self.aside.groups[at].due = now + PROBE_INTERVAL;
            if !backend.begin_probe() {
                continue;
            }
            match self.next_aside(at, is_wanted) {
                Some(key) => self.probe_bridge(key),
                None => backend.end_probe(),
            }
        }
        self.aside.groups.retain(|group| !group.bridges.is_empty());
    }

    /// Takes the first bridge of a group that can be probed. One that knows no probe can be tried
    /// only with a request.
    fn next_aside(&mut self, group: usize, is_wanted: bool) -> Option<usize> {
        for _ in 0..self.aside.groups[group].bridges.len() {
            let token = self.aside.groups[group].bridges.pop_front()?;
            let Some(key) = self.find_aside(token) else { continue };
            let bridge = self.conns.role(key).and_then(Role::bridge)?;
            if is_wanted || bridge.knows_probes() {
                return Some(key);
            }
            self.aside.groups[group].bridges.push_back(token);
        }
        None
    }

    fn probe_bridge(&mut self, key: usize) {
        let Some(Role::Aside(bridge)) = self.conns.role_mut(key) else { return };
        bridge.on_trial = true;
        if !bridge.knows_probes() {
            return self.park(key);
        }
        self.change_role(key, |role| role.with_bridge(Role::Probed));
        let timeout = self.settings().bridge_ack_timeout;
        self.conns.set_deadline(key, timeout);
        let (connection, ws) = self.conns.split(key);
        if connection.conn.send(SWITCH, &mut ws.pool).is_err() {
            self.end(key, End::Close);
        }
    }

    /// A bridge that is probed has sent something, or has ended.
    pub(super) fn read_probed(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let speaker = match connection.role() {
            Some(Role::Probed(bridge)) => bridge.speaker().map(Speaker::new),
            _ => None,
        };
        let conn = &mut connection.conn;
        if conn.flush(&mut ws.pool).is_err() {
            return self.end(key, End::Close);
        }
        match conn.receive(&mut ws.scratch) {
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => return,
            Received::End | Received::Broken(_) => return self.end(key, End::Close),
        }
        let limits = &self.exchange_config.limits;
        let word = loop {
            let word = speaker.as_ref().map(|speaker| speaker.word(conn.input.bytes(), limits));
            let Some(Word::Message(len)) = word else { break word };
            conn.input.consume(len, &mut ws.pool);
        };
        let mut storage = response::storage();
        let answered = match word {
            Some(Word::Partial) => Some(0),
            // It would have given a request back, so it is there.
            Some(Word::GivenBack { len, persistent }) => persistent.then_some(len),
            _ => match response::parse(conn.input.bytes(), &mut storage, limits, false) {
                Ok(None) => Some(0),
                Ok(Some(answer)) if answer.status == 100 => Some(answer.len),
                _ => None,
            },
        };
        if let Some(len) = answered {
            conn.input.consume(len, &mut ws.pool);
        }
        // Its messages may follow.
        let is_good = conn.input.is_empty() || speaker.is_some();
        if let Some(speaker) = &speaker {
            self.note_said(key, speaker);
        }
        match answered {
            Some(0) => self.conns.requeue(key),
            Some(_) if is_good => self.probe_answered(key),
            _ => self.end(key, End::Close),
        }
    }

    fn probe_answered(&mut self, key: usize) {
        let until = self.kept_until(key, None);
        if let Some(Role::Probed(bridge)) = self.conns.role_mut(key) {
            // It has acknowledged, so it expects requests now.
            bridge.handshake = Handshake::Reused { until };
        }
        self.note_alive(key);
        self.park(key);
    }

    /// A bridge has not acknowledged its probe.
    pub(super) fn probe_timed_out(&mut self, key: usize) {
        self.end(key, End::Close);
    }

    /// Something has happened on a bridge that stands aside: it has closed, or sent bytes, which it
    /// must not.
    pub(super) fn watch_aside(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let flushed = connection.conn.flush(&mut ws.pool);
        match self.hear_idle(key) {
            Heard::Quiet if flushed.is_ok() => {}
            Heard::Half if flushed.is_ok() => self.await_rest(key),
            _ => self.close_broken_bridge(key),
        }
    }

    /// The deadline of a bridge that stands aside has passed: its next ping, or the end of its
    /// keep-alive timeout.
    pub(super) fn aside_timed_out(&mut self, key: usize) {
        let interval = self.settings().ping_interval;
        let (connection, ws) = self.conns.split(key);
        let Some(Role::Aside(bridge)) = connection.role() else { return };
        let is_fresh = bridge.handshake == Handshake::Fresh;
        let conn = &mut connection.conn;
        if is_fresh && conn.output.is_empty() && conn.send(CONTINUE, &mut ws.pool).is_ok() {
            self.conns.set_deadline(key, interval);
        } else {
            self.end(key, End::Close);
        }
    }

    /// While draining: closes the bridges that stand aside, or tells them to dial again.
    pub(super) fn close_aside(&mut self) {
        let stands_aside = |role: &Role| {
            matches!(role, Role::Aside(_) | Role::Probed(_) | Role::Speaking(_) | Role::Resting(_))
        };
        for key in self.conns.keys_with(stands_aside) {
            match self.conns.role(key) {
                Some(Role::Aside(bridge)) if bridge.handshake == Handshake::Fresh => {
                    self.reject_shutting_down(key);
                }
                _ => self.end(key, End::Close),
            }
        }
    }

    /// A request waits: if bridges stand aside somewhere, they are probed for it.
    pub(super) fn wake_probers(&self) {
        if self.shared.backends.suspects() > 0 {
            self.wake_others();
        }
    }
}
