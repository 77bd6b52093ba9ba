//! Tunnels that go to a new program, or come from an old one (`doc/upgrade.md`): both connections at
//! once, at a moment when no byte of them is in a buffer or a pipe.
//!
//! A busy tunnel may have no such moment. So from time to time those that could not go rest: they
//! take nothing more, and what they have is passed on. One whose peer does not read stays.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::net::TcpStream;

use crate::bridge::swiftclient::BackendId;
use crate::bridge::{Registration, request};
use crate::config::{Destination, Serves, SiteServer};
use crate::exchange::{Exchange, Running};
use crate::process::channel::Channel;
use crate::time::Micros;

use super::access_log::Record;
use super::backend_pool::AT_ONCE;
use super::backends::Key;
use super::bridge_store::Keeping;
use super::closing::End;
use super::listeners::SwiftclientListener;
use super::replaced::{bridge_note, client_note, micros, registration_of};
use super::replacing::{LIMITS, client_of};
use super::request_ids::CurrentId;
use super::role::{Begun, Bridge, Client, Origin, Role, Server};
use super::upgrade::moved_tunnel::{MovedEnd, MovedOrigin, MovedTunnel, TunnelArrival};
use super::upgrade::notes::read_address;
use super::upgrade::progress::Rest;
use super::worker::Worker;

/// Most tunnels that go in one turn: the others have work, too.
const TUNNELS_PER_TURN: usize = 128;

/// The client's connection of a tunnel, the backend's, and which of them have sent their FIN.
struct AtRest {
    keys: [usize; 2],
    ended: [bool; 2],
}

impl Worker {
    /// Passes on the tunnels that can go now.
    pub(super) fn pass_tunnels(&mut self, channel: &Channel) {
        let mut left = self.exchanges.keys_with(|running| running.exchange.is_tunnel());
        let mut count = 0;
        left.retain(|&exchange| {
            let Some(at_rest) = self.at_rest(exchange) else { return true };
            // After a message that was not taken no other is tried in this turn.
            if self.replaced.again || count == TUNNELS_PER_TURN {
                self.replaced.again = true;
                return true;
            }
            if !self.send_tunnel(channel, exchange, &at_rest) {
                self.replaced.again = true;
                return true;
            }
            count += 1;
            self.depart_tunnel(exchange, at_rest.keys);
            false
        });
        self.stats().tunnels.set(left.len() as u64);
        match self.replaced.rests.look(!left.is_empty(), self.conns.now().millis()) {
            Rest::Begin => self.set_rests(&left, true),
            Rest::End => self.set_rests(&left, false),
            Rest::Same => {}
        }
    }

    /// No tunnel rests any longer.
    pub(super) fn end_rests(&mut self) {
        let tunnels = self.exchanges.keys_with(|running| running.exchange.is_tunnel());
        self.set_rests(&tunnels, false);
    }

    fn set_rests(&mut self, tunnels: &[usize], rests: bool) {
        for &exchange in tunnels {
            let running = self.exchanges.get_mut(exchange);
            running.exchange.set_rests(rests);
            if !rests {
                self.conns.requeue(running.requester.key());
            }
        }
    }

    /// What is needed to pass a tunnel on; nothing if it cannot go now.
    fn at_rest(&mut self, exchange: usize) -> Option<AtRest> {
        let running = self.exchanges.get_mut(exchange);
        let keys = [running.requester.key(), running.responder.key()];
        // One whose bridge comes through an old program ends soon, and stays.
        let bridge = self.conns.role(keys[1]).and_then(Role::bridge);
        if bridge.is_some_and(|bridge| bridge.through_old.is_some()) {
            return None;
        }
        let running = self.exchanges.get_mut(exchange);
        let [client, backend] = keys.map(|key| &self.conns[key].conn);
        let ended = running.exchange.ends_at_rest(client, backend)?;
        Some(AtRest { keys, ended })
    }

    fn send_tunnel(&mut self, channel: &Channel, exchange: usize, at_rest: &AtRest) -> bool {
        let [client_key, backend_key] = at_rest.keys;
        let passed = self.exchanges.get_mut(exchange).exchange.traffic();
        let (Some(Role::Requesting { client, ticket, .. }), Some(Role::Responding { bridge, .. })) =
            (self.conns.role(client_key), self.conns.role(backend_key))
        else {
            return false;
        };
        let (origin, registration) = match &bridge.origin {
            Origin::Registered { .. } => (MovedOrigin::Registered, registration_of(bridge)),
            Origin::Swiftclient(backend) => {
                let SwiftclientListener { site, address, .. } = &*backend.listener;
                let (site, at) = (site.to_string(), address.to_string());
                let id = backend.id().to_string();
                (MovedOrigin::Swiftclient { site, at, id }, String::new())
            }
            Origin::Dialled(permit) => {
                let (site, to) = (permit.server.site().to_owned(), permit.server.to.to_string());
                (MovedOrigin::Server { site, to }, String::new())
            }
        };
        let record = client.record.as_deref().filter(|record| record.is_open).map(Record::parts);
        let (record, texts) = record.unzip();
        let end = |key: usize, has_ended| {
            let connection = &self.conns[key];
            let (peer, socket_peer) = (connection.peer, connection.socket_peer());
            let announced_by = (socket_peer != peer).then_some(socket_peer);
            MovedEnd { peer, port: connection.port, announced_by, has_ended }
        };
        let moved = MovedTunnel {
            client_end: end(client_key, at_rest.ended[0]),
            backend_end: end(backend_key, at_rest.ended[1]),
            spec: Some(bridge.route.spec().clone()).filter(|_| origin != MovedOrigin::Registered),
            origin,
            bridge: bridge_note(bridge),
            client: client_note(client, Some(*ticket)),
            id: client.id.as_ref().map(|id| id.to_string()),
            passed,
            until: self.conns.deadline(client_key).map(micros),
            record,
            registration: registration.len(),
        };
        let bytes = [registration.as_bytes(), texts.unwrap_or_default()].concat();
        let sockets = [client_key, backend_key].map(|key| self.conns[key].conn.as_fd());
        channel.send(&moved.line(), &bytes, &sockets).is_ok()
    }

    /// A tunnel is the new program's from now on.
    fn depart_tunnel(&mut self, exchange: usize, keys: [usize; 2]) {
        self.exchanges.take(exchange, &mut self.conns.ws);
        self.stats().exchange_ended();
        keys.into_iter().for_each(|key| self.depart(key));
    }

    /// Takes a tunnel from the other program. It is let in whatever the settings are by now, as a
    /// reload ends no tunnel; one whose key is no longer good is cut after `revoke-grace`.
    pub(super) fn arrive_tunnel(&mut self, arrival: TunnelArrival) {
        let (registration, texts) = arrival.parts();
        let registration = match arrival.moved.origin {
            MovedOrigin::Registered => {
                let registration = request::parse_moved(registration, &LIMITS).ok().flatten();
                registration.map(|again| arrival.moved.bridge.registration_again(again))
            }
            _ => None,
        };
        let record = arrival.moved.record.as_ref().and_then(|line| Record::of_parts(line, texts));
        let TunnelArrival { client: client_socket, backend: backend_socket, moved, .. } = arrival;
        let (client, Some(ticket)) = client_of(&moved.client) else { return };
        let Some(client_key) = self.insert_end(client_socket, &moved.client_end) else { return };
        let Some(backend_key) = self.insert_end(backend_socket, &moved.backend_end) else {
            return self.end(client_key, End::Close);
        };
        let keeping = self.keep_again(backend_key, moved.bridge.slot);
        let bridge = self.bridge_again(backend_key, &moved, registration.as_ref(), keeping);
        let Some(bridge) = bridge else {
            log::error!("upgrade: a tunnel is lost: its backend is unknown");
            self.end(client_key, End::Close);
            return self.end(backend_key, End::Close);
        };
        self.stats().begun.add(1);
        bridge.count_clients(1);
        let now = self.conns.now().millis();
        let exchange = self.exchanges.insert(Running {
            exchange: Exchange::resumed(
                self.conns[client_key].peer,
                moved.passed,
                &self.exchange_config,
            ),
            requester: self.conns[client_key].token(),
            responder: self.conns[backend_key].token(),
            data: Begun::with(&bridge, now),
        });
        if bridge.loss(self.config.keyring.as_ref()).is_some() {
            let until = now + self.settings().revoke_grace;
            self.graces.add(self.conns[backend_key].token(), until);
        }
        self.change_role(backend_key, |_| Role::Responding { bridge, exchange });
        let address = self.address_permit(client_key);
        let id = moved.id.map(|id| Box::new(CurrentId::Kept(id.into())));
        let record = record.filter(|_| self.config.access_log.is_some());
        let client = Client { address, record, id, ..client };
        self.change_role(client_key, |_| Role::Requesting { client, ticket, exchange });
        // The FIN that has been sent for the other end's.
        for (key, other) in [(client_key, &moved.backend_end), (backend_key, &moved.client_end)] {
            if other.has_ended {
                self.conns[key].conn.shut_down();
            }
        }
        if let Some(until) = moved.until {
            let left = Micros(until).millis().since(now);
            self.conns.set_deadline(client_key, left.max(AT_ONCE));
        }
        self.conns.requeue(client_key);
    }

    /// Takes one end of a tunnel into the tables, for now as a connection of no kind. `None` if the
    /// kernel cannot watch it.
    fn insert_end(&mut self, socket: OwnedFd, end: &MovedEnd) -> Option<usize> {
        let client = Client::new(Serves::Bridges, self.conns.now().millis());
        let role = Role::ReadingHead { client, retry: None };
        let peer = end.announced_by.unwrap_or(end.peer);
        let Ok(key) = self.insert(TcpStream::from_std(socket.into()), peer, role) else {
            log::warn!("a tunnel of the old program is lost: the kernel cannot watch it");
            return None;
        };
        if end.announced_by.is_some() {
            self.conns[key].announce(end.peer);
        }
        self.conns[key].port = end.port;
        // It is used before the poll reports what has come meanwhile.
        self.conns[key].conn.expect_input();
        Some(key)
    }

    /// The bridge of a tunnel, in no bound, but in all counts.
    fn bridge_again(
        &mut self,
        key: usize,
        moved: &MovedTunnel,
        registration: Option<&Registration>,
        keeping: Keeping,
    ) -> Option<Box<Bridge>> {
        let now = self.conns.now();
        let (route, origin, of) = match &moved.origin {
            MovedOrigin::Registered => {
                let registration = registration?;
                let (origin, grants) = self.origin_again(key, registration);
                let route = self.join_again(&self.spec_of(registration, &grants, None));
                let of = match registration.backend {
                    Some(token) => Key::Token(token),
                    None => Key::Address(self.conns[key].peer, registration.instance.clone()),
                };
                (route, origin, of)
            }
            MovedOrigin::Swiftclient { site, at, id } => {
                let id = BackendId::read(id)?;
                let listener = match self.swiftclient_listener(site, at) {
                    Some(listener) => listener,
                    None => Arc::new(SwiftclientListener {
                        site: site.as_str().into(),
                        spec: moved.spec.clone()?,
                        address: read_address(at)?,
                        closed: AtomicBool::new(true),
                    }),
                };
                let route = self.join_again(&listener.spec);
                let peer = self.conns[key].peer;
                let backend = self.shared.swiftclient_backends.enter(listener, id, peer);
                let of = backend.key();
                (route, Origin::Swiftclient(backend), of)
            }
            MovedOrigin::Server { site, to } => {
                let config = Arc::clone(&self.config);
                let is_it =
                    |server: &&Arc<Server>| server.site() == site && server.to.to_string() == *to;
                let server = match config.pools.servers().find(is_it) {
                    Some(server) => Arc::clone(server),
                    None => {
                        // One that is spoken to by TLS does not come.
                        let to = SiteServer { to: Destination::parse(to).ok()?, tls: false };
                        let route = self.join_again(moved.spec.as_ref()?);
                        Server::removed(to, site, route, &config.pools, now)
                    }
                };
                let of = Key::Server(server.shown());
                let permit = server.permit_of_tunnel();
                (Arc::clone(&server.route), Origin::Dialled(permit), of)
            }
        };
        let is_dialled = matches!(origin, Origin::Dialled(_));
        let share = if is_dialled { None } else { self.shared.bridges.enter(usize::MAX) };
        let backend = self.shared.backends.of(of, now.millis());
        let named = registration.and_then(|registration| registration.instance.as_ref());
        let mut bridge = Box::new(Bridge {
            route,
            group: None,
            instance: named.map(|name| backend.see_instance(name)),
            _joined: backend.join(),
            _bearer: backend.join_bearers(origin.shown()),
            backend,
            origin,
            handshake: moved.bridge.handshake(),
            served: moved.bridge.served,
            parked_at: moved.bridge.parked_at(),
            carried_body: moved.bridge.carried_body,
            dismissed: false,
            _share: share,
            on_trial: false,
            keeping,
            through_old: None,
        });
        let (peer, hosts) = (self.conns[key].peer, bridge.route.spec().patterns());
        bridge.backend.see(peer, hosts, bridge.first_key());
        bridge.backend.see_agent(registration.and_then(|of| of.agent.as_deref()));
        bridge.join_instance();
        self.shun_drained(&bridge, peer);
        bridge.join_group();
        bridge.dismissed = self.must_dismiss(&bridge, peer);
        Worker::limit_again(&self.shared, &mut bridge);
        Some(bridge)
    }
}
