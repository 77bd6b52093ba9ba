//! The access log under load: each request has exactly one line, whatever happens meanwhile.

use crate::common::{Agent, App, Client, Proxy, Setup, at, eventually, ok};
use std::collections::HashMap;
use std::fs::read_to_string;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Clients at once.
const CLIENTS: usize = 4;

/// Of so many requests, one is given up by its client.
const GIVEN_UP: usize = 40;

/// How many requests there are: the longer number under `CLOUDBRIDGE_LONG=1`.
fn requests() -> usize {
    let long = std::env::var("CLOUDBRIDGE_LONG").is_ok_and(|value| value == "1");
    if long { 100_000 } else { 20_000 }
}

/// One client's requests: over one connection while it holds, and some over their own that is
/// closed at once.
fn ask(proxy: &Proxy, name: usize, count: usize, done: &AtomicUsize) {
    let mut client = Client::connect(proxy);
    for number in 0..count {
        let target = format!("/{name}-{number}");
        if number % GIVEN_UP == 0 {
            drop(Client::get(proxy, "a.test", &target));
        } else {
            client.send_get("a.test", &target);
            if client.read_final_response().status() != 200 {
                client = Client::connect(proxy);
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The file of the `number`-th rotation.
fn rotated(number: usize) -> String {
    format!("access.{number}")
}

#[test]
fn each_request_has_one_line_whatever_happens() {
    let proxy = Setup::new()
        .settings(
            "access-log {dir}/access format=\"%{target} %{status} %{end} %{attempts}\"\n\
             retries 16",
        )
        .start();
    let app = App::start(|_| ok("served"));
    let (count, done, over) = (requests() / CLIENTS, AtomicUsize::new(0), AtomicBool::new(false));
    let _steady = Agent::serve(&app.to(), 4, &[at(&proxy)]);
    let mut rotations = 0;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                scope.spawn({
                    let (proxy, done) = (&proxy, &done);
                    move || ask(proxy, name, count, done)
                })
            })
            .collect();
        // Backends come, are killed and come again.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let agent = Agent::serve(&app.to(), 4, &[at(&proxy)]);
                let before = done.load(Ordering::Relaxed);
                eventually("some requests more", || {
                    done.load(Ordering::Relaxed) > before + 500 || over.load(Ordering::Relaxed)
                });
                drop(agent);
            }
        });
        // The log is rotated, by both signals.
        for part in 1..10 {
            eventually("a tenth of the requests", || {
                done.load(Ordering::Relaxed) >= part * count * CLIENTS / 10
                    || clients.iter().all(|client| client.is_finished())
            });
            let (from, to) = (proxy.dir().join("access"), proxy.dir().join(rotated(rotations)));
            std::fs::rename(from, to).expect("rename");
            rotations += 1;
            proxy.signal(if part % 2 == 0 { "HUP" } else { "USR1" });
            eventually("the new file", || proxy.dir().join("access").exists());
        }
        // Before the joins: a failed client must not leave the other thread running.
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|result| result.expect("a client"));
    });
    let all = count * CLIENTS;
    let mut text = String::new();
    eventually("a line for each request", || {
        text = (0..rotations)
            .map(rotated)
            .chain(["access".to_owned()])
            .map(|file| read_to_string(proxy.dir().join(file)).expect("a log"))
            .collect();
        text.lines().count() >= all
    });
    let mut lines: HashMap<&str, &str> = HashMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 4, "{line}");
        if let Some(other) = lines.insert(words[0], line) {
            panic!("{other:?} and {line:?}");
        }
    }
    for name in 0..CLIENTS {
        for number in 0..count {
            let line = lines.remove(format!("/{name}-{number}").as_str()).expect("a line");
            if number % GIVEN_UP != 0 {
                assert!(line.contains(" 200 done "), "{line}");
            }
        }
    }
    assert_eq!(lines.len(), 0, "{lines:?}");
}
