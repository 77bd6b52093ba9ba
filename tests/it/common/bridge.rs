//! A backend of the proxy: the side that dials, registers and then answers.

use super::{Client, Message, Proxy, Wire};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

/// What a backend says after the 101, and what the proxy says as a ping: the same bytes.
pub const ACK: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A backend's connection. Everything a [`Wire`] can do, it can do.
#[derive(Debug)]
pub struct Bridge(Wire);

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
        Bridge(wire)
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

    /// Serves its first request, of a client of `a.test`, and is parked again. Gives back the client, whose connection stays.
    #[track_caller]
    pub fn serve_first(&mut self, proxy: &Proxy) -> Client {
        let mut client = Client::get(proxy, "a.test", "/first");
        self.serve("first");
        assert_eq!(client.read_response().text(), "first");
        client
    }

    /// Connects, sends this registration, and reads the refusal and the end that must follow it.
    #[track_caller]
    pub fn refused(proxy: &Proxy, registration: impl AsRef<[u8]>) -> Message {
        let mut bridge = Bridge::connect(proxy);
        bridge.send_if_open(registration);
        bridge.read_refusal()
    }

    /// Reads a refusal, which is an answer of the proxy's own that closes, and the end that must follow it.
    #[track_caller]
    pub fn read_refusal(&mut self) -> Message {
        let mut refusal = self.read_head();
        while refusal.head == ACK {
            refusal = self.read_head();
        }
        self.read_body(&mut refusal, true);
        refusal.assert_own_reply(refusal.status());
        assert_eq!(refusal.field("connection"), Some("close"), "{refusal:?}");
        self.expect_closed();
        refusal
    }

    /// Reads the 101, and the pings before it.
    #[track_caller]
    pub fn read_switch(&mut self) -> Message {
        loop {
            let head = self.read_head();
            if head.head == ACK {
                continue;
            }
            assert_eq!(head.start, "HTTP/1.1 101 Upgrade", "{head:?}");
            assert_eq!(head.field("upgrade"), Some("HTTP/1.1"), "{head:?}");
            return head;
        }
    }

    /// Reads the 101, says that it is still here, and reads the request.
    #[track_caller]
    pub fn accept_request(&mut self) -> Message {
        self.read_switch();
        self.send(ACK);
        self.read_request()
    }

    /// Reads the next request on a bridge that has been through its 101.
    #[track_caller]
    pub fn read_request(&mut self) -> Message {
        let mut request = self.read_head();
        self.read_body(&mut request, false);
        request
    }

    /// Sends a 200 with this body that keeps the bridge open.
    #[track_caller]
    pub fn respond(&mut self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut response =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        response.extend_from_slice(body);
        self.send(response);
    }

    /// Takes the first request on this bridge and answers it; returns its request line.
    #[track_caller]
    pub fn serve(&mut self, body: impl AsRef<[u8]>) -> String {
        let request = self.accept_request();
        self.respond(body);
        request.start
    }

    /// As [`Bridge::serve`], for every request after the first.
    #[track_caller]
    pub fn serve_next(&mut self, body: impl AsRef<[u8]>) -> String {
        let request = self.read_request();
        self.respond(body);
        request.start
    }

    /// Fails unless the next request here is a sentinel that is sent now: so nothing came before it.
    ///
    /// It is how a test shows that a backend saw nothing of what went before, without waiting for nothing to happen.
    #[track_caller]
    pub fn assert_untouched(&mut self, proxy: &Proxy, host: &str) {
        let mut sentinel = super::Client::get(proxy, host, "/sentinel");
        let line = self.serve("sentinel");
        assert_eq!(line, "GET /sentinel HTTP/1.1");
        let response = sentinel.read_response();
        assert_eq!(response.text(), "sentinel", "{response:?}");
    }
}

impl Deref for Bridge {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Bridge {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
