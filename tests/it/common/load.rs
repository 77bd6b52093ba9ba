//! Clients that keep asking while a test changes what serves them.

use super::{Client, Proxy, eventually};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;

/// Clients of `a.test` that send POSTs, which nobody may repeat, one after another, until they are told to stop.
#[derive(Debug, Default)]
pub struct Load {
    over: AtomicBool,
    served: AtomicUsize,
}

impl Load {
    /// Starts so many clients. Each request has a path of its own, and each fails the test unless it is answered with what `answer`
    /// makes of that.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        proxy: &'scope Proxy,
        clients: usize,
        answer: fn(&str) -> String,
    ) {
        for number in 0..clients {
            scope.spawn(move || self.post(proxy, number, answer));
        }
    }

    fn post(&self, proxy: &Proxy, number: usize, answer: fn(&str) -> String) {
        let mut client = Client::connect(proxy);
        for round in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let path = format!("/{number}/{round}");
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"
            ));
            let response = client.read_response();
            assert_eq!((response.status(), response.text()), (200, answer(&path)), "{response:?}");
            self.served.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until so many more have been answered.
    #[track_caller]
    pub fn await_more(&self, count: usize) {
        let before = self.served();
        eventually("requests are served", || self.served() >= before + count);
    }

    /// How many have been answered.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Has each client stop when its request has been answered.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
