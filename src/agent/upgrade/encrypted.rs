//! Bridges that are encrypted stay with the old program: it has the keys of their records. The new
//! one dials its own, and says when it has them; then the old one has the proxies close its bridges,
//! as at its end. So both have bridges for a moment, and no request waits.

use std::time::Duration;

use super::super::role::Role;
use super::super::state::{Agent, Life};
use crate::process::channel::Channel;

/// How long the old program waits for the new one's bridges: a proxy may be away.
pub(super) const DIALLED_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads what the new program says, until it has ended. Calls `dialled` when it has its bridges.
/// Returns whether it has been replaced itself.
pub(super) fn hear(channel: &Channel, dialled: impl Fn()) -> bool {
    let mut is_replaced = false;
    while let Ok(Some(message)) = channel.receive() {
        let line = message.line();
        match line["kind"].as_str() {
            Some("replaced") => is_replaced = line["is"] == true,
            Some("dialled") => dialled(),
            _ => {}
        }
    }
    is_replaced
}

impl Agent {
    /// In the new program: tells the old one that the encrypted bridges are there, once they are.
    pub(in crate::agent) fn say_dialled(&mut self) {
        match &self.replacing {
            Some(replacing) if !replacing.awaited && !replacing.has_said_dialled => {}
            _ => return,
        }
        let is_unknown = self.clusters.iter().any(|cluster| cluster.awaits_encrypted());
        let is_there = |at: usize| {
            let proxy = &self.proxies[at];
            let application = &self.applications[proxy.application];
            // Not `wants_bridges`: the old program may have all places for requests at the moment.
            let is_unwanted = application.withdrawn || !application.health.is_up();
            let wanted = application.service.limit.min(self.most_requests);
            proxy.tls.is_none() || is_unwanted || proxy.has_accepted(wanted)
        };
        if is_unknown || !(0..self.proxies.len()).all(is_there) {
            return;
        }
        if let Some(replacing) = &mut self.replacing {
            replacing.has_said_dialled = true;
            replacing.predecessor.dialled();
        }
    }

    /// In the old program: the new one has its bridges, or has had the time for it.
    pub(in crate::agent) fn leave_encrypted(&mut self) {
        let Some(replaced) = &mut self.replaced else { return };
        if std::mem::replace(&mut replaced.has_left_encrypted, true) {
            return;
        }
        let encrypted: Vec<bool> = self.proxies.iter().map(|proxy| proxy.tls.is_some()).collect();
        self.deregister(|bridge| encrypted[bridge.proxy]);
        // What cannot be deregistered ends after its request.
        let is_encrypted =
            |role: &Role| matches!(role, Role::Bridge(bridge) if encrypted[bridge.proxy]);
        for key in self.conns.keys_with(is_encrypted) {
            self.shut_down_one(key);
        }
    }

    /// In the old program: does so when the new one has had its time.
    pub(in crate::agent) fn leave_encrypted_in_time(&mut self) {
        let now = self.now();
        let is_late = self
            .replaced
            .as_ref()
            .is_some_and(|replaced| !replaced.has_left_encrypted && replaced.dialled_by <= now);
        if is_late && matches!(self.life, Life::Replaced { .. }) {
            self.leave_encrypted();
        }
    }
}
