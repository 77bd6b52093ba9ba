//! A client of the proxy: a browser, or a proxy in front of ours.

use super::{Message, Proxy, Wire};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

/// A client's connection. Everything a [`Wire`] can do, it can do.
#[derive(Debug)]
pub struct Client(Wire);

impl Client {
    /// Connects to the first address on which the proxy serves clients.
    #[track_caller]
    pub fn connect(proxy: &Proxy) -> Client {
        Client(Wire::connect(proxy.for_clients()))
    }

    /// Connects to this address of the proxy's.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> Client {
        Client(Wire::connect(address))
    }

    /// Connects and sends a GET for `path` of `host`; the answer is still to be read.
    #[track_caller]
    pub fn get(proxy: &Proxy, host: &str, path: &str) -> Client {
        let mut client = Client::connect(proxy);
        client.send_get(host, path);
        client
    }

    /// Connects and sends `request`; the answer is still to be read.
    #[track_caller]
    pub fn request(proxy: &Proxy, request: impl AsRef<[u8]>) -> Client {
        let mut client = Client::connect(proxy);
        client.send(request);
        client
    }

    /// Sends a GET for `path` of `host` on this connection.
    #[track_caller]
    pub fn send_get(&mut self, host: &str, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }

    /// Connects, sends `request` and reads the answer to it.
    #[track_caller]
    pub fn ask(proxy: &Proxy, request: impl AsRef<[u8]>) -> Message {
        let mut client = Client::connect(proxy);
        client.send_if_open(request);
        client.read_response()
    }

    /// Reads the response to a request that was not a HEAD.
    #[track_caller]
    pub fn read_response(&mut self) -> Message {
        let mut response = self.read_head();
        if !matches!(response.status(), 100..=199 | 204 | 304) {
            self.read_body(&mut response, true);
        }
        response
    }

    /// Reads the final response and drops interim ones before it. Only a client that has sent its
    /// FIN while it waits gets one unasked.
    #[track_caller]
    pub fn read_final_response(&mut self) -> Message {
        loop {
            let response = self.read_response();
            if response.status() >= 200 {
                return response;
            }
        }
    }
}

impl Deref for Client {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
