//! A worker puts reloaded settings in force.

use super::listeners::{Acceptor, OpenListeners, Opened, socket_options};
use super::state::Reload;
use super::worker::Worker;

impl Worker {
    /// Puts new settings in force at once. Deadlines already set stay as they are.
    pub(super) fn reload(&mut self, reload: Reload) {
        let Reload { config, opened, listeners, done } = reload;
        self.submit_lines();
        let (old, new) = (&self.config.settings, &config.settings);
        // Without `authorise` the limits of its answers are gone.
        let limits_differ = old.key_limits != new.key_limits
            || (old.authorise.is_some() && new.authorise.is_none());
        self.config = config;
        self.apply_settings();
        self.acceptor.set_options(&socket_options(&self.config.settings));
        if limits_differ {
            self.limit_all_again();
        }
        let dismissed = self.dismiss_lost();
        self.put_listeners_in_force(opened, &listeners);
        // The main thread may have given up waiting.
        let _ = done.send(dismissed);
    }

    fn put_listeners_in_force(&mut self, opened: Opened, listeners: &OpenListeners) {
        if !self.is_serving() {
            return;
        }
        for key in self.acceptor.update(listeners) {
            self.empty_backlog(key);
            self.acceptor.close(key, self.conns.registry());
        }
        if let Err(error) = self.acceptor.add(opened, listeners, self.conns.registry()) {
            log::error!("worker {}: cannot watch a new listener: {error}", self.index);
        }
        self.dismiss_orphans();
        self.close_removed_servers();
    }

    /// Accepts the connections in the backlog of a socket that is about to be closed: closing it
    /// would reset them.
    fn empty_backlog(&mut self, key: usize) {
        for _ in 0..Acceptor::backlog_rounds() * Acceptor::budget() {
            if !self.accept_one(key) {
                return;
            }
        }
    }
}
