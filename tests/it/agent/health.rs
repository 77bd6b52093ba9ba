//! `--healthz`: whether the agent has bridges.

use super::upgrade::Upgraded;
use crate::common::{Agent, App, Client, DEADLINE, Proxy, at, eventually, free_address, ok};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Where the agent says that it is asked.
#[track_caller]
fn place(agent: &Agent) -> SocketAddr {
    let mark = "/healthz is answered on ";
    agent.await_log(mark);
    let log = agent.log();
    let (_, rest) = log.split_once(mark).expect("the line");
    rest.lines().next().and_then(|line| line.parse().ok()).expect("an address")
}

/// What is answered to these bytes.
#[track_caller]
fn answer(place: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(place).expect("somebody who answers");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream.write_all(request.as_bytes()).expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and a FIN");
    answer
}

fn health(place: SocketAddr) -> String {
    answer(place, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
}

const HEALTHY: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 3\r\nConnection: close\r\n\r\nok\n";

fn unhealthy(why: &str) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    )
}

#[test]
fn an_agent_is_ready_while_it_has_bridges() {
    let proxy = Proxy::start();
    let (app, gate) = App::gated("/", "done");
    let mut agent =
        Agent::start(&["--to", &app.to(), "-n1", "--healthz", "127.0.0.1:0", &at(&proxy)]);
    let place = place(&agent);
    eventually("it has a bridge", || health(place) == HEALTHY);
    // Its only bridge serves.
    let mut client = Client::get(&proxy, "a.test", "/");
    eventually("the request is there", || gate.inside() == 1);
    assert_eq!(health(place), HEALTHY);
    agent.signal("TERM");
    agent.await_log("shutting down");
    assert_eq!(health(place), unhealthy("shutting down"));
    gate.let_out(1);
    assert_eq!(client.read_response().text(), "done");
    assert!(agent.wait_exit().success());
}

#[test]
fn an_agent_without_an_application_or_a_proxy_is_not_ready() {
    let proxy = Proxy::start();
    let nowhere = free_address().to_string();
    let agent = Agent::start(&["--to", &nowhere, "--healthz=127.0.0.1:0", &at(&proxy)]);
    agent.await_log("cannot be reached");
    assert_eq!(health(place(&agent)), unhealthy(&format!("no bridge for {nowhere}")));
    let app = App::start(|_| ok("done"));
    let agent = Agent::start(&["--to", &app.to(), "--healthz=127.0.0.1:0", &nowhere]);
    agent.await_log("no bridge to");
    assert_eq!(health(place(&agent)), unhealthy(&format!("no bridge for {}", app.to())));
}

#[test]
fn only_that_question_is_answered() {
    let nowhere = free_address().to_string();
    let agent = Agent::start(&["--to", &nowhere, "--healthz=127.0.0.1:0", &nowhere]);
    let place = place(&agent);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", "405"),
        ("GET /healthz?x HTTP/1.0\r\n\r\n", "503"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = answer(place, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        // RFC 9110 section 15.5.6.
        let lists_methods = answer.contains("\r\nAllow: GET, HEAD");
        assert_eq!(lists_methods, status == "405", "{request:?}: {answer}");
    }
    let head = answer(place, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_place_that_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("its address").to_string();
    let mut agent = Agent::start(&["--to", "3000", "--healthz", &place, "127.0.0.1:1"]);
    assert_eq!(agent.wait_exit().code(), Some(1));
    agent
        .await_log(&format!("cloudbridge-agent: cannot listen on {place}: Address already in use"));
}

/// The only bridge is still the old program's.
#[test]
fn a_new_program_is_ready_while_the_old_one_has_the_bridges() {
    let proxy = Proxy::start();
    let (app, gate) = App::gated("/", "done");
    let args = ["--to", &app.to(), "-n1", "--healthz=127.0.0.1:0", &at(&proxy)];
    let agent = Upgraded::start(&args);
    let place = place(&agent);
    let mut client = Client::get(&proxy, "a.test", "/");
    eventually("the request is there", || gate.inside() == 1);
    agent.upgrade();
    assert_eq!(health(place), HEALTHY);
    gate.let_out(1);
    assert_eq!(client.read_response().text(), "done");
}

#[test]
fn an_agent_ends_though_somebody_asks() {
    let nowhere = free_address().to_string();
    let mut agent =
        Agent::start(&["--to", &nowhere, "--grace=1h", "--healthz=127.0.0.1:0", &nowhere]);
    let place = place(&agent);
    let _silent = TcpStream::connect(place).expect("somebody who listens");
    assert_eq!(health(place), unhealthy(&format!("no bridge for {nowhere}")));
    agent.signal("TERM");
    assert!(agent.wait_exit().success());
}

#[test]
fn a_new_program_answers_at_the_same_place() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("done"));
    let agent = Upgraded::start(&["--to", &app.to(), "--healthz=127.0.0.1:0", &at(&proxy)]);
    let place = place(&agent);
    proxy.await_count("b", 8);
    let old = agent.upgrade();
    assert_eq!(health(place), HEALTHY);
    agent.await_replaced(old);
    assert_eq!(health(place), HEALTHY);
}
