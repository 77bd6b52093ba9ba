//! A backend of the proxy: the side that dials, registers and then answers.

use super::{Client, DEADLINE, Message, Proxy, Wire, eventually, ok};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// What a backend sends after the 101, and the proxy as a ping: the same bytes.
pub const ACK: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the proxy sends before the first request.
pub const SWITCH: &[u8] = b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";

/// What the proxy answers to the registration of a backend that has a token.
pub const WELCOME: &[u8] =
    b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered\r\n\r\n";

/// A backend's token.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A backend's connection. Everything a [`Wire`] can do, it can do.
#[derive(Debug)]
pub struct Bridge {
    wire: Wire,
    /// Its 101 has not come yet.
    fresh: bool,
}

impl Bridge {
    /// Connects to the first address on which the proxy serves bridges.
    #[track_caller]
    pub fn connect(proxy: &Proxy) -> Bridge {
        Bridge::over(Wire::connect(proxy.for_bridges()))
    }

    /// Connects to this address of the proxy's.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> Bridge {
        Bridge::over(Wire::connect(address))
    }

    /// A backend on a connection that is open already.
    pub fn over(wire: Wire) -> Bridge {
        Bridge { wire, fresh: true }
    }

    /// A backend on a connection that gets requests without a 101.
    pub fn reused(wire: Wire) -> Bridge {
        Bridge { wire, fresh: false }
    }

    /// Connects, registers for `hosts` and waits for the 100 that says it is parked.
    #[track_caller]
    pub fn park(proxy: &Proxy, hosts: &[&str]) -> Bridge {
        Bridge::park_at(proxy, "/", hosts)
    }

    /// As [`Bridge::park`], for the part of the hosts below `prefix`.
    #[track_caller]
    pub fn park_at(proxy: &Proxy, prefix: &str, hosts: &[&str]) -> Bridge {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        Bridge::register(
            proxy,
            format!("BRIDGE {prefix} HTTP/1.1\r\nExpect: 100-continue\r\n{hosts}\r\n"),
        )
    }

    /// Connects, sends this registration and waits for the 100.
    #[track_caller]
    pub fn register(proxy: &Proxy, registration: impl AsRef<[u8]>) -> Bridge {
        let mut bridge = Bridge::connect(proxy);
        bridge.send(registration);
        bridge.expect_exact(ACK);
        bridge
    }

    /// As [`Bridge::park`], again and again until it is not refused: the proxy gives the place of a
    /// bridge that has gone to another only when it has seen it go.
    #[track_caller]
    pub fn park_when_there_is_room(proxy: &Proxy, host: &str) -> Bridge {
        let mut parked = None;
        eventually(&format!("there is room for a bridge of {host}"), || {
            let mut bridge = Bridge::connect(proxy);
            bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let is_accepted = bridge.read_head().head == ACK;
            parked = is_accepted.then_some(bridge);
            is_accepted
        });
        parked.expect("a bridge")
    }

    /// A bridge of `a.test` with [`TOKEN`] and these field lines more, which is told of these
    /// extensions.
    #[track_caller]
    pub fn with_token(proxy: &Proxy, fields: &str, extensions: &str) -> Bridge {
        let mut bridge = Bridge::connect(proxy);
        bridge.send(format!(
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Backend: {TOKEN}\r\n{fields}\r\n"
        ));
        bridge.expect_exact(format!(
            "HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: {extensions}\r\n\r\n"
        ));
        bridge
    }

    /// Serves its first request, of a client of `a.test`, and is parked again. Gives back the
    /// client, whose connection stays.
    #[track_caller]
    pub fn serve_first(&mut self, proxy: &Proxy) -> Client {
        let mut client = Client::get(proxy, "a.test", "/first");
        self.serve_to(&mut client, "first");
        client
    }

    /// Connects, sends this registration, and reads the refusal and the end that must follow it.
    #[track_caller]
    pub fn refused(proxy: &Proxy, registration: impl AsRef<[u8]>) -> Message {
        let mut bridge = Bridge::connect(proxy);
        bridge.send_if_open(registration);
        bridge.read_refusal()
    }

    /// Reads a refusal, which is an answer of the proxy's own that closes, and the end that must
    /// follow it.
    #[track_caller]
    pub fn read_refusal(&mut self) -> Message {
        let mut refusal = self.read_past_pings();
        self.read_body(&mut refusal, true);
        refusal.assert_own_reply(refusal.status());
        assert_eq!(refusal.field("connection"), Some("close"), "{refusal:?}");
        let is_refused = refusal.status() >= 400;
        assert_eq!(refusal.has("proxy-status"), is_refused, "{refusal:?}");
        self.expect_closed();
        refusal
    }

    /// Reads the head that is not a ping. Pings do not put off the deadline.
    #[track_caller]
    fn read_past_pings(&mut self) -> Message {
        let until = Instant::now() + DEADLINE;
        loop {
            let head = self.read_head();
            if head.head != ACK {
                return head;
            }
            assert!(Instant::now() < until, "nothing but pings in {DEADLINE:?}");
        }
    }

    /// Reads the 101, and the pings before it.
    #[track_caller]
    pub fn read_switch(&mut self) {
        let head = self.read_past_pings();
        assert!(head.head == SWITCH, "{head:?}");
        self.fresh = false;
    }

    /// Reads the 101 and acknowledges it.
    #[track_caller]
    pub fn acknowledge(&mut self) {
        self.read_switch();
        self.send(ACK);
    }

    /// Takes the head of the next request, the first on this bridge after its 101; the body is left
    /// to be read.
    #[track_caller]
    pub fn accept_head(&mut self) -> Message {
        if self.fresh {
            self.acknowledge();
        }
        let head = self.read_head();
        assert!(!head.start.starts_with("HTTP/"), "no request: {head:?}");
        head
    }

    /// Takes the next request.
    #[track_caller]
    pub fn accept_request(&mut self) -> Message {
        let mut request = self.accept_head();
        self.read_body(&mut request, false);
        request
    }

    /// Sends a 200 with this body that keeps the bridge open.
    #[track_caller]
    pub fn respond(&mut self, body: impl AsRef<[u8]>) {
        self.send(ok(body));
    }

    /// Takes the next request and answers it; returns its request line.
    #[track_caller]
    pub fn serve(&mut self, body: impl AsRef<[u8]>) -> String {
        let request = self.accept_request();
        self.respond(body);
        request.start
    }

    /// Answers the request that was taken with a 200, which `client` must get.
    #[track_caller]
    pub fn respond_to(&mut self, client: &mut Client, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        self.respond(body);
        let response = client.read_response();
        assert!(response.status() == 200 && response.body == body, "{response:?}");
    }

    /// Takes the next request and answers it; `client` must get the answer. Returns the request
    /// line.
    #[track_caller]
    pub fn serve_to(&mut self, client: &mut Client, body: &str) -> String {
        let request = self.accept_request();
        self.respond_to(client, body);
        request.start
    }

    /// Fails unless the next request here is a sentinel that is sent now: so nothing came before
    /// it.
    ///
    /// It is how a test shows that a backend saw nothing of what went before, without waiting for
    /// nothing to happen.
    #[track_caller]
    pub fn assert_untouched(&mut self, proxy: &Proxy, host: &str) {
        let mut sentinel = super::Client::get(proxy, host, "/sentinel");
        assert_eq!(self.serve_to(&mut sentinel, "sentinel"), "GET /sentinel HTTP/1.1");
    }
}

/// A bridge of `a.test` that has taken the request of a client.
#[track_caller]
pub fn under_way(proxy: &Proxy) -> (Client, Bridge) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let client = Client::get(proxy, "a.test", "/");
    bridge.accept_request();
    (client, bridge)
}

/// Another exchange over the same two connections, which must both be good for it.
#[track_caller]
pub fn exchange(client: &mut Client, bridge: &mut Bridge) {
    client.send_get("a.test", "/next");
    assert_eq!(bridge.serve_to(client, "next"), "GET /next HTTP/1.1");
}

impl Deref for Bridge {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Bridge {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
