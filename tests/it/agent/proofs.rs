//! The agent proves its host keys, and sends them only where it is told to.

use crate::common::{
    ACK, Agent, App, B_SECOND, Bridge, Client, Message, Played, Proxy, Setup, WELCOME, at,
    challenge, named, ok, proof,
};

const KEY: &str = "0123456789012345678901234567890123456789:1700000000:a.test";
const PROXY_NONCE: &str = "ffeeddccbbaa99887766554433221100";

fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("workers 2\nsecrets {{dir}}/secrets\n{settings}"))
        .file("secrets", "1600000000:second\n")
        .start()
}

/// An agent with one slot for `a.test`, at this proxy.
#[track_caller]
fn agent(app: &App, proxy: &str, more: &[&str]) -> Agent {
    let to = app.to();
    let always = ["--to", &to, "-n1", "--host", "a.test", "--key", KEY];
    Agent::start(&[&always[..], more, &[proxy]].concat())
}

/// Reads a BRIDGE that names the key, asks for its proof, and reads that.
#[track_caller]
fn ask_for_proof(bridge: &mut Bridge) -> Message {
    let first = bridge.read_head();
    assert_eq!(first.all("host-key"), [named(KEY)], "{first:?}");
    bridge.send(challenge(PROXY_NONCE));
    let second = bridge.read_head();
    let proof = format!("proof-{}", proof(KEY, PROXY_NONCE, &first.head));
    let [named, proven] = [named(KEY), named(KEY).replace("proof", &proof)];
    let text = |message: &Message| String::from_utf8(message.head.clone()).expect("text");
    assert_eq!(text(&second), text(&first).replace(&named, &proven));
    second
}

#[test]
fn keys_are_proven_on_bridges_and_for_the_leave() {
    let (proxy, app) = (Played::start(), App::start(|_| ok("served")));
    let mut agent = agent(&app, &proxy.at(), &[]);
    let mut bridge = Bridge::over(proxy.connection());
    let second = ask_for_proof(&mut bridge);
    let nonce = second.field("cloudbridge-nonce").map(str::to_owned);
    bridge.send(WELCOME);
    agent.await_log("accepts bridges");
    agent.terminate();
    let mut leave = Bridge::over(proxy.connection());
    let left = ask_for_proof(&mut leave);
    assert_eq!(left.field("cloudbridge-leave"), second.field("cloudbridge-backend"));
    assert_ne!(left.field("cloudbridge-nonce"), nonce.as_deref(), "each connection has its own");
    leave.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ngone\n");
    drop(bridge);
    assert!(agent.wait_exit().success());
    assert!(!agent.log().contains("0123456789"), "{}", agent.log());
}

#[test]
fn a_proxy_that_does_not_ask_gets_no_key_and_the_log_says_what_would_help() {
    for mode in ["--to", "--echo"] {
        let (proxy, app) = (Played::start(), App::start(|_| ok("served")));
        let agent = match mode {
            "--to" => agent(&app, &proxy.at(), &[]),
            _ => Agent::start(&["--echo", "-n1", "--host", "a.test", "--key", KEY, &proxy.at()]),
        };
        let mut bridge = Bridge::over(proxy.connection());
        assert_eq!(bridge.read_head().all("host-key"), [named(KEY)]);
        bridge.send(
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 6\r\n\r\nno key",
        );
        bridge.expect_closed();
        let line = "401 no key (it did not ask for a proof of the host keys; the original and old \
            versions do not, and --bearer-keys sends them the keys as they are)";
        agent.await_log(line);
        if mode == "--to" {
            agent.await_log("; it is asked again every 30 s");
        }
        assert!(proxy.is_quiet(), "it has dialled again");
        assert_eq!(agent.log().matches("no key").count(), 1, "{}", agent.log());
    }
}

#[test]
fn a_refusal_after_the_proof_is_told_as_it_is() {
    let (proxy, app) = (Played::start(), App::start(|_| ok("served")));
    let agent = agent(&app, &proxy.at(), &[]);
    let mut bridge = Bridge::over(proxy.connection());
    ask_for_proof(&mut bridge);
    bridge
        .send("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 7\r\n\r\nexpired");
    agent.await_log("refuses bridges: 401 expired; it is asked again every 30 s");
}

#[test]
fn a_second_nonce_is_a_refusal() {
    let (proxy, app) = (Played::start(), App::start(|_| ok("served")));
    let agent = agent(&app, &proxy.at(), &[]);
    let mut bridge = Bridge::over(proxy.connection());
    ask_for_proof(&mut bridge);
    bridge.send(challenge("00112233445566778899aabbccddeeff"));
    bridge.expect_closed();
    agent.await_log("refuses bridges: 401 it asks again for a proof of the keys");
    assert!(proxy.is_quiet(), "it has dialled again");
}

#[test]
fn bearer_keys_are_sent_where_that_is_allowed() {
    let app = App::start(|_| ok("served"));
    let check = |proxy: &Played| {
        let mut bridge = Bridge::over(proxy.connection());
        let head = bridge.read_head();
        assert_eq!(head.all("host-key"), [KEY], "{head:?}");
        assert!(!head.has("cloudbridge-nonce"), "{head:?}");
        bridge.send(ACK);
    };
    let proxy = Played::start();
    let _agent = agent(&app, &proxy.at(), &["--bearer-keys"]);
    check(&proxy);
    // In the file each service says it for itself.
    let (bare, proven) = (Played::start(), Played::start());
    let dir = guarded("");
    dir.write(
        "agent.conf",
        &format!(
            "service {to} host=a.test n=1 key={KEY} proxy={} bearer-keys=yes\n\
             service {to} host=a.test n=1 key={KEY} proxy={}\n",
            bare.at(),
            proven.at(),
            to = app.to()
        ),
    );
    let file = dir.dir().join("agent.conf").display().to_string();
    let _agent = Agent::start(&["-c", &file]);
    check(&bare);
    ask_for_proof(&mut Bridge::over(proven.connection()));
}

#[test]
fn a_reload_changes_how_keys_are_shown_and_loses_nothing() {
    let (proxy, app) = (guarded("bearer-keys yes"), App::start(|_| ok("served")));
    let write = |more: &str| {
        proxy.write(
            "agent.conf",
            &format!("service {} host=b.test n=2 key={B_SECOND} {more}\n", app.to()),
        );
    };
    let count = |name: &str| proxy.info().number(&["counters", name]);
    write("bearer-keys=yes");
    let file = proxy.dir().join("agent.conf").display().to_string();
    let mut agent = Agent::start(&["-c", &file, &at(&proxy)]);
    proxy.await_count("b", 2);
    assert_eq!((count("admitted_by_bearer_key"), count("admitted_by_proof")), (2, 0));
    write("");
    agent.reload();
    agent.await_log("1 services added, 1 removed, 0 kept");
    crate::common::eventually("bridges by proof", || {
        count("admitted_by_proof") == 2 && proxy.count("b") == 2
    });
    proxy.change_settings("bearer-keys yes", "bearer-keys no");
    proxy.reload_well();
    assert_eq!(Client::get(&proxy, "b.test", "/").read_response().text(), "served");
    agent.terminate();
    assert!(agent.wait_exit().success());
    assert_eq!(count("leaves"), 2, "of both, proven where it must be");
}
