//! Clients that keep asking while a test changes what serves them.

use super::{Client, Ends, Proxy, eventually};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Clients of `a.test` that send one request after another.
#[derive(Debug)]
pub struct Load {
    method: &'static str,
    over: AtomicBool,
    /// How many requests each client has had answered.
    served: Vec<AtomicUsize>,
}

impl Load {
    /// Runs so many clients while `during` does what it does, and returns how many of their
    /// requests were answered. Each request has a target of its own, which begins with `/hello?`
    /// for servers of files, and fails the test unless its answer is a 200 whose text is right by
    /// `is_answer`, which gets the target and the text. A POST, which nobody may repeat, has the
    /// body `hi`.
    #[track_caller]
    pub fn run(
        proxy: &Proxy,
        method: &'static str,
        clients: usize,
        is_answer: fn(&str, &str) -> bool,
        during: impl FnOnce(&Load),
    ) -> usize {
        Load::run_at(proxy.for_clients(), method, clients, is_answer, during)
    }

    /// As [`Load::run`], at this address, where another proxy may be in front.
    #[track_caller]
    pub fn run_at(
        address: SocketAddr,
        method: &'static str,
        clients: usize,
        is_answer: fn(&str, &str) -> bool,
        during: impl FnOnce(&Load),
    ) -> usize {
        let served = (0..clients).map(|_| AtomicUsize::new(0)).collect();
        let load = Load { method, over: AtomicBool::new(false), served };
        std::thread::scope(|scope| {
            for client in 0..clients {
                let load = &load;
                scope.spawn(move || load.ask(address, client, is_answer));
            }
            let _ends = Ends(&load.over);
            during(&load);
        });
        load.served.iter().map(|served| served.load(Ordering::SeqCst)).sum()
    }

    fn ask(&self, address: SocketAddr, number: usize, is_answer: fn(&str, &str) -> bool) {
        let mut client = Client::connect_to(address);
        let body = if self.method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
        for round in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let path = format!("/hello?{number}/{round}");
            client.send(format!("{} {path} HTTP/1.1\r\nHost: a.test\r\n{body}", self.method));
            let response = client.read_response();
            let good = response.status() == 200 && is_answer(&path, &response.text());
            assert!(good, "{} {path}: {response:?}", self.method);
            if response.has("connection") {
                client = Client::connect_to(address);
            }
            self.served[number].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until every client has had so many more answered. Whatever was under way before is
    /// over then: a request meets no more than one of the events between which this waits.
    #[track_caller]
    pub fn await_more(&self, count: usize) {
        for (client, served) in self.served.iter().enumerate() {
            let enough = served.load(Ordering::SeqCst) + count;
            eventually(&format!("client {client} is served"), || {
                served.load(Ordering::SeqCst) >= enough
            });
        }
    }
}
