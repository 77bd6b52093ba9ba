//! A backend that speaks swiftclient: it sends its preamble, gets no answer, and takes requests.

use super::{Bridge, Client, Message, Proxy, Wire, eventually};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

/// A swiftclient backend's connection. Everything a [`Wire`] can do, it can do.
#[derive(Debug)]
pub struct SwiftclientBackend(Bridge);

impl SwiftclientBackend {
    /// Connects to the swiftclient listener of `site`, and sends nothing.
    #[track_caller]
    pub fn connect(proxy: &Proxy, site: &str) -> SwiftclientBackend {
        SwiftclientBackend::connect_to(proxy.swiftclient_listener(site))
    }

    /// Connects to this address, and sends nothing.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> SwiftclientBackend {
        SwiftclientBackend(Bridge::reused(Wire::connect(address)))
    }

    /// Connects to the swiftclient listener of `site`, sends its preamble, and waits until it is
    /// parked.
    #[track_caller]
    pub fn park(proxy: &Proxy, site: &str, preamble: &str) -> SwiftclientBackend {
        SwiftclientBackend::park_at(proxy, proxy.swiftclient_listener(site), site, preamble)
    }

    /// As [`SwiftclientBackend::park`], at one of several listeners.
    #[track_caller]
    pub fn park_at(
        proxy: &Proxy,
        address: SocketAddr,
        site: &str,
        preamble: &str,
    ) -> SwiftclientBackend {
        let mut least = bridges(proxy, site);
        let mut backend = SwiftclientBackend::connect_to(address);
        backend.send(preamble);
        eventually("the backend has been let in", || {
            let count = bridges(proxy, site);
            // One that has ended before may have been counted still.
            least = least.min(count);
            count > least
        });
        backend
    }

    /// Takes the next request.
    #[track_caller]
    pub fn accept_request(&mut self) -> Message {
        self.0.accept_request()
    }

    /// Takes a request and answers it as the original's example does, with `Connection: close`;
    /// returns its first line.
    #[track_caller]
    pub fn serve(&mut self, body: &str) -> String {
        let request = self.accept_request();
        let length = body.len();
        self.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        request.start
    }

    /// As [`SwiftclientBackend::serve`]; `client` must get the answer.
    #[track_caller]
    pub fn serve_to(&mut self, client: &mut Client, body: &str) -> String {
        let line = self.serve(body);
        let response = client.read_response();
        assert_eq!((response.status(), response.text().as_str()), (200, body), "{response:?}");
        line
    }

    /// As [`SwiftclientBackend::serve`], without `Connection: close`.
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

impl Deref for SwiftclientBackend {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for SwiftclientBackend {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
