//! What the two programs tell each other of a tunnel that goes over: a line of JSON, behind it the
//! BRIDGE request of its bridge and the texts of its record for the access log, and both sockets.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use crate::exchange::Traffic;
use crate::routing::RouteSpec;

use super::notes::{self, MovedBridge, MovedClient};

/// One end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MovedEnd {
    pub(in crate::proxy) peer: IpAddr,
    pub(in crate::proxy) port: u16,
    /// The socket's peer, if that has announced `peer` in a PROXY header.
    pub(in crate::proxy) announced_by: Option<IpAddr>,
    /// It has sent its FIN, and the other end has been sent ours for it.
    pub(in crate::proxy) has_ended: bool,
}

/// How the backend's connection came to be a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum MovedOrigin {
    /// It has registered; the message has its BRIDGE request.
    Registered,
    /// A swiftclient backend that came to this address of a site.
    Swiftclient { site: String, at: String, id: String },
    /// A server of a site that was dialled.
    Server { site: String, to: String },
}

/// A tunnel. Times are as in [`notes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct MovedTunnel {
    pub(in crate::proxy) client_end: MovedEnd,
    pub(in crate::proxy) backend_end: MovedEnd,
    pub(in crate::proxy) origin: MovedOrigin,
    /// What the bridge serves; `None` if it has registered for it.
    pub(in crate::proxy) spec: Option<RouteSpec>,
    pub(in crate::proxy) bridge: MovedBridge,
    /// With the place that its request had in the order of arrival.
    pub(in crate::proxy) client: MovedClient,
    /// The id of its request, if it has one.
    pub(in crate::proxy) id: Option<String>,
    pub(in crate::proxy) passed: Traffic,
    /// When it has been silent for too long, if it may be.
    pub(in crate::proxy) until: Option<u64>,
    /// The access log's record of its request, without the texts.
    pub(in crate::proxy) record: Option<Value>,
    /// How many bytes behind the line are the BRIDGE request.
    pub(in crate::proxy) registration: usize,
}

/// A tunnel that comes from the other program.
pub(in crate::proxy) struct TunnelArrival {
    pub(in crate::proxy) client: OwnedFd,
    pub(in crate::proxy) backend: OwnedFd,
    pub(in crate::proxy) moved: MovedTunnel,
    pub(in crate::proxy) bytes: Vec<u8>,
}

impl MovedEnd {
    fn to_json(self) -> Value {
        json!({
            "peer": self.peer.to_string(),
            "port": self.port,
            "announced_by": self.announced_by.map(|ip| ip.to_string()),
            "has_ended": self.has_ended,
        })
    }

    fn read(line: &Value) -> Option<MovedEnd> {
        let ip = |name: &str| line[name].as_str().and_then(|text| text.parse().ok());
        Some(MovedEnd {
            peer: ip("peer")?,
            port: line["port"].as_u64()?.try_into().ok()?,
            announced_by: ip("announced_by"),
            has_ended: line["has_ended"].as_bool()?,
        })
    }
}

impl MovedOrigin {
    fn to_json(&self) -> Value {
        match self {
            MovedOrigin::Registered => json!({}),
            MovedOrigin::Swiftclient { site, at, id } => {
                json!({ "swiftclient": { "site": site, "at": at, "id": id } })
            }
            MovedOrigin::Server { site, to } => json!({ "server": { "site": site, "to": to } }),
        }
    }

    fn read(line: &Value) -> Option<MovedOrigin> {
        let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);
        Some(match (&line["swiftclient"], &line["server"]) {
            (Value::Null, Value::Null) => MovedOrigin::Registered,
            (Value::Null, of) => {
                MovedOrigin::Server { site: text(of, "site")?, to: text(of, "to")? }
            }
            (of, _) => MovedOrigin::Swiftclient {
                site: text(of, "site")?,
                at: text(of, "at")?,
                id: text(of, "id")?,
            },
        })
    }
}

impl MovedTunnel {
    pub(in crate::proxy) fn line(&self) -> String {
        let Traffic { request, heads, body } = self.passed;
        let line = json!({
            "kind": "tunnel",
            "ends": [self.client_end.to_json(), self.backend_end.to_json()],
            "origin": self.origin.to_json(),
            "route": self.spec.as_ref().map(notes::spec_to_json),
            "bridge": self.bridge.to_json(),
            "client": self.client.to_json(),
            "id": self.id,
            "passed": { "request": request, "heads": heads, "body": body },
            "until": self.until,
            "record": self.record,
            "registration": self.registration,
        });
        line.to_string()
    }

    /// `None` if it is not of this format.
    pub(in crate::proxy) fn read(line: &Value) -> Option<MovedTunnel> {
        let passed = |name: &str| line["passed"][name].as_u64();
        let client = MovedClient::read(&line["client"])?;
        client.waits?;
        Some(MovedTunnel {
            client_end: MovedEnd::read(&line["ends"][0])?,
            backend_end: MovedEnd::read(&line["ends"][1])?,
            origin: MovedOrigin::read(&line["origin"])?,
            spec: notes::read_route(&line["route"]),
            bridge: MovedBridge::read(&line["bridge"])?,
            client,
            id: line["id"].as_str().map(str::to_owned),
            passed: Traffic {
                request: passed("request")?,
                heads: passed("heads")?,
                body: passed("body")?,
            },
            until: line["until"].as_u64(),
            record: Some(line["record"].clone()).filter(|record| !record.is_null()),
            registration: line["registration"].as_u64()?.try_into().ok()?,
        })
    }
}

impl TunnelArrival {
    /// `None` if it is not of this format, or a descriptor is missing.
    pub(in crate::proxy) fn read(
        line: &Value,
        files: Vec<OwnedFd>,
        bytes: &[u8],
    ) -> Option<TunnelArrival> {
        let moved = MovedTunnel::read(line)?;
        let [client, backend] = <[OwnedFd; 2]>::try_from(files).ok()?;
        let is_whole = moved.registration <= bytes.len();
        is_whole.then(|| TunnelArrival { client, backend, moved, bytes: bytes.to_vec() })
    }

    /// The BRIDGE request, and the texts of the record.
    pub(in crate::proxy) fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.moved.registration)
    }
}

#[cfg(test)]
mod tests {
    use super::super::notes::MovedTicket;
    use super::*;
    use crate::config::Serves;

    fn tunnel(origin: MovedOrigin) -> MovedTunnel {
        let end = MovedEnd {
            peer: "2001:db8::1".parse().unwrap(),
            port: 65_535,
            announced_by: Some("127.0.0.1".parse().unwrap()),
            has_ended: true,
        };
        MovedTunnel {
            client_end: end,
            backend_end: MovedEnd { announced_by: None, has_ended: false, ..end },
            origin,
            spec: Some(RouteSpec::new(["a.test", "*.b.test"], "/api").confined()),
            bridge: MovedBridge {
                is_fresh: false,
                until: Some(7),
                parked_at: u64::MAX,
                served: u32::MAX,
                carried_body: true,
                is_proven: true,
                slot: Some(7),
            },
            client: MovedClient {
                serves: Serves::Clients,
                requests: 5,
                head_begun: false,
                since: 6,
                waits: Some(MovedTicket {
                    since: 1 << 60,
                    tie: 3,
                    undelivered: 0,
                    delivered: 1,
                    failed: 1,
                }),
                before: None,
                redirect_https: None,
            },
            id: Some("\"an id\"".to_owned()),
            passed: Traffic { request: u64::MAX, heads: 200, body: 1 << 50 },
            until: None,
            record: Some(json!({ "begun": 1 })),
            registration: 3,
        }
    }

    #[test]
    fn tunnels_are_read_as_they_are_written() {
        let [site, at, id] = ["a \"quoted\" site", "*:4000", "0123456789ab"].map(str::to_owned);
        let to = "localhost:3000".to_owned();
        for origin in [
            MovedOrigin::Registered,
            MovedOrigin::Swiftclient { site: site.clone(), at, id },
            MovedOrigin::Server { site, to },
        ] {
            let all = tunnel(origin.clone());
            let least = MovedTunnel {
                id: None,
                until: Some(9),
                record: None,
                spec: None,
                ..tunnel(origin)
            };
            for tunnel in [all, least] {
                let line = serde_json::from_str(&tunnel.line()).unwrap();
                assert_eq!(MovedTunnel::read(&line), Some(tunnel));
            }
        }
    }

    #[test]
    fn what_is_not_of_the_format_is_none() {
        let good: Value = serde_json::from_str(&tunnel(MovedOrigin::Registered).line()).unwrap();
        for member in ["ends", "origin", "bridge", "client", "passed", "registration"] {
            let mut bad = good.clone();
            bad[member] = json!("x");
            if member == "origin" {
                bad[member] = json!({ "server": {} });
            }
            assert!(MovedTunnel::read(&bad).is_none(), "{bad}");
        }
        assert!(TunnelArrival::read(&good, Vec::new(), b"abc").is_none(), "no descriptors");
    }
}
