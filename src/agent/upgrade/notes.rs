//! What two agents tell each other (`doc/upgrade.md`, "The agent"): each message is a line of JSON,
//! with bytes and a socket behind it for some.
//!
//! First the new one says what it serves, so that the old one knows what goes over. From then on the
//! old one speaks, in the numbers of the new one: a service is its place in the list that the new one
//! has sent, a proxy its place in that service.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::proxies::Place;
use super::super::service::Service;
use crate::bridge::BackendToken;
use crate::bridge::extensions::Extensions;
use crate::process::channel::Message;

/// The version of these messages. A program that replaces one with another version says no.
const FORMAT: u64 = 1;

/// The old program has said how much it still has; what it passes on follows.
pub(in crate::agent) const TOLD: &str = r#"{"kind":"told"}"#;

/// Everything that had nothing in progress has gone over.
pub(in crate::agent) const PASSED: &str = r#"{"kind":"passed"}"#;

/// The first message.
pub(in crate::agent) fn hello() -> Value {
    json!({ "kind": "hello", "agent": FORMAT, "version": env!("CARGO_PKG_VERSION") })
}

/// Checks the first message.
///
/// # Errors
/// One sentence.
pub(in crate::agent) fn check_hello(line: &Value) -> Result<(), String> {
    if line["kind"] == "hello" && line["agent"] == FORMAT {
        return Ok(());
    }
    let (own, version) = (env!("CARGO_PKG_VERSION"), line["version"].as_str());
    let version = version.unwrap_or("of unknown version");
    Err(format!("cloudbridge-agent {own} cannot replace one {version}: restart it"))
}

/// A service, as far as it decides whether its bridges can go over.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) struct Served {
    /// The address of the application.
    to: String,
    /// The BRIDGE request. It holds the keys, so it is never shown.
    registration: String,
    limit: usize,
    all_addresses: bool,
    send_proxy: bool,
    proxies: Vec<String>,
}

/// What a service of the old program is to the new one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::agent) struct Successor {
    pub service: usize,
    /// For each proxy of the old one, which it is; `None` if the new one does not have it.
    pub proxies: Vec<Option<usize>>,
    /// Connections to the application can be used there.
    pub takes_connections: bool,
}

impl Served {
    pub fn of(service: &Service, registration: &[u8]) -> Served {
        Served {
            to: service.to.to_string(),
            registration: String::from_utf8_lossy(registration).into_owned(),
            limit: service.limit,
            all_addresses: service.all_addresses,
            send_proxy: service.send_proxy,
            proxies: service.proxies.iter().map(ToString::to_string).collect(),
        }
    }

    pub fn line(&self) -> Value {
        json!({
            "to": self.to,
            "registration": self.registration,
            "limit": self.limit,
            "all_addresses": self.all_addresses,
            "send_proxy": self.send_proxy,
            "proxies": self.proxies,
        })
    }

    /// `None` if it is not of this format.
    pub fn read(line: &Value) -> Option<Served> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Served {
            to: text(&line["to"])?,
            registration: text(&line["registration"])?,
            limit: number(&line["limit"])?,
            all_addresses: line["all_addresses"].as_bool()?,
            send_proxy: line["send_proxy"].as_bool()?,
            proxies: line["proxies"].as_array()?.iter().map(text).collect::<Option<_>>()?,
        })
    }

    /// Whether the bridges of `old` can be this service's: they would be registered in the same way,
    /// for the same application, and are not too many.
    fn succeeds(&self, old: &Served) -> bool {
        self.to == old.to
            && self.registration == old.registration
            && self.all_addresses == old.all_addresses
            && self.limit >= old.limit
    }
}

/// What each service of the `old` program is to the new one. One that is no longer served is `None`
/// already.
pub(in crate::agent) fn successors(
    old: &[Option<Served>],
    new: &[Served],
) -> Vec<Option<Successor>> {
    let mut free: Vec<usize> = (0..new.len()).collect();
    let mut successor = |old: &Served| {
        let service = free.remove(free.iter().position(|&at| new[at].succeeds(old))?);
        let mut left: Vec<Option<&String>> = new[service].proxies.iter().map(Some).collect();
        let mut find = |name: &String| {
            let at = left.iter().position(|proxy| *proxy == Some(name))?;
            left[at] = None;
            Some(at)
        };
        Some(Successor {
            service,
            proxies: old.proxies.iter().map(&mut find).collect(),
            takes_connections: new[service].send_proxy == old.send_proxy,
        })
    };
    old.iter().map(|old| old.as_ref().and_then(&mut successor)).collect()
}

/// How an application is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::agent) struct Condition {
    pub up: bool,
    /// Its addresses, if it is known by a name.
    pub addresses: Vec<SocketAddr>,
    /// Its health checks in a row that have succeeded, and that have failed.
    pub tally: (usize, usize),
    /// For how much longer it counts as careless.
    pub careless: Duration,
}

/// What the old program still has of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::agent) struct Left {
    /// Places of requests.
    pub requests: usize,
    /// Places of tunnels.
    pub tunnels: usize,
    /// What is left of each proxy.
    pub proxies: Vec<LeftAt>,
}

/// What the old program still has of a proxy of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::agent) struct LeftAt {
    pub place: Place,
    pub bridges: usize,
    /// Places of its requests, among those of the service.
    pub requests: usize,
    /// Its tunnels that it counts as requests.
    pub tunnels: usize,
}

/// A bridge that goes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::agent) struct MovedBridge {
    pub proxy: Place,
    pub address: SocketAddr,
    pub extensions: Extensions,
    pub stage: MovedStage,
    /// How long until it must have been heard of, if it must.
    pub left: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::agent) enum MovedStage {
    /// It has served no request; how long it has been parked.
    Parked { ago: Duration },
    /// It has served; whether its next request has begun to arrive.
    Idle { begun: bool },
}

/// A connection to an application that goes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::agent) struct MovedConnection {
    pub peer: IpAddr,
    pub carried_body: bool,
    pub last_had_body: bool,
    /// The client that it has been announced for.
    pub client: Option<IpAddr>,
    /// How long it may be kept.
    pub left: Option<Duration>,
}

/// What the new program learns from the old one, of the service with this number.
pub(in crate::agent) enum Note {
    Application(usize, Condition),
    Token(usize, Place, BackendToken),
    Left(usize, Left),
    Told,
    Bridge(usize, MovedBridge, OwnedFd, Vec<u8>),
    Connection(usize, MovedConnection, OwnedFd),
    Passed,
    /// It takes too long to say what it has.
    Late,
    /// It has ended.
    Gone,
}

pub(in crate::agent) fn application(service: usize, condition: &Condition) -> String {
    let Condition { up, addresses, tally: (good, bad), careless } = condition;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!({
        "kind": "application",
        "service": service,
        "up": up,
        "addresses": addresses,
        "good": good,
        "bad": bad,
        "careless": millis(*careless),
    })
    .to_string()
}

pub(in crate::agent) fn token(service: usize, proxy: Place, token: &BackendToken) -> String {
    json!({
        "kind": "token",
        "service": service,
        "proxy": place(proxy),
        "token": token.digits(),
    })
    .to_string()
}

pub(in crate::agent) fn left(service: usize, left: &Left) -> String {
    let Left { requests, tunnels, proxies } = left;
    let one = |at: &LeftAt| {
        json!({
            "proxy": place(at.place),
            "count": at.bridges,
            "requests": at.requests,
            "tunnels": at.tunnels,
        })
    };
    let bridges: Vec<Value> = proxies.iter().map(one).collect();
    json!({
        "kind": "left",
        "service": service,
        "requests": requests,
        "tunnels": tunnels,
        "bridges": bridges,
    })
    .to_string()
}

pub(in crate::agent) fn bridge(service: usize, bridge: &MovedBridge) -> String {
    let mut line = json!({
        "kind": "bridge",
        "service": service,
        "proxy": place(bridge.proxy),
        "address": bridge.address.to_string(),
        "extensions": bridge.extensions.list().join(", "),
        "left": bridge.left.map(millis),
    });
    match bridge.stage {
        MovedStage::Parked { ago } => line["parked"] = millis(ago).into(),
        MovedStage::Idle { begun } => line["begun"] = begun.into(),
    }
    line.to_string()
}

pub(in crate::agent) fn connection(service: usize, connection: &MovedConnection) -> String {
    json!({
        "kind": "connection",
        "service": service,
        "peer": connection.peer.to_string(),
        "carried_body": connection.carried_body,
        "last_had_body": connection.last_had_body,
        "client": connection.client.map(|client| client.to_string()),
        "left": connection.left.map(millis),
    })
    .to_string()
}

impl Note {
    /// `None` if it is not of this format.
    pub fn read(line: &Value, mut message: Message) -> Option<Note> {
        let service = || number(&line["service"]);
        Some(match line["kind"].as_str()? {
            "application" => Note::Application(
                service()?,
                Condition {
                    up: line["up"].as_bool()?,
                    addresses: line["addresses"]
                        .as_array()?
                        .iter()
                        .map(|address| address.as_str()?.parse().ok())
                        .collect::<Option<_>>()?,
                    tally: (number(&line["good"])?, number(&line["bad"])?),
                    careless: duration(&line["careless"])?,
                },
            ),
            "token" => Note::Token(
                service()?,
                read_place(&line["proxy"])?,
                BackendToken::parse(line["token"].as_str()?.as_bytes())?,
            ),
            "left" => {
                let all = number(&line["requests"])?;
                let one = |of: &Value| {
                    Some(LeftAt {
                        place: read_place(&of["proxy"])?,
                        bridges: number(&of["count"])?,
                        // Version 0.2.0 does not say whose they are. A proxy that is allowed too
                        // many has some given back.
                        requests: number(&of["requests"]).unwrap_or(all),
                        tunnels: number(&of["tunnels"]).unwrap_or(0),
                    })
                };
                let proxies = line["bridges"].as_array()?.iter().map(one);
                let left = Left {
                    requests: all,
                    tunnels: number(&line["tunnels"])?,
                    proxies: proxies.collect::<Option<_>>()?,
                };
                Note::Left(service()?, left)
            }
            "told" => Note::Told,
            "passed" => Note::Passed,
            "bridge" => {
                let socket = message.files.pop()?;
                let bytes = message.parts().1.to_vec();
                Note::Bridge(service()?, read_bridge(line)?, socket, bytes)
            }
            "connection" => {
                Note::Connection(service()?, read_connection(line)?, message.files.pop()?)
            }
            _ => return None,
        })
    }
}

fn read_bridge(line: &Value) -> Option<MovedBridge> {
    let stage = match line["begun"].as_bool() {
        Some(begun) => MovedStage::Idle { begun },
        None => MovedStage::Parked { ago: duration(&line["parked"])? },
    };
    Some(MovedBridge {
        proxy: read_place(&line["proxy"])?,
        address: line["address"].as_str()?.parse().ok()?,
        extensions: Extensions::parse(line["extensions"].as_str()?.as_bytes()),
        stage,
        left: duration(&line["left"]),
    })
}

fn read_connection(line: &Value) -> Option<MovedConnection> {
    Some(MovedConnection {
        peer: line["peer"].as_str()?.parse().ok()?,
        carried_body: line["carried_body"].as_bool()?,
        last_had_body: line["last_had_body"].as_bool()?,
        client: line["client"].as_str().and_then(|client| client.parse().ok()),
        left: duration(&line["left"]),
    })
}

fn place(Place { at, member }: Place) -> Value {
    json!({ "at": at, "member": member.map(|address| address.to_string()) })
}

fn read_place(value: &Value) -> Option<Place> {
    let member = match &value["member"] {
        Value::Null => None,
        member => Some(member.as_str()?.parse().ok()?),
    };
    Some(Place { at: number(&value["at"])?, member })
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64()?.try_into().ok()
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn duration(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::channel::Channel;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// What the other end reads of a message.
    fn again(line: &str, bytes: &[u8]) -> Option<Note> {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        one.send(line, bytes, &[file.as_fd()]).unwrap();
        let message = other.receive().unwrap().unwrap();
        let line: Value = serde_json::from_slice(message.parts().0).unwrap();
        Note::read(&line, message)
    }

    #[test]
    fn what_is_said_is_understood() {
        let proxies = [None, Some("[::1]:8079".parse().unwrap())];
        let places = proxies.map(|member| Place { at: 3, member });
        let extensions = Extensions { leave: true, probes: true, ..Extensions::default() };
        let seconds = Duration::from_secs;
        for proxy in places {
            for (stage, left) in [
                (MovedStage::Parked { ago: seconds(9) }, Some(seconds(45))),
                (MovedStage::Idle { begun: true }, None),
                (MovedStage::Idle { begun: false }, None),
            ] {
                let address = "127.0.0.1:8079".parse().unwrap();
                let moved = MovedBridge { proxy, address, extensions, stage, left };
                match again(&bridge(7, &moved), b"GET / HT\nTP") {
                    Some(Note::Bridge(7, read, _, bytes)) => {
                        assert_eq!((read, &bytes[..]), (moved, &b"GET / HT\nTP"[..]));
                    }
                    _ => panic!("{moved:?}"),
                }
            }
            let said = BackendToken::new([7; 16]);
            assert!(matches!(
                again(&token(1, proxy, &said), b""),
                Some(Note::Token(1, read, token)) if read == proxy && token == said
            ));
            let at = LeftAt { place: proxy, bridges: 5, requests: 1, tunnels: 2 };
            let said = Left { requests: 2, tunnels: 1, proxies: vec![at] };
            assert!(
                matches!(again(&left(0, &said), b""), Some(Note::Left(0, read)) if read == said)
            );
        }
        for client in [None, Some("10.0.0.1".parse().unwrap())] {
            let peer = "127.0.0.1".parse().unwrap();
            let left = Some(seconds(30));
            let moved =
                MovedConnection { peer, carried_body: true, last_had_body: false, client, left };
            assert!(matches!(
                again(&connection(2, &moved), b""),
                Some(Note::Connection(2, read, _)) if read == moved
            ));
        }
        let addresses = ["10.0.0.1:80", "[::1]:80"].map(|text| text.parse().unwrap());
        let said = Condition {
            up: false,
            addresses: addresses.into(),
            tally: (1, 0),
            careless: seconds(5),
        };
        assert!(matches!(
            again(&application(4, &said), b""),
            Some(Note::Application(4, read)) if read == said
        ));
        assert!(matches!(again(TOLD, b""), Some(Note::Told)));
        assert!(matches!(again(PASSED, b""), Some(Note::Passed)));
        assert_eq!(check_hello(&hello()), Ok(()));
    }

    #[test]
    fn what_is_not_of_the_format_is_none() {
        for bad in [
            "{}",
            r#"{"kind":"other"}"#,
            r#"{"kind":"left","service":0,"requests":-1,"tunnels":0,"bridges":[]}"#,
            r#"{"kind":"bridge","service":0,"proxy":{"at":0,"member":"x"}}"#,
            r#"{"kind":"token","service":0,"proxy":{"at":0,"member":null},"token":"00"}"#,
        ] {
            assert!(again(bad, b"").is_none(), "{bad}");
        }
        let other = json!({ "kind": "hello", "agent": 99, "version": "9.9" });
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(
            check_hello(&other).unwrap_err(),
            format!("cloudbridge-agent {own} cannot replace one 9.9: restart it")
        );
    }

    fn served(to: &str, hosts: &str, limit: usize, proxies: &[&str]) -> Served {
        Served {
            to: to.to_owned(),
            registration: hosts.to_owned(),
            limit,
            all_addresses: false,
            send_proxy: false,
            proxies: proxies.iter().map(|proxy| (*proxy).to_owned()).collect(),
        }
    }

    #[test]
    fn a_service_goes_over_if_its_bridges_would_be_the_same() {
        let old = served("app", "a.test", 4, &["p", "q", "p"]);
        assert!(Served::read(&old.line()) == Some(old.clone()));
        let find = |new: &[Served]| successors(&[Some(old.clone())], new).remove(0);
        let whole = |service| {
            Some(Successor {
                service,
                proxies: vec![Some(0), Some(1), Some(2)],
                takes_connections: true,
            })
        };
        assert_eq!(find(std::slice::from_ref(&old)), whole(0));
        assert_eq!(find(&[served("other", "a.test", 4, &["p"]), old.clone()]), whole(1));
        assert_eq!(find(&[served("app", "a.test", 5, &["p", "q", "p"])]), whole(0));
        for other in [
            served("app", "b.test", 4, &["p", "q", "p"]),
            served("other", "a.test", 4, &["p", "q", "p"]),
            served("app", "a.test", 3, &["p", "q", "p"]),
            Served { all_addresses: true, ..old.clone() },
        ] {
            assert!(find(&[other]).is_none());
        }
        let moved = find(&[served("app", "a.test", 4, &["r", "p"])]).unwrap();
        assert_eq!(moved.proxies, [Some(1), None, None]);
        let moved = find(&[Served { send_proxy: true, ..old.clone() }]).unwrap();
        assert!(!moved.takes_connections);
    }

    #[test]
    fn two_equal_services_go_to_two() {
        let one = served("app", "a.test", 4, &["p"]);
        let numbers = |new: &[Served]| {
            let old = [Some(one.clone()), None, Some(one.clone())];
            let found = successors(&old, new);
            found.iter().map(|found| found.as_ref().map(|s| s.service)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[one.clone(), one.clone()]), [Some(0), None, Some(1)]);
        assert_eq!(numbers(std::slice::from_ref(&one)), [Some(0), None, None]);
    }
}
