//! Leaving under load.

use super::language::Language;
use super::program::Program;
use crate::common::{Client, Proxy, at, eventually};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A POST is never sent twice, so one that meets a bridge which is just being closed would be answered with 502.
pub fn no_request_is_lost_when_it_leaves(language: Language) {
    let proxy = Proxy::start();
    let _staying = Program::parked(language, &proxy, 2);
    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // The clients end when this ends, by a failure too.
        let _end = End(&over);
        for number in 0..6 {
            let (proxy, over, answered) = (&proxy, &over, &answered);
            scope.spawn(move || {
                let mut client = Client::connect(proxy);
                while !over.load(Ordering::SeqCst) {
                    client.send(format!(
                        "POST / HTTP/1.1\r\nHost: h{number}.test\r\nContent-Length: 4\r\n\r\nbody"
                    ));
                    let answer = client.read_response();
                    assert_eq!((answer.status(), answer.text()), (200, "body".to_owned()));
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..3 {
            let mut leaving = Program::start(language, &at(&proxy), 4, &[]);
            let before = answered.load(Ordering::SeqCst);
            eventually("the second program has its part in the load", || {
                bridges(&proxy) == 6 && answered.load(Ordering::SeqCst) > before + 100
            });
            leaving.terminate();
            leaving.await_end();
        }
    });
}

/// Says, when it is dropped, that it is over.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Bridges that are parked or in an exchange.
fn bridges(proxy: &Proxy) -> u64 {
    let info = proxy.info();
    ["b", "B"].iter().map(|letter| info.number(&["state", "Connection State", letter])).sum()
}
