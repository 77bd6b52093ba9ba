//! Host keys that are taken back while their bridges are connected.

use crate::common::{
    A_FIRST, A_SECOND, ACK, Agent, B_SECOND, Bridge, Client, Load, Proxy, SECRETS, SWITCH, Setup,
    Stopwatch, at, eventually, keyed, logged, run_well,
};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A proxy with these secrets, an empty file of revoked keys, and these settings more.
#[track_caller]
fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\nrevoked {{dir}}/revoked\n{settings}"))
        .file("secrets", SECRETS)
        .file("revoked", "# none yet\n")
        .start()
}

#[track_caller]
fn park(proxy: &Proxy, host: &str, key: &str) -> Bridge {
    Bridge::register(proxy, keyed(host, key))
}

/// What the key tool prints.
#[track_caller]
fn key_tool(words: &[&str]) -> String {
    run_well(Command::new(env!("CARGO_BIN_EXE_cloudbridge-key")).args(words)).trim().to_owned()
}

/// Takes the key back, and waits until every worker knows.
#[track_caller]
fn revoke(proxy: &Proxy, key: &str) {
    let hash = key_tool(&["hash", key]);
    proxy.write("revoked", &format!("# a laptop that was lost\n\n{hash}  # tenant b\n"));
    proxy.reload_well();
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A v2 key for `a.test` that expires after `seconds`.
#[track_caller]
fn expiring(proxy: &Proxy, seconds: u64) -> String {
    let (file, at) = (proxy.dir().join("secrets"), (unix_time() + seconds).to_string());
    let file = file.display().to_string();
    key_tool(&["--secrets", &file, "--modern", "--expires", &at, "a.test"])
}

#[test]
fn a_revoked_key_loses_its_idle_bridges_and_nobody_else_notices() {
    let proxy = guarded("workers 3");
    // New ones and used ones, on all workers.
    let mut fresh: Vec<Bridge> = (0..12).map(|_| park(&proxy, "b.test", B_SECOND)).collect();
    let used = (0..6).map(|number| {
        let host = format!("used{number}.b.test");
        let mut bridge = park(&proxy, &host, B_SECOND);
        bridge.serve_to(&mut Client::get(&proxy, &host, "/"), "served");
        bridge
    });
    let mut used: Vec<Bridge> = used.collect();
    let _agent =
        Agent::start(&["--echo", "-n4", "--host", "a.test", "--key", A_SECOND, &at(&proxy)]);
    let is_echo = |path: &str, text: &str| text.contains(path);
    let served = Load::run(&proxy, "POST", 4, is_echo, |load| {
        load.await_more(5);
        revoke(&proxy, B_SECOND);
        // They have been closed before the log says that it is done.
        for bridge in fresh.iter_mut().chain(&mut used) {
            bridge.expect_closed();
        }
        load.await_more(5);
    });
    assert!(served > 0);
    proxy.await_log("host keys are no longer good, for b.test; 18 bridges closed");
    proxy.await_log("changed: revoked");
    let log = proxy.log();
    assert!(!log.contains("984629eac3ec") && !log.contains(":second"), "{log}");
    assert_eq!(proxy.info().number(&["counters", "keys_revoked"]), 18);
    let refusal = Bridge::refused(&proxy, keyed("b.test", B_SECOND));
    let text = "the Host-Key for b.test has been revoked\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (401, text));
    // It may be given back.
    proxy.write("revoked", "");
    proxy.reload_well();
    let mut back = park(&proxy, "b.test", B_SECOND);
    back.serve_to(&mut Client::get(&proxy, "b.test", "/"), "again");
}

#[test]
fn a_revoked_key_is_refused_in_capitals_too() {
    let proxy = guarded("");
    revoke(&proxy, B_SECOND);
    let (digits, rest) = B_SECOND.split_once(':').unwrap();
    let shouted = format!("{}:{rest}", digits.to_ascii_uppercase());
    assert_eq!(Bridge::refused(&proxy, keyed("b.test", &shouted)).status(), 401);
}

#[test]
fn a_busy_bridge_finishes_its_request_and_is_closed() {
    let proxy = guarded("");
    let mut busy = park(&proxy, "b.test", B_SECOND);
    let mut client = Client::get(&proxy, "b.test", "/");
    busy.accept_request();
    revoke(&proxy, B_SECOND);
    proxy.await_log("0 bridges closed, and 1 bridge when their requests are served, within 30 s");
    busy.respond("finished");
    assert_eq!(client.read_response().text(), "finished");
    busy.expect_closed();
}

#[test]
fn an_exchange_that_takes_too_long_is_cut_and_goes_elsewhere_if_it_may() {
    let proxy = guarded("revoke-grace 200ms");
    let mut busy = park(&proxy, "a.test", A_FIRST);
    let mut client = Client::get(&proxy, "a.test", "/slow");
    busy.accept_request();
    let mut other = park(&proxy, "a.test", A_SECOND);
    let clock = Stopwatch::start();
    revoke(&proxy, A_FIRST);
    busy.expect_closed();
    clock.assert_passed(Duration::from_millis(200));
    assert_eq!(other.serve_to(&mut client, "elsewhere"), "GET /slow HTTP/1.1");
}

#[test]
fn a_tunnel_is_cut_after_the_grace() {
    let proxy = guarded("revoke-grace 3s");
    let mut bridge = park(&proxy, "b.test", B_SECOND);
    let mut client = Client::request(
        &proxy,
        "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    );
    bridge.accept_request();
    bridge.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    let clock = Stopwatch::start();
    revoke(&proxy, B_SECOND);
    bridge.send("still");
    client.expect_exact("still");
    client.expect_closed();
    bridge.expect_closed();
    clock.assert_passed(Duration::from_secs(3));
}

#[test]
fn the_keys_of_a_removed_secret_lose_their_bridges() {
    let proxy = guarded("");
    let mut first = park(&proxy, "a.test", A_FIRST);
    let mut second = park(&proxy, "a.test", A_SECOND);
    proxy.write("secrets", "1600000000:second\n");
    proxy.reload_well();
    first.expect_closed();
    proxy.await_log("changed: secrets");
    proxy.await_log("host keys are no longer good, for a.test; 1 bridge closed");
    second.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
}

#[test]
fn legacy_keys_no_closes_the_bridges_of_such_keys() {
    let proxy = guarded("legacy-keys yes");
    let mut old = park(&proxy, "a.test", A_SECOND);
    let mut new = park(&proxy, "a.test", &expiring(&proxy, 1000));
    proxy.change_settings("legacy-keys yes", "legacy-keys no");
    proxy.reload_well();
    old.expect_closed();
    new.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
}

#[test]
fn bridges_without_a_key_go_when_keys_are_needed() {
    let proxy = Setup::new().settings("# secrets {dir}/secrets").file("secrets", SECRETS).start();
    let mut without = Bridge::park(&proxy, &["a.test"]);
    let mut unchecked = park(&proxy, "a.test", A_SECOND);
    proxy.change_settings("# secrets", "secrets");
    proxy.reload_well();
    without.expect_closed();
    unchecked.expect_closed();
    let mut proved = park(&proxy, "a.test", A_SECOND);
    // And stay when they are not.
    let text = std::fs::read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap();
    proxy.write("cloudbridge.conf", &text.replace("\nsecrets", "\n# secrets"));
    proxy.reload_well();
    proved.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
}

#[test]
fn bridges_go_when_their_key_expires() {
    let proxy = guarded("workers 3");
    // Time enough to register on a machine that is busy.
    let key = expiring(&proxy, 6);
    let mut bridges: Vec<Bridge> = (0..6).map(|_| park(&proxy, "a.test", &key)).collect();
    let mut busy = park(&proxy, "x.a.test", &key);
    let mut client = Client::get(&proxy, "x.a.test", "/");
    busy.accept_request();
    let mut later = park(&proxy, "a.test", &expiring(&proxy, 1000));
    for bridge in &mut bridges {
        bridge.expect_closed();
    }
    busy.respond("finished");
    assert_eq!(client.read_response().text(), "finished");
    busy.expect_closed();
    proxy.await_log("host keys have expired, for a.test; 7 bridges lose them");
    eventually("they are counted", || proxy.info().number(&["counters", "keys_expired"]) == 7);
    later.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
    let refusal = Bridge::refused(&proxy, keyed("a.test", &key)).text();
    assert!(refusal.contains("expired at"), "{refusal}");
}

#[test]
fn expired_keys_may_only_be_logged() {
    let proxy = guarded("expired-keys log");
    let mut bridge = park(&proxy, "a.test", &expiring(&proxy, 10));
    proxy.await_log("host keys have expired, for a.test; 1 bridge connected with them stay");
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
    proxy.change_settings("expired-keys log", "expired-keys close");
    proxy.reload_well();
    bridge.expect_closed();
}

/// The bridge of a silent backend stands aside, where no request finds it, and is probed.
#[test]
fn bridges_that_stand_aside_go_too() {
    let proxy = guarded("bridge-ack-timeout 100ms");
    let mut silent = park(&proxy, "b.test", B_SECOND);
    let mut aside = park(&proxy, "b.test", B_SECOND);
    let _client = Client::get(&proxy, "b.test", "/");
    // It does not acknowledge, so its sibling is probed.
    silent.expect_exact(SWITCH);
    silent.expect_closed();
    aside.expect_exact(SWITCH);
    revoke(&proxy, B_SECOND);
    aside.expect_closed();
}

#[test]
fn a_bad_line_changes_nothing_and_is_not_shown() {
    let proxy = guarded("");
    let mut bridge = park(&proxy, "a.test", A_SECOND);
    proxy.write("revoked", &format!("{}\n\n{A_SECOND}\n", "0".repeat(64)));
    proxy.reload();
    proxy.await_log("revoked:3: this is a key; a line is its hash");
    proxy.await_log(logged::NOTHING_CHANGED);
    assert!(!proxy.log().contains("adb7c404"), "{}", proxy.log());
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
}

#[test]
fn an_operator_drops_the_bridges_of_a_key() {
    let proxy = guarded("");
    let mut busy = park(&proxy, "x.b.test", B_SECOND);
    let mut client =
        Client::request(&proxy, "POST / HTTP/1.1\r\nHost: x.b.test\r\nContent-Length: 2\r\n\r\nhi");
    busy.accept_request();
    let mut idle = park(&proxy, "b.test", B_SECOND);
    let mut other = park(&proxy, "a.test", A_SECOND);
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    ctl.args(["ctl", "-c"]).arg(proxy.dir().join("cloudbridge.conf"));
    assert_eq!(run_well(ctl.args(["drop", "--key", "b.test"])).trim(), "2 bridges closed");
    busy.expect_closed();
    idle.expect_closed();
    assert_eq!(client.read_response().status(), 502, "a POST is not repeated");
    other.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
    // It keeps nobody out.
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(keyed("b.test", B_SECOND));
    bridge.expect_exact(ACK);
}

#[test]
fn files_of_secrets_that_others_can_read_or_change_are_refused() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nadmin-token {dir}/token\nsecrets-mode private")
        .file("secrets", SECRETS)
        .file("token", "sesame\n")
        .start();
    let chmod = |name: &str, mode: u32| {
        std::fs::set_permissions(proxy.dir().join(name), Permissions::from_mode(mode)).unwrap();
    };
    chmod("secrets", 0o640);
    chmod("token", 0o440);
    proxy.reload_well();
    chmod("secrets", 0o644);
    chmod("token", 0o620);
    proxy.reload();
    proxy.await_log(
        "/secrets has mode 0644: everybody on this machine can read it; chmod it to 0600 or 0640, \
         or set `secrets-mode any`",
    );
    proxy.await_log("/token has mode 0620: others can change it;");
    proxy.await_log(logged::NOTHING_CHANGED);
    proxy.change_settings("secrets-mode private", "secrets-mode any");
    proxy.reload_well();
}

/// The original took any file.
#[test]
fn the_flag_s_takes_a_readable_file_with_a_warning() {
    let proxy = Setup::new()
        .args(&["-s", "{dir}/readable", "127.0.0.1:0"])
        .file("readable", SECRETS)
        .start_without_file(1);
    let mode = Permissions::from_mode(0o644);
    std::fs::set_permissions(proxy.dir().join("readable"), mode).unwrap();
    proxy.reload_well();
    proxy.await_log("/readable has mode 0644: everybody on this machine can read it");
    park(&proxy, "a.test", A_SECOND);
}

/// The bridge is not read while its client takes nothing.
#[test]
fn a_response_that_nobody_reads_is_cut_off_too() {
    let proxy = guarded("revoke-grace 1s\nbody-timeout 1h");
    let mut busy = park(&proxy, "b.test", B_SECOND);
    let mut client = Client::get(&proxy, "b.test", "/");
    busy.accept_request();
    busy.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    client.read_head();
    revoke(&proxy, B_SECOND);
    // More than all buffers on the way hold: it is stuck until the end.
    assert!(!busy.send_if_open(vec![b'x'; 256 << 20]));
}
