//! Health checks over HTTP (`--check`): an application that accepts connections and answers nothing
//! is no better than one that is away.

use std::io;

use super::role::{Role, UpstreamState};
use super::state::Agent;
use crate::upstream::{self, CHECK_TIMEOUT, Health, Purpose, check_request};

impl Agent {
    /// Checks an application that is up, if that is due.
    pub(super) fn check(&mut self, application: usize) {
        let now = self.now();
        let app = &mut self.applications[application];
        let Some(check) = app.service.check.as_ref().filter(|_| app.health == Health::Up) else {
            return;
        };
        if now < app.check_at {
            let at = app.check_at;
            return self.maintain_by(at);
        }
        app.check_at = now + check.interval;
        let at = app.check_at;
        self.maintain_by(at);
        self.probe(application, 0);
    }

    /// A connection for a check has been made.
    pub(super) fn send_check(&mut self, key: usize, application: usize) {
        let app = &mut self.applications[application];
        app.addresses.answered(self.conns[key].peer);
        let Some(check) = &app.service.check else { return };
        let request = check_request(check, &app.service.scope.hosts);
        self.announce_none(key, application);
        self.set_upstream(key, UpstreamState::Checking);
        self.conns.set_deadline(key, CHECK_TIMEOUT);
        let (connection, ws) = self.conns.split(key);
        if let Err(error) = connection.conn.send(&request, &mut ws.pool) {
            self.check_ended(key, Err(error));
        }
    }

    /// Reads the answer to a check.
    pub(super) fn read_check(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        match upstream::read_check(&mut connection.conn, ws) {
            Some(outcome) => self.check_ended(key, outcome),
            None if self.conns[key].conn.is_readable() => self.conns.requeue(key),
            None => {}
        }
    }

    pub(super) fn check_ended(&mut self, key: usize, outcome: io::Result<()>) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let (application, now) = (upstream.application, self.now());
        self.close(key);
        let app = &mut self.applications[application];
        match outcome {
            Ok(()) => app.check_succeeded(now),
            Err(error) => {
                if app.check_failed(now, &error) {
                    // A request over one of them would hang as the check did.
                    self.close_idle(application);
                    self.application_failed(application, Purpose::Probe, &error);
                }
            }
        }
        self.maintain_now();
    }
}
