//! What a line of the access log says: its formats, its fields, and how a request ended.

use crate::common::{
    ACK, Bridge, Client, Json, Proxy, Run, Setup, Stopwatch, TOKEN, eventually, installed,
    let_pass, run_well,
};
use std::fs::read_to_string;
use std::process::Command;
use std::time::Duration;

/// A proxy that writes lines of this format to `access` in its own directory.
fn logging(format: &str, settings: &str) -> Proxy {
    Setup::new().settings(&format!("access-log {{dir}}/access format={format}\n{settings}")).start()
}

/// The lines, as soon as there are this many.
#[track_caller]
fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    let mut text = String::new();
    eventually(&format!("{count} lines"), || {
        text = read_to_string(proxy.dir().join("access")).unwrap_or_default();
        text.lines().count() >= count && text.ends_with('\n')
    });
    assert_eq!(text.lines().count(), count, "{text}");
    text.lines().map(str::to_owned).collect()
}

/// One request, served by a backend with a token, with what browsers send. Returns its size.
#[track_caller]
fn browse(proxy: &Proxy, agent: &str) -> u64 {
    let mut bridge = Bridge::with_token(proxy, "", "leave, undelivered");
    let request = format!(
        "POST /p?q=1 HTTP/1.1\r\nHost: A.test:8080\r\nReferer: http://b.test/\r\n\
         User-Agent: {agent}\r\nX-Request-Id: id-1\r\nContent-Length: 4\r\n\
         Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\nbody"
    );
    let mut client = Client::request(proxy, &request);
    bridge.accept_request();
    bridge.respond("hello");
    assert_eq!(client.read_response().text(), "hello");
    request.len() as u64
}

/// Fails unless `text` is `pattern`, in which each `#` stands for a number.
#[track_caller]
fn assert_like(text: &str, pattern: &str) {
    let mut rest = text;
    for (at, part) in pattern.split('#').enumerate() {
        if at > 0 {
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            assert!(digits.len() < rest.len(), "{text:?} is not {pattern:?}");
            rest = digits;
        }
        rest = match rest.strip_prefix(part) {
            Some(rest) => rest,
            None => panic!("{text:?} is not {pattern:?}"),
        };
    }
    assert_eq!(rest, "", "{text:?} is not {pattern:?}");
}

#[test]
fn json_has_every_field() {
    let proxy = logging("json", "site a.test,b.test");
    let size = browse(&proxy, "Curl/8");
    let line = &lines(&proxy, 1)[0];
    let json = Json::parse(line);
    let text = |name: &str| match json.at(&[name]) {
        Json::Text(text) => text.clone(),
        other => panic!("{name} is {other:?} in {line}"),
    };
    for (name, value) in [
        ("client", "127.0.0.1"),
        ("peer", "127.0.0.1"),
        ("request_id", "id-1"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("host", "A.test"),
        ("request", "POST /p?q=1 HTTP/1.1"),
        ("method", "POST"),
        ("target", "/p?q=1"),
        ("version", "HTTP/1.1"),
        ("referer", "http://b.test/"),
        ("user_agent", "Curl/8"),
        ("site", "a.test"),
        ("route", "a.test"),
        ("end", "done"),
    ] {
        assert_eq!(text(name), value, "{name} in {line}");
    }
    for (name, value) in [
        ("status", 200),
        ("port", 8080),
        ("body_in", 4),
        ("bytes_in", size),
        ("body_out", 5),
        ("attempts", 1),
    ] {
        assert_eq!(json.number(&[name]), value, "{name} in {line}");
    }
    assert!(json.number(&["bytes_out"]) > 5 && json.number(&["worker"]) < 2, "{line}");
    assert_like(&text("time"), "#-#-#T#:#:#.#Z");
    assert_like(&text("backend"), "127.0.0.1:#");
    assert!(text("backend_id").len() >= 8 && !line.contains(TOKEN), "{line}");
    for name in ["head_time", "queue_time", "ack_time", "first_byte_time", "total_time"] {
        assert!(matches!(json.at(&[name]), Json::Number(_)), "{name} in {line}");
    }
    assert_eq!(json.at(&["reason"]), &Json::Null);
}

#[test]
fn combined_and_vcombined_are_those_of_apache() {
    for (format, host) in [("combined", ""), ("vcombined", "A.test:8080 ")] {
        let proxy = logging(format, "unknown-host 404");
        browse(&proxy, "Curl/8");
        // Two workers submit their lines in either order.
        lines(&proxy, 1);
        Client::ask(&proxy, "GET /x HTTP/1.0\r\n\r\n").assert_own_reply(404);
        let lines = lines(&proxy, 2);
        let date = lines[0].split(['[', ']']).nth(1).expect("a date").to_owned();
        assert_like(&date.replace(|c: char| c.is_ascii_alphabetic(), "m"), "#/mmm/#:#:#:# +0000");
        let expected = format!(
            "{host}127.0.0.1 - - [{date}] \"POST /p?q=1 HTTP/1.1\" 200 5 \"http://b.test/\" \
             \"Curl/8\""
        );
        assert_eq!(lines[0], expected);
        assert!(lines[1].ends_with(" \"GET /x HTTP/1.0\" 404 28 \"-\" \"-\""), "{}", lines[1]);
    }
}

#[test]
fn a_format_of_the_operators_own_has_what_it_names() {
    let format = r#""{\"%{method}\" 100%% %{status}|%{request_id}|%{trace_id}|%{reason}}""#;
    let proxy = logging(format, "");
    browse(&proxy, "x");
    assert_eq!(lines(&proxy, 1), [r#"{"POST" 100% 200|id-1|4bf92f3577b34da6a3ce929d0e0e4736|-}"#]);
}

#[test]
fn an_unknown_field_is_one_error_at_the_start_and_changes_nothing_at_a_reload() {
    let conf = "access-log a format=%{methode}\n";
    let run = Run::new(&["-t", "-c", "{dir}/c"], &[("c", conf)]);
    assert!(!run.status.success());
    let what = "{dir}/c:1: access-log: there is no field \"methode\"; there are time, ";
    assert!(run.err.contains(what) && run.err.lines().count() == 1, "{}", run.err);
    let proxy = logging("\"%{target} x\"", "unknown-host 404");
    proxy.change_settings("%{target} x", "%{nonsense}");
    proxy.reload();
    proxy.await_log("there is no field \"nonsense\"");
    Client::ask(&proxy, "GET /still HTTP/1.1\r\nHost: a.test\r\n\r\n").assert_own_reply(404);
    assert_eq!(lines(&proxy, 1), ["/still x"]);
}

/// A client chooses these bytes, and must not forge a field or a line with them.
#[test]
fn hostile_bytes_are_escaped() {
    const AGENT: &[u8] = b"a\"b\\c\td\x80\xE2\x82\xAC";
    let request =
        [b"GET /\" HTTP/1.1\r\nHost: a.test\r\nUser-Agent: ", AGENT, b"\r\n\r\n"].concat();
    let proxy = logging("\"%{target} %{user_agent}\"", "unknown-host 404");
    Client::ask(&proxy, &request).assert_own_reply(404);
    assert_eq!(lines(&proxy, 1), [r"/\x22 a\x22b\x5Cc\x09d\x80\xE2\x82\xAC"]);
    let proxy = logging("json", "unknown-host 404");
    Client::ask(&proxy, &request).assert_own_reply(404);
    let json = Json::parse(&lines(&proxy, 1)[0]);
    assert_eq!(json.at(&["target"]), &Json::Text("/\"".to_owned()));
    assert_eq!(json.at(&["user_agent"]), &Json::Text("a\"b\\c\td\\x80€".to_owned()));
}

/// Status, request, end and reason of one line.
const ENDS: &str = "\"%{status} %{end} %{reason} %{attempts} %{request}\"";

#[test]
fn a_head_that_is_refused_is_badreq() {
    let proxy = logging(ENDS, "head-timeout 2s");
    Client::ask(&proxy, "GET nonsense\r\n\r\n").assert_own_reply(400);
    lines(&proxy, 1);
    let mut slow = Client::request(&proxy, "GET / HTTP/1.1\r\nHo");
    slow.read_response().assert_own_reply(408);
    lines(&proxy, 2);
    let mut half = Client::request(&proxy, "GET / HTTP/1.1\r\nHo");
    half.half_close();
    half.read_response().assert_own_reply(400);
    lines(&proxy, 3);
    // A body that is malformed belongs to a head that is good.
    let body = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
    Client::ask(&proxy, body).assert_own_reply(400);
    assert_eq!(
        lines(&proxy, 4),
        [
            "400 client-head bad-request 0 <BADREQ>",
            "408 client-timeout-head head-timeout 0 <BADREQ>",
            "400 client-head incomplete-request 0 <BADREQ>",
            "400 client-head bad-request 0 POST /b HTTP/1.1",
        ]
    );
}

/// In the format that has always been, a refused head has as many words as any request.
#[test]
fn badreq_in_the_plain_format_has_eight_words() {
    let proxy = Setup::new().settings("access-log {dir}/access").start();
    Client::ask(&proxy, "GET nonsense\r\n\r\n").assert_own_reply(400);
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        line.split(' ').collect::<Vec<_>>()[1..7],
        ["127.0.0.1", "-", "<BADREQ>", "-", "400", "0"]
    );
}

/// Neither a backend nor a connection without a byte is a request.
#[test]
fn bridges_and_silent_connections_have_no_line() {
    let proxy = logging(ENDS, "unknown-host 404");
    drop(Client::connect(&proxy));
    assert_eq!(Bridge::refused(&proxy, "BRIDGE nonsense HTTP/1.1\r\n\r\n").status(), 400);
    drop(Bridge::park(&proxy, &["b.test"]));
    Client::ask(&proxy, "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").assert_own_reply(404);
    assert_eq!(lines(&proxy, 1), ["404 proxy-head unknown-host 0 GET /x HTTP/1.1"]);
}

#[test]
fn a_line_says_who_ended_the_request_and_when() {
    let proxy = logging(ENDS, "queue-unserved 1\nwait-timeout 5s\nsite s.test timeout=100ms");
    let mut expected = Vec::new();
    let mut check = |line: &str| {
        expected.push(line.to_owned());
        assert_eq!(lines(&proxy, expected.len()), expected);
    };
    Client::get(&proxy, "s.test", "/1").read_response().assert_own_reply(503);
    check("503 backend-timeout-queue no-backend 0 GET /1 HTTP/1.1");
    let waiting = Client::get(&proxy, "a.test", "/2");
    proxy.await_count("c", 1);
    Client::get(&proxy, "a.test", "/3").read_response().assert_own_reply(503);
    check("503 proxy-queue unserved-queue-full 0 GET /3 HTTP/1.1");
    drop(waiting);
    check("0 client-queue - 0 GET /2 HTTP/1.1");
    // A POST that its backend has and does not answer.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let post = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi")
    };
    let mut client = Client::request(&proxy, post("/4"));
    bridge.accept_request();
    drop(bridge);
    client.read_response().assert_own_reply(502);
    check("502 backend-response backend-closed 1 POST /4 HTTP/1.1");
    // A GET that is repeated and then served.
    let mut client = Client::get(&proxy, "a.test", "/5");
    Bridge::park(&proxy, &["a.test"]).accept_request();
    Bridge::park(&proxy, &["a.test"]).serve_to(&mut client, "at last");
    check("200 done - 2 GET /5 HTTP/1.1");
    // No attempt is to be made with that bridge.
    proxy.await_no_bridges();
    // A response that breaks off.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, post("/6"));
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    client.read_head();
    drop(bridge);
    client.read_to_end();
    check("200 backend-data - 1 POST /6 HTTP/1.1");
    // A client that leaves during its body.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let client = Client::request(&proxy, post("/7").replace("hi", "h"));
    bridge.accept_head();
    bridge.expect_exact("h");
    drop(client);
    bridge.expect_closed();
    check("0 client-request - 1 POST /7 HTTP/1.1");
}

#[test]
fn a_tunnel_counts_the_bytes_of_both_directions() {
    let format = "\"%{status} %{end} %{body_in} %{body_out} %{request}\"";
    let proxy = logging(format, "");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut client =
        Client::request(&proxy, format!("GET /t HTTP/1.1\r\nHost: a.test\r\n{upgrade}"));
    bridge.accept_request();
    bridge.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}"));
    client.read_head();
    client.send("up");
    bridge.expect_exact("up");
    bridge.send("downwards");
    client.expect_exact("downwards");
    client.half_close();
    bridge.expect_closed();
    bridge.half_close();
    assert_eq!(lines(&proxy, 1), ["101 done 2 9 GET /t HTTP/1.1"]);
}

/// Each phase in which something is late is seen in its own time.
#[test]
fn times_are_those_of_the_phases() {
    const LATE: Duration = Duration::from_millis(60);
    let times = "%{head_time} %{queue_time} %{ack_time} %{first_byte_time} %{total_time}";
    let proxy = logging(&format!("\"{times}\""), "");
    let clock = Stopwatch::start();
    let mut client = Client::request(&proxy, "GET / HTTP/1.1\r\nHost: a.t");
    proxy.await_count("?", 1);
    // What has come is read soon after the connection was accepted.
    proxy.await_asleep();
    let_pass(LATE);
    client.send("est\r\n\r\n");
    proxy.await_count("c", 1);
    let_pass(LATE);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.read_switch();
    let_pass(LATE);
    bridge.send(ACK);
    bridge.read_head();
    let_pass(LATE);
    bridge.respond("late");
    client.read_response();
    clock.assert_passed(LATE * 4);
    let line = &lines(&proxy, 1)[0];
    let times: Vec<f64> = line.split(' ').map(|time| time.parse().expect("a number")).collect();
    assert!(times.len() == 5 && times[..4].iter().all(|time| *time >= 60.0), "{line}");
    assert!(times[4] >= times[..4].iter().sum::<f64>() - 0.01, "{line}");
}

/// A few requests of every kind, for programs that read logs; their lines are in this order.
fn requests_of_all_kinds(proxy: &Proxy) -> usize {
    browse(proxy, "Mozilla/5.0 (\"quoted\")");
    lines(proxy, 1);
    Client::ask(proxy, "GET nonsense\r\n\r\n").assert_own_reply(400);
    let mut count = 2;
    for target in ["/one", "/two%20words", "/%22"] {
        lines(proxy, count);
        let request = format!("GET {target} HTTP/1.1\r\nHost: b.test\r\n\r\n");
        Client::ask(proxy, request).assert_own_reply(404);
        count += 1;
    }
    count
}

#[test]
fn goaccess_reads_combined_and_vcombined() {
    if !installed("goaccess", &["goaccess", "--version"]) {
        return;
    }
    for format in ["combined", "vcombined"] {
        let proxy = logging(format, "unknown-host 404");
        let count = requests_of_all_kinds(&proxy);
        lines(&proxy, count);
        let report = proxy.dir().join("report.json");
        let format = format.to_uppercase();
        run_well(
            Command::new("goaccess")
                .arg(proxy.dir().join("access"))
                .args(["--no-global-config", "--log-format", &format, "-o"])
                .arg(&report),
        );
        let report = read_to_string(report).expect("a report");
        let number = |name: &str| -> u64 {
            let after = report.split(&format!("\"{name}\":")).nth(1).expect(name);
            let digits: String =
                after.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect(name)
        };
        let counted = (number("valid_requests"), number("failed_requests"));
        assert_eq!(counted, (count as u64, 0), "{report}");
    }
}

#[test]
fn jq_reads_json() {
    if !installed("jq", &["jq", "--version"]) {
        return;
    }
    let proxy = logging("json", "unknown-host 404");
    let count = requests_of_all_kinds(&proxy);
    lines(&proxy, count);
    let filter = "[.status, .end, .request, .total_time >= 0] | @csv";
    let read = run_well(Command::new("jq").args(["-r", filter]).arg(proxy.dir().join("access")));
    let read: Vec<&str> = read.lines().collect();
    assert_eq!(read[0], "200,\"done\",\"POST /p?q=1 HTTP/1.1\",true");
    assert_eq!(read[1], "400,\"client-head\",\"<BADREQ>\",true");
    assert_eq!(read[3], "404,\"proxy-head\",\"GET /two%20words HTTP/1.1\",true");
    assert_eq!(read.len(), count);
}

#[test]
fn an_id_that_the_backend_does_not_get_is_not_logged() {
    let proxy = logging("%{request_id}", "trusted-proxies 192.0.2.1\nunknown-host 404");
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: spoofed\r\n\r\n";
    Client::ask(&proxy, request).assert_own_reply(404);
    assert_eq!(lines(&proxy, 1), ["-"]);
}

#[test]
fn a_request_that_ended_while_the_log_was_closed_has_no_line_later() {
    let proxy = logging("%{target}", "workers 2");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/unseen");
    bridge.accept_request();
    let line = format!("access-log {}/access format=%{{target}}\n", proxy.dir().display());
    proxy.change_settings(&line, "");
    proxy.reload_well();
    bridge.respond_to(&mut client, "ok");
    proxy.change_settings(&line, &line);
    proxy.reload_well();
    drop(client);
    proxy.await_count("?", 0);
    let mut next = Client::get(&proxy, "a.test", "/seen");
    bridge.serve_to(&mut next, "ok");
    assert_eq!(lines(&proxy, 1), ["/seen"]);
}
