//! A new client goes to the worker with fewer clients, whatever the kernel's hash says, before its
//! first byte is read.
//!
//! Each test makes one worker hot first: it opens many clients and closes all that other workers
//! have got.

use super::upgrade::{Upgraded, await_end};
use crate::common::{Bridge, Client, Json, Proxy, Setup, eventually, exchange, header_v1, logged};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// This number of every worker.
#[track_caller]
fn of_workers(proxy: &Proxy, name: &str) -> Vec<u64> {
    match proxy.info().at(&["workers"]) {
        Json::List(workers) => workers.iter().map(|worker| worker.number(&[name])).collect(),
        other => panic!("{other:?}"),
    }
}

/// How many clients each worker has.
#[track_caller]
fn loads(proxy: &Proxy) -> Vec<u64> {
    of_workers(proxy, "clients")
}

/// Waits until the workers have so many clients in all. A client that has just moved may be counted
/// twice for a moment, so to wait for more than there were would not do.
#[track_caller]
fn await_clients(proxy: &Proxy, count: u64) -> Vec<u64> {
    let mut now = Vec::new();
    eventually("all are accepted, and counted once", || {
        now = loads(proxy);
        now.iter().sum::<u64>() == count
    });
    now
}

/// How many new connections have gone to another worker.
#[track_caller]
fn passed(proxy: &Proxy) -> u64 {
    of_workers(proxy, "passed").iter().sum()
}

/// A worker with many clients beside others with none.
struct Hot<P = Client> {
    worker: usize,
    clients: Vec<P>,
}

impl Hot {
    /// Makes a worker hot by clients that send nothing.
    #[track_caller]
    fn new(proxy: &Proxy, clients: usize) -> Hot {
        Hot::with(proxy, clients, || Client::connect(proxy))
    }
}

impl<P> Hot<P> {
    /// Opens clients by `connect` until a worker has so many, and closes those of all others.
    #[track_caller]
    fn with(proxy: &Proxy, clients: usize, connect: impl Fn() -> P) -> Hot<P> {
        let mut before = loads(proxy);
        let mut all: Vec<Vec<P>> = before.iter().map(|_| Vec::new()).collect();
        let worker = loop {
            let client = connect();
            let now = await_clients(proxy, before.iter().sum::<u64>() + 1);
            let place = (0..now.len()).find(|&at| now[at] > before[at]).expect("a place");
            all[place].push(client);
            before = now;
            if all[place].len() == clients {
                break place;
            }
        };
        let clients = all.swap_remove(worker);
        let count = clients.len() as u64;
        drop(all);
        eventually("the others have gone", || {
            let loads = loads(proxy);
            loads[worker] == count && loads.iter().sum::<u64>() == count
        });
        Hot { worker, clients }
    }
}

/// Opens clients by `connect` until one has gone to another worker than the one that accepted it.
/// The last is that one.
#[track_caller]
fn open_until_one_is_passed<P>(proxy: &Proxy, connect: impl Fn() -> P) -> Vec<P> {
    let (before, clients) = (passed(proxy), loads(proxy).iter().sum::<u64>());
    let mut opened = Vec::new();
    while passed(proxy) == before {
        assert!(opened.len() < 200, "none is passed: {:?}", loads(proxy));
        opened.push(connect());
        await_clients(proxy, clients + opened.len() as u64);
    }
    opened
}

/// A request of each client is answered.
#[track_caller]
fn assert_served<'c>(bridge: &mut Bridge, clients: impl Iterator<Item = &'c mut Client>) {
    for client in clients {
        client.send_get("a.test", "/");
        bridge.serve_to(client, "served");
    }
}

#[track_caller]
fn a_hot_worker_leaves_new_clients_to_others(workers: usize) {
    const HOT: usize = 32;
    let proxy = Proxy::with(&format!("workers {workers}\nhead-timeout 10m"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let Hot { worker, clients: mut hot } = Hot::new(&proxy, HOT);
    let before = passed(&proxy);
    let count = 16 * (workers - 1);
    let mut more: Vec<Client> = (0..count).map(|_| Client::connect(&proxy)).collect();
    let loads_now = await_clients(&proxy, (HOT + count) as u64);
    assert_eq!(loads_now[worker], HOT as u64, "{loads_now:?}");
    assert!(passed(&proxy) > before, "the kernel has dealt the hot worker none");
    // Keep-alive included.
    assert_served(&mut bridge, hot.iter_mut().chain(&mut more));
    assert_served(&mut bridge, hot.iter_mut().chain(&mut more));
    let loads = loads(&proxy);
    assert_eq!(loads[worker], HOT as u64, "a client has changed its worker later: {loads:?}");
    assert_eq!(loads.iter().sum::<u64>() as usize, HOT + count, "{loads:?}");
}

#[test]
fn a_hot_worker_of_two_leaves_new_clients_to_the_other() {
    a_hot_worker_leaves_new_clients_to_others(2);
}

#[test]
fn a_hot_worker_of_four_leaves_new_clients_to_the_others() {
    a_hot_worker_leaves_new_clients_to_others(4);
}

#[test]
fn many_clients_of_one_source_are_nearly_even() {
    const EACH: usize = 60;
    for workers in [2, 4] {
        let proxy = Proxy::with(&format!("workers {workers}\nhead-timeout 10m"));
        let Hot { clients: _hot, .. } = Hot::new(&proxy, EACH / 2);
        let count = EACH * workers - EACH / 2;
        let _more: Vec<Client> = (0..count).map(|_| Client::connect(&proxy)).collect();
        let loads = await_clients(&proxy, (EACH * workers) as u64);
        let most = *loads.iter().max().expect("workers") as usize;
        assert!(most <= EACH * 3 / 2, "{loads:?}");
    }
}

#[test]
fn a_silent_client_that_was_moved_has_its_deadline() {
    // All that are opened until one is passed are silent meanwhile.
    let proxy = Proxy::with("head-timeout 5s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let bridge = RefCell::new(&mut bridge);
    // The others have made a request, and may be idle for longer.
    let _hot = Hot::with(&proxy, 16, || {
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.borrow_mut().serve_to(&mut client, "served");
        client
    });
    let mut opened = open_until_one_is_passed(&proxy, || Client::connect(&proxy));
    let moved = opened.last_mut().expect("a client");
    assert_eq!(moved.read_to_end().0, b"");
}

#[test]
fn the_proxy_header_of_a_moved_client_is_read() {
    let proxy = Proxy::with(
        "listen 127.0.0.1:0 clients accept-proxy=127.0.0.0/8\nlisten 127.0.0.1:0 bridges\n\
         connections-per-address 1\nhead-timeout 10m",
    );
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let _hot = Hot::new(&proxy, 16);
    let mut opened = open_until_one_is_passed(&proxy, || Client::connect(&proxy));
    let moved = opened.last_mut().expect("a client");
    moved.send(header_v1("192.0.2.7:56324"));
    for _ in 0..2 {
        moved.send_get("a.test", "/");
        let request = bridge.accept_request();
        assert_eq!(request.field("x-forwarded-for"), Some("192.0.2.7"), "{request:?}");
        bridge.respond_to(moved, "served");
    }
}

#[test]
fn a_moved_client_is_encrypted() {
    let proxy = Setup::new().over_tls().settings("workers 4\nhead-timeout 10m").start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let _hot = Hot::new(&proxy, 16);
    let mut opened = open_until_one_is_passed(&proxy, || {
        let mut client = Client::connect(&proxy);
        // That makes the handshake.
        client.send("GET / HTTP/1.1\r\n");
        client
    });
    let moved = opened.last_mut().expect("a client");
    moved.send("Host: a.test\r\n\r\n");
    let request = bridge.accept_request();
    assert_eq!(request.field("x-forwarded-proto"), Some("https"), "{request:?}");
    bridge.respond_to(moved, "served");
    assert_served(&mut bridge, std::iter::once(moved));
}

#[test]
fn a_client_of_a_unix_socket_moves_too() {
    let proxy = Proxy::with(
        "listen unix:{dir}/clients.sock clients\nlisten 127.0.0.1:0 bridges\nhead-timeout 10m",
    );
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let path = proxy.dir().join("clients.sock");
    let connect = || UnixStream::connect(&path).expect("the socket");
    let _hot = Hot::with(&proxy, 16, connect);
    let mut opened = open_until_one_is_passed(&proxy, connect);
    let moved = opened.last_mut().expect("a client");
    moved.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("sent");
    bridge.serve("served");
    let mut answer = String::new();
    moved.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("served"), "{answer}");
}

/// Nobody knows what it is before it has said so.
#[test]
fn a_bridge_may_move_before_its_registration() {
    let proxy = Proxy::with("head-timeout 10m");
    let _hot = Hot::new(&proxy, 16);
    let mut opened = open_until_one_is_passed(&proxy, || Bridge::connect(&proxy));
    let mut bridge = opened.pop().expect("a bridge");
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "served");
    exchange(&mut client, &mut bridge);
}

/// They are used by any worker, and a worker with few clients has no need of more of them.
#[test]
fn bridges_of_a_listener_of_their_own_stay() {
    let proxy =
        Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges\nhead-timeout 10m");
    let _hot = Hot::new(&proxy, 16);
    let before = passed(&proxy);
    let _bridges: Vec<Bridge> = (0..32).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    assert_eq!(passed(&proxy), before);
}

#[test]
fn max_connections_holds_while_clients_move() {
    const MOST: u64 = 80;
    let proxy = Proxy::with(&format!("workers 4\nmax-connections {MOST}\nhead-timeout 10m"));
    let hot = Hot::new(&proxy, 12);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).map(|_| Client::connect(&proxy)).collect::<Vec<_>>()))
            .collect();
        eventually("accepting pauses", || {
            let open = proxy.info().number(&["totals", "connections"]);
            assert!(open <= MOST, "{open} connections are open");
            proxy.log().contains(logged::ACCEPTING_PAUSES)
        });
        let crowd: Vec<Client> = crowd.into_iter().flat_map(|some| some.join().unwrap()).collect();
        assert!(passed(&proxy) > 0);
        drop((crowd, hot));
    });
    // No place has been lost or given back twice.
    eventually("all have gone", || {
        proxy.info().number(&["totals", "connections"]) == 0 && loads(&proxy) == [0; 4]
    });
}

#[test]
fn connections_per_address_holds_while_clients_move() {
    const MOST: usize = 60;
    let proxy = Proxy::with(&format!("connections-per-address {MOST}\nhead-timeout 10m"));
    let hot = Hot::new(&proxy, 20);
    let before = passed(&proxy);
    let more: Vec<Client> = (20..MOST).map(|_| Client::connect(&proxy)).collect();
    await_clients(&proxy, MOST as u64);
    assert!(passed(&proxy) > before);
    Client::connect(&proxy).expect_closed();
    // If that one was passed, it counts as on its way for a moment longer.
    await_clients(&proxy, MOST as u64);
    drop((hot, more));
    eventually("all have gone", || loads(&proxy) == [0, 0]);
    let _again = Client::connect(&proxy);
    await_clients(&proxy, 1);
}

/// A worker may have been told to drain while a connection was on its way to it.
#[test]
fn sigterm_loses_no_client_that_moves() {
    for _ in 0..8 {
        let mut proxy = Proxy::with("workers 4\nhead-timeout 10m");
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let hot = Hot::new(&proxy, 8);
        proxy.freeze();
        let mut clients: Vec<Client> =
            (0..24).map(|_| Client::get(&proxy, "a.test", "/last")).collect();
        proxy.thaw();
        proxy.terminate();
        for _ in 0..clients.len() {
            assert_eq!(bridge.serve("served"), "GET /last HTTP/1.1");
        }
        for client in &mut clients {
            assert_eq!(client.read_response().text(), "served");
        }
        bridge.read_to_end();
        drop((clients, bridge, hot));
        assert!(proxy.wait_exit().success());
    }
}

/// Neither program loses a client that moves while one takes over from the other.
#[test]
fn an_upgrade_loses_no_client_that_moves() {
    let proxy = Upgraded::start("workers 4\nhead-timeout 10m");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for _ in 0..3 {
        let hot = Hot::new(&proxy, 8);
        let over = AtomicBool::new(false);
        let is_over = || over.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let served = scope.spawn(|| {
                let mut served = 0;
                while !is_over() {
                    let mut clients: Vec<Client> =
                        (0..16).map(|_| Client::get(&proxy, "a.test", "/")).collect();
                    clients.iter().for_each(|_| _ = bridge.serve("served"));
                    for client in &mut clients {
                        assert_eq!(client.read_response().text(), "served");
                    }
                    served += clients.len();
                }
                served
            });
            let old = proxy.upgrade();
            await_end(old);
            over.store(true, Ordering::SeqCst);
            assert!(served.join().expect("the clients") > 0);
        });
        drop(hot);
        eventually("all have gone", || loads(&proxy) == [0; 4]);
    }
}
