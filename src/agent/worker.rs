//! The agent on its event loop: what it does with events, deadlines and mail.

use std::io;

use super::lookup::Lookup;
use super::pace::Demand;
use super::role::{Role, Stage, UpstreamState};
use super::state::{Agent, Life, Mail, NO_ANSWER, timed_out};
use crate::net::event_loop::{self, EventLoop, Handler, NextTurn};
use crate::net::resolver::Found;
use crate::net::signals;
use crate::net::sys::Signal;
use crate::net::tls::TlsError;

/// How an agent ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to stop, and has finished the requests in progress.
    Left,
    /// It was told twice, and has dropped the requests in progress.
    AtOnce,
    /// It was to replace another program, and has told that why it cannot.
    Refused,
}

impl Agent {
    /// Runs until it has been told to stop and is done.
    ///
    /// # Errors
    /// As epoll_wait(2), which has no reason to fail.
    pub fn run(mut self) -> io::Result<Ended> {
        event_loop::run(&mut self)?;
        if let Some(replaced) = &self.replaced {
            replaced.channel.end();
        }
        Ok(if self.life == Life::Over { Ended::AtOnce } else { Ended::Left })
    }

    /// Probes the applications and dials the bridges that are due.
    fn maintain(&mut self) {
        if self.awaits_predecessor() {
            // It says when to begin.
            self.maintain_at = None;
            return;
        }
        if !self.begin_maintenance() {
            return;
        }
        if let Some(replaced) = &mut self.replaced {
            replaced.has_changed = true;
        }
        if !self.is_serving() {
            return;
        }
        self.count_descriptors();
        self.maintain_applications();
        self.maintain_clusters();
        for proxy in 0..self.proxies.len() {
            match self.demand(proxy) {
                Demand::Nothing => {}
                Demand::At(at) => self.maintain_by(at),
                Demand::Now(count) => {
                    if !self.proxies[proxy].look_up(&self.resolver, Lookup::Proxy(proxy)) {
                        self.dial_bridges(proxy, count);
                    }
                }
            }
        }
        self.say_dialled();
    }

    /// Looks up the clusters that are due.
    fn maintain_clusters(&mut self) {
        let now = self.now();
        for index in 0..self.clusters.len() {
            let cluster = &mut self.clusters[index];
            if self.applications[cluster.application].withdrawn {
                continue;
            }
            let at = cluster.at;
            if at <= now {
                cluster.name.ask(&self.resolver, Lookup::Cluster(index));
            } else {
                self.maintain_by(at);
            }
        }
    }

    /// Tells systemd that this thread turns, and what the agent does.
    fn tell_systemd(&mut self) {
        let now = self.now();
        if !self.supervised.is_due(now) {
            return;
        }
        let requests = self.exchanges.len();
        let (status, left) = match self.life {
            // The new program speaks for the unit.
            Life::Replaced { .. } => return,
            Life::Leaving { .. } if self.replaced.is_some() => return,
            Life::Leaving { until } => {
                let status = format!("shutting down: {requests} requests in progress");
                (status, Some(until.since(now)))
            }
            Life::Serving | Life::Over => {
                let parked = |role: &Role| match role {
                    Role::Bridge(bridge) => {
                        matches!(bridge.stage, Stage::Parked { .. } | Stage::Idle { .. })
                    }
                    _ => false,
                };
                let parked = self.conns.keys_with(parked).len();
                let bridges = if parked == 1 { "bridge" } else { "bridges" };
                (format!("{parked} {bridges} parked, {requests} requests in progress"), None)
            }
        };
        self.supervised.tell(status, left);
    }

    fn demand(&self, proxy: usize) -> Demand {
        let application = &self.applications[self.proxies[proxy].application];
        let tells = self.proxies[proxy].sharing.is_understood;
        if self.is_serving() && application.wants_bridges(tells) {
            let requests = application.service.limit.min(self.most_requests);
            self.proxies[proxy].demand(requests, self.now())
        } else {
            Demand::Nothing
        }
    }

    fn found(&mut self, lookup: Lookup, found: Found) {
        let now = self.now();
        match lookup {
            Lookup::Application(application) => self.application_found(application, found),
            Lookup::Refresh(application) => self.application_moved(application, found),
            Lookup::Cluster(cluster) => self.clusters[cluster].found(found, &mut self.proxies, now),
            Lookup::Proxy(proxy) => match self.proxies[proxy].found(found) {
                Ok(()) => {
                    if let Demand::Now(count) = self.demand(proxy) {
                        self.dial_bridges(proxy, count);
                    }
                }
                Err(error) => self.proxies[proxy].failed(&error, now),
            },
        }
        self.maintain_now();
    }
}

impl Handler for Agent {
    type Role = Role;
    type Lent = ();

    fn conns(&mut self) -> &mut EventLoop<Role> {
        &mut self.conns
    }

    fn listener_ready(&mut self, _: usize) {
        self.accept_askers();
    }

    fn mail(&mut self) {
        let mut mail = Vec::new();
        self.mailbox.empty(&mut mail);
        for item in mail {
            match item {
                Mail::Found(lookup, found) => self.found(lookup, found),
                Mail::Signal(Signal::Terminate) => self.told_to_stop(),
                Mail::Signal(Signal::Reload) => self.reload(),
                Mail::Signal(Signal::ReopenLogs) => signals::ignored("USR1"),
                Mail::Signal(Signal::Upgrade) => self.upgrade(),
                Mail::Signal(Signal::Unused(name)) => signals::ignored(name),
                Mail::Note(note) => self.take_note(*note),
                Mail::Upgraded(result) => self.upgraded(result),
                Mail::SuccessorDialled => self.leave_encrypted(),
                Mail::SuccessorEnded(end) => self.successor_ended(&end),
            }
        }
    }

    fn ready(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::Bridge(bridge)) => match bridge.stage {
                Stage::Connecting { .. } => self.bridge_connecting(key),
                Stage::Registering { .. } | Stage::Parked { .. } => self.read_answers(key),
                Stage::Matched | Stage::Pending(_) => self.watch_bridge(key),
                Stage::Acknowledged | Stage::Idle { .. } => self.read_request(key),
                Stage::Exchanging { exchange } => self.advance(exchange),
                Stage::Discarding => self.discard(key),
            },
            Some(Role::Upstream(upstream)) => match upstream.state {
                UpstreamState::Probing { .. } | UpstreamState::Connecting { .. } => {
                    self.upstream_connecting(key);
                }
                UpstreamState::OnTrial { .. } => self.watch_trial(key),
                UpstreamState::Checking => self.read_check(key),
                UpstreamState::Reserved { .. } | UpstreamState::Idle => self.watch_upstream(key),
                UpstreamState::Exchanging { exchange } => self.advance(exchange),
            },
            Some(Role::Deregistration(_)) => self.read_deregistration(key),
            Some(Role::Asker) => self.read_question(key),
            None => {}
        }
    }

    fn handshake_failed(&mut self, key: usize, error: TlsError) {
        self.encryption_failed(key, error);
    }

    fn timeout(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::Bridge(_)) => self.bridge_timed_out(key),
            Some(Role::Upstream(_)) => self.upstream_timed_out(key),
            Some(Role::Deregistration(_)) => self.deregistration_failed(key, &timed_out(NO_ANSWER)),
            Some(Role::Asker) => self.close(key),
            None => {}
        }
    }

    fn end_of_turn(&mut self) {
        // After the work, which frees slots and loses bridges.
        self.serve_queues();
        self.leave_if_idle();
        self.maintain();
        self.tell_places();
        self.pass_on();
        self.tell_systemd();
    }

    fn next_turn(&mut self) -> NextTurn {
        let until = match self.life {
            Life::Leaving { until } | Life::Replaced { until } => Some(until),
            Life::Serving | Life::Over => None,
        };
        if self.is_over() {
            NextTurn::Stop
        } else if !self.freed.is_empty() {
            NextTurn::Now
        } else {
            let again = self.replaced.as_ref().and_then(|replaced| replaced.again);
            let dialled_by = self.replaced.as_ref().filter(|of| !of.has_left_encrypted);
            let wake = until
                .into_iter()
                .chain(self.maintain_at)
                .chain(again)
                .chain(dialled_by.map(|of| of.dialled_by))
                .chain(self.when_to_tell())
                .chain(self.next_idle_look())
                .chain(self.supervised.next());
            NextTurn::Wait(wake.min().unwrap_or(NextTurn::NEVER))
        }
    }
}
