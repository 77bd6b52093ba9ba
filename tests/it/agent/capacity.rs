//! `-n`: how many requests reach the application at once.

use crate::common::{Agent, App, Client, Proxy, Stopwatch, at, eventually, logged, ok};
use std::process::Command;
use std::time::Duration;

#[test]
fn slots_are_parked_at_every_proxy() {
    let (one, two) = (Proxy::start(), Proxy::start());
    let app = App::start(|_| ok("served"));
    let _agent = Agent::serve(&app.to(), 3, &[at(&one), at(&two)]);
    one.await_count("b", 3);
    two.await_count("b", 3);
}

#[test]
fn slots_are_shared_by_two_proxies_and_every_request_is_served() {
    const LIMIT: usize = 2;
    const EACH: usize = 6;
    let proxies = [Proxy::start(), Proxy::start()];
    let (app, gate) = App::gated("/", "served");
    let _agent = Agent::serve(&app.to(), LIMIT, &proxies.each_ref().map(at));
    for proxy in &proxies {
        proxy.await_count("b", LIMIT as u64);
    }
    let mut clients: Vec<Client> = proxies
        .iter()
        .flat_map(|proxy| (0..EACH).map(move |_| Client::get(proxy, "a.test", "/")))
        .collect();
    for round in 0..2 * EACH {
        let left = 2 * EACH - round;
        eventually("all places are taken", || gate.inside() == LIMIT.min(left));
        gate.let_out(1);
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "served");
    }
    // Once more over the same bridges, which need no acknowledgement now.
    for client in &mut clients {
        client.send_get("a.test", "/again");
    }
    eventually("all places are taken", || gate.inside() == LIMIT);
    gate.let_out(2 * EACH);
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "served");
    }
    assert_eq!(gate.most(), LIMIT);
}

/// One proxy whose requests take all places does not keep the other's bridges parked in vain: the
/// other's request goes to another agent.
#[test]
fn request_without_a_free_slot_goes_to_another_agent() {
    let (busy, quiet) = (Proxy::start(), Proxy::start());
    let (full, gate) = App::gated("/", "full");
    let other = App::start(|_| ok("other"));
    let _first = Agent::serve(&full.to(), 1, &[at(&busy), at(&quiet)]);
    quiet.await_count("b", 1);
    let mut first = Client::get(&busy, "a.test", "/");
    eventually("the only place is taken", || gate.inside() == 1);
    let mut second = Client::get(&quiet, "a.test", "/");
    let _second = Agent::serve(&other.to(), 1, &[at(&quiet)]);
    assert_eq!(second.read_response().text(), "other");
    gate.let_out(1);
    assert_eq!(first.read_response().text(), "full");
}

#[test]
fn slots_that_are_taken_for_five_seconds_are_said() {
    let proxy = Proxy::start();
    let app = App::start(|_| b"HTTP/1.1 200 OK\r\n\r\nevent\n".to_vec());
    let clock = Stopwatch::start();
    let agent = Agent::serve(&app.to(), 2, &[at(&proxy)]);
    let mut streams = [0, 1].map(|_| Client::get(&proxy, "a.test", "/"));
    streams.iter_mut().for_each(|stream| stream.expect_exact("HTTP/1.1 200 OK"));
    agent.await_log("all 2 places of the application");
    clock.assert_passed(Duration::from_secs(5));
    agent.await_log("2 of them by responses that have begun and 0 by WebSockets that begin");
}

/// An agent without enough descriptors offers what it can serve, and its log stays short.
#[test]
fn too_few_descriptors_are_fewer_requests_at_once_and_nothing_else() {
    const REQUESTS: usize = 60;
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    command.args([
        env!("CARGO_BIN_EXE_cloudbridge-agent"),
        "--to",
        &app.to(),
        "-n100",
        &at(&proxy),
    ]);
    let agent = Agent::spawn(command);
    proxy.await_count("b", 15);
    for _ in 0..3 {
        let mut clients: Vec<Client> =
            (0..REQUESTS).map(|_| Client::get(&proxy, "a.test", "/")).collect();
        for client in &mut clients {
            assert_eq!(client.read_response().text(), "served");
        }
    }
    proxy.await_count("b", 15);
    let log = agent.log();
    assert!(log.contains("64 descriptors (ulimit -n) are enough for 15 requests"), "{log}");
    assert!(log.lines().count() < 8 && !log.contains(logged::CANNOT_BE_REACHED), "{log}");
}
