//! After the program has replaced another (`doc/upgrade.md`): the other one's connections come here.

use std::cell::Cell;
use std::sync::Arc;

use mio::net::TcpStream;

use crate::bridge::swiftclient::BackendId;
use crate::bridge::{Registration, request};
use crate::config::Serves;
use crate::http::Limits;
use crate::process::channel::Message;
use crate::routing::{InstanceId, QueuePos, RouteSpec};
use crate::time::{Micros, Millis};

use super::closing::End;
use super::listeners::SwiftclientListener;
use super::registration::Entry;
use super::role::{Client, Handshake, Role, Ticket, Tries};
use super::shares::AddressPermit;
use super::through_old::ThroughOld;
use super::upgrade::notes::{self, Arrival, MovedBridge, MovedClient, MovedRole};
use super::worker::Worker;

/// What a BRIDGE request may have that the other program has taken.
pub(super) const LIMITS: Limits =
    Limits { head: 128 << 10, fields: 1000, target: 8 << 10, behind_proxy: false };

impl Worker {
    /// Accepts nothing before the other program's bridges are here.
    pub(super) fn await_arrivals(&mut self) {
        self.acceptor.suspend(self.conns.registry());
    }

    /// They are here, or nobody accepts in this program's place any more.
    pub(super) fn begin_accepting(&mut self) {
        if let Err(error) = self.acceptor.resume_suspended(self.conns.registry()) {
            log::error!("worker {}: cannot accept: {error}", self.index);
        }
    }

    /// The other program has bridges for these hosts and paths, or has had some lately: requests for
    /// them are to wait, and so are those for these instances.
    pub(super) fn expect_route(&mut self, spec: &RouteSpec, instances: &[(InstanceId, Micros)]) {
        // Of a site's the settings say whether they are known.
        if !spec.shown_paths().starts_with('/') && self.shared.directory.route(spec).is_none() {
            return;
        }
        if let Ok(joined) = self.join(spec) {
            for (id, last) in instances {
                joined.route.expect_instance(*id, *last);
            }
            joined.route.leave(self.conns.now());
            if joined.new {
                self.wake_others();
            }
        }
    }

    /// Takes the bridges of a message.
    pub(super) fn arrive_all(&mut self, message: Message) {
        let sent = message.files.len();
        let arrivals = notes::read_bridges(message);
        if arrivals.len() < sent {
            log::error!("upgrade: {} bridges are lost: they cannot be read", sent - arrivals.len());
        }
        arrivals.into_iter().for_each(|arrival| self.arrive(arrival));
    }

    /// Takes a connection from the other program.
    pub(super) fn arrive(&mut self, Arrival { socket, moved, bytes }: Arrival) {
        let stream = TcpStream::from_std(socket.into());
        let (mut client, waits) = match &moved.role {
            MovedRole::Client(client) => client_of(client),
            MovedRole::Bridge(_) | MovedRole::Swiftclient { .. } => {
                let now = self.conns.now().millis();
                (Client::new(Serves::Bridges, now), None)
            }
        };
        if let Some(relayed) = moved.relayed {
            client.is_https = true;
            let until = self.close_through_old_at();
            client.through_old = Some(Arc::new(ThroughOld { relayed, until }));
        }
        let peer = moved.announced_by.unwrap_or(moved.peer);
        let Ok(key) = self.insert(stream, peer, Role::ReadingHead { client, retry: waits }) else {
            log::warn!("a connection of the old program is lost: the kernel cannot watch it");
            return;
        };
        if moved.announced_by.is_some() {
            self.conns[key].announce(moved.peer);
        }
        self.conns[key].port = moved.port;
        // It may be used before the poll reports what has come meanwhile.
        self.conns[key].conn.expect_input();
        let mut entry_of = |bridge: MovedBridge| {
            let keeping = self.keep_again(key, bridge.slot);
            Entry::Moved(bridge, Cell::new(keeping))
        };
        match moved.role {
            MovedRole::Client(client) => self.receive_client(key, &client, &bytes),
            MovedRole::Bridge(bridge) => match request::parse_moved(&bytes, &LIMITS) {
                Ok(Some(registration)) => {
                    let registration = bridge.registration_again(registration);
                    let entry = entry_of(bridge);
                    self.register_as(key, &registration, entry);
                }
                _ => {
                    drop(entry_of(bridge));
                    self.end(key, End::Close);
                }
            },
            MovedRole::Swiftclient { site, at, id, bridge } => {
                let entry = entry_of(bridge);
                match (self.swiftclient_listener(&site, &at), BackendId::read(&id)) {
                    (Some(listener), Some(id)) => {
                        self.admit_swiftclient(key, listener, id, entry);
                    }
                    // The new settings have no such listener.
                    _ => self.end(key, End::Close),
                }
            }
        }
    }

    /// The address of a site where a swiftclient backend came in, if the settings have it.
    pub(super) fn swiftclient_listener(
        &self,
        site: &str,
        at: &str,
    ) -> Option<Arc<SwiftclientListener>> {
        let is_it = |here: &&Arc<SwiftclientListener>| {
            *here.site == *site && here.address.to_string() == at
        };
        self.config.sites.listeners().find(is_it).cloned()
    }

    /// The place of a client in the count of its address. It was let in by the other program,
    /// whatever the settings are by now.
    pub(super) fn address_permit(&self, key: usize) -> Option<Box<AddressPermit>> {
        match self.settings().connections_per_address {
            0 => None,
            _ => self.shared.addresses.permit(self.conns[key].peer, usize::MAX),
        }
    }

    fn receive_client(&mut self, key: usize, moved: &MovedClient, bytes: &[u8]) {
        let permit = self.address_permit(key);
        if let Some(client) = self.conns.role_mut(key).and_then(Role::client_mut) {
            client.address = permit;
        }
        let is_idle = moved.requests > 0 && !moved.head_begun;
        let settings = self.settings();
        let timeout = if is_idle { settings.keepalive_timeout } else { settings.head_timeout };
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.push(bytes, &mut ws.pool);
        connection.conn.expect_input();
        self.conns.set_deadline(key, timeout);
        self.conns.requeue(key);
    }
}

/// A client, and the place of its request if that waits.
pub(super) fn client_of(moved: &MovedClient) -> (Client, Option<Ticket>) {
    let client = Client {
        requests: moved.requests,
        head_begun: moved.head_begun,
        redirect_https: moved.redirect_https,
        ..Client::new(moved.serves, Micros(moved.since).millis())
    };
    let ticket = moved.waits.map(|waits| Ticket {
        pos: QueuePos::of(Micros(waits.since), waits.tie),
        tries: Tries {
            undelivered: waits.undelivered,
            delivered: waits.delivered,
            failed: waits.failed,
            last: None,
            contradictions: 0,
        },
    });
    (client, ticket)
}

impl MovedBridge {
    /// Its registration, in which its keys are: proven ones if the other program has found them so.
    pub(super) fn registration_again(&self, registration: Registration) -> Registration {
        match registration {
            Registration { keys, proven, .. } if self.is_proven && proven.is_empty() => {
                Registration { proven: keys, keys: proven, ..registration }
            }
            registration => registration,
        }
    }

    /// Where it is in the handshake.
    pub(super) fn handshake(&self) -> Handshake {
        match self.is_fresh {
            true => Handshake::Fresh,
            false => Handshake::Reused { until: self.until.map(|at| Micros(at).millis()) },
        }
    }

    /// When it was parked.
    pub(super) fn parked_at(&self) -> Millis {
        Micros(self.parked_at).millis()
    }
}
