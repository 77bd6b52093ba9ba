//! `authorise`: a program is asked about bridges whose keys are good.

use super::upgrade::{Upgraded, await_end};
use crate::common::{
    ACK, Agent, App, B_SECOND, Bridge, Client, Json, Proxy, Seen, Setup, Stopwatch, at, eventually,
    keyed, narrow, pattern, run_well, serve_unix,
};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const YES: &str = r#"{"allow":true}"#;
const NO: &str = r#"{"allow":false,"reason":"unpaid"}"#;

/// What the program answers: this body, which may be used for so long.
fn answer(body: &str, max_age: Option<u32>) -> Vec<u8> {
    let age = max_age.map_or_else(String::new, |s| format!("Cache-Control: max-age={s}\r\n"));
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{age}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A proxy that checks keys and asks this program, with these settings more.
#[track_caller]
fn guarded(program: &str, settings: &str) -> Proxy {
    setup(program, settings).start()
}

fn setup(program: &str, settings: &str) -> Setup {
    let timeout = if settings.contains("authorise-timeout") { "" } else { "authorise-timeout 30s" };
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\nauthorise {program}\n{timeout}\n{settings}\n"))
        .file("secrets", "1600000000:second\n")
}

fn url(app: &App) -> String {
    format!("http://{}/ask", app.to())
}

/// A program that says yes until it is told otherwise, and what is allowed is not to be kept.
fn changing() -> (App, Arc<AtomicBool>) {
    let allows = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&allows);
    let app = App::start(move |_| match now.load(Ordering::SeqCst) {
        true => answer(YES, None),
        false => answer(NO, None),
    });
    (app, allows)
}

fn registration(host: &str) -> String {
    keyed(host, B_SECOND)
}

#[track_caller]
fn park(proxy: &Proxy, host: &str) -> Bridge {
    Bridge::register(proxy, registration(host))
}

fn questions(proxy: &Proxy, answer: &str) -> u64 {
    proxy.metric(&format!("cloudbridge_authorise_questions_total{{answer=\"{answer}\"}}"))
}

#[test]
fn the_question_has_what_was_proved_and_no_secret() {
    let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let kept = Arc::clone(&asked);
    let app = App::start(move |Seen { head, body, .. }| {
        let body = String::from_utf8(body.clone()).unwrap();
        kept.lock().unwrap().push((head.clone(), body));
        answer(YES, None)
    });
    let proxy = guarded(&url(&app), "");
    let key = narrow(B_SECOND, &["--host", "a.b.test", "--prefix", "/app"]);
    let _bridge = Bridge::register(
        &proxy,
        format!(
            "BRIDGE /app/ HTTP/1.1\r\nHost: x.a.b.test\r\nHost: A.b.test\r\n\
             Host-Key: {key}\r\nHost-Key: {B_SECOND}\r\nHost-Key: ::c.test\r\n\
             User-Agent: test/1\r\n\r\n"
        ),
    );
    let asked = asked.lock().unwrap();
    let (head, body) = &asked[0];
    assert!(head.starts_with("POST /ask HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
    // The first of those that are good.
    let sum = |key: &str| {
        let mut shell = Command::new("sh");
        let script = r#"printf %s "$KEY" | sha256sum | cut -c 1-64"#;
        run_well(shell.args(["-c", script]).env("KEY", key)).trim().to_owned()
    };
    let expected = format!(
        r#"{{"address":"127.0.0.1","agent":"test/1","certificate":null,"hosts":["a.b.test","x.a.b.test"],"keys":[{{"id":"{}","name":"a.b.test","narrowed":["host=a.b.test","prefix=/app"],"root":"b.test"}}],"listener":"{}","prefix":"/app"}}"#,
        sum(&key),
        proxy.for_bridges()
    );
    assert_eq!(Json::parse(body), Json::parse(&expected));
    assert!(!body.contains("984629eac3") && !body.contains("second"), "{body}");
}

#[test]
fn keys_that_are_proven_and_ptth_wait_for_the_answer_too() {
    let (app, allows) = changing();
    let listens = "listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges";
    let proxy = guarded(&url(&app), &format!("{listens}\nptth yes\nbearer-keys no"));
    let mut bridge = Bridge::prove(&proxy, &["b.test"], &narrow(B_SECOND, &["--host", "b.test"]));
    bridge.serve_to(&mut Client::get(&proxy, "b.test", "/"), "proven");
    drop(bridge);
    proxy.change_settings("bearer-keys no", "");
    proxy.reload_well();
    let ptth = format!(
        "GET /.well-known/ptth/https%3A%2F%2Fb.test/ HTTP/1.1\r\nHost: proxy.test\r\n\
         Connection: upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n\
         Authorization: Bearer {B_SECOND}\r\n\r\n"
    );
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(&ptth);
    assert_eq!(bridge.read_head().status(), 101);
    allows.store(false, Ordering::SeqCst);
    let refusal = Bridge::refused(&proxy, &ptth);
    assert_eq!((refusal.status(), refusal.has("www-authenticate")), (403, false));
}

#[test]
fn a_refusal_is_told_with_its_reason_on_one_line() {
    let app = App::start(|_| answer(r#"{"allow":false,"reason":"unpaid\r\nX-Y: z"}"#, None));
    let proxy = guarded(&url(&app), "");
    let refusal = Bridge::refused(&proxy, registration("b.test"));
    let text = "this bridge is not allowed: unpaid\\r\\nX-Y: z\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (403, text));
    let why = "cloudbridge; error=http_request_denied; details=\"not-authorised\"";
    assert_eq!(refusal.field("proxy-status"), Some(why));
    proxy.await_log("refused: 403 this bridge is not allowed: unpaid");
    assert_eq!(questions(&proxy, "refused"), 1);
    assert_eq!(proxy.metric("cloudbridge_refusals_total{reason=\"not-authorised\"}"), 1);
}

#[test]
fn a_bad_key_is_refused_without_a_question() {
    let app = App::start(|_| answer(YES, None));
    let proxy = guarded(&url(&app), "");
    let bad = B_SECOND.replace("984", "985");
    assert_eq!(Bridge::refused(&proxy, keyed("b.test", &bad)).status(), 401);
    assert_eq!(Bridge::refused(&proxy, registration("c.test")).status(), 401);
    assert_eq!(app.accepted(), 0);
}

#[track_caller]
fn fails_closed(proxy: &Proxy) {
    let refusal = Bridge::refused(proxy, registration("b.test"));
    let text = "whether this bridge is allowed cannot be found out now\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
    assert_eq!(refusal.field("retry-after"), Some("5"));
    let why = "cloudbridge; error=http_request_denied; details=\"authorise-failed\"";
    assert_eq!(refusal.field("proxy-status"), Some(why));
}

#[test]
fn without_an_answer_that_can_be_understood_nobody_is_let_in() {
    let answers: [Vec<u8>; 7] = [
        b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{\"allow\":true}"
            .into(),
        b"HTTP/1.1 302 No\r\nConnection: close\r\nLocation: /yes\r\nContent-Length: 0\r\n\r\n"
            .into(),
        b"SSH-2.0-OpenSSH\r\nConnection: close\r\n".into(),
        answer("{\"allow\":1}", Some(60)),
        answer(r#"{"allow":true,"limits":{"bridge":1}}"#, Some(60)),
        answer(&" ".repeat(1 << 20), Some(60)),
        Vec::new(),
    ];
    let count = answers.len();
    let answers = Mutex::new(answers.into_iter());
    let app = App::start(move |_| answers.lock().unwrap().next().unwrap());
    let proxy = guarded(&url(&app), "");
    (0..count).for_each(|_| fails_closed(&proxy));
    assert_eq!(questions(&proxy, "failed"), count as u64);
    // One line for all of them, and not the address with what may be a secret in it.
    proxy.await_log("has not answered");
    assert_eq!(proxy.log().matches("has not answered").count(), 1, "{}", proxy.log());
    drop(app);
    fails_closed(&proxy);
}

#[test]
fn a_slow_program_lets_nobody_in_and_holds_up_nobody_else() {
    let app = App::start(|_| answer(YES, Some(60)));
    let held = app.hold();
    let proxy = guarded(&url(&app), "authorise-timeout 300ms");
    fails_closed(&proxy);
    assert_eq!(Client::ask(&proxy, "GET / HTTP/9.9\r\n\r\n").status(), 505, "others are answered");
    drop(held);
    eventually("an answer in time", || {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(registration("b.test"));
        bridge.read_head().head == ACK
    });
}

#[test]
fn equal_questions_at_once_are_asked_once() {
    let app = App::start(|_| answer(YES, None));
    let held = app.hold();
    let proxy = guarded(&url(&app), "workers 3\nlog-level debug");
    let connect = |host: &str| {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(registration(host));
        bridge
    };
    let mut bridges: Vec<Bridge> = (0..8).map(|_| connect("b.test")).collect();
    bridges.push(connect("x.b.test"));
    eventually("all wait", || proxy.log().matches("the program is asked").count() == 9);
    assert_eq!(proxy.metric("cloudbridge_authorise_waiting"), 2);
    drop(held);
    for bridge in &mut bridges {
        bridge.expect_exact(ACK);
    }
    assert_eq!(app.served(), 2);
    // They were for those who waited alone.
    park(&proxy, "b.test");
    assert_eq!(app.served(), 3);
}

#[test]
fn an_answer_is_used_for_as_long_as_it_says() {
    let app = App::start(|seen| {
        let is_short = String::from_utf8_lossy(&seen.body).contains("short");
        answer(YES, Some(if is_short { 1 } else { 600 }))
    });
    let proxy = guarded(&url(&app), "");
    let _bridges: Vec<Bridge> = (0..6).map(|_| park(&proxy, "b.test")).collect();
    assert_eq!(app.served(), 1);
    assert_eq!(proxy.metric("cloudbridge_authorise_kept_answers_total"), 5);
    let _other = park(&proxy, "x.b.test");
    assert_eq!(app.served(), 2);
    let _short = park(&proxy, "short.b.test");
    eventually("it is asked again", || {
        let _short = park(&proxy, "short.b.test");
        app.served() == 4
    });
}

#[test]
fn the_answers_that_are_kept_are_bounded() {
    let app = App::start(|_| answer(YES, Some(600)));
    // A quarter of them, for one visitor.
    let proxy = guarded(&url(&app), "authorise-cache 8");
    for host in ["a.b.test", "c.b.test", "d.b.test", "a.b.test"] {
        park(&proxy, host);
    }
    assert_eq!(app.served(), 4);
    park(&proxy, "d.b.test");
    assert_eq!(app.served(), 4);
}

#[test]
fn a_bridge_with_one_question_too_many_comes_later() {
    let app = App::start(|_| answer(YES, None));
    let held = app.hold();
    let proxy = guarded(&url(&app), "authorise-questions 5");
    let mut first = Bridge::connect(&proxy);
    first.send(registration("a.b.test"));
    eventually("it is asked", || proxy.metric("cloudbridge_authorise_waiting") == 1);
    // A visitor has a quarter of them, and all with keys of one root a half.
    let mut other = Bridge::connect(&proxy);
    other.send(keyed("d.b.test", &narrow(B_SECOND, &["--host", "d.b.test"])));
    eventually("it is asked, too", || proxy.metric("cloudbridge_authorise_waiting") == 2);
    let refusal = Bridge::refused(&proxy, registration("c.b.test"));
    assert_eq!((refusal.status(), refusal.field("retry-after")), (503, Some("5")));
    assert_eq!(refusal.text(), "too many questions wait for an answer\n");
    drop(held);
    first.expect_exact(ACK);
    other.expect_exact(ACK);
    park(&proxy, "c.b.test");
}

#[test]
fn a_backend_that_goes_or_speaks_while_it_waits_is_closed() {
    let app = App::start(|_| answer(YES, None));
    let held = app.hold();
    let proxy = guarded(&url(&app), "log-level debug");
    let mut speaks = Bridge::connect(&proxy);
    speaks.send(registration("b.test"));
    let mut goes = Bridge::connect(&proxy);
    goes.send(registration("b.test"));
    eventually("both wait", || proxy.log().matches("the program is asked").count() == 2);
    assert_eq!(proxy.metric("cloudbridge_authorise_waiting"), 1);
    speaks.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(speaks.read_refusal().text(), "nothing may follow a BRIDGE request\n");
    drop(goes);
    proxy.await_count("?", 0);
    drop(held);
    eventually("an answer", || questions(&proxy, "allowed") == 1);
    proxy.await_no_bridges();
    park(&proxy, "b.test").serve_to(&mut Client::get(&proxy, "b.test", "/"), "served");
}

#[test]
fn when_an_answer_becomes_no_its_bridges_are_closed() {
    let (app, allows) = changing();
    let proxy = guarded(&url(&app), "workers 3");
    let mut idle: Vec<Bridge> = (0..6).map(|_| park(&proxy, "b.test")).collect();
    let mut busy = park(&proxy, "b.test");
    let mut other = park(&proxy, "x.b.test");
    let mut clients: Vec<Client> = (0..7).map(|_| Client::get(&proxy, "b.test", "/")).collect();
    // All are busy; then all but one are idle.
    idle.iter_mut().for_each(|bridge| _ = bridge.accept_request());
    busy.accept_request();
    for bridge in &mut idle {
        bridge.respond("served");
    }
    proxy.await_count("b", 7);
    allows.store(false, Ordering::SeqCst);
    let refusal = Bridge::refused(&proxy, registration("b.test"));
    assert_eq!(refusal.text(), "this bridge is not allowed: unpaid\n");
    for bridge in &mut idle {
        bridge.expect_closed();
    }
    busy.respond("finished");
    busy.expect_closed();
    let texts: Vec<String> = clients.iter_mut().map(|c| c.read_response().text()).collect();
    assert_eq!(texts.iter().filter(|text| *text == "finished").count(), 1, "{texts:?}");
    proxy.await_log("authorise: b.test is no longer allowed; its bridges are closed");
    assert_eq!(proxy.info().number(&["counters", "keys_revoked"]), 7);
    other.serve_to(&mut Client::get(&proxy, "x.b.test", "/"), "nobody has asked about it");
    // That was a parking.
    other.expect_closed();
}

#[test]
fn a_program_that_is_down_takes_nothing_from_those_who_are_connected() {
    let (app, _) = changing();
    let proxy = guarded(&url(&app), "");
    let mut bridge = park(&proxy, "b.test");
    drop(app);
    for _ in 0..3 {
        bridge.serve_to(&mut Client::get(&proxy, "b.test", "/"), "served");
    }
    eventually("it was asked", || questions(&proxy, "failed") == 1);
    fails_closed(&proxy);
    bridge.serve_to(&mut Client::get(&proxy, "b.test", "/"), "still there");
}

#[test]
fn sighup_changes_who_is_asked() {
    let (no, yes) = (App::start(|_| answer(NO, Some(600))), App::start(|_| answer(YES, Some(600))));
    let proxy = guarded(&url(&no), "");
    assert_eq!(Bridge::refused(&proxy, registration("b.test")).status(), 403);
    let line = format!("authorise {}", url(&no));
    proxy.change_settings(&line, &format!("authorise {}", url(&yes)));
    proxy.reload_well();
    let mut bridge = park(&proxy, "b.test");
    proxy.change_settings(&line, "");
    proxy.reload_well();
    let mut unasked = park(&proxy, "x.b.test");
    assert_eq!((no.served(), yes.served()), (1, 1));
    proxy.write(
        "cloudbridge.conf",
        &conf(&proxy).replace("authorise-timeout", &format!("{line}\nauthorise-timeout")),
    );
    proxy.reload_well();
    // They are taken as they are until they park again.
    bridge.serve_to(&mut Client::get(&proxy, "b.test", "/"), "served");
    unasked.serve_to(&mut Client::get(&proxy, "x.b.test", "/"), "served");
    bridge.expect_closed();
    unasked.expect_closed();
}

fn conf(proxy: &Proxy) -> String {
    std::fs::read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap()
}

#[test]
fn a_program_may_listen_at_a_unix_socket() {
    let setup = setup("unix:{dir}/program:/ask?k", "");
    let proxy = setup.start();
    fails_closed(&proxy);
    serve_unix(&proxy.dir().join("program"), |seen| {
        assert!(seen.head.starts_with("POST /ask?k HTTP/1.1\r\nHost: localhost\r\n"), "{seen:?}");
        answer(YES, None)
    });
    park(&proxy, "b.test");
}

#[test]
fn the_limits_of_an_answer_hold_for_all_that_is_made_of_a_key() {
    let app = App::start(|seen| {
        let body = String::from_utf8_lossy(&seen.body);
        let more = if body.contains("c.b.test") { r#","account":"shared""# } else { "" };
        let more = if body.contains("d.b.test") { r#","account":"shared""# } else { more };
        answer(&format!(r#"{{"allow":true,"limits":{{"bridges":2}}{more}}}"#), Some(600))
    });
    let proxy = guarded(&url(&app), "");
    let alice = narrow(B_SECOND, &["--host", "alice.b.test"]);
    let mut bridges = vec![Bridge::register(&proxy, keyed("alice.b.test", &alice))];
    for host in ["x.alice.b.test", "y.alice.b.test"] {
        let narrower = narrow(B_SECOND, &["--host", "alice.b.test"]);
        let key = narrow(&narrower, &["--host", host]);
        if bridges.len() < 2 {
            bridges.push(Bridge::register(&proxy, keyed(host, &key)));
            continue;
        }
        let refusal = Bridge::refused(&proxy, keyed(host, &key));
        let text = "as many bridges as alice.b.test may have are connected: 2\n";
        assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
    }
    let bob = narrow(B_SECOND, &["--host", "bob.b.test"]);
    bridges.push(Bridge::register(&proxy, keyed("bob.b.test", &bob)));
    // The program may say what counts together.
    for host in ["c.b.test", "d.b.test"] {
        let key = narrow(B_SECOND, &["--host", host]);
        bridges.push(Bridge::register(&proxy, keyed(host, &key)));
    }
    let key = narrow(B_SECOND, &["--host", "c.b.test"]);
    let text = "as many bridges as shared may have are connected: 2\n";
    assert_eq!(Bridge::refused(&proxy, keyed("c.b.test", &key)).text(), text);
}

/// A key that is not checked says nothing about who has it.
#[test]
fn without_secrets_bridges_are_asked_about_without_keys_and_limited_by_address() {
    let asked: Arc<Mutex<String>> = Arc::default();
    let kept = Arc::clone(&asked);
    let app = App::start(move |seen| {
        *kept.lock().unwrap() = String::from_utf8(seen.body.clone()).unwrap();
        answer(r#"{"allow":true,"limits":{"bridges":1}}"#, None)
    });
    let settings = format!("authorise {}\nauthorise-timeout 30s", url(&app));
    let proxy = Proxy::with(&settings);
    let _bridge = Bridge::register(&proxy, keyed("a.test", "::a.test"));
    assert_eq!(Json::parse(&asked.lock().unwrap()).at(&["keys"]), &Json::List(Vec::new()));
    let refusal = Bridge::refused(&proxy, keyed("b.test", "::b.test"));
    let text = "as many bridges as 127.0.0.1 may have are connected: 1\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
}

#[test]
fn an_upgrade_asks_about_a_bridge_when_it_parks_again() {
    let (app, allows) = changing();
    let proxy = Upgraded::with(setup(&url(&app), ""));
    let mut bridge = park(&proxy, "b.test");
    assert_eq!(app.served(), 1);
    allows.store(false, Ordering::SeqCst);
    await_end(proxy.upgrade());
    assert_eq!(app.served(), 1, "it is taken as it was");
    bridge.serve_to(&mut Client::get(&proxy, "b.test", "/"), "served");
    bridge.expect_closed();
}

#[test]
fn an_agent_says_why_it_is_refused() {
    let app = App::start(|_| answer(NO, None));
    let proxy = guarded(&url(&app), "");
    let agent =
        Agent::start(&["--echo", "-n1", "--host", "b.test", "--key", B_SECOND, &at(&proxy)]);
    agent.await_log("this bridge is not allowed: unpaid");
}

/// The order of the hosts, and what the backend says it is, make no other question.
#[test]
fn equal_questions_are_equal_however_they_are_put() {
    let app = App::start(|_| answer(YES, Some(600)));
    let proxy = guarded(&url(&app), "");
    let keys = ["a.b.test", "c.b.test"].map(|host| (host, narrow(B_SECOND, &["--host", host])));
    let register = |order: [usize; 2], agent: &str| {
        let lines = order.map(|at| format!("Host: {}\r\nHost-Key: {}\r\n", keys[at].0, keys[at].1));
        let text = format!("BRIDGE / HTTP/1.1\r\n{}User-Agent: {agent}\r\n\r\n", lines.concat());
        Bridge::register(&proxy, text)
    };
    let _bridges = [register([0, 1], "x/1"), register([1, 0], "x/1"), register([0, 1], "x/2")];
    assert_eq!(app.served(), 1);
}

/// A proxy that asks this program from its next reload on.
#[track_caller]
fn not_asking(app: &App) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\n# authorise {}\n", url(app)))
        .file("secrets", "1600000000:second\n")
        .start()
}

#[track_caller]
fn begin_to_ask(proxy: &Proxy) {
    proxy.change_settings("# authorise", "authorise");
    proxy.reload_well();
}

#[test]
fn a_no_that_is_kept_closes_the_bridges_that_were_never_asked_about() {
    let app = App::start(|_| answer(NO, Some(3600)));
    let proxy = not_asking(&app);
    let mut bridges = [(); 3].map(|()| park(&proxy, "b.test"));
    begin_to_ask(&proxy);
    assert_eq!(Bridge::refused(&proxy, registration("b.test")).status(), 403);
    let mut clients = [(); 3].map(|()| Client::get(&proxy, "b.test", "/"));
    bridges.iter_mut().for_each(|bridge| _ = bridge.accept_request());
    for bridge in &mut bridges {
        bridge.respond("served");
    }
    bridges.iter_mut().for_each(|bridge| _ = bridge.expect_closed());
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "served"));
    assert_eq!(app.served(), 1);
}

/// Serves requests until the bridge has parked with the limits of an answer: one asks, and what is
/// served after the next has parked comes under them.
#[track_caller]
fn serve_until_limited(proxy: &Proxy, bridge: &mut Bridge, allowed: u64) {
    bridge.serve_to(&mut Client::get(proxy, "b.test", "/"), "asks");
    eventually("an answer", || questions(proxy, "allowed") == allowed);
    for _ in 0..2 {
        bridge.serve_to(&mut Client::get(proxy, "b.test", "/"), "served");
    }
}

#[track_caller]
fn has_as_many_as_it_may(proxy: &Proxy) {
    let refusal = Bridge::refused(proxy, registration("b.test"));
    let text = "as many bridges as b.test may have are connected: 1\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
}

const ONE_BRIDGE: &str = r#"{"allow":true,"limits":{"bridges":1}}"#;

#[test]
fn a_bridge_that_is_connected_gets_the_limits_of_its_first_answer() {
    let app = App::start(|_| answer(ONE_BRIDGE, Some(600)));
    let proxy = not_asking(&app);
    let mut bridge = park(&proxy, "b.test");
    begin_to_ask(&proxy);
    serve_until_limited(&proxy, &mut bridge, 1);
    has_as_many_as_it_may(&proxy);
}

#[test]
fn a_bridge_that_is_connected_gets_the_limits_of_a_changed_answer() {
    let limits = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&limits);
    let app = App::start(move |_| match now.load(Ordering::SeqCst) {
        true => answer(ONE_BRIDGE, Some(600)),
        false => answer(YES, Some(1)),
    });
    let proxy = guarded(&url(&app), "workers 3");
    let mut first = park(&proxy, "b.test");
    limits.store(true, Ordering::SeqCst);
    let second = eventually_limited(&proxy);
    // It is the one that it may have; then the first is that.
    has_as_many_as_it_may(&proxy);
    drop(second);
    proxy.await_count("b", 1);
    for _ in 0..2 {
        first.serve_to(&mut Client::get(&proxy, "b.test", "/"), "served");
    }
    has_as_many_as_it_may(&proxy);
}

/// Registers, when what was answered before may no longer be used; that bridge asks, and gets no
/// request.
#[track_caller]
fn eventually_limited(proxy: &Proxy) -> Bridge {
    let mut held = None;
    eventually("another answer", || {
        held = None;
        proxy.await_count("b", 1);
        held = Some(park(proxy, "b.test"));
        questions(proxy, "allowed") == 2
    });
    held.expect("a bridge")
}

#[test]
fn an_upgrade_keeps_the_limits_of_an_answer() {
    let app = App::start(|_| answer(ONE_BRIDGE, Some(600)));
    let proxy = Upgraded::with(setup(&url(&app), ""));
    let mut bridge = park(&proxy, "b.test");
    await_end(proxy.upgrade());
    serve_until_limited(&proxy, &mut bridge, 1);
    has_as_many_as_it_may(&proxy);
}

#[test]
fn an_answer_of_a_program_that_is_no_longer_asked_lets_nobody_in() {
    let (old, new) =
        (App::start(|_| answer(YES, Some(600))), App::start(|_| answer(NO, Some(600))));
    let held = old.hold();
    let proxy = guarded(&url(&old), "workers 3");
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(registration("b.test"));
    eventually("it is asked", || proxy.metric("cloudbridge_authorise_waiting") == 1);
    proxy.change_settings(&url(&old), &url(&new));
    proxy.reload_well();
    drop(held);
    let refusal = bridge.read_refusal();
    let text = "whether this bridge is allowed cannot be found out now\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
    assert_eq!(Bridge::refused(&proxy, registration("b.test")).status(), 403);
}

#[track_caller]
fn echo(proxy: &Proxy) -> Agent {
    let agent = Agent::start(&["--echo", "-n4", "--host", "b.test", "--key", B_SECOND, &at(proxy)]);
    proxy.await_count("b", 4);
    agent
}

/// How many of so many requests at once are served, and how long that takes; others get 429.
#[track_caller]
fn served_of(proxy: &Proxy, count: usize) -> (usize, f64) {
    let clock = Instant::now();
    let mut clients: Vec<Client> = (0..count).map(|_| Client::get(proxy, "b.test", "/")).collect();
    let statuses = clients.iter_mut().map(|client| client.read_response().status());
    let served = statuses.inspect(|status| assert!([200, 429].contains(status), "{status}"));
    (served.filter(|status| *status == 200).count(), clock.elapsed().as_secs_f64())
}

#[test]
fn the_requests_of_an_answer_are_bounded_until_nobody_is_asked() {
    let limits = r#"{"allow":true,"limits":{"requests-per-second":1}}"#;
    let app = App::start(|_| answer(limits, Some(600)));
    let proxy = guarded(&url(&app), "workers 3");
    let _agent = echo(&proxy);
    let (served, seconds) = served_of(&proxy, 30);
    assert!(served >= 1 && served as f64 <= 1.0 + seconds, "{served} in {seconds} s");
    proxy.change_settings(&format!("authorise {}", url(&app)), "");
    proxy.reload_well();
    assert_eq!(served_of(&proxy, 30).0, 30);
}

#[test]
fn the_waiting_requests_of_an_answer_are_bounded() {
    let app = App::start(|_| answer(r#"{"allow":true,"limits":{"waiting":1}}"#, Some(600)));
    let proxy = guarded(&url(&app), "workers 3");
    let mut bridge = park(&proxy, "b.test");
    let mut busy = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    let mut waiting = Client::get(&proxy, "b.test", "/");
    proxy.await_count("c", 1);
    let response = Client::get(&proxy, "b.test", "/").read_response();
    let text = "too many requests wait for the backends of this name\n";
    assert_eq!((response.status(), response.text().as_str()), (503, text));
    bridge.respond_to(&mut busy, "first");
    bridge.serve_to(&mut waiting, "second");
}

#[test]
fn the_bytes_of_an_answer_are_paced() {
    const KIB: usize = 1024;
    let limits = r#"{"allow":true,"limits":{"bytes-per-second":65536}}"#;
    let app = App::start(move |_| answer(limits, Some(600)));
    let proxy = guarded(&url(&app), "");
    let mut bridge = park(&proxy, "b.test");
    let clock = Stopwatch::start();
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 128 * KIB);
    bridge.send([head.into_bytes(), pattern(0, 128 * KIB)].concat());
    assert_eq!(client.read_response().body.len(), 128 * KIB);
    // A second's worth at once, the rest at its pace but for the last part.
    clock.assert_passed(Duration::from_millis(800));
}
