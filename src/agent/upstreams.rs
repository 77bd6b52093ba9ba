//! Upstream connections, which lead to an application: dialling, the pool, and probes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::lookup::Lookup;
use super::requests::NOBODY;
use super::role::{
    Bridge, Request, Role, Stage, TunnelPlace, Upstream, UpstreamState, unoccupied_bridge,
};
use super::state::{Agent, NO_ANSWER, USER_TIMEOUT, timed_out};
use crate::config::Destination;
use crate::exchange::Opening;
use crate::http::response::is_timeout_notice;
use crate::net::conn::Unread;
use crate::net::proxy_protocol;
use crate::net::resolver::Found;
use crate::net::sys::{SocketOptions, is_shortage};
use crate::net::token::Token;
use crate::upstream::{self, Purpose};

/// Keepalive and TCP_USER_TIMEOUT. An application on another machine can vanish silently.
const OPTIONS: SocketOptions =
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: USER_TIMEOUT };

/// How long a connection is kept idle unless the application announces less: most application
/// servers with keep-alive keep connections longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the name of an application is looked up while it is up.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// How long each address may take to connect for a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the application may take to connect for a pending request. A lost SYN is sent again
/// after one second, and once more after another two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// For how long all slots of an application are taken, none of them given back, before the log says
/// so. Most applications answer within that time, and requests wait meanwhile.
const LONG: Duration = Duration::from_secs(5);

impl Agent {
    /// Gives freed slots to the bridges that wait for one.
    pub(super) fn serve_queues(&mut self) {
        // Slots freed in this loop are given out next turn. It does not spin: an application is put into
        // `freed` only if a bridge waits and a slot is free for it, and each time leaves one bridge less.
        for _ in 0..self.freed.len() {
            let Some(application) = self.freed.pop_front() else { return };
            while let Some(key) = self.grant_slot(application) {
                self.supply(key);
            }
            self.note_queue(application);
            if self.applications[application].slots.any_free() {
                self.maintain_now();
            }
        }
    }

    /// Gives a free slot to the first bridge that waits for one.
    fn grant_slot(&mut self, application: usize) -> Option<usize> {
        let conns = &self.conns;
        let waits = |token| match conns.find(token).and_then(|key| conns.role(key)) {
            Some(Role::Bridge(Bridge { slot: false, stage, .. })) => {
                matches!(stage, Stage::Matched | Stage::Pending(_))
            }
            _ => false,
        };
        let app = &mut self.applications[application];
        if app.arbiter.as_ref().is_some_and(|arbiter| arbiter.spare() == 0) {
            return None;
        }
        let key = app.slots.grant(waits)?.key();
        if let Some(bridge) = self.bridge_mut(key) {
            bridge.slot = true;
            let party = bridge.party;
            if let Some(arbiter) = &mut self.applications[application].arbiter {
                arbiter.takes(party);
            }
        }
        self.slot_taken(application);
        Some(key)
    }

    /// A slot has been taken; if it was the last, the log will say so should none be given back.
    pub(super) fn slot_taken(&mut self, application: usize) {
        let now = self.now();
        let app = &mut self.applications[application];
        if !app.slots.any_free() {
            app.full_since = Some(now);
            self.maintain_by(now + LONG);
        }
    }

    /// Gets an upstream connection for a bridge that has a slot: one from the pool, or a new one.
    pub(super) fn supply(&mut self, key: usize) {
        let Some(&Bridge { application, stage, .. }) = self.bridge(key) else { return };
        // The acknowledgement promises a working connection.
        let (look, client) = match stage {
            Stage::Pending(Request { meta, .. }) => {
                (!meta.is_surely_repeatable(), Some(meta.client))
            }
            // Whose the request is shows only when it comes.
            _ => (true, None),
        };
        match self.take_idle(application, look, client) {
            Some(upstream) => self.use_upstream(key, upstream, true),
            None => self.dial_for(key),
        }
    }

    /// Continues with the bridge in slot `key`, which has an upstream connection now.
    pub(super) fn use_upstream(&mut self, key: usize, upstream: usize, reused: bool) {
        let [bridge, token] = [key, upstream].map(|key| self.conns[key].token());
        let Some(role) = self.bridge_mut(key) else { return };
        match role.stage {
            Stage::Matched => {
                role.upstream = Some(token);
                self.set_upstream(upstream, UpstreamState::Reserved { bridge, reused });
                self.acknowledge(key);
            }
            Stage::Pending(request) => {
                self.start(key, upstream, reused, request, Opening::FromInput);
            }
            _ => {}
        }
    }

    /// Dials for a bridge that has a slot.
    pub(super) fn dial_for(&mut self, key: usize) {
        let bridge = self.conns[key].token();
        let Some(&Bridge { application, stage, .. }) = self.bridge(key) else { return };
        self.make_room(application);
        let dialled = if self.applications[application].health.is_up() {
            self.dial_upstream(application, 0, UpstreamState::Connecting { bridge })
        } else {
            Err(io::Error::other("it is down"))
        };
        match dialled {
            Ok(upstream) => {
                let upstream = Some(self.conns[upstream].token());
                if let Some(bridge) = self.bridge_mut(key) {
                    bridge.upstream = upstream;
                }
                // A matched bridge already has a deadline.
                if let Stage::Pending(_) = stage {
                    self.conns.set_deadline(key, CONNECT_TIMEOUT);
                }
            }
            Err(error) => {
                self.application_failed(application, Purpose::Requests, &error);
                self.undelivered(key);
            }
        }
    }

    /// Begins to connect to the application, at the next of its addresses after `tried`.
    fn dial_upstream(
        &mut self,
        application: usize,
        tried: usize,
        state: UpstreamState,
    ) -> io::Result<usize> {
        let app = &self.applications[application];
        let (stream, peer) =
            upstream::connect(&app.service.to, app.addresses.get(tried), &OPTIONS)?;
        let upstream = Upstream {
            application,
            carried_body: false,
            last_had_body: false,
            client: None,
            state,
        };
        let key = self.conns.insert(stream, peer.ip(), Role::Upstream(upstream))?;
        if let Some(encryption) = self.applications[application].encryption()
            && let Err(what) = self.encrypt(key, &encryption)
        {
            self.close(key);
            return Err(io::Error::other(what));
        }
        Ok(key)
    }

    /// Before another connection is made with `--send-proxy`: closes idle ones, which are for other
    /// clients, so that there are never more connections than slots.
    fn make_room(&mut self, application: usize) {
        let app = &self.applications[application];
        if app.service.send_proxy {
            let surplus = app.idle.len().saturating_sub(app.slots.free());
            let surplus: Vec<Token> = app.idle[..surplus].to_vec();
            surplus.into_iter().for_each(|token| self.close(token.key()));
        }
    }

    /// With `--send-proxy`: announces `client` on a new connection to the application. The bytes go
    /// out with those that follow at once. The client is known because the proxy has told it;
    /// otherwise the connection is announced as the agent's own.
    pub(super) fn announce(&mut self, key: usize, client: IpAddr) {
        let (connection, ws) = self.conns.split(key);
        let Some(Role::Upstream(upstream)) = connection.role_mut() else { return };
        if !self.applications[upstream.application].service.send_proxy
            || upstream.client.replace(client).is_some()
        {
            return;
        }
        let mut header = Vec::with_capacity(proxy_protocol::MAX_WRITTEN);
        if client == NOBODY {
            proxy_protocol::write_local(&mut header);
        } else {
            // Where the client has connected to is not known. A Unix socket has no address.
            let to = connection.conn.peer_address();
            let to = to.unwrap_or_else(|_| SocketAddr::new(unspecified(client), 0));
            proxy_protocol::write(&mut header, SocketAddr::new(client, 0), to);
        }
        if connection.conn.send_more(&header, &mut ws.pool).is_err() {
            // What follows must not go out without it.
            connection.conn.hang_up();
        }
    }

    /// With `--send-proxy`: announces a connection that carries no client's request.
    pub(super) fn announce_none(&mut self, key: usize, application: usize) {
        if self.applications[application].service.send_proxy {
            let mut header = Vec::new();
            proxy_protocol::write_local(&mut header);
            let (connection, ws) = self.conns.split(key);
            // If it fails, so does what follows.
            let _ = connection.conn.send(&header, &mut ws.pool);
        }
    }

    pub(super) fn set_upstream(&mut self, key: usize, to: UpstreamState) {
        if let Some(Role::Upstream(upstream)) = self.conns.role_mut(key) {
            upstream.state = to;
        }
    }

    /// The connect of an upstream connection may have completed.
    pub(super) fn upstream_connecting(&mut self, key: usize) {
        match self.conns[key].conn.is_connected() {
            Ok(true) => self.upstream_connected(key),
            Ok(false) => {}
            Err(error) => self.connect_failed(key, &error),
        }
    }

    fn upstream_connected(&mut self, key: usize) {
        let peer = self.conns[key].peer;
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let &Upstream { application, state, .. } = upstream;
        match state {
            UpstreamState::Connecting { bridge } if self.find_bridge(bridge).is_some() => {
                let now = self.now();
                match self.applications[application].doubt.trial(now) {
                    Some(trial) => self.put_on_trial(key, bridge, trial),
                    None => self.use_upstream(bridge.key(), key, false),
                }
            }
            UpstreamState::Probing { .. }
                if self.applications[application].service.check.is_some() =>
            {
                self.send_check(key, application);
            }
            UpstreamState::Probing { .. } => {
                self.announce_none(key, application);
                // Not kept: an application that serves one connection at a time would wait for a
                // request on it, and serve no other.
                self.close(key);
                let now = self.now();
                let app = &mut self.applications[application];
                app.addresses.answered(peer);
                app.answered(now);
                self.maintain_now();
            }
            _ => self.close(key),
        }
    }

    pub(super) fn connect_failed(&mut self, key: usize, error: &io::Error) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let &Upstream { application, state, .. } = upstream;
        self.close(key);
        match state {
            UpstreamState::Probing { tried } => self.probe_failed(application, tried, error),
            UpstreamState::Connecting { bridge } | UpstreamState::OnTrial { bridge } => {
                self.application_failed(application, Purpose::Requests, error);
                if self.find_bridge(bridge).is_some() {
                    self.undelivered(bridge.key());
                }
            }
            _ => {}
        }
    }

    /// The deadline of an upstream connection has passed.
    pub(super) fn upstream_timed_out(&mut self, key: usize) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        match upstream.state {
            UpstreamState::Idle => self.close(key),
            UpstreamState::Probing { .. } => self.connect_failed(key, &timed_out(NO_ANSWER)),
            UpstreamState::Checking => self.check_ended(key, Err(upstream::check_timed_out())),
            UpstreamState::OnTrial { .. } => self.trial_passed(key),
            // A deadline left over from its idle time: moving one costs less than removing it and
            // setting it again with each request.
            UpstreamState::Connecting { .. }
            | UpstreamState::Reserved { .. }
            | UpstreamState::Exchanging { .. } => {}
        }
    }

    /// An idle connection that is not known to be closed; with `look` the kernel is asked, at the
    /// price of a system call. With `--send-proxy` it is one of this client's.
    pub(super) fn take_idle(
        &mut self,
        application: usize,
        look: bool,
        client: Option<IpAddr>,
    ) -> Option<usize> {
        while let Some(token) = self.next_idle(application, client) {
            let conn = &mut self.conns[token.key()].conn;
            let good = if look { conn.probe_idle() } else { conn.is_quiet() };
            if good && !conn.is_broken() {
                return Some(token.key());
            }
            self.look_for_stray_bytes(token.key());
            self.close(token.key());
        }
        None
    }

    fn next_idle(&mut self, application: usize, client: Option<IpAddr>) -> Option<Token> {
        let (app, conns) = (&mut self.applications[application], &self.conns);
        if !app.service.send_proxy {
            return app.idle.pop();
        }
        let of_client = |token: &Token| match conns.role(token.key()) {
            Some(Role::Upstream(upstream)) => upstream.client == client,
            _ => false,
        };
        let at = app.idle.iter().rposition(of_client).filter(|_| client.is_some())?;
        Some(app.idle.remove(at))
    }

    /// An idle connection is about to be closed because something has come over it.
    fn look_for_stray_bytes(&mut self, key: usize) {
        if let Unread::Bytes(first) = self.conns[key].conn.unread()
            && !is_timeout_notice(&first)
        {
            self.upstream_sent_stray_bytes(key);
        }
    }

    /// A connection has brought bytes that belong to no request.
    pub(super) fn upstream_sent_stray_bytes(&mut self, key: usize) {
        let now = self.now();
        // Without a body on it, no body can be the reason.
        if let Some(&Role::Upstream(Upstream { application, carried_body: true, .. })) =
            self.conns.role(key)
        {
            self.applications[application].left_a_body_unread(now);
        }
    }

    /// Keeps a connection for the next request, or, after one `with_body`, closes it if the
    /// application is careless. `announced` is the application's own keep-alive timeout, in seconds.
    pub(super) fn keep_upstream(&mut self, key: usize, announced: Option<u32>, with_body: bool) {
        let now = self.now();
        let Some(Role::Upstream(upstream)) = self.conns.role_mut(key) else { return };
        let application = upstream.application;
        if with_body && self.applications[application].is_careless(now) {
            return self.close(key);
        }
        let announced = announced.map(|seconds| Duration::from_secs(seconds.into()));
        let timeout = announced.map_or(IDLE_TIMEOUT, |announced| IDLE_TIMEOUT.min(announced));
        upstream.state = UpstreamState::Idle;
        upstream.last_had_body = with_body;
        if !self.is_offered(application) {
            return self.close(key);
        }
        self.conns.set_deadline(key, timeout);
        let token = self.conns[key].token();
        let idle = &mut self.applications[application].idle;
        // An application that leaves a body unread shows it soon, so this one is used last.
        idle.insert(if with_body { 0 } else { idle.len() }, token);
        self.pass_soon(key);
    }

    /// An event on an idle connection: the application has closed it, or has sent an unsolicited
    /// answer, such as "408 Request Timeout".
    pub(super) fn watch_upstream(&mut self, key: usize) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let application = upstream.application;
        let conn = &mut self.conns[key].conn;
        if conn.is_broken() || !conn.is_quiet() {
            self.look_for_stray_bytes(key);
            self.close(key);
            // Either it was idle for too long, or the application is gone. Better find out before
            // the next request comes.
            if self.is_serving() && self.applications[application].health.begin_check() {
                self.probe(application, 0);
            }
        }
    }

    /// Probes the applications that are due.
    pub(super) fn maintain_applications(&mut self) {
        let now = self.now();
        for application in 0..self.applications.len() {
            let app = &mut self.applications[application];
            if app.withdrawn {
                continue;
            }
            if let Some(full_since) = app.full_since {
                if now < full_since + LONG {
                    self.maintain_by(full_since + LONG);
                } else {
                    self.say_full(application);
                }
            }
            let app = &mut self.applications[application];
            if app.health.begin_probe(now) {
                match &app.service.to {
                    // It may come back at another address.
                    Destination::Name { host, port } if !app.health.is_up() => {
                        self.resolver.ask(Lookup::Application(application), host, *port);
                    }
                    _ => self.probe(application, 0),
                }
            } else if let Some(at) = app.health.probe_at() {
                self.maintain_by(at);
            }
            self.refresh(application);
            self.check(application);
        }
    }

    /// All slots of an application have been taken for so long that an operator should know, and by
    /// what.
    fn say_full(&mut self, application: usize) {
        let now = self.now();
        let app = &mut self.applications[application];
        app.full_since = None;
        let Some(suppressed) = app.full_reported.allow(now) else { return };
        let conns = &self.conns;
        let (mut begun, mut upgrades) = (0, 0);
        for running in self.exchanges.iter_mut() {
            match conns.role(running.requester.key()) {
                Some(Role::Bridge(bridge)) if bridge.application == application && bridge.slot => {
                    begun += usize::from(running.exchange.status() != 0);
                    upgrades += usize::from(bridge.tunnel != TunnelPlace::None);
                }
                _ => {}
            }
        }
        let app = &self.applications[application];
        let open = (app.service.tunnels - app.tunnels_free).saturating_sub(upgrades);
        let more = match suppressed {
            0 => String::new(),
            more => format!(" ({more} more such lines left out)"),
        };
        log::info!(
            "all {} places of the application at {} have been taken for {} s, {begun} of them by \
             responses that have begun and {upgrades} by WebSockets that begin; other requests \
             wait; {open} WebSockets have places of their own{more}",
            app.service.limit,
            app.service.to,
            LONG.as_secs(),
        );
    }

    /// Looks the name of an application that is up once more, if that is due.
    fn refresh(&mut self, application: usize) {
        let now = self.now();
        let app = &mut self.applications[application];
        let Some(name) = app.name.as_mut().filter(|_| app.health.is_up()) else { return };
        if now >= app.refresh_at {
            app.refresh_at = now + REFRESH_INTERVAL;
            name.ask(&self.resolver, Lookup::Refresh(application));
        }
        let at = app.refresh_at;
        self.maintain_by(at);
    }

    /// Takes the addresses of an application that is up. Idle connections to addresses that it no
    /// longer has are closed.
    pub(super) fn application_moved(&mut self, application: usize, found: Found) {
        let app = &mut self.applications[application];
        if let Some(name) = &mut app.name {
            name.answered();
        }
        match found {
            Ok(found) => app.addresses.update(found),
            Err(error) => return log::debug!("{}: {error}", app.service.to),
        }
        let idle = std::mem::take(&mut app.idle);
        let (stay, go): (Vec<Token>, Vec<Token>) =
            idle.into_iter().partition(|token| app.addresses.has_ip(self.conns[token.key()].peer));
        app.idle = stay;
        go.into_iter().for_each(|token| self.close(token.key()));
    }

    /// Takes the addresses of an application that is due for a probe. A failing resolver says
    /// nothing about known addresses.
    pub(super) fn application_found(&mut self, application: usize, found: Found) {
        let addresses = &mut self.applications[application].addresses;
        match found {
            Ok(found) => addresses.update(found),
            Err(error) if addresses.len() == 0 => {
                return self.application_failed(application, Purpose::Probe, &error);
            }
            Err(error) => log::debug!("{error}; the known addresses are kept"),
        }
        self.probe(application, 0);
    }

    pub(super) fn probe(&mut self, application: usize, tried: usize) {
        if !self.is_serving() {
            return;
        }
        match self.dial_upstream(application, tried, UpstreamState::Probing { tried }) {
            Ok(key) => self.conns.set_deadline(key, PROBE_TIMEOUT),
            Err(error) if is_shortage(&error) && self.applications[application].health.is_up() => {
                // It says nothing about the application.
                self.note_shortage(&error);
                let now = self.now();
                self.applications[application].answered(now);
            }
            Err(error) => self.probe_failed(application, tried, &error),
        }
    }

    fn probe_failed(&mut self, application: usize, tried: usize, error: &io::Error) {
        if tried + 1 < self.applications[application].addresses.len() {
            self.probe(application, tried + 1);
        } else {
            self.application_failed(application, Purpose::Probe, error);
        }
    }

    /// An application could not be reached. While it is down nothing is parked for it: a request
    /// that finds no bridge here goes elsewhere, or waits at the proxy.
    pub(super) fn application_failed(
        &mut self,
        application: usize,
        purpose: Purpose,
        why: &io::Error,
    ) {
        if purpose == Purpose::Requests && is_shortage(why) {
            // No fault of the application's.
            return self.note_shortage(why);
        }
        let now = self.now();
        let lost = self.applications[application].failed(purpose, now, why);
        self.maintain_now();
        if lost {
            self.close_unoccupied(application);
        }
    }

    /// Closes the unused bridges of an application, through the proxy if it supports
    /// deregistration.
    pub(super) fn close_unoccupied(&mut self, application: usize) {
        self.close_unoccupied_of(|bridge| bridge.application == application);
    }

    /// The same for the bridges that `which` selects.
    pub(super) fn close_unoccupied_of(&mut self, which: impl Fn(&Bridge) -> bool) {
        self.deregister(&which);
        let of = |bridge: &Bridge| which(bridge) && !bridge.deregistering;
        let unoccupied = self.conns.iter().filter(|(_, c)| unoccupied_bridge(c).is_some_and(of));
        let keys: Vec<usize> = unoccupied.map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// The bridge in slot `token.key()`, if it is still that one.
    pub(super) fn find_bridge(&self, token: Token) -> Option<&Bridge> {
        self.conns.find(token).and_then(|key| self.bridge(key))
    }
}

/// No address, of the family of this one.
fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
