//! What the two programs tell each other (`doc/upgrade.md`, "The messages"): each message is a line
//! of JSON, with bytes behind it for some.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::bridge::extensions::{AGENT, BACKEND, EXTENSIONS};
use crate::bridge::instance::{INSTANCE, InstanceName};
use crate::bridge::{BackendToken, HostKey, pattern};
use crate::config::{Address, PathPattern, Serves};
use crate::http::Predicates;
use crate::process::channel::Message;
use crate::routing::{InstanceId, RouteSpec};
use crate::time::Micros;
use crate::tls::Tickets;

use super::super::certificates::Shown;
use super::super::operator::Selector;
use super::super::role::Announced;
use super::super::sticky_keys::{SECRET, StickyKeys};
use super::super::through_old::Relayed;
use super::old_programs::Busy;

/// The version of these messages. A program that replaces one with another version says no. It is
/// raised when a program of the version before would lose what a message carries.
pub(in crate::proxy) const FORMAT: u64 = 3;

/// Of how many backends a message says what is in progress: it must not become too long.
const BUSY_BACKENDS: usize = 1_000;

/// All bridges that were idle have gone over; from now on the new program may accept.
pub(in crate::proxy) const BRIDGES_GONE: &str = r#"{"kind":"bridges-gone"}"#;

/// Most instances of a route that a message names; others follow in a message more.
pub(in crate::proxy) const INSTANCES: usize = 1_000;

/// A route, which of its bridges have something in progress, and the instances that requests may wait
/// for, with the time until which each had a bridge.
pub(in crate::proxy) fn route(
    spec: &RouteSpec,
    busy: &Busy,
    instances: &[(InstanceId, Micros)],
) -> String {
    let mut line = spec_to_json(spec);
    line["kind"] = "route".into();
    line["busy"] = busy.bridges.into();
    let of = busy.of.iter().take(BUSY_BACKENDS);
    line["of"] = of.map(|(token, count)| json!([token.digits(), count])).collect();
    let instances = instances.iter().map(|(id, last)| json!([id.number(), last.0]));
    line["instances"] = instances.collect();
    line.to_string()
}

/// Reads what [`route`] has written of the instances; a program before this one says nothing of them.
pub(in crate::proxy) fn read_instances(line: &Value) -> Vec<(InstanceId, Micros)> {
    let one = |of: &Value| Some((InstanceId::new(of[0].as_u64()?), Micros(of[1].as_u64()?)));
    line["instances"].as_array().into_iter().flatten().filter_map(one).collect()
}

/// Reads what [`route`] has written of the bridges.
pub(in crate::proxy) fn read_busy(line: &Value) -> Busy {
    let count = |count: &Value| count.as_u64().and_then(|count| u32::try_from(count).ok());
    let one = |of: &Value| Some((BackendToken::parse(of[0].as_str()?.as_bytes())?, count(&of[1])?));
    Busy {
        bridges: count(&line["busy"]).unwrap_or(0),
        of: line["of"].as_array().into_iter().flatten().filter_map(one).collect(),
    }
}

/// Which client of the old program a part belongs to: its worker, and its place there.
pub(in crate::proxy) type PartOf = (usize, usize);

/// The beginning of what a client has sent, or more of it from this place on, if it does not fit
/// into one message; the rest comes with its connection.
pub(in crate::proxy) fn part((worker, key): PartOf, at: usize) -> String {
    json!({ "kind": "part", "of": [worker, key], "at": at }).to_string()
}

/// Reads the same.
pub(in crate::proxy) fn read_part(line: &Value) -> Option<(PartOf, usize)> {
    let number = |value: &Value| value.as_u64()?.try_into().ok();
    Some(((number(&line["of"][0])?, number(&line["of"][1])?), number(&line["at"])?))
}

/// The keys of session tickets, for a program that makes its own; nothing if they are from a file.
pub(in crate::proxy) fn tickets(tickets: &Tickets) -> Option<Value> {
    let keys: Vec<String> = tickets.secrets().iter().map(|key| hex(key)).collect();
    (!keys.is_empty()).then(|| json!({ "kind": "tickets", "keys": keys }))
}

/// Reads the same.
pub(in crate::proxy) fn read_tickets(line: &Value) -> Option<Vec<[u8; 32]>> {
    let key = |key: &Value| unhex(key.as_str()?)?.try_into().ok();
    line["keys"].as_array()?.iter().map(key).collect()
}

/// The secrets of cookies, for a program that makes its own; nothing if they are from a file.
pub(in crate::proxy) fn sticky_keys(keys: &StickyKeys) -> Option<Value> {
    let keys: Vec<String> = keys.own().map(hex).collect();
    (!keys.is_empty()).then(|| json!({ "kind": "sticky", "keys": keys }))
}

/// Reads the same.
pub(in crate::proxy) fn read_sticky_keys(line: &Value) -> Option<Vec<[u8; SECRET]>> {
    read_tickets(line)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(|two| pair(two).filter(|_| two.len() == 2)).collect()
}

/// Longest chain of certificates that goes over, in bytes: with it in hexadecimal digits a message
/// still has room for a request. Who has shown a longer one must connect again.
const MOST_CERTIFICATES: usize = 16 << 10;

impl Relayed {
    fn to_json(&self) -> Value {
        let chain = self.shown.as_ref().map_or(&[][..], |shown| shown.certificate.chain());
        let length: usize = chain.iter().map(|part| part.len()).sum();
        let chain = chain.iter().take(if length <= MOST_CERTIFICATES { usize::MAX } else { 0 });
        json!({
            "server_name": self.server_name.as_deref(),
            "asked_at": self.asked_at.as_deref(),
            "shown": self.has_shown,
            "certificates": chain.map(|part| hex(part)).collect::<Vec<_>>(),
        })
    }

    /// `None` if it is not of this format.
    fn read(line: &Value) -> Option<Relayed> {
        let text = |name: &str| line[name].as_str().map(Arc::from);
        let (server_name, asked_at) = (text("server_name"), text("asked_at"));
        let chain = line["certificates"].as_array()?.iter().map(|part| unhex(part.as_str()?));
        let chain: Vec<CertificateDer<'_>> =
            chain.map(|part| part.map(CertificateDer::from)).collect::<Option<_>>()?;
        let shown = asked_at.as_ref().and_then(|listener| Shown::read(&chain, listener));
        let has_shown = line["shown"].as_bool()?;
        Some(Relayed { server_name, asked_at, has_shown, shown })
    }
}

/// What is in front of an expression in [`RouteSpec::shown_paths`].
const EXPRESSION: &str = " ~ ";

pub(super) fn spec_to_json(spec: &RouteSpec) -> Value {
    let hosts: Vec<&str> = spec.patterns().iter().map(|name| &**name).collect();
    let mut line =
        json!({ "hosts": hosts, "paths": spec.shown_paths(), "confined": spec.is_confined() });
    if let Some(predicates) = spec.predicates() {
        line["predicates"] = predicates.to_string().into();
    }
    line
}

/// How a message with several bridges begins.
const BRIDGES: &str = r#"{"kind":"bridges","bridges":"#;

/// How many bytes of requests fill a batch: with the longest request behind them they still fit into
/// a message.
const BATCH_BYTES: usize = 16 << 10;

/// Bridges that go over in one message: thousands of messages would cost more than what is in them.
#[derive(Default)]
pub(in crate::proxy) struct Batch {
    bridges: Vec<Value>,
    /// Their BRIDGE requests, one after the other.
    bytes: Vec<u8>,
}

impl Batch {
    /// Adds a bridge and its BRIDGE request.
    pub(in crate::proxy) fn add(&mut self, moved: &Moved, registration: &[u8]) {
        let mut bridge = moved.to_json();
        bridge["length"] = registration.len().into();
        self.bridges.push(bridge);
        self.bytes.extend_from_slice(registration);
    }

    /// Whether it is to be sent before another is added.
    pub(in crate::proxy) fn is_full(&self, most: usize) -> bool {
        self.bridges.len() >= most || self.bytes.len() >= BATCH_BYTES
    }

    /// The line and the bytes of the message.
    pub(in crate::proxy) fn message(self) -> (String, Vec<u8>) {
        (format!("{BRIDGES}{}}}", Value::Array(self.bridges)), self.bytes)
    }
}

/// Whether it is such a message. To find that out costs less than to read it.
pub(in crate::proxy) fn has_bridges(message: &Message) -> bool {
    message.bytes.starts_with(BRIDGES.as_bytes())
}

/// The bridges of such a message; fewer than there were if it is not of this format, or if no
/// descriptors were left for them.
pub(in crate::proxy) fn read_bridges(message: Message) -> Vec<Arrival> {
    let (line, mut rest) = message.parts();
    let line: Value = serde_json::from_slice(line).unwrap_or_default();
    let listed = line["bridges"].as_array().into_iter().flatten();
    let mut read = Vec::new();
    for bridge in listed {
        let length = bridge["length"].as_u64().and_then(|length| usize::try_from(length).ok());
        let Some((bytes, more)) = length.and_then(|length| rest.split_at_checked(length)) else {
            break;
        };
        rest = more;
        let Some(moved) = Moved::read(bridge) else { break };
        read.push((moved, bytes.to_vec()));
    }
    let with_sockets = read.into_iter().zip(message.files);
    with_sockets.map(|((moved, bytes), socket)| Arrival { socket, moved, bytes }).collect()
}

/// Reads what [`route`] has written.
pub(in crate::proxy) fn read_route(line: &Value) -> Option<RouteSpec> {
    let hosts = line["hosts"].as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
    if !hosts.iter().all(|host| pattern::parse(host.as_bytes()).is_ok()) {
        return None;
    }
    let paths = line["paths"].as_str()?;
    let spec = match paths.strip_prefix(EXPRESSION) {
        Some(expression) => {
            RouteSpec::matching(hosts, PathPattern::new(expression).ok()?.regex().clone())
        }
        None => RouteSpec::new(hosts, paths),
    };
    let spec = match line["predicates"].as_str() {
        Some(shown) => spec.only_if(Predicates::read(shown)?),
        None => spec,
    };
    Some(if line["confined"].as_bool()? { spec.confined() } else { spec })
}

/// Reads what [`Address`] shows.
pub(in crate::proxy) fn read_address(shown: &str) -> Option<Address> {
    match shown.strip_prefix("unix:") {
        Some(path) => Some(Address::Unix(path.into())),
        None => Address::parse(shown).ok(),
    }
}

/// What an operator has drained.
pub(in crate::proxy) fn selector(selector: &Selector) -> Value {
    match selector {
        Selector::Route(spec) => json!({ "route": spec_to_json(spec) }),
        Selector::Host(host) => json!({ "host": host }),
        Selector::Address(address) => json!({ "address": address.to_string() }),
        Selector::Backend(id) => json!({ "backend": id }),
        Selector::Key(name) => json!({ "key": name }),
    }
}

/// Reads what [`selector`] has written.
pub(in crate::proxy) fn read_selector(line: &Value) -> Option<Selector> {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    if let Some(host) = text("host") {
        return Some(Selector::Host(host));
    }
    if let Some(address) = text("address") {
        return address.parse().ok().map(Selector::Address);
    }
    if let Some(id) = text("backend") {
        return Some(Selector::Backend(id));
    }
    if let Some(name) = text("key") {
        return Some(Selector::Key(name));
    }
    read_route(&line["route"]).map(Selector::Route)
}

/// The BRIDGE request of a bridge, said again: so the new program decides by its own settings and
/// secrets whether it takes it.
pub(in crate::proxy) fn registration<'k>(
    spec: &RouteSpec,
    keys: impl Iterator<Item = &'k HostKey>,
    announced: Option<Announced>,
    agent: Option<&str>,
    instance: Option<&InstanceName>,
) -> String {
    let mut text = format!("BRIDGE {} HTTP/1.1\r\n", spec.shown_paths());
    for host in spec.patterns() {
        let _ = write!(text, "Host: {host}\r\n");
    }
    for (name, value) in spec.predicates().map(Predicates::fields).unwrap_or_default() {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    for key in keys {
        let _ = write!(text, "Host-Key: {}\r\n", key.text());
    }
    if let Some(Announced { token, uses }) = announced {
        text += &token.field(BACKEND);
        let listed = [
            (uses.undelivered, "undelivered"),
            (uses.receipts, "receipts"),
            (uses.retries, "retries"),
            (uses.probes, "probes"),
            (uses.places, "places"),
        ];
        let listed: Vec<&str> =
            listed.iter().filter(|(uses, _)| *uses).map(|(_, name)| *name).collect();
        let _ = write!(text, "{EXTENSIONS}: {}\r\n", listed.join(", "));
    }
    if let Some(agent) = agent {
        let _ = write!(text, "{AGENT}: {agent}\r\n");
    }
    if let Some(instance) = instance {
        let _ = write!(text, "{INSTANCE}: {instance}\r\n");
    }
    text + "\r\n"
}

/// A connection that goes over, with its socket.
pub(in crate::proxy) struct Moved {
    pub(in crate::proxy) peer: IpAddr,
    pub(in crate::proxy) port: u16,
    /// The socket's peer, if that has announced `peer` in a PROXY header.
    pub(in crate::proxy) announced_by: Option<IpAddr>,
    /// The socket is the end of a relay, and this is known of its TLS.
    pub(in crate::proxy) relayed: Option<Relayed>,
    pub(in crate::proxy) role: MovedRole,
}

/// A connection that comes from the other program.
pub(in crate::proxy) struct Arrival {
    pub(in crate::proxy) socket: OwnedFd,
    pub(in crate::proxy) moved: Moved,
    pub(in crate::proxy) bytes: Vec<u8>,
}

/// What the connection is. Times are in microseconds of the old program's clock, which the new one
/// goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum MovedRole {
    /// An idle bridge; the message has its BRIDGE request.
    Bridge(MovedBridge),
    /// The same of a swiftclient backend that came to this address of a site.
    Swiftclient { site: String, at: String, id: String, bridge: MovedBridge },
    /// A client between two requests, or in the middle of a head, or with a request that waits; the
    /// message has the bytes that it has sent.
    Client(MovedClient),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MovedBridge {
    /// It has served no request, and so must be sent a 101 first.
    pub(in crate::proxy) is_fresh: bool,
    /// When its keep-alive timeout is about to end, if it has one.
    pub(in crate::proxy) until: Option<u64>,
    pub(in crate::proxy) parked_at: u64,
    pub(in crate::proxy) served: u32,
    pub(in crate::proxy) carried_body: bool,
    /// Its keys were proven, and not sent.
    pub(in crate::proxy) is_proven: bool,
    /// Its slot in the table of the bridges that systemd keeps, if it does. Then the connection must
    /// be shut down before it is closed.
    pub(in crate::proxy) slot: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MovedClient {
    pub(in crate::proxy) serves: Serves,
    pub(in crate::proxy) requests: u32,
    pub(in crate::proxy) head_begun: bool,
    pub(in crate::proxy) redirect_https: Option<u16>,
    pub(in crate::proxy) since: u64,
    pub(in crate::proxy) waits: Option<MovedTicket>,
    /// So many bytes of what it has sent have come before, in parts.
    pub(in crate::proxy) before: Option<(PartOf, usize)>,
}

/// The place of a request in the order of arrival, and its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MovedTicket {
    pub(in crate::proxy) since: u64,
    pub(in crate::proxy) tie: u64,
    pub(in crate::proxy) undelivered: u8,
    pub(in crate::proxy) delivered: u8,
    pub(in crate::proxy) failed: u8,
}

const SERVES: [(Serves, &str); 3] =
    [(Serves::Both, "both"), (Serves::Clients, "clients"), (Serves::Bridges, "bridges")];

impl Moved {
    /// A message with this connection alone.
    pub(in crate::proxy) fn line(&self) -> String {
        let mut line = self.to_json();
        line["kind"] = "connection".into();
        line.to_string()
    }

    fn to_json(&self) -> Value {
        let mut line = json!({
            "peer": self.peer.to_string(),
            "port": self.port,
            "announced_by": self.announced_by.map(|ip| ip.to_string()),
        });
        if let Some(relayed) = &self.relayed {
            line["relayed"] = relayed.to_json();
        }
        match &self.role {
            MovedRole::Bridge(bridge) => line["bridge"] = bridge.to_json(),
            MovedRole::Swiftclient { site, at, id, bridge } => {
                line["swiftclient"] = json!({ "site": site, "at": at, "id": id });
                line["bridge"] = bridge.to_json();
            }
            MovedRole::Client(client) => line["client"] = client.to_json(),
        }
        line
    }

    /// `None` if it is not of this format.
    pub(in crate::proxy) fn read(line: &Value) -> Option<Moved> {
        let ip = |name: &str| line[name].as_str().and_then(|text| text.parse().ok());
        let bridge = || MovedBridge::read(&line["bridge"]);
        let role = match (&line["client"], &line["swiftclient"]) {
            (Value::Null, Value::Null) => MovedRole::Bridge(bridge()?),
            (Value::Null, of) => MovedRole::Swiftclient {
                site: of["site"].as_str()?.to_owned(),
                at: of["at"].as_str()?.to_owned(),
                id: of["id"].as_str()?.to_owned(),
                bridge: bridge()?,
            },
            (client, _) => MovedRole::Client(MovedClient::read(client)?),
        };
        Some(Moved {
            peer: ip("peer")?,
            port: line["port"].as_u64()?.try_into().ok()?,
            announced_by: ip("announced_by"),
            relayed: match &line["relayed"] {
                Value::Null => None,
                relayed => Some(Relayed::read(relayed)?),
            },
            role,
        })
    }
}

impl MovedBridge {
    pub(super) fn to_json(self) -> Value {
        json!({
            "fresh": self.is_fresh,
            "until": self.until,
            "parked_at": self.parked_at,
            "served": self.served,
            "carried_body": self.carried_body,
            "proven": self.is_proven,
            "slot": self.slot,
        })
    }

    pub(super) fn read(line: &Value) -> Option<MovedBridge> {
        Some(MovedBridge {
            is_fresh: line["fresh"].as_bool()?,
            until: line["until"].as_u64(),
            parked_at: line["parked_at"].as_u64()?,
            served: line["served"].as_u64()?.try_into().ok()?,
            carried_body: line["carried_body"].as_bool()?,
            // An older program knows no proofs.
            is_proven: line["proven"].as_bool().unwrap_or(false),
            slot: line["slot"].as_u64().and_then(|slot| slot.try_into().ok()),
        })
    }
}

impl MovedClient {
    pub(super) fn to_json(self) -> Value {
        let serves = SERVES.iter().find(|(serves, _)| *serves == self.serves);
        json!({
            "serves": serves.map(|(_, name)| name),
            "requests": self.requests,
            "head_begun": self.head_begun,
            "redirect_https": self.redirect_https,
            "since": self.since,
            "waits": self.waits.map(|ticket| json!({
                "since": ticket.since,
                "tie": ticket.tie,
                "undelivered": ticket.undelivered,
                "delivered": ticket.delivered,
                "failed": ticket.failed,
            })),
            "before": self.before.map(|((worker, key), at)| json!({ "of": [worker, key], "at": at })),
        })
    }

    pub(super) fn read(line: &Value) -> Option<MovedClient> {
        let serves = line["serves"].as_str()?;
        let waits = match &line["waits"] {
            Value::Null => None,
            ticket => {
                let count = |name: &str| ticket[name].as_u64()?.try_into().ok();
                Some(MovedTicket {
                    since: ticket["since"].as_u64()?,
                    tie: ticket["tie"].as_u64()?,
                    undelivered: count("undelivered")?,
                    delivered: count("delivered")?,
                    failed: count("failed")?,
                })
            }
        };
        Some(MovedClient {
            serves: SERVES.iter().find(|(_, name)| *name == serves)?.0,
            requests: line["requests"].as_u64()?.try_into().ok()?,
            head_begun: line["head_begun"].as_bool()?,
            redirect_https: line["redirect_https"].as_u64().and_then(|port| port.try_into().ok()),
            since: line["since"].as_u64()?,
            waits,
            before: read_part(&line["before"]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::channel::Channel;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    fn again(role: MovedRole) -> Option<MovedRole> {
        let moved = Moved {
            peer: "2001:db8::1".parse().unwrap(),
            port: 49_152,
            announced_by: Some("127.0.0.1".parse().unwrap()),
            relayed: Some(Relayed {
                server_name: Some("a.test".into()),
                asked_at: None,
                has_shown: true,
                shown: None,
            }),
            role,
        };
        let read = Moved::read(&serde_json::from_str(&moved.line()).unwrap())?;
        assert_eq!(
            (read.peer, read.port, read.announced_by, read.relayed),
            (moved.peer, moved.port, moved.announced_by, moved.relayed)
        );
        Some(read.role)
    }

    #[test]
    fn connections_are_read_as_they_are_written() {
        let bridge = MovedBridge {
            is_fresh: false,
            until: Some(7),
            parked_at: u64::MAX,
            served: u32::MAX,
            carried_body: true,
            is_proven: true,
            slot: Some(4095),
        };
        let waits =
            Some(MovedTicket { since: 1 << 60, tie: 3, undelivered: 255, delivered: 1, failed: 2 });
        let client = MovedClient {
            serves: Serves::Clients,
            requests: 5,
            head_begun: true,
            redirect_https: Some(443),
            since: 6,
            waits,
            before: Some(((1, 99), 1 << 30)),
        };
        let [site, at, id] = ["a \"quoted\" site", "*:4000", "0123456789ab"].map(str::to_owned);
        for role in [
            MovedRole::Bridge(bridge),
            MovedRole::Bridge(MovedBridge { is_fresh: true, until: None, slot: None, ..bridge }),
            MovedRole::Swiftclient { site, at, id, bridge },
            MovedRole::Client(client),
            MovedRole::Client(MovedClient {
                waits: None,
                before: None,
                serves: Serves::Both,
                ..client
            }),
        ] {
            assert_eq!(again(role.clone()), Some(role));
        }
    }

    #[test]
    fn bridges_of_a_batch_come_with_their_own_requests_and_sockets() {
        let (one, other) = Channel::pair().unwrap();
        let bridge = MovedBridge {
            is_fresh: true,
            until: None,
            parked_at: 0,
            served: 0,
            carried_body: false,
            is_proven: false,
            slot: None,
        };
        let mut batch = Batch::default();
        for (port, registration) in [(1, "BRIDGE / one"), (2, ""), (3, "{\n}")] {
            let peer = "127.0.0.1".parse().unwrap();
            let role = MovedRole::Bridge(bridge);
            batch.add(
                &Moved { peer, port, announced_by: None, relayed: None, role },
                registration.as_bytes(),
            );
        }
        assert!(batch.is_full(3) && !batch.is_full(4));
        let (line, bytes) = batch.message();
        let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().unwrap()).collect();
        let files: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        let send = |files| {
            one.send(&line, &bytes, files).unwrap();
            let message = other.receive().unwrap().unwrap();
            assert!(has_bridges(&message));
            read_bridges(message)
        };
        let read = send(&files);
        let known: Vec<_> = read.iter().map(|a| (a.moved.port, &a.bytes[..])).collect();
        assert_eq!(known, [(1, &b"BRIDGE / one"[..]), (2, b""), (3, b"{\n}")]);
        for (arrival, (reader, _)) in read.into_iter().zip(&pipes) {
            std::fs::File::from(arrival.socket).write_all(b"x").unwrap();
            let mut byte = [0];
            let mut reader = reader;
            reader.read_exact(&mut byte).unwrap();
        }
        assert_eq!(send(&files[..2]).len(), 2, "no descriptor was left for the third");
        one.send("{}", b"", &[]).unwrap();
        assert!(!has_bridges(&other.receive().unwrap().unwrap()));
    }

    #[test]
    fn keys_of_tickets_are_read_as_they_are_written() {
        let keys = Tickets::random().unwrap();
        let line = tickets(&keys).unwrap();
        assert_eq!(read_tickets(&line), Some(keys.secrets()));
        for bad in [json!({}), json!({ "keys": ["00"] }), json!({ "keys": ["0g"] })] {
            assert_eq!(read_tickets(&bad), None);
        }
    }

    #[test]
    fn routes_are_read_as_they_are_written() {
        let matching = PathPattern::new("^/a(b|c)").unwrap().regex().clone();
        for spec in [
            RouteSpec::new(["a.test", "*.b.test"], "/api/"),
            RouteSpec::new(["*"], "").confined(),
            RouteSpec::new(["a.test"], "").only_if(Predicates::read("If-Method: GET").unwrap()),
            RouteSpec::matching(["a.test"], matching),
        ] {
            let token = |last| BackendToken::parse(format!("{last:032x}").as_bytes()).unwrap();
            let busy = Busy { bridges: 3, of: vec![(token(1), 2), (token(2), 1)] };
            let instances =
                [(InstanceId::new(u64::MAX), Micros(7)), (InstanceId::new(1), Micros(u64::MAX))];
            let line: Value = serde_json::from_str(&route(&spec, &busy, &instances)).unwrap();
            assert_eq!((read_route(&line), read_busy(&line)), (Some(spec), busy));
            assert_eq!(read_instances(&line), instances);
        }
        // The program before this one says nothing of backends.
        assert_eq!(read_busy(&json!({ "busy": 3 })), Busy { bridges: 3, of: Vec::new() });
        assert_eq!(read_instances(&json!({ "busy": 3 })), []);
    }

    #[test]
    fn a_route_with_many_backends_fits_into_a_message() {
        let (one, other) = Channel::pair().unwrap();
        let of =
            (0..=255).cycle().take(2_000).map(|n| (BackendToken::new([n; 16]), u32::MAX)).collect();
        let instances = [(InstanceId::new(u64::MAX), Micros(u64::MAX)); INSTANCES];
        let line = route(&RouteSpec::new(["a.test"], ""), &Busy { bridges: 1_000, of }, &instances);
        one.send(&line, b"", &[]).unwrap();
        assert_eq!(other.receive().unwrap().unwrap().line()["of"].as_array().unwrap().len(), 1_000);
    }

    #[test]
    fn what_is_not_of_the_format_is_none() {
        for bad in [
            json!({}),
            json!({ "peer": "127.0.0.1", "port": 1, "client": { "serves": "admin" } }),
            json!({ "peer": "localhost", "port": 1, "bridge": {} }),
            json!({ "peer": "127.0.0.1", "port": 65_536, "bridge": {} }),
        ] {
            assert!(Moved::read(&bad).is_none(), "{bad}");
        }
    }
}
