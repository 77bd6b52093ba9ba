//! The admin listener: what it shows, and to whom.

use crate::common::{Bridge, Client, Json, Message, Proxy, Setup, eventually, installed};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// A proxy with an admin listener over TCP, and these settings more.
#[track_caller]
fn with_admin(settings: &str) -> Proxy {
    Setup::new()
        .settings("listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin\nadmin-token {dir}/token")
        .settings(settings)
        .file("token", "sesame\n")
        .start()
}

/// The answer to a request at the admin listener: the request line, and further field lines.
#[track_caller]
fn ask(proxy: &Proxy, line: &str, fields: &str) -> Message {
    let mut client = Client::connect_to(proxy.for_admin());
    client.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n"));
    let answer = client.read_response();
    client.expect_closed();
    answer
}

#[track_caller]
fn state(proxy: &Proxy) -> Json {
    let answer = ask(proxy, "GET /state.json", "");
    assert_eq!(answer.status(), 200, "{answer:?}");
    Json::parse(&answer.text())
}

/// The row of the host whose first pattern is `host`.
fn host<'j>(state: &'j Json, host: &str) -> Option<&'j Json> {
    let Json::List(rows) = state.at(&["hosts"]) else { panic!("{state:?}") };
    rows.iter().find(|row| matches!(row.at(&["hosts"]), Json::List(names) if names[0] == Json::Text(host.to_owned())))
}

#[test]
fn the_state_names_the_hosts_that_backends_register() {
    let proxy = with_admin("");
    let _parked = [Bridge::park(&proxy, &["a.test"]), Bridge::park(&proxy, &["a.test"])];
    let mut busy = Bridge::park(&proxy, &["b.test", "*.b.test"]);
    let mut client = Client::get(&proxy, "x.b.test", "/");
    busy.accept_request();
    let _waits = Client::get(&proxy, "b.test", "/");
    proxy.await_count("c", 1);
    // A bridge is parked soon after its registration was accepted.
    eventually("two are parked", || state(&proxy).number(&["totals", "parked"]) == 2);
    let now = state(&proxy);
    let counts = |name: &str| {
        let row = host(&now, name).unwrap();
        ["parked", "busy", "waiting"].map(|count| row.number(&[count]))
    };
    assert_eq!(counts("a.test"), [2, 0, 0]);
    assert_eq!(counts("*.b.test"), [0, 1, 1], "patterns are sorted");
    busy.respond("served");
    client.read_response();
    eventually("the response is counted", || {
        let row = state(&proxy);
        let Json::List(answers) = host(&row, "*.b.test").unwrap().at(&["answers"]) else {
            panic!("{row:?}")
        };
        answers[1] == Json::Number(1)
    });
}

#[test]
fn health_is_that_of_the_process_or_of_a_host() {
    let proxy = with_admin("");
    let _star = Bridge::park(&proxy, &["*.b.test"]);
    for (path, status) in
        [("/healthz", 200), ("/healthz/x.B.test", 200), ("/healthz/b.test", 503), ("/x", 404)]
    {
        assert_eq!(ask(&proxy, &format!("GET {path}"), "").status(), status, "{path}");
    }
}

#[test]
fn actions_need_the_token_and_reading_may() {
    let proxy = with_admin("");
    let undrain = |fields: &str| {
        let body = "{\"host\":\"a.test\"}";
        let fields = format!("Content-Length: {}\r\n{fields}\r\n{body}", body.len());
        // The blank line behind the body is too much, and is discarded.
        ask(&proxy, "POST /undrain", &fields).status()
    };
    assert_eq!(undrain(""), 401);
    assert_eq!(undrain("Authorization: Bearer sesam\r\n"), 401);
    assert_eq!(undrain("Authorization: Bearer sesame\r\n"), 404, "it was not drained");
    let strict = with_admin("admin-reads token");
    assert_eq!(ask(&strict, "GET /metrics", "").status(), 401);
    assert_eq!(ask(&strict, "GET /metrics", "Authorization: Bearer sesame\r\n").status(), 200);
    assert!(!proxy.log().contains("sesame"));
}

#[test]
fn a_name_of_a_stranger_that_leads_here_is_refused() {
    let proxy = with_admin("admin-names ops.test");
    for (name, status) in [("evil.test", 421), ("ops.test:80", 200)] {
        let mut client = Client::connect_to(proxy.for_admin());
        client.send(format!("GET /state.json HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(client.read_response().status(), status, "{name}");
    }
}

#[test]
fn clients_and_bridges_have_no_business_there() {
    let proxy = with_admin("");
    let _parked = Bridge::park(&proxy, &["127.0.0.1"]);
    assert_eq!(ask(&proxy, "GET /other", "").status(), 404);
    let mut bridge = Client::connect_to(proxy.for_admin());
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let refusal = bridge.read_response();
    assert_eq!(refusal.status(), 405);
    assert!(refusal.field("allow").is_some(), "{refusal:?}");
}

/// RFC 9110 section 15.5.6.
#[test]
fn a_method_that_is_not_allowed_is_told_which_are() {
    let proxy = with_admin("");
    for (line, allowed) in [
        ("POST /", "GET, HEAD"),
        ("DELETE /sites", "GET, HEAD"),
        ("GET /drain", "POST"),
        ("POST /sites/a.test", "GET, HEAD, PUT, DELETE"),
    ] {
        let refusal = ask(&proxy, line, "");
        assert_eq!((refusal.status(), refusal.field("allow")), (405, Some(allowed)), "{line}");
    }
}

#[test]
fn half_a_request_and_a_hundred_others_keep_nobody_out() {
    let proxy = with_admin("");
    let mut slow: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = Client::connect_to(proxy.for_admin());
            client.send("GET /state.json HTTP/1.1\r\nHo");
            client
        })
        .collect();
    assert_eq!(ask(&proxy, "GET /healthz", "").status(), 200);
    slow[7].send("st: localhost\r\n\r\n");
    assert_eq!(slow[7].read_response().status(), 200);
}

/// Reads until `text` has come; returns everything.
#[track_caller]
fn read_until(client: &mut Client, text: &str) -> String {
    let mut all = String::new();
    let mut looked = 0;
    while !all[looked..].contains(text) {
        looked = all.len().saturating_sub(text.len());
        let some = client.read_some(64 * 1024).expect("the stream goes on");
        all.push_str(&String::from_utf8(some).unwrap());
    }
    all
}

#[test]
fn changes_are_streamed() {
    let proxy = with_admin("");
    let mut reader = Client::connect_to(proxy.for_admin());
    reader.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(&mut reader, "event: state\n");
    let _parked = Bridge::park(&proxy, &["new.test"]);
    let seen = read_until(&mut reader, "new.test");
    assert!(seen.contains("event: change\n"), "{seen}");
}

/// The row of the only backend.
#[track_caller]
fn backend(state: &Json) -> &Json {
    let Json::List(rows) = state.at(&["backends"]) else { panic!("{state:?}") };
    assert_eq!(rows.len(), 1, "{state:?}");
    &rows[0]
}

#[test]
fn the_state_says_what_a_backend_is_and_how_it_last_failed() {
    for site in ["", "site a.test timeout=30s", "site b.test timeout=30s"] {
        let proxy = with_admin(site);
        let mut bridge = Bridge::register(
            &proxy,
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: app/1 \"q\"\r\n\r\n",
        );
        let now = state(&proxy);
        assert_eq!(backend(&now).at(&["agent"]), &Json::Text("app/1 \\\"q\\\"".to_owned()));
        assert_eq!(backend(&now).at(&["last_error"]), &Json::Null);
        let _client = Client::get(&proxy, "a.test", "/");
        bridge.accept_request();
        // The next is of the same backend, and says what it is at length.
        let agent = format!("x/1 {}", "y".repeat(100));
        let _next = Bridge::register(
            &proxy,
            format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {agent}\r\n\r\n"),
        );
        drop(bridge);
        eventually("the failure is shown", || {
            let now = state(&proxy);
            backend(&now).get("last_error").is_some_and(|error| *error != Json::Null)
        });
        let now = state(&proxy);
        let error = backend(&now).at(&["last_error"]);
        let text = "backend closed the connection too early".to_owned();
        assert_eq!(error.at(&["text"]), &Json::Text(text));
        assert!(error.number(&["at"]) >= backend(&now).number(&["since"]));
        let shown = format!("x/1 {}...", "y".repeat(60));
        assert_eq!(backend(&now).at(&["agent"]), &Json::Text(shown));
    }
}

/// The permissions of its file have decided.
#[test]
fn a_reader_at_a_unix_socket_may_act_without_a_token() {
    let proxy = Proxy::with("listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin");
    let actions = |state: &Json| state.at(&["totals", "actions"]).clone();
    assert_eq!(actions(&proxy.info()), Json::Bool(true));
    assert_eq!(actions(&state(&proxy)), Json::Bool(false), "over TCP there is no token to give");
    let mut over_tcp = Client::connect_to(proxy.for_admin());
    over_tcp.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut over_unix = proxy.admin_stream("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let seen = read_until(&mut over_tcp, "event: change\n");
    assert!(seen.contains("\"actions\":false") && !seen.contains("\"actions\":true"), "{seen}");
    let mut seen = String::new();
    let mut some = [0; 4096];
    while seen.matches("\"actions\":").count() < 3 {
        let count = over_unix.read(&mut some).expect("the stream goes on");
        assert!(count > 0, "it has ended: {seen}");
        seen.push_str(std::str::from_utf8(&some[..count]).unwrap());
    }
    assert!(seen.contains("event: change\n") && !seen.contains("\"actions\":false"), "{seen}");
}

#[test]
fn a_change_has_only_what_has_changed_of_a_row() {
    let proxy = with_admin("");
    let mut reader = Client::connect_to(proxy.for_admin());
    reader.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(&mut reader, "event: state\n");
    let _first = Bridge::park(&proxy, &["new.test"]);
    read_until(&mut reader, "\"hosts\":[\"new.test\"],\"id\":1,");
    let _second = Bridge::park(&proxy, &["new.test"]);
    let seen = read_until(&mut reader, "\"hosts\":[{\"id\":1,\"parked\":2}]");
    assert!(!seen.contains("event: state\n"), "{seen}");
}

/// A reader that takes nothing for a while gets everything anew, and meanwhile others get theirs.
#[test]
fn a_slow_reader_catches_up_and_costs_the_others_nothing() {
    let proxy = with_admin("");
    let label = "x".repeat(63);
    // More than the kernel holds for one connection.
    let _wide: Vec<Bridge> = (0..500)
        .map(|route| {
            let names = (0..60).map(|name| format!("{route:04}-{name:02}.{label}.{label}.{label}"));
            let names: Vec<String> = names.collect();
            Bridge::park(&proxy, &names.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let mut slow = Client::connect_to(proxy.for_admin());
    slow.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut other = Client::connect_to(proxy.for_admin());
    other.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(&mut other, "event: change\n");
    let _late = Bridge::park(&proxy, &["late.test"]);
    read_until(&mut other, "late.test");
    read_until(&mut other, "event: change\n");
    let seen = read_until(&mut slow, "late.test");
    let before = &seen[..seen.find("late.test").unwrap()];
    assert_eq!(before.matches("event: state\n").count(), 2);
    assert_eq!(before.matches("event: change\n").count(), 0, "it would have had a gap");
    read_until(&mut slow, "event: change\n");
}

#[test]
fn what_is_drained_is_listed_and_undrained_by_number() {
    let proxy = with_admin("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let act = |verb: &str, body: &str| {
        let length = body.len();
        let fields =
            format!("Authorization: Bearer sesame\r\nContent-Length: {length}\r\n\r\n{body}");
        ask(&proxy, &format!("POST /{verb}"), &fields).status()
    };
    assert_eq!(act("drain", "{\"route\":1}"), 200);
    bridge.expect_closed();
    assert_eq!(act("drain", "{\"key\":\"<b>.test\"}"), 200);
    assert_eq!(act("drain", "{\"route\":7}"), 400, "there is none");
    let now = state(&proxy);
    let drained = "[{\"id\":1,\"kind\":\"route\",\"name\":\"a.test\"},\
                   {\"id\":2,\"kind\":\"key\",\"name\":\"<b>.test\"}]";
    assert_eq!(now.at(&["drained"]), &Json::parse(drained));
    let row = host(&now, "a.test").unwrap();
    assert_eq!(row.at(&["drained_by"]), &Json::List(vec![Json::Number(1)]));
    assert_eq!(act("undrain", "{\"drain\":3}"), 404);
    assert_eq!(act("undrain", "{\"drain\":1}"), 200);
    assert_eq!(act("undrain", "{\"drain\":1}"), 404);
    let now = state(&proxy);
    assert_eq!(host(&now, "a.test").unwrap().at(&["drained"]), &Json::Bool(false));
    let _back = Bridge::park(&proxy, &["a.test"]);
}

#[test]
fn the_page_runs_its_own_script_only() {
    let proxy = with_admin("admin-reads token");
    let page = ask(&proxy, "GET /", "");
    assert_eq!(page.status(), 200, "it is where the token is asked for");
    let policy = page.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(page.text().contains("<title>cloudbridge</title>"));
}

/// A parser that is not ours reads them.
#[test]
fn prometheus_reads_the_metrics() {
    // Debian's own Python has Debian's packages; the first in PATH may be another.
    const PYTHON: &str = "/usr/bin/python3";
    if !installed(
        "prometheus_client for Python",
        &[PYTHON, "-c", "import prometheus_client.openmetrics.parser"],
    ) {
        return;
    }
    let proxy = with_admin("metrics-hosts 1");
    let mut first = Bridge::park(&proxy, &["busy.test"]);
    let _second = Bridge::park(&proxy, &["idle.test"]);
    let mut client = Client::get(&proxy, "busy.test", "/");
    first.serve_to(&mut client, "served");
    // A response is counted once it has been passed on; then its bridge is parked, and the bytes are told at
    // the end of the turn.
    let awaited = [
        "{host=\"busy.test\",code=\"2xx\"} 1\n",
        "{host=\"other\",state=\"parked\"} 1\n",
        "{kind=\"bridge_parked\"} 2\n",
        "{direction=\"sent\"} 44\n",
    ];
    let mut text = String::new();
    eventually("it is counted", || {
        text = ask(&proxy, "GET /metrics", "").text();
        awaited.iter().all(|line| text.contains(line))
    });
    let script = "import sys\n\
                  from prometheus_client.openmetrics.parser import text_string_to_metric_families\n\
                  for family in text_string_to_metric_families(sys.stdin.read()):\n \
                  for s in family.samples: print(s.name, sorted(s.labels.items()), s.value)";
    let mut python = Command::new(PYTHON);
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    for unit in ["cloudbridge_client_bytes bytes", "process_cpu_seconds seconds"] {
        assert!(text.contains(&format!("# UNIT {unit}\n")), "{unit} is not in\n{text}");
    }
    let read = String::from_utf8(output.stdout).unwrap();
    for line in [
        "cloudbridge_requests_total [('code', '2xx'), ('host', 'busy.test')] 1",
        "cloudbridge_bridges [('host', 'other'), ('state', 'parked')] 1",
        "cloudbridge_request_duration_seconds_count [] 1",
        "cloudbridge_connections [('kind', 'bridge_parked')] 2",
        "cloudbridge_connections [('kind', 'idle')] 1",
        "cloudbridge_retries_total [('kind', 'delivered')] 0",
        "cloudbridge_bridges_without_key_total [('reason', 'expired')] 0",
        // `GET / HTTP/1.1`, Host, and a blank line; and the answer.
        "cloudbridge_client_bytes_total [('direction', 'received')] 35",
        "cloudbridge_client_bytes_total [('direction', 'sent')] 44",
        "cloudbridge_connections_max [('share', 'bridges')] ",
        "cloudbridge_loop_lag_seconds_count [('worker', '1')] ",
        "cloudbridge_loop_lag_seconds_bucket [('le', '+Inf'), ('worker', '0')] ",
        "cloudbridge_lost_log_lines_total [('log', 'access')] 0",
        "process_resident_memory_bytes [] ",
        "process_open_fds [] ",
        "process_max_fds [] ",
        "process_cpu_seconds_total [] ",
        "process_start_time_seconds [] 1",
    ] {
        assert!(read.contains(line), "{line} is not in\n{read}");
    }
}
