//! In the new agent: takes what the old one passes on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::net::TcpStream;

use super::super::healthz::Inherited;
use super::super::proxies::Place;
use super::super::role::{Bridge, Role, Stage, TunnelPlace, Upstream, UpstreamState};
use super::super::state::{Agent, Mail};
use super::notes::{self, Left, LeftAt, MovedBridge, MovedConnection, MovedStage, Note, Served};
use super::progress::Replacing;
use crate::bridge::BackendToken;
use crate::net::mailbox::Mailbox;
use crate::process::upgrade::Predecessor;
use crate::time::Millis;

/// How long the old program may take to say what it has. Until then no bridge is dialled.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Learns whether the old program can be replaced by this one. Returns where it listens for questions
/// about its health.
///
/// # Errors
/// One sentence.
pub(in crate::agent) fn receive_offer(
    predecessor: &Predecessor,
) -> Result<Option<Inherited>, String> {
    let (mut is_known, mut healthz) = (false, None);
    predecessor.receive_offer(|line, message| {
        if is_known && let Some(inherited) = Inherited::read(line, message) {
            healthz = Some(inherited);
            return Ok(());
        }
        notes::check_hello(line)?;
        is_known = true;
        Ok(())
    })?;
    if is_known { Ok(healthz) } else { Err("the old program does not say what it is".to_owned()) }
}

/// A thread's work: passes on to the agent what the old program says, until that has ended.
fn receive(predecessor: &Predecessor, mailbox: &Mailbox<Mail>) {
    predecessor.set_receive_timeout(Some(ARRIVAL_TIMEOUT));
    let mut is_told = false;
    loop {
        let Some(message) = predecessor.next() else {
            if is_told {
                break;
            }
            // It has ended, which the next look shows, or takes too long.
            mailbox.send(Mail::Note(Box::new(Note::Late)));
            is_told = true;
            predecessor.set_receive_timeout(None);
            continue;
        };
        let Some(note) = Note::read(&message.line(), message) else {
            log::error!("upgrade: a message of the old program is lost");
            continue;
        };
        if let Note::Told = note {
            is_told = true;
            predecessor.set_receive_timeout(None);
        }
        mailbox.send(Mail::Note(Box::new(note)));
    }
    mailbox.send(Mail::Note(Box::new(Note::Gone)));
}

impl Agent {
    /// Tells the old program that this one serves, and what; takes what it passes on, in a thread of
    /// its own.
    ///
    /// # Errors
    /// One sentence: it has ended.
    pub(in crate::agent) fn replace(&mut self, predecessor: Predecessor) -> Result<(), String> {
        let lost = |error| format!("the old program has ended: {error}");
        for app in &self.applications {
            let served = Served::of(&app.service, &app.registration);
            predecessor.serves(served.line()).map_err(lost)?;
        }
        predecessor.serving().map_err(lost)?;
        let predecessor = Arc::new(predecessor);
        let (theirs, mailbox) = (Arc::clone(&predecessor), Arc::clone(&self.mailbox));
        let receive = move || receive(&theirs, &mailbox);
        if let Err(error) = thread::Builder::new().name("upgrade".to_owned()).spawn(receive) {
            log::error!("the old program's bridges are lost: {error}");
            return Ok(());
        }
        self.replacing = Some(Replacing {
            predecessor,
            awaited: true,
            has_said_dialled: false,
            bridges: 0,
            connections: 0,
        });
        Ok(())
    }

    /// Whether the old program is still to say what it has: then nothing is dialled.
    pub(in crate::agent) fn awaits_predecessor(&self) -> bool {
        self.replacing.as_ref().is_some_and(|replacing| replacing.awaited)
    }

    /// Takes what the old program says.
    pub(in crate::agent) fn take_note(&mut self, note: Note) {
        match note {
            Note::Application(service, condition) => {
                let now = self.now();
                if let Some(app) = self.applications.get_mut(service) {
                    app.take_condition(&condition, now);
                }
            }
            Note::Token(service, place, token) => self.take_token(service, place, token),
            Note::Left(service, left) => self.take_left(service, &left),
            Note::Bridge(service, bridge, socket, bytes) => {
                self.take_bridge(service, &bridge, socket, &bytes);
            }
            Note::Connection(service, connection, socket) => {
                self.take_connection(service, &connection, socket);
            }
            Note::Told => self.begin_to_dial(),
            Note::Late => {
                log::warn!("upgrade: the old program does not say what it has");
                self.begin_to_dial();
            }
            Note::Passed => {
                if let Some(Replacing { bridges, connections, .. }) = &self.replacing {
                    log::info!(
                        "upgrade: {bridges} bridges have come from the old program, and \
                         {connections} connections to applications"
                    );
                }
            }
            Note::Gone => self.predecessor_gone(),
        }
    }

    fn begin_to_dial(&mut self) {
        if let Some(replacing) = &mut self.replacing {
            replacing.awaited = false;
        }
        self.listen_for_askers(true);
        self.maintain_now();
    }

    fn predecessor_gone(&mut self) {
        if let Some(Replacing { bridges, connections, .. }) = self.replacing.take() {
            log::info!(
                "upgrade: the old program has ended; {bridges} bridges have come from it, and \
                 {connections} connections to applications"
            );
        }
        for service in 0..self.applications.len() {
            self.take_left(service, &Left::default());
        }
        self.maintain_now();
    }

    /// The bridges that come have this token, by which they are deregistered; the next ones get it,
    /// too.
    fn take_token(&mut self, service: usize, place: Place, token: BackendToken) {
        if let Some(proxy) = self.proxy_at(service, place) {
            let plain = &self.applications[service].registration;
            self.proxies[proxy].take_token(token, plain);
            // The old program may have told it anything.
            self.tell_again(proxy);
        }
    }

    fn take_left(&mut self, service: usize, left: &Left) {
        if service >= self.applications.len() {
            return;
        }
        let app = &mut self.applications[service];
        app.tunnels_elsewhere = left.tunnels;
        app.slots.set_elsewhere(left.requests);
        if let Some(arbiter) = &mut app.arbiter {
            arbiter.set_elsewhere(left.requests);
        }
        if app.slots.has_queue() {
            self.freed.push_back(service);
        }
        for at in 0..self.proxies.len() {
            if self.proxies[at].application == service {
                self.proxies[at].elsewhere = 0;
                self.set_elsewhere_of(at, 0);
            }
        }
        for &LeftAt { place, bridges, requests, tunnels } in &left.proxies {
            if let Some(proxy) = self.proxy_at(service, place) {
                self.proxies[proxy].elsewhere = bridges;
                self.set_elsewhere_of(proxy, requests + tunnels);
            }
        }
        self.maintain_now();
    }

    /// The proxy at this place of a service.
    fn proxy_at(&mut self, service: usize, place: Place) -> Option<usize> {
        let known = self
            .proxies
            .iter()
            .position(|proxy| proxy.application == service && proxy.place == place);
        known.or_else(|| {
            // The name of the cluster may not have been looked up yet.
            let (clusters, proxies) = (&mut self.clusters, &mut self.proxies);
            let mut clusters = clusters.iter_mut();
            let cluster = clusters
                .find(|cluster| cluster.application == service && cluster.at_place == place.at)?;
            Some(cluster.member(place.member?, proxies))
        })
    }

    fn take_bridge(&mut self, service: usize, moved: &MovedBridge, socket: OwnedFd, bytes: &[u8]) {
        let &MovedBridge { proxy: place, address, extensions, stage, left } = moved;
        let Some(proxy) = self.proxy_at(service, place) else { return };
        let stage = match stage {
            MovedStage::Parked { ago } => {
                let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Stage::Parked { since: Millis(self.now().0.saturating_sub(ago)) }
            }
            MovedStage::Idle { begun } => Stage::Idle { begun },
        };
        let bridge = Bridge {
            proxy,
            application: service,
            address,
            extensions,
            deregistering: false,
            party: self.party(proxy),
            slot: false,
            tunnel: TunnelPlace::None,
            upstream: None,
            unread: None,
            stage,
        };
        let stream = TcpStream::from_std(socket.into());
        let Ok(key) = self.conns.insert(stream, address.ip(), Role::Bridge(bridge)) else {
            return log::warn!("a bridge of the old program is lost: the kernel cannot watch it");
        };
        self.conns[key].port = address.port();
        self.proxies[proxy].bridge_arrived();
        self.begin_to_listen(key);
        if let Some(replacing) = &mut self.replacing {
            replacing.bridges += 1;
        }
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.push(bytes, &mut ws.pool);
        self.arrived(key, left);
        if !self.is_offered(service) {
            // What the service's other bridges have been told holds for this one, too.
            self.deregister(|bridge| bridge.proxy == proxy && bridge.address == address);
            self.shut_down_one(key);
        }
    }

    fn take_connection(&mut self, application: usize, moved: &MovedConnection, socket: OwnedFd) {
        let &MovedConnection { peer, carried_body, last_had_body, client, left } = moved;
        let is_wanted = self.applications.get(application).is_some_and(|app| app.health.is_up());
        if !is_wanted || !self.is_offered(application) {
            return;
        }
        let state = UpstreamState::Idle;
        let upstream = Upstream { application, carried_body, last_had_body, client, state };
        let stream = TcpStream::from_std(socket.into());
        let Ok(key) = self.conns.insert(stream, peer, Role::Upstream(upstream)) else { return };
        if let Some(replacing) = &mut self.replacing {
            replacing.connections += 1;
        }
        let token = self.conns[key].token();
        let idle = &mut self.applications[application].idle;
        idle.insert(if last_had_body { 0 } else { idle.len() }, token);
        self.arrived(key, left);
    }

    /// A connection has come. It may be used before the poll reports what has come meanwhile.
    fn arrived(&mut self, key: usize, left: Option<Duration>) {
        if let Some(left) = left {
            // Zero would be none.
            self.conns.set_deadline(key, left.max(Duration::from_millis(1)));
        }
        self.conns[key].conn.expect_input();
        self.conns.requeue(key);
        // This program may have been replaced itself.
        self.pass_soon(key);
    }
}
