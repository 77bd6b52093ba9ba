//! `--exit-idle`: an agent that nobody needs leaves by itself.

use crate::common::{
    ACK, Agent, App, Bridge, Client, Played, Proxy, SWITCH, Stopwatch, WELCOME, at, eventually,
    free_address, let_pass, ok,
};
use std::time::Duration;

const IDLE: &str = "this agent is not needed";
const TOLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ngone\n";

fn serve(app: &App, idle: &str, proxy: &str) -> Agent {
    Agent::start(&["--to", &app.to(), "-n2", "--exit-idle", idle, proxy])
}

#[test]
fn it_leaves_in_the_announced_way_and_exits_0() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let clock = Stopwatch::start();
    // It waits for the agent: this thread may be late.
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut agent = serve(&app, "1s", &at(&proxy));
    assert_eq!(client.read_response().text(), "served");
    assert!(agent.wait_exit().success());
    clock.assert_passed(Duration::from_secs(1));
    agent.await_log(IDLE);
    proxy.await_no_bridges();
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 1);
}

#[test]
fn a_request_that_crosses_its_leave_is_served() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let mut agent = Agent::start(&["--to", &app.to(), "-n1", "--exit-idle", "300ms", &proxy.at()]);
    let (mut bridge, head) = proxy.bridge();
    let token = head.field("cloudbridge-backend").expect("a token").to_owned();
    bridge.send(WELCOME);
    let (mut leave, head): (Bridge, _) = proxy.bridge();
    assert_eq!(head.field("cloudbridge-leave"), Some(token.as_str()));
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
    bridge.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    let mut answer = bridge.read_head();
    answer.body = bridge.read_exactly(6);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "served"));
    leave.send(TOLD);
    bridge.expect_closed();
    assert!(agent.wait_exit().success());
}

/// Its time begins anew when the request is over.
#[test]
fn a_request_under_way_keeps_it() {
    let proxy = Proxy::start();
    let (app, gate) = App::gated("/", "finished");
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut agent = serve(&app, "500ms", &at(&proxy));
    eventually("the request is inside", || gate.inside() == 1);
    let_pass(Duration::from_millis(1200));
    assert!(agent.exit_status().is_none() && !agent.log().contains(IDLE));
    let clock = Stopwatch::start();
    gate.let_out(1);
    assert_eq!(client.read_response().text(), "finished");
    assert!(agent.wait_exit().success());
    clock.assert_passed(Duration::from_millis(500));
}

#[test]
fn without_its_proxy_it_leaves_too() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let mut agent = serve(&app, "1s", &at(&proxy));
    agent.await_log("accepts bridges");
    drop(proxy);
    assert!(agent.wait_exit().success());
    agent.await_log(IDLE);
}

/// The application may be as far from ready as the agent.
#[test]
fn its_time_begins_with_its_first_bridge() {
    let proxy = Proxy::start();
    let address = free_address();
    let mut agent =
        Agent::start(&["--to", &address.to_string(), "--exit-idle", "100ms", &at(&proxy)]);
    let mut client = Client::get(&proxy, "a.test", "/");
    let_pass(Duration::from_millis(500));
    assert!(agent.exit_status().is_none());
    let _app = App::start_at(address, |_| ok("served"));
    assert_eq!(client.read_response().text(), "served");
    assert!(agent.wait_exit().success());
}

#[test]
fn the_file_says_it() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let service = format!("service {} n=2\n", app.to());
    proxy.write("agent.conf", &format!("{service}exit-idle 1h\n"));
    let path = proxy.dir().join("agent.conf").display().to_string();
    let mut agent = Agent::start(&["-c", &path, &at(&proxy)]);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    proxy.write("agent.conf", &format!("{service}exit-idle 100ms\n"));
    agent.reload();
    assert!(agent.wait_exit().success());
    agent.await_log(IDLE);
}
