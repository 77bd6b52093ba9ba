//! A backend that speaks swiftclient: it sends its preamble, gets no answer, and takes requests.

use super::{Bridge, Client, Message, Proxy, Wire, eventually};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

/// A swiftclient backend's connection. Everything a [`Wire`] can do, it can do.
#[derive(Debug)]
pub struct Guest(Bridge);

impl Guest {
    /// Connects to the swiftclient listener of `site`, and sends nothing.
    #[track_caller]
    pub fn connect(proxy: &Proxy, site: &str) -> Guest {
        Guest::connect_to(proxy.inlet(site))
    }

    /// Connects to this address, and sends nothing.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> Guest {
        Guest(Bridge::reused(Wire::connect(address)))
    }

    /// Connects to the swiftclient listener of `site`, sends its preamble, and waits until it is parked.
    #[track_caller]
    pub fn park(proxy: &Proxy, site: &str, preamble: &str) -> Guest {
        Guest::park_at(proxy, proxy.inlet(site), site, preamble)
    }

    /// As [`Guest::park`], at one of several listeners.
    #[track_caller]
    pub fn park_at(proxy: &Proxy, address: SocketAddr, site: &str, preamble: &str) -> Guest {
        let before = bridges(proxy, site);
        let mut guest = Guest::connect_to(address);
        guest.send(preamble);
        eventually("the backend has been let in", || bridges(proxy, site) > before);
        guest
    }

    /// Takes the next request.
    #[track_caller]
    pub fn accept_request(&mut self) -> Message {
        self.0.accept_request()
    }

    /// Takes a request and answers it as the original's example does, with `Connection: close`; returns its first line.
    #[track_caller]
    pub fn serve(&mut self, body: &str) -> String {
        let request = self.accept_request();
        let length = body.len();
        self.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        request.start
    }

    /// As [`Guest::serve`]; `client` must get the answer.
    #[track_caller]
    pub fn serve_to(&mut self, client: &mut Client, body: &str) -> String {
        let line = self.serve(body);
        let response = client.read_response();
        assert_eq!((response.status(), response.text().as_str()), (200, body), "{response:?}");
        line
    }

    /// As [`Guest::serve`], without `Connection: close`.
    #[track_caller]
    pub fn serve_quietly(&mut self, body: &str) -> String {
        self.0.serve(body)
    }
}

/// How many bridges are on the routes of `site`.
#[track_caller]
fn bridges(proxy: &Proxy, site: &str) -> u64 {
    proxy.info().number(&["sites", site, "bridges"])
}

impl Deref for Guest {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
