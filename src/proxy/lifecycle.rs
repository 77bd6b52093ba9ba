//! New settings, and the end.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Interest;

use crate::net::token::Token;

use super::gates::{Doorways, Opened};
use super::role::{Client, Head, Role};
use super::shared::Reload;
use super::start;
use super::stats;
use super::worker::{Door, Drain, Life, Worker, bounds, exchange_config};

/// How many times the listeners are emptied before they are closed.
const BACKLOG_ROUNDS: usize = 64;

/// How long a connection that has said nothing yet is given while draining: its first request
/// may be on its way already.
const LAST_CHANCE: Duration = Duration::from_millis(500);

impl Worker {
    /// Puts new settings in force: at once, but a deadline that has been set stays as it is.
    pub(super) fn reload(&mut self, reload: Reload) {
        let Reload { config, opened, doorways } = reload;
        self.exchange_config = exchange_config(&config.settings);
        let options = start::socket_options(&config.settings);
        for (_, door) in &self.doors {
            if let Err(error) = door.listener.set_options(&options) {
                log::warn!("{}: {error}", door.listener.address());
            }
        }
        self.lobby.set_bounds(bounds(&config.settings));
        self.config = config;
        if !self.is_serving() {
            return;
        }
        self.close_doors(&doorways);
        if let Err(error) = self.open_doors(opened, &doorways) {
            log::error!("worker {}: cannot watch a new listener: {error}", self.index);
        }
        self.dismiss_guests();
        self.close_gone_servers();
    }

    /// Accepts at these listeners too.
    ///
    /// # Errors
    /// When one of them cannot be registered.
    pub fn open_doors(&mut self, opened: Opened, doorways: &Doorways) -> io::Result<()> {
        for (mut listener, gate) in opened {
            let Some(purpose) = doorways.purpose(gate).cloned() else { continue };
            let entry = self.doors.vacant_entry();
            let token = Token::listener(entry.key()).into();
            self.poll.registry().register(listener.source(), token, Interest::READABLE)?;
            entry.insert(Door { listener, gate, purpose, ready: false });
        }
        Ok(())
    }

    /// Closes the listeners that are no more, and has the others serve whom they serve now.
    fn close_doors(&mut self, doorways: &Doorways) {
        let doors: Vec<usize> = self.doors.iter().map(|(door, _)| door).collect();
        for door in doors {
            if let Some(purpose) = doorways.purpose(self.doors[door].gate) {
                self.doors[door].purpose = purpose.clone();
                continue;
            }
            // Whoever the kernel has accepted for us already would be reset with the listener.
            for _ in 0..BACKLOG_ROUNDS {
                self.doors[door].ready = true;
                self.accept_at(door);
                if !self.doors[door].ready || self.paused.is_some() {
                    break;
                }
            }
            // Closing the socket takes it out of the poll.
            self.doors.remove(door);
        }
    }

    /// Stops accepting and lets idle clients go. Bridges stay while somebody may still ask, and
    /// what is under way is finished, for as long as `drain-timeout` allows.
    pub(super) fn drain(&mut self) {
        if !self.is_serving() {
            return;
        }
        // Whoever the kernel has accepted for us already would be reset with the listener.
        for _ in 0..BACKLOG_ROUNDS {
            (0..self.doors.capacity()).for_each(|door| self.knock(door));
            self.accept_all();
            if !self.has_arrivals() {
                break;
            }
        }
        let timeout = self.settings().drain_timeout.as_millis() as u64;
        self.life = Life::Draining {
            until: self.now.millis() + timeout,
            stage: Drain::LastChance { quiet_turns: 0 },
        };
        self.doors.clear();
        self.knocking.clear();
        // Only now: whoever was in the backlog is counted among those who may ask.
        self.shared.draining.fetch_add(1, Ordering::SeqCst);
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.slots[key].role {
                Role::Requesting { exchange, .. } => {
                    self.exchanges[exchange].exchange.close_requester();
                }
                Role::Reading(client) => self.drain_reader(key, client),
                // It has no request to make, and will find another proxy.
                Role::Announcing { .. } => self.close(key),
                _ => {}
            }
        }
    }

    fn drain_reader(&mut self, key: usize, client: Client) {
        let conn = &self.slots[key].conn;
        match client.head {
            Head::Unread if client.requests > 0 && conn.is_idle() => self.leave(key),
            Head::Unread => self.set_deadline(key, LAST_CHANCE),
            Head::Begun => {}
        }
    }

    /// Whether bridges with nothing to do are let go.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.life, Life::Draining { stage: Drain::Parting { .. }, .. })
    }

    /// While draining: lets the bridges go when no request can come any more, ends the wait of
    /// requests that nothing can serve any more, and ends everything when the time is up.
    pub(super) fn go_on_draining(&mut self) {
        let Life::Draining { until, stage } = self.life else { return };
        if self.is_parting() {
            self.close_dialling();
        }
        let now = self.now.millis();
        let stage = match stage {
            Drain::LastChance { .. } if now < until && self.somebody_may_ask() => {
                Drain::LastChance { quiet_turns: 0 }
            }
            // Somebody's request may have asked for a bridge of ours when the turn had begun.
            Drain::LastChance { quiet_turns: 0 } => Drain::LastChance { quiet_turns: 1 },
            Drain::LastChance { .. } => {
                self.each_slot(|role| matches!(role, Role::Parked { .. }), Worker::part);
                Drain::Parting { quiet_turns: 0 }
            }
            // A connection that is being dialled is for somebody who waits here.
            Drain::Parting { .. } if self.dialling.is_under_way() => {
                Drain::Parting { quiet_turns: 0 }
            }
            Drain::Parting { .. } if stats::under_way(&self.shared.stats) > 0 => {
                Drain::Parting { quiet_turns: 0 }
            }
            // What an exchange on another worker has set free may have been on its way here
            // when the turn began, but not for two turns.
            Drain::Parting { quiet_turns: 1.. } => {
                self.each_slot(|role| matches!(role, Role::Waiting { .. }), Worker::end_waiting);
                stage
            }
            Drain::Parting { .. } => Drain::Parting { quiet_turns: 1 },
        };
        self.life = Life::Draining { until, stage };
        if now >= until {
            self.end_all();
        }
    }

    /// Whether on any worker a connection may still send a request.
    fn somebody_may_ask(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst) < self.shared.mailboxes.len()
            || self.shared.stats.iter().any(|stats| stats.roles[Role::READING].get() > 0)
    }

    fn end_all(&mut self) {
        self.each_slot(|role| matches!(role, Role::Waiting { .. }), Worker::end_waiting);
        let left: Vec<usize> = self.exchanges.iter().map(|(key, _)| key).collect();
        if !left.is_empty() {
            let count = left.len();
            log::warn!("worker {}: drain-timeout cut off {count} exchanges", self.index);
        }
        left.into_iter().for_each(|exchange| self.cut(exchange));
        self.each_slot(|_| true, Worker::close);
    }

    /// Whether the worker has nothing left to do. Nobody leaves before the others are done too,
    /// because a bridge or a message may be on its way here from them.
    pub(super) fn is_over(&self) -> bool {
        match self.life {
            Life::Serving => false,
            Life::Draining { until, .. } => {
                self.shared.open_connections() == 0 || self.now.millis() >= until
            }
        }
    }
}
