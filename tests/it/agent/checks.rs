//! Health checks: an application that accepts connections and answers nothing leaves rotation.

use crate::common::{
    Agent, App, Client, Gate, Proxy, Seen, at, eventually, free_address, logged, ok,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

/// Whether a request is a health check, as it is sent.
fn is_check(seen: &Seen, host: &str) -> bool {
    seen.head
        == format!(
            "GET /health HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloudbridge-check\r\n\
             Connection: close\r\n\r\n"
        )
}

/// An answer with this status, and the end of the connection.
fn closing(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// An application that answers checks with the status in `health`, and requests with its name.
fn checked(name: &'static str, host: &'static str, health: &Arc<AtomicU16>) -> App {
    let health = Arc::clone(health);
    App::start(move |seen| match is_check(seen, host) {
        true => closing(health.load(Ordering::SeqCst)),
        false => ok(name),
    })
}

fn agent(app: &App, proxy: &Proxy) -> Agent {
    Agent::start(&[
        "--to",
        &app.to(),
        "--host=a.test",
        "-n4",
        "--check=/health",
        "--check-interval=100ms",
        &at(proxy),
    ])
}

#[test]
fn application_that_fails_its_checks_leaves_rotation_and_comes_back() {
    let proxy = Proxy::start();
    let health = Arc::new(AtomicU16::new(204));
    let app = checked("sick", "a.test", &health);
    let agent = agent(&app, &proxy);
    proxy.await_count("b", 4);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "sick");
    for _ in 0..2 {
        health.store(503, Ordering::SeqCst);
        agent.await_log("its health check was answered 503");
        proxy.await_count("b", 0);
        let mut client = Client::get(&proxy, "a.test", "/");
        proxy.await_count("c", 1);
        health.store(204, Ordering::SeqCst);
        assert_eq!(client.read_response().text(), "sick");
        proxy.await_count("b", 4);
    }
}

#[test]
fn application_that_hangs_leaves_rotation() {
    let proxy = Proxy::start();
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let hanging = App::start(move |seen| {
        if is_check(seen, "a.test") && count.fetch_add(1, Ordering::SeqCst) >= 5 {
            held.pass();
        }
        ok("hangs")
    });
    let agent = agent(&hanging, &proxy);
    agent.await_log("its health check is not answered");
    proxy.await_count("b", 0);
    let other = App::start(|_| ok("other"));
    let _other = Agent::serve(&other.to(), 1, &[at(&proxy)]);
    for _ in 0..4 {
        assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "other");
    }
    gate.let_out(1_000);
}

/// One answer may be luck: an application that is starting is not given requests for it.
#[test]
fn application_must_pass_as_many_checks_as_the_rise() {
    let proxy = Proxy::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = App::start(move |seen| {
        if is_check(seen, "localhost") {
            // Every second one is good, up to the sixth.
            let number = count.fetch_add(1, Ordering::SeqCst);
            return closing(if number < 6 && number % 2 == 1 { 500 } else { 200 });
        }
        ok("up")
    });
    let _agent = Agent::start(&["--to", &app.to(), "-n1", "--check=/health", &at(&proxy)]);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "up");
    assert!(asked.load(Ordering::SeqCst) >= 8);
}

/// The same for the servers that the proxy dials.
#[test]
fn server_that_fails_its_checks_is_set_aside_until_it_passes_them() {
    let sick = Arc::new(AtomicU16::new(200));
    let well = Arc::new(AtomicU16::new(200));
    let (one, two) = (checked("sick", "a.test", &sick), checked("well", "a.test", &well));
    let proxy = Proxy::with(&format!(
        "site a.test servers={},{} check=/health check-interval=100ms",
        one.to(),
        two.to()
    ));
    let asks = || Client::get(&proxy, "a.test", "/").read_response().text();
    // Which of the two depends on whose check is under way.
    assert!(["sick", "well"].contains(&asks().as_str()));
    sick.store(500, Ordering::SeqCst);
    proxy.await_log("its health check was answered 500");
    proxy.await_log(logged::CANNOT_BE_REACHED);
    well.store(500, Ordering::SeqCst);
    sick.store(200, Ordering::SeqCst);
    eventually("the first is back", || proxy.log().contains(&format!("server {} is up", one.to())));
    eventually("the other is set aside", || {
        proxy.log().matches("its health check was answered 500").count() == 2
    });
    assert_eq!(proxy.info().number(&["servers", &format!("{} of a.test", one.to()), "up"]), 1);
    assert_eq!(proxy.info().number(&["servers", &format!("{} of a.test", two.to()), "up"]), 0);
}

/// It is set aside at once, as without a check, and is up when its checks are answered again.
#[test]
fn server_that_refuses_connections_is_set_aside_at_once() {
    let address = free_address();
    let proxy = Proxy::with(&format!(
        "site a.test servers={address} check=/health check-interval=100ms timeout=60s"
    ));
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_log(logged::CANNOT_BE_REACHED);
    let _app = App::start_at(address, |_| ok("back"));
    assert_eq!(client.read_response().text(), "back");
}
