//! Backends that register by a PTTH request.

use super::upgrade::{Upgraded, await_end};
use crate::common::{
    A_FIRST, ACK, B_SECOND, Bridge, Client, Message, Process, Proxy, SECRETS, Setup, TOKEN, Wire,
    eventually, installed, named, proof, run_well,
};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a backend is answered that is let in.
const OPENED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\
    ALPN: http%2F1.1\r\n\r\n";

/// The settings with which it is spoken.
const SPOKEN: &str = "ptth yes\nlisten 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges";

/// The target for `https://a.test`.
const A: &str = "/.well-known/ptth/https%3A%2F%2Fa.test/";

/// What goes with every 401.
const BEARER: &str = "WWW-Authenticate: Bearer realm=\"host key\"\r\n";

fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: proxy.test\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\
         ALPN: http%2F1.1\r\n{fields}\r\n"
    )
}

/// The answer to a backend that has announced itself.
fn opened_with(extensions: &str) -> String {
    let line = format!("Cloudbridge-Extensions: {extensions}\r\n\r\n");
    format!("{}{line}", OPENED.strip_suffix("\r\n").unwrap())
}

/// A connection that has been turned round, on which requests come as they are.
#[track_caller]
fn open(proxy: &Proxy, target: &str, fields: &str) -> Bridge {
    let mut wire = Wire::connect(proxy.for_bridges());
    wire.send(request(target, fields));
    wire.expect_exact(OPENED);
    Bridge::reused(wire)
}

/// The refusal of these bytes.
#[track_caller]
fn refused(proxy: &Proxy, bytes: &str) -> Message {
    Bridge::refused(proxy, bytes)
}

/// A proxy with secrets that speaks it.
#[track_caller]
fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!(
            "{SPOKEN}\nsecrets {{dir}}/secrets\nrevoked {{dir}}/revoked\n{settings}"
        ))
        .file("secrets", SECRETS)
        .file("revoked", "")
        .start()
}

#[test]
fn a_channel_carries_one_request_after_another() {
    let proxy = Proxy::with(&format!("{SPOKEN}\nworkers 3\nforwarded off"));
    let mut channel = open(&proxy, A, "");
    for path in ["/first", "/second", "/third"] {
        let mut client = Client::get(&proxy, "a.test", path);
        // Nothing is before the request, and nothing is to acknowledge.
        channel.expect_exact(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        channel.respond_to(&mut client, path);
    }
    let mut client = Client::get(&proxy, "a.test", "/last");
    channel.accept_request();
    channel.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye");
    assert_eq!(client.read_response().text(), "bye");
    channel.expect_closed();
    proxy.await_no_bridges();
}

#[test]
fn a_request_that_waits_gets_the_channel_and_it_may_come_byte_by_byte() {
    let proxy = Proxy::with(SPOKEN);
    let mut client = Client::get(&proxy, "a.test", "/waits");
    proxy.await_count("c", 1);
    let mut wire = Wire::connect(proxy.for_bridges());
    wire.send_byte_by_byte(request(A, ""));
    wire.expect_exact(OPENED);
    Bridge::reused(wire).serve_to(&mut client, "at once");
}

#[test]
fn origins_hosts_and_prefixes_are_routes_like_those_of_bridges() {
    let proxy = Proxy::with(SPOKEN);
    let two = "/.well-known/ptth/https%3A%2F%2Fa.test,http%3A%2F%2Fb.test%3A8080/";
    let mut origins = open(&proxy, two, "Cloudbridge-Host: *.w.test\r\n");
    let mut below = open(&proxy, "/app", "Cloudbridge-Host: b.test\r\n");
    let mut bridge = Bridge::park(&proxy, &["c.test"]);
    for (host, path, body) in [
        ("a.test", "/app", "origins"),
        ("b.test", "/", "origins"),
        ("x.w.test", "/", "origins"),
        ("b.test", "/app/x", "below"),
        ("c.test", "/", "bridge"),
    ] {
        let mut client = Client::get(&proxy, host, path);
        let serving = match body {
            "origins" => &mut origins,
            "below" => &mut below,
            _ => &mut bridge,
        };
        serving.serve_to(&mut client, body);
    }
}

#[test]
fn off_it_is_a_request_like_any_other() {
    let proxy = Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    let refusal = refused(&proxy, &request(A, ""));
    assert_eq!(
        (refusal.status(), refusal.text().as_str()),
        (404, "this address accepts bridges only\n")
    );
    let both = Proxy::start();
    let mut bridge = Bridge::park(&both, &["proxy.test"]);
    let mut client = Client::request(&both, request(A, ""));
    let passed_on = bridge.accept_request();
    assert_eq!(passed_on.start, format!("GET {A} HTTP/1.1"));
    assert_eq!(passed_on.field("upgrade"), Some("ptth"));
    bridge.respond_to(&mut client, "an application's own");
}

#[test]
fn a_reload_turns_it_on_and_off_and_channels_stay() {
    let proxy = Proxy::with("ptth no\nlisten 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    assert_eq!(refused(&proxy, &request(A, "")).status(), 404);
    proxy.change_settings("ptth no", "ptth yes");
    proxy.reload_well();
    let mut channel = open(&proxy, A, "");
    // The settings as they were.
    proxy.change_settings("ptth no", "ptth no");
    proxy.reload_well();
    assert_eq!(refused(&proxy, &request(A, "")).status(), 404);
    channel.serve_to(&mut Client::get(&proxy, "a.test", "/"), "stays");
}

#[test]
fn what_is_wrong_is_told_in_one_framed_answer() {
    let proxy = Proxy::with(SPOKEN);
    let alpn = "ALPN: http%2F1.1\r\n";
    let good = request(A, "");
    for (sent, status, text) in [
        (
            request("/", ""),
            404,
            "no host: name origins behind /.well-known/ptth/, or hosts in Cloudbridge-Host fields",
        ),
        (
            request("/.well-known/ptth/null/", ""),
            400,
            "bad origin 'null': it does not begin with https:// or http://",
        ),
        (
            request("/.well-known/ptth/https%3A%2F%2F*/", ""),
            400,
            "bad origin 'https%3A%2F%2F*': an origin has no wildcard; a Cloudbridge-Host may have one",
        ),
        (
            request("/?a", "Cloudbridge-Host: a.test\r\n"),
            400,
            "the target of a PTTH request has no query",
        ),
        (good.replace(alpn, ""), 400, "a PTTH request has an ALPN field"),
        (
            good.replace(alpn, "ALPN: h2\r\n"),
            501,
            "of what ALPN may list, only http%2F1.1 is spoken here",
        ),
        (good.replace("GET", "PUT"), 400, "a PTTH request is a GET"),
        (request(A, "Content-Length: 1\r\n"), 501, "a PTTH request has no body"),
        (request(A, "If-Match: x\r\n"), 501, "If-Match is not supported"),
        (
            request(A, "Cloudbridge-Backend: 1\r\n"),
            400,
            "bad Cloudbridge-Backend: it is 32 lower-case hex digits",
        ),
        (format!("{good}HTTP/1.1 200 OK\r\n\r\n"), 400, "nothing may follow a PTTH request"),
        (format!("{good}{good}"), 400, "nothing may follow a PTTH request"),
        (
            request(A, "Authorization: Basic QTpC\r\n"),
            401,
            "of Authorization, only Bearer with a host key is understood",
        ),
        (request(A, "X-Forwarded-For: 192.0.2.1\r\n"), 401, NOT_LOCAL),
    ] {
        let refusal = refused(&proxy, &sent);
        assert_eq!((refusal.status(), refusal.text().trim_end()), (status, text), "{sent}");
        let asks = refusal.field("www-authenticate");
        assert_eq!(asks.is_some(), status == 401, "{refusal:?}");
    }
    // Before HTTP/1.1 nothing is upgraded.
    let http_1_0 = good.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(refused(&proxy, &http_1_0).text(), "this address accepts bridges only\n");
    assert_eq!(proxy.count("b"), 0);
}

const NOT_LOCAL: &str = "without secrets, bridges are taken only from this machine itself and not \
    through another proxy; set `secrets FILE`, or `open-bridges yes` to let anybody in";

/// What is in front of the proxy may pass on what a client wants to upgrade to.
#[test]
fn where_clients_come_nobody_registers() {
    for listeners in ["", "\nlisten 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges"] {
        let proxy = Proxy::with(&format!("ptth yes\naccess-log {{dir}}/access{listeners}"));
        let mut backend = Client::request(&proxy, request(A, ""));
        let refusal = backend.read_response();
        refusal.assert_own_reply(403);
        assert_eq!(refusal.text(), "PTTH requests are taken where only bridges come in\n");
        let mut bridge = Bridge::park(&proxy, &["proxy.test"]);
        // A client that lists it beside what it can do.
        let wish = "Host: proxy.test\r\nConnection: upgrade\r\nUpgrade: websocket, ptth\r\n";
        let mut client = Client::request(&proxy, format!("GET / HTTP/1.1\r\n{wish}\r\n"));
        assert_eq!(bridge.accept_request().field("upgrade"), Some("websocket, ptth"));
        bridge.respond_to(&mut client, "an application's own");
        eventually("both are in the log", || {
            let log = fs::read_to_string(proxy.dir().join("access")).unwrap_or_default();
            let mut refused: Vec<bool> = log.lines().map(|line| line.contains(" 403 ")).collect();
            // They may be of two workers.
            refused.sort_unstable();
            refused == [false, true]
        });
    }
}

#[test]
fn keys_are_those_of_bridges() {
    let proxy = guarded("");
    let authorization = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let mut channel = open(&proxy, A, &authorization(A_FIRST));
    channel.serve_to(&mut Client::get(&proxy, "a.test", "/"), "by its key");
    let both = "/.well-known/ptth/https%3A%2F%2Fa.test,https%3A%2F%2Fb.test/";
    open(&proxy, both, &format!("{}Host-Key: {B_SECOND}\r\n", authorization(A_FIRST)));
    for (target, fields) in [
        (A, String::new()),
        (A, authorization(B_SECOND)),
        (A, authorization(&A_FIRST.replace("344e", "344f"))),
        (both, authorization(A_FIRST)),
        ("/", format!("Cloudbridge-Host: *\r\n{}", authorization(A_FIRST))),
    ] {
        let refusal = refused(&proxy, &request(target, &fields));
        assert_eq!(refusal.status(), 401, "{fields}: {refusal:?}");
        assert_eq!(refusal.field("www-authenticate"), Some("Bearer realm=\"host key\""));
        assert!(!refusal.text().contains("344"), "{refusal:?}");
    }
    assert!(!proxy.log().contains("344e847d"), "{}", proxy.log());
}

#[test]
fn keys_are_proven_and_not_sent() {
    let proxy = guarded("bearer-keys no");
    let sent = request(A, &format!("Authorization: Bearer {A_FIRST}\r\n"));
    assert_eq!(refused(&proxy, &sent).status(), 401);
    let own = "Cloudbridge-Nonce: 00112233445566778899aabbccddeeff\r\n";
    let first = request(A, &format!("Authorization: Bearer {}\r\n{own}", named(A_FIRST)));
    let ask = || {
        let mut wire = Wire::connect(proxy.for_bridges());
        wire.send(&first);
        let head = wire.read_head();
        let nonce = head.field("cloudbridge-nonce").expect("a nonce").to_owned();
        let challenge = format!(
            "HTTP/1.1 401 Unauthorized\r\nCloudbridge-Nonce: {nonce}\r\n{BEARER}\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&head.head), challenge);
        (wire, nonce)
    };
    let (mut wire, nonce) = ask();
    let proven = format!("proof-{}:", proof(A_FIRST, &nonce, first.as_bytes()));
    let second = first.replace("proof:", &proven);
    wire.send(&second);
    wire.expect_exact(OPENED);
    let mut channel = Bridge::reused(wire);
    channel.serve_to(&mut Client::get(&proxy, "a.test", "/"), "proven");
    // The proof is of no use to another connection, nor for another origin.
    let (mut replay, _) = ask();
    replay.send(&second);
    assert_eq!(Bridge::over(replay).read_refusal().status(), 401);
    let (mut changed, nonce) = ask();
    let proven = format!("proof-{}:", proof(A_FIRST, &nonce, first.as_bytes()));
    changed.send(first.replace("proof:", &proven).replace("Fa.test", "Fx.a.test"));
    assert_eq!(Bridge::over(changed).read_refusal().status(), 401);
    for other in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "nonsense\r\n\r\n"] {
        let (mut wire, _) = ask();
        wire.send(other);
        let refusal = Bridge::over(wire).read_refusal();
        let text =
            "this connection was asked to prove a Host-Key: the BRIDGE with the proof follows\n";
        assert_eq!((refusal.status(), refusal.text().as_str()), (400, text));
    }
}

#[test]
fn a_revoked_key_ends_its_channels() {
    let proxy = guarded("");
    let mut lost = open(&proxy, A, &format!("Authorization: Bearer {A_FIRST}\r\n"));
    let b = A.replace("a.test", "b.test");
    let mut kept = open(&proxy, &b, &format!("Authorization: Bearer {B_SECOND}\r\n"));
    let mut tool = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"));
    proxy.write("revoked", &run_well(tool.args(["hash", A_FIRST])));
    proxy.reload_well();
    lost.expect_closed();
    kept.serve_to(&mut Client::get(&proxy, "b.test", "/"), "not meant");
}

#[test]
fn the_limit_of_a_host_is_that_of_bridges() {
    let proxy = Proxy::with(&format!("{SPOKEN}\nbridges-per-host 1"));
    let first = open(&proxy, A, "");
    let refusal = refused(&proxy, &request(A, ""));
    assert_eq!((refusal.status(), refusal.field("retry-after")), (503, Some("5")));
    drop(first);
    Bridge::park_when_there_is_room(&proxy, "a.test");
}

#[test]
fn a_dead_channel_costs_no_request() {
    let proxy = Proxy::with(SPOKEN);
    let mut first = open(&proxy, A, "");
    let mut client = Client::get(&proxy, "a.test", "/");
    first.accept_request();
    let mut second = open(&proxy, A, "");
    drop(first);
    second.serve_to(&mut client, "the other one");
    // One that speaks when it is not asked is closed.
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    second.expect_closed();
    proxy.await_no_bridges();
}

#[test]
fn who_asks_for_acknowledgements_gets_pings_and_a_101() {
    let proxy = Proxy::with(&format!("{SPOKEN}\nping-interval 100ms"));
    let fields = format!("Cloudbridge-Backend: {TOKEN}\r\nCloudbridge-Extensions: probes\r\n");
    // Others are sent none of these.
    let mut quiet = open(&proxy, &A.replace("a.test", "b.test"), "");
    let mut wire = Wire::connect(proxy.for_bridges());
    wire.send(request(A, &fields));
    wire.expect_exact(opened_with("leave, undelivered, probes"));
    wire.expect_exact([ACK, ACK].concat());
    assert!(!quiet.has_bytes());
    let mut bridge = Bridge::over(wire);
    // The 101, behind more pings, and the request behind the acknowledgement.
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "acknowledged");
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "as it is");
    quiet.serve_to(&mut Client::get(&proxy, "b.test", "/"), "nothing but requests");
}

#[test]
fn a_post_without_a_receipt_goes_to_another_channel() {
    let proxy = Proxy::with(SPOKEN);
    let fields = format!(
        "Cloudbridge-Backend: {TOKEN}\r\nCloudbridge-Extensions: undelivered, receipts\r\n"
    );
    let open_it = || {
        let mut wire = Wire::connect(proxy.for_bridges());
        wire.send(request(A, &fields));
        wire.expect_exact(opened_with("leave, undelivered, receipts"));
        Bridge::reused(wire)
    };
    let mut first = open_it();
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
    let mut client = Client::request(&proxy, post);
    first.accept_request();
    let mut second = open_it();
    drop(first);
    second.serve_to(&mut client, "once");
}

#[test]
fn a_backend_that_leaves_loses_nothing() {
    let proxy = Proxy::with(SPOKEN);
    let token = format!("Cloudbridge-Backend: {TOKEN}\r\n");
    let open_it = || {
        let mut wire = Wire::connect(proxy.for_bridges());
        wire.send(request(A, &token));
        wire.expect_exact(opened_with("leave, undelivered"));
        Bridge::reused(wire)
    };
    let mut busy = open_it();
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let (mut idle, mut other) = (open_it(), open(&proxy, A, ""));
    let mut leave = Client::connect_to(proxy.for_bridges());
    leave.send(request(A, &format!("Cloudbridge-Leave: {TOKEN}\r\n")));
    leave.read_response().assert_own_reply(200);
    idle.expect_closed();
    busy.respond_to(&mut client, "to its end");
    busy.expect_closed();
    other.serve_to(&mut Client::get(&proxy, "a.test", "/"), "another's");
    assert_eq!(refused(&proxy, &request(A, &token)).status(), 504);
}

#[test]
fn a_drain_ends_idle_channels_at_once_and_busy_ones_after_their_response() {
    let mut proxy = Proxy::with(SPOKEN);
    let mut busy = open(&proxy, A, "");
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let mut idle = open(&proxy, A, "");
    proxy.terminate();
    idle.expect_closed();
    busy.respond_to(&mut client, "the last");
    busy.expect_closed();
    assert!(proxy.wait_exit().success());
}

#[test]
fn a_channel_moves_to_a_new_program() {
    let proxy = Upgraded::with(
        Setup::new()
            .settings(&format!("{SPOKEN}\nsecrets {{dir}}/secrets"))
            .file("secrets", SECRETS),
    );
    let mut channel = open(&proxy, A, &format!("Authorization: Bearer {A_FIRST}\r\n"));
    for body in ["once", "twice"] {
        await_end(proxy.upgrade());
        channel.serve_to(&mut Client::get(&proxy, "a.test", "/"), body);
    }
}

/// It has more hosts and fields than a BRIDGE may have fields.
#[test]
fn the_largest_channel_moves_to_a_new_program() {
    let proxy = Upgraded::with(Setup::new().settings(SPOKEN));
    let origins: Vec<_> = (1..=100).map(|at| format!("https%3A%2F%2Fa{at}.test")).collect();
    let target = format!("/.well-known/ptth/{}/", origins.join(","));
    let hosts: String = (1..=80).map(|at| format!("Cloudbridge-Host: b{at}.test\r\n")).collect();
    let fields = format!("{hosts}User-Agent: largest\r\nCloudbridge-Backend: {TOKEN}\r\n");
    let mut wire = Wire::connect(proxy.for_bridges());
    wire.send(request(&target, &fields));
    wire.expect_exact(opened_with("leave, undelivered"));
    let mut channel = Bridge::reused(wire);
    await_end(proxy.upgrade());
    for host in ["a1.test", "a100.test", "b80.test"] {
        channel.serve_to(&mut Client::get(&proxy, host, "/"), host);
    }
}

/// Written from the draft, with Python's own server behind it: it knows nothing of this program.
#[test]
fn a_backend_in_python_serves() {
    let versions = ["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 6))"];
    if !installed("python3 3.6 or later", &versions) {
        return;
    }
    let proxy = guarded("");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/proxy/ptth/backend.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(proxy.for_bridges().to_string());
    command.args(["https://a.test", "3", A_FIRST]).stdin(Stdio::null());
    let _backend = Process::spawn("the backend in Python", &mut command);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&proxy)).collect();
    for round in 0..25 {
        for client in &mut clients {
            client.send(format!(
                "POST /{round} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"
            ));
        }
        for client in &mut clients {
            assert_eq!(client.read_response().text(), format!("POST a.test/{round} body"));
        }
    }
}
