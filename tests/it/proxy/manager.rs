//! `manager=`: who is told that a request finds no free backend, and what becomes of the request.

use crate::common::{
    App, Bridge, Client, Json, Proxy, Run, Setup, Stopwatch, child_of, eventually, is_alive, ok,
    on_time,
};
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A manager that answers 204, and the targets that it has been asked for.
fn server() -> (App, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let app = App::start(move |seen| {
        let target = seen.head.split(' ').nth(1).unwrap_or_default().to_owned();
        kept.lock().unwrap().push(target);
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()
    });
    (app, asked)
}

/// What the state says of the manager of a site.
#[track_caller]
fn number(proxy: &Proxy, site: &str, member: &str) -> u64 {
    proxy.info().number(&["sites", site, "manager", member])
}

#[track_caller]
fn last_failure(proxy: &Proxy, site: &str) -> String {
    match proxy.info().at(&["sites", site, "manager", "last_failure", "text"]) {
        Json::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_is_told_who_waits_and_the_bridge_that_comes_serves() {
    let (app, asked) = server();
    let line = format!("site a.test,b.test manager=http://{}/start?k=v", app.to());
    let proxy = Proxy::with(&line);
    let mut client = Client::get(&proxy, "A.test", "/path");
    eventually("a call", || !asked.lock().unwrap().is_empty());
    let mut bridge = Bridge::park(&proxy, &["a.test", "b.test"]);
    assert_eq!(bridge.accept_request().start, "GET /path HTTP/1.1");
    // It is busy, so the next request is another reason to call.
    let mut second = Client::get(&proxy, "b.test", "/");
    eventually("another call", || {
        asked.lock().unwrap().iter().any(|call| call.contains("&host=b.test"))
    });
    bridge.respond_to(&mut client, "first");
    bridge.serve_to(&mut second, "second");
    let facts = "waiting=1&connected";
    // A request that waits for longer than a second is called for again.
    let asked = asked.lock().unwrap();
    assert_eq!(
        [&asked[0], asked.last().unwrap()],
        [
            &format!("/start?k=v&site=a.test&host=a.test&{facts}=0&reason=no-backend"),
            &format!("/start?k=v&site=a.test&host=b.test&{facts}=1&reason=busy"),
        ]
    );
}

/// Of the bridges that are connected, those count that could serve what waits.
#[test]
fn a_lane_that_a_request_does_not_meet_is_no_backend_of_it() {
    let (app, asked) = server();
    let proxy = Proxy::with(&format!("site a.test manager=http://{}/x", app.to()));
    let lane = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-Method: GET\r\n\r\n";
    let mut bridge = Bridge::register(&proxy, lane);
    let _busy = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    let _get = Client::get(&proxy, "a.test", "/");
    eventually("a call", || !asked.lock().unwrap().is_empty());
    let _post =
        Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    proxy.await_count("c", 2);
    eventually("a call for the other", || {
        asked.lock().unwrap().iter().any(|call| call.contains("waiting=2"))
    });
    let asked = asked.lock().unwrap();
    let last = asked.last().unwrap();
    assert!(asked[0].ends_with("waiting=1&connected=1&reason=busy"), "{asked:?}");
    assert!(last.ends_with("waiting=2&connected=0&reason=no-backend"), "{asked:?}");
}

#[test]
fn a_request_that_finds_a_bridge_is_no_reason_to_call() {
    let (app, asked) = server();
    let proxy = Proxy::with(&format!("site a.test manager=http://{}", app.to()));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for _ in 0..3 {
        // Its 100 or its last response may be here before a request can find it.
        eventually("it is parked", || proxy.info().number(&["totals", "parked"]) == 1);
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.serve_to(&mut client, "served");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn each_host_of_a_wildcard_is_called_for() {
    let (app, asked) = server();
    let proxy =
        Proxy::with(&format!("unknown-host 404\nsite *.apps.test manager=http://{}", app.to()));
    let _one = Client::get(&proxy, "one.apps.test", "/");
    eventually("a call", || !asked.lock().unwrap().is_empty());
    let _two = ["/x", "/y"].map(|path| Client::get(&proxy, "two.apps.test", path));
    proxy.await_count("c", 3);
    let facts = |host, waiting| {
        format!(
            "/?site=%2A.apps.test&host={host}.apps.test&waiting={waiting}&connected=0&reason=no-backend"
        )
    };
    // Each has its turn, again and again.
    eventually("a call for the other", || asked.lock().unwrap().contains(&facts("two", 2)));
    assert_eq!(asked.lock().unwrap()[0], facts("one", 1));
}

/// The default site gets the requests for all other names; its backends are those of the site.
#[test]
fn a_default_site_is_called_for_once() {
    let (app, asked) = server();
    let proxy = Proxy::with(&format!("site a.test default manager=http://{}", app.to()));
    let _clients = ["x.test", "y.test"].map(|host| Client::get(&proxy, host, "/"));
    proxy.await_count("c", 2);
    eventually("a call for both", || {
        let asked = asked.lock().unwrap();
        asked.iter().any(|call| call.contains("&waiting=2&connected=0"))
    });
}

/// Three calls cannot be made in less than two seconds, over both workers, and none begins while
/// another is under way.
#[test]
fn calls_are_a_second_apart_and_one_at_a_time() {
    let script = "#!/bin/sh\ncd \"${0%/*}\"\nmkdir running || echo x >>overlaps\nsleep 1.2\n\
                  rmdir running\n";
    let setup = Setup::new().file("start", script).settings("site a.test manager=exec:{dir}/start");
    let proxy = setup.start();
    let clock = Stopwatch::start();
    let _clients: Vec<_> = (0..20).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    eventually("three calls", || number(&proxy, "a.test", "calls") >= 3);
    clock.assert_passed(Duration::from_millis(2400));
    assert!(!proxy.dir().join("overlaps").exists());
}

#[test]
fn calls_of_two_sites_do_not_wait_for_each_other() {
    let (app, asked) = server();
    let settings = format!(
        "site slow.test manager=exec:{{dir}}/start\nsite a.test manager=http://{}\n",
        app.to()
    );
    let proxy = Setup::new().file("start", "#!/bin/sh\nsleep 1000\n").settings(&settings).start();
    let _slow = Client::get(&proxy, "slow.test", "/");
    eventually("a call", || number(&proxy, "slow.test", "calls") == 1);
    let _quick = Client::get(&proxy, "a.test", "/");
    eventually("the other's call", || !asked.lock().unwrap().is_empty());
}

#[test]
fn a_request_waits_for_manager_timeout_and_then_gets_503() {
    let (app, _asked) = server();
    let line = format!("site a.test timeout=1h manager-timeout=300ms manager=http://{}", app.to());
    let proxy = Proxy::with(&line);
    let clock = Stopwatch::start();
    let response = Client::get(&proxy, "a.test", "/").read_response();
    clock.assert_passed(Duration::from_millis(300));
    response.assert_own_reply(503);
    assert!(response.has("retry-after"), "{response:?}");
}

#[test]
fn a_failure_is_logged_and_counted() {
    let script = "#!/bin/sh\necho \"no $SITE today\" >&2\nexit 3\n";
    // It is over before our own words come a second time.
    let settings = "site a.test manager-timeout=8s manager=exec:{dir}/start";
    let proxy = Setup::new().file("start", script).settings(settings).start();
    let _client = Client::get(&proxy, "a.test", "/");
    eventually("two failures", || number(&proxy, "a.test", "failures") >= 2);
    let failed = "it has ended with exit status: 3";
    assert_eq!(last_failure(&proxy, "a.test"), failed);
    // Its own words, each time; ours once in ten seconds.
    eventually("both are logged", || proxy.log().matches("no a.test today\n").count() >= 2);
    let path = proxy.dir().display().to_string();
    let line = format!("site a.test: its manager exec:{path}/start: {failed}");
    proxy.await_log(&line);
    assert_eq!(proxy.log().matches(&line).count(), 1, "{}", proxy.log());
    assert_eq!(proxy.log().matches("calling exec:").count(), 1);
    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for name in ["calls", "failures"] {
        let name = format!("\ncloudbridge_manager_{name}_total ");
        let (_, rest) = metrics.split_once(&name).unwrap_or_else(|| panic!("{metrics}"));
        assert!(rest.starts_with(|c: char| ('2'..='9').contains(&c)), "{name}");
    }
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    ctl.arg("ctl").args(["-a", &format!("unix:{path}/admin.sock"), "sites"]);
    let table = String::from_utf8(ctl.output().unwrap().stdout).unwrap();
    let row = table.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..4], ["a.test", "0", "0", "1"], "{table}");
    assert!(row.ends_with(failed), "{table}");
}

/// Neither what the proxy has open, nor what has been left open by the one that started it.
#[test]
fn a_program_gets_the_facts_and_nothing_else() {
    let script = "#!/bin/sh\ncd \"${0%/*}\"\n\
                  tr '\\0' '\\n' </proc/$$/environ | sort >facts\n\
                  echo \"stdin $(readlink /proc/self/fd/0)\" >>facts\n\
                  echo \"fds\" $(ls /proc/self/fd) >>facts\n\
                  grep SigBlk: /proc/self/status | tr '\\t' ' ' >>facts\n\
                  echo \"group $(($(cut -d' ' -f5 /proc/$$/stat) - $$))\" >>facts\n\
                  echo \"arguments $#\" >>facts\nmv facts done\n";
    let proxy = Setup::new()
        .file("start", script)
        .settings("site *.apps.test manager=exec:{dir}/start")
        .variable("SECRET", "sesame")
        .under(&["sh", "-c", "exec 9</dev/null; exec \"$@\"", "sh"])
        .start();
    let _client = Client::get(&proxy, "one.apps.test", "/");
    let facts = proxy.dir().join("done");
    eventually("the program has run", || facts.exists());
    let path = std::env::var("PATH").unwrap();
    // 3 is what lists them.
    let expected = format!(
        "CONNECTED=0\nHOST=one.apps.test\nPATH={path}\nREASON=no-backend\nSITE=*.apps.test\n\
         WAITING=1\nstdin /dev/null\nfds 0 1 2 3\nSigBlk: 0000000000000000\n\
         group 0\narguments 0\n"
    );
    assert_eq!(fs::read_to_string(facts).unwrap(), expected);
}

/// A script that waits for something that it has started, whose process ID is in a file.
const HANGS: &str =
    "#!/bin/sh\ncd \"${0%/*}\"\nsleep 1000 &\necho $! >pid.new\nmv pid.new pid\nwait\n";

#[track_caller]
fn started_by(proxy: &Proxy) -> u32 {
    let path = proxy.dir().join("pid");
    eventually("it has started something", || path.exists());
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_has_started() {
    // Time enough for it to start something on a machine that is busy.
    let settings = "site a.test manager-timeout=3s manager=exec:{dir}/start";
    let proxy = Setup::new().file("start", HANGS).settings(settings).start();
    let mut client = Client::get(&proxy, "a.test", "/");
    let started = started_by(&proxy);
    client.read_response().assert_own_reply(503);
    eventually("it is killed", || !is_alive(started));
    eventually("no child is left", || child_of(proxy.id()).is_none());
    eventually("it has failed", || number(&proxy, "a.test", "failures") > 0);
    assert_eq!(last_failure(&proxy, "a.test"), "it took too long, and was killed");
}

#[test]
fn sigterm_ends_a_program_and_calls_no_more() {
    let settings = "site a.test manager=exec:{dir}/start";
    let mut proxy = Setup::new().file("start", HANGS).settings(settings).start();
    let mut client = Client::get(&proxy, "a.test", "/");
    let started = started_by(&proxy);
    proxy.terminate();
    client.read_response().assert_own_reply(503);
    assert!(proxy.wait_exit().success());
    eventually("it is killed", || !is_alive(started));
    assert_eq!(proxy.log().matches("calling exec:").count(), 1);
}

#[test]
fn a_reload_changes_who_is_called_for_those_who_wait() {
    let (app, asked) = server();
    let settings = "site a.test manager=exec:/bin/false";
    let proxy = Proxy::with(settings);
    let mut client = Client::get(&proxy, "a.test", "/");
    eventually("a failure", || number(&proxy, "a.test", "failures") > 0);
    proxy.change_settings("exec:/bin/false", &format!("http://{}", app.to()));
    proxy.reload_well();
    eventually("a call", || !asked.lock().unwrap().is_empty());
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve_to(&mut client, "served");
}

/// A connection to a server is made in a moment; the manager is for what is not there.
#[test]
fn a_server_that_is_dialled_is_no_reason_to_call() {
    // It has a quarter of a second.
    on_time(Duration::from_millis(100), || {
        let (app, asked) = server();
        let dialled = App::start(|_| ok("dialled"));
        let line = format!("site a.test servers={} manager=http://{}", dialled.to(), app.to());
        let proxy = Proxy::with(&line);
        assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "dialled");
        assert_eq!(proxy.info().number(&["counters", "manager_calls"]), 0);
        drop(dialled);
        let _client = Client::get(&proxy, "a.test", "/");
        eventually("a call", || !asked.lock().unwrap().is_empty());
    });
}

#[test]
fn a_program_that_cannot_be_run_is_refused_at_the_start() {
    let conf = "site a.test manager=exec:/no/such\nsite b.test manager=exec:{dir}/c.conf\n";
    let run = Run::new(&["-t", "-c", "{dir}/c.conf"], &[("c.conf", conf)]);
    assert!(!run.status.success());
    for line in [
        "site a.test: manager: cannot run /no/such: No such file or directory (os error 2)\n",
        "site b.test: manager: cannot run {dir}/c.conf: it is no program\n",
    ] {
        assert!(run.err.contains(line), "{run:?}");
    }
}
