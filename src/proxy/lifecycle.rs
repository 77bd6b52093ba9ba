//! New settings, and the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::role::{Client, Head, Role};
use super::shared::Config;
use super::start;
use super::worker::{Life, Worker, bounds, rules};

/// How long a connection that has said nothing yet is given while draining: its first request
/// may be on its way already.
const LAST_CHANCE: Duration = Duration::from_millis(500);

impl Worker {
    /// Puts new settings in force. What has begun under the old ones goes on under them.
    pub(super) fn reload(&mut self, config: Arc<Config>) {
        self.rules = rules(&config.settings);
        let options = start::socket_options(&config.settings);
        for door in &self.doors {
            if let Err(error) = door.listener.set_options(&options) {
                log::warn!("{}: {error}", door.listener.address());
            }
        }
        self.lobby.set_bounds(bounds(&config.settings));
        self.config = config;
    }

    /// Stops accepting; parked bridges and idle clients are let go; what is under way is
    /// finished, for as long as `drain-timeout` allows.
    pub(super) fn drain(&mut self) {
        if !self.is_serving() {
            return;
        }
        let timeout = self.settings().drain_timeout.as_millis() as u64;
        self.life = Life::Draining { until: self.now.millis() + timeout };
        self.doors.clear();
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.slots[key].role {
                Role::Settling { .. } | Role::Parked { .. } => self.part(key),
                Role::Requesting { exchange, .. } => {
                    self.exchanges[exchange].exchange.close_requester();
                }
                Role::Reading(client) => self.drain_reader(key, client),
                Role::Waiting { .. } | Role::Responding { .. } | Role::Leaving | Role::Closed => {}
            }
        }
    }

    fn drain_reader(&mut self, key: usize, client: Client) {
        let conn = &self.slots[key].conn;
        match client.head {
            Head::Unread if client.requests > 0 && conn.is_idle() => self.close(key),
            Head::Unread => self.set_deadline(key, LAST_CHANCE),
            Head::Begun => {}
        }
    }

    /// While draining: ends the wait of requests that nothing can serve any more, and the whole
    /// when the time is up. Nobody leaves before the others are done too, because a bridge or a
    /// message may be on its way here from them.
    pub(super) fn end_drain_if_over(&mut self) {
        let Life::Draining { until } = self.life else {
            return;
        };
        let late = self.now.millis() >= until;
        if late || self.shared.exchanges.load(Ordering::SeqCst) == 0 {
            let keys: Vec<usize> = self
                .slots
                .iter()
                .filter(|(_, slot)| late || matches!(slot.role, Role::Waiting { .. }))
                .map(|(key, _)| key)
                .collect();
            for key in keys {
                self.end_waiting(key);
            }
        }
        if late {
            let left: Vec<usize> = self.exchanges.iter().map(|(key, _)| key).collect();
            log::warn!("worker {}: {} exchanges cut off by drain-timeout", self.index, left.len());
            for exchange in left {
                self.cut(exchange);
            }
            let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.close(key));
        }
    }

    /// Whether the worker has nothing left to do, now or when the others are done.
    pub(super) fn is_over(&self) -> bool {
        match self.life {
            Life::Serving => false,
            Life::Draining { until } => {
                self.shared.open_connections() == 0 || self.now.millis() >= until
            }
        }
    }
}
