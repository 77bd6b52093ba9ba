//! A Flask application under gunicorn, on a port and on a Unix socket.

use super::program::Program;
use crate::common::{Agent, Client, Proxy, at, installed, pattern, signal};

/// What the tests ask for, as any Flask application has it.
const APP: &str = r#"
from flask import Flask, Response, request, url_for

app = Flask(__name__)

@app.get("/hello/<name>")
def hello(name):
    return f"hello {name} from {url_for('hello', name=name, _external=True)}"

@app.post("/form")
def form():
    return "&".join(f"{name}={request.form[name]}" for name in sorted(request.form))

@app.put("/sum")
def total():
    return str(sum(request.get_data()))

@app.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(1000)), mimetype="text/plain")

@app.get("/client")
def client():
    return request.headers["X-Forwarded-For"]

@app.get("/broken")
def broken():
    raise RuntimeError("as it happens")
"#;

/// A proxy with the application's file, if what serves it is there.
fn deployed() -> Option<Proxy> {
    let proxy = Proxy::start();
    proxy.write("app.py", APP);
    let dir = proxy.dir().display().to_string();
    let words = ["gunicorn", "--chdir", &dir, "--check-config", "app:app"];
    installed("gunicorn with Flask", &words).then_some(proxy)
}

/// Asks for everything that the application has.
#[track_caller]
fn ask_all(proxy: &Proxy) {
    let mut client = Client::connect(proxy);
    for name in ["ann", "bob"] {
        client.send_get("a.test", &format!("/hello/{name}"));
        let expected = format!("hello {name} from http://a.test/hello/{name}");
        assert_eq!(client.read_response().text(), expected);
    }
    client.send(
        "POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 7\r\n\r\nb=2&a=1",
    );
    assert_eq!(client.read_response().text(), "a=1&b=2");
    let body = pattern(0, 300_000);
    let total: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    client.send(format!(
        "PUT /sum HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert_eq!(client.read_response().text(), total.to_string());
    client.send_get("a.test", "/stream");
    let lines: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(client.read_response().text(), lines);
    client.send_get("a.test", "/client");
    assert_eq!(client.read_response().text(), "127.0.0.1");
    client.send_get("a.test", "/broken");
    assert_eq!(client.read_response().status(), 500);
    client.send("OPTIONS /form HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let allowed = client.read_response();
    assert!(allowed.field("allow").is_some_and(|methods| methods.contains("POST")), "{allowed:?}");
}

/// Threads, which keep connections open for two seconds.
#[test]
fn flask_is_served_over_kept_connections() {
    let Some(proxy) = deployed() else { return };
    let words =
        ["gunicorn", "--workers", "2", "--threads", "4", "-b", "{address}:{port}", "app:app"];
    let (_gunicorn, address) = Program::start(&proxy, &words);
    let _agent = Agent::serve(&address.to_string(), 4, &[at(&proxy)]);
    ask_all(&proxy);
}

/// Workers that serve one connection at a time and close it, the usual way.
#[test]
fn flask_is_served_over_a_unix_socket() {
    let Some(proxy) = deployed() else { return };
    let words = ["gunicorn", "--workers", "2", "-b", "unix:app.sock", "app:app"];
    let _gunicorn = Program::start_unix(&proxy, &words, "app.sock");
    let to = format!("unix:{}", proxy.dir().join("app.sock").display());
    let _agent = Agent::serve(&to, 2, &[at(&proxy)]);
    ask_all(&proxy);
}

/// gunicorn forks: its children hold the listening socket too, and a signal makes it start others
/// in their place.
#[test]
fn a_reload_of_gunicorn_costs_no_request() {
    let Some(proxy) = deployed() else { return };
    let words = ["gunicorn", "--pid", "pid", "--workers", "2", "-b", "{address}:{port}", "app:app"];
    let (_gunicorn, address) = Program::start(&proxy, &words);
    let _agent = Agent::serve(&address.to_string(), 2, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    let mut ask = |name: &str| {
        client.send(format!(
            "POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\nn={name}",
            name.len() + 2
        ));
        assert_eq!(client.read_response().text(), format!("n={name}"));
    };
    ask("before");
    let pid = std::fs::read_to_string(proxy.dir().join("pid")).expect("gunicorn's pid file");
    signal(pid.trim().parse().expect("a number"), "HUP");
    for number in 0..200 {
        ask(&number.to_string());
    }
}
