//! SIGHUP: services come and go, and those that stay notice nothing.

use crate::common::{
    ACK, Agent, App, Client, Message, Played, Proxy, SWITCH, Setup, at, eventually, logged, ok,
};

/// An agent that serves what this file says, which is kept among the proxy's.
fn start(proxy: &Proxy, file: &str) -> Agent {
    proxy.write("agent.conf", file);
    let path = proxy.dir().join("agent.conf").display().to_string();
    Agent::start(&["-c", &path, &at(proxy)])
}

#[track_caller]
fn ask(proxy: &Proxy, host: &str) -> String {
    Client::get(proxy, host, "/").read_response().text()
}

#[test]
fn sighup_adds_and_removes_services() {
    let proxy = Proxy::start();
    let [stays, goes, comes] = ["stays", "goes", "comes"].map(|name| App::start(move |_| ok(name)));
    let first = format!("service {} host=stays.test n=3\n", stays.to());
    let agent = start(&proxy, &format!("{first}service {} host=goes.test n=3\n", goes.to()));
    assert_eq!(ask(&proxy, "stays.test"), "stays");
    assert_eq!(ask(&proxy, "goes.test"), "goes");
    proxy.await_count("b", 6);
    // The order of the lines means nothing.
    proxy.write("agent.conf", &format!("service {} host=comes.test n=2\n{first}", comes.to()));
    agent.reload();
    agent.await_log("HUP: 1 services added, 1 removed, 1 kept");
    assert_eq!(ask(&proxy, "comes.test"), "comes");
    assert_eq!(ask(&proxy, "stays.test"), "stays");
    proxy.await_count("b", 5);
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 1);
    let mut waiting = Client::get(&proxy, "goes.test", "/");
    proxy.await_count("c", 1);
    proxy.write("agent.conf", &format!("{first}service {} host=goes.test n=1\n", goes.to()));
    agent.reload();
    assert_eq!(waiting.read_response().text(), "goes");
    proxy.await_count("b", 4);
}

/// The test plays the proxy, so that it sees which bridges there are.
#[test]
fn sighup_keeps_the_bridges_of_an_unchanged_service() {
    let proxy = Played::start();
    let next = || {
        let (mut bridge, head) = proxy.bridge();
        bridge.send(match head.has("cloudbridge-leave") {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false => "HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave\r\n\r\n",
        });
        (bridge, head)
    };
    let files = Proxy::start();
    let app = App::start(|_| ok("served"));
    let line = |host: &str| format!("service {} host={host} n=1 proxy={}\n", app.to(), proxy.at());
    let agent = start(&files, &line("a.test"));
    let (mut stays, _) = next();
    files.write("agent.conf", &(line("a.test") + &line("b.test")));
    agent.reload();
    let (mut goes, head) = next();
    assert_eq!(head.field("host"), Some("b.test"));
    // Now the agent has heard the welcome.
    goes.send(SWITCH);
    goes.expect_exact(ACK);
    goes.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(goes.read_head().status(), 200);
    goes.expect_exact("served");
    files.write("agent.conf", &(line("c.test") + &line("a.test")));
    agent.reload();
    let both = [next(), next()];
    let is_leave = |head: &&Message| head.has("cloudbridge-leave");
    let (leaves, new): (Vec<_>, Vec<_>) = both.iter().map(|(_, head)| head).partition(is_leave);
    assert_eq!(leaves[0].field("host"), Some("b.test"));
    assert_eq!(new[0].field("host"), Some("c.test"));
    assert!(!stays.is_closed() && !goes.is_closed());
    stays.send(SWITCH);
    stays.expect_exact(ACK);
}

#[test]
fn sighup_finishes_the_request_of_a_removed_service() {
    let proxy = Proxy::start();
    let (goes, gate) = App::gated("/", "finished");
    let stays = App::start(|_| ok("stays"));
    let rest = format!("service {} host=stays.test n=1\n", stays.to());
    let agent = start(&proxy, &format!("{rest}service {} host=goes.test n=1\n", goes.to()));
    let mut client = Client::get(&proxy, "goes.test", "/");
    eventually("the request is inside", || gate.inside() == 1);
    proxy.write("agent.conf", &rest);
    agent.reload();
    agent.await_log("1 removed, 1 kept");
    gate.let_out(1);
    assert_eq!(client.read_response().text(), "finished");
    proxy.await_count("B", 0);
    proxy.await_count("b", 1);
    assert_eq!(ask(&proxy, "stays.test"), "stays");
}

#[test]
fn sighup_with_a_bad_file_changes_nothing_and_logs_every_mistake() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let agent = start(&proxy, &format!("service {} host=a.test n=2\n", app.to()));
    proxy.await_count("b", 2);
    proxy.write("agent.conf", "service 3000 hots=a\nserivce 3000\n");
    agent.reload();
    agent.await_log("HUP: nothing changes");
    for mistake in ["agent.conf:1: service: there is no option \"hots\"", "agent.conf:2:"] {
        agent.await_log(mistake);
    }
    assert_eq!(ask(&proxy, "a.test"), "served");
    proxy.await_count("b", 2);
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 0);
}

#[test]
fn sighup_reads_a_new_key_from_its_file() {
    /// `printf '%s' second:1700000000:a.test | sha1sum`
    const KEY: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets")
        .file("secrets", "1600000000:second\n")
        .file("key", "::a.test\n")
        .start();
    let app = App::start(|_| ok("served"));
    let key = proxy.dir().join("key").display().to_string();
    let to = app.to();
    let agent = Agent::start(&["--to", &to, "--host", "a.test", "--key-file", &key, &at(&proxy)]);
    agent.await_log(logged::REFUSES_BRIDGES);
    proxy.write("key", KEY);
    // Without this it would ask again in half a minute.
    agent.reload();
    assert_eq!(ask(&proxy, "a.test"), "served");
    assert!(!agent.log().contains("adb7"), "{}", agent.log());
}
