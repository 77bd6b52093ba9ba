//! Scale from zero: an application that nobody has started, its agent, and a starter that works as a
//! service manager does.

use super::upgrade::Upgraded;
use crate::common::{Bridge, Client, Proxy, Setup, eventually, free_address, installed, is_alive};
use std::fs;

/// An application: it answers with its process ID, and ends when its standard input does.
const APPLICATION: &str = "\
import http.server, os, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

host, port = sys.argv[1].rsplit(':', 1)
server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
";

/// Starts the unit, unless it runs: the application, and the agent; when the agent leaves, the
/// application ends. As with a service manager, the caller does not wait for it.
const STARTER: &str = "\
#!/bin/sh
cd \"${0%/*}\" || exit 1
echo \"$SITE $HOST $REASON\" >>calls
exec 8>lock
flock -n 8 || exit 0
echo x >>starts
(python3 application.py \"$(cat address)\" <pipe & exec 7>pipe
 AGENT -n 8 --host \"$HOST\" --exit-idle 3s --to \"$(cat address)\" PROXY) >>unit.log 2>&1 </dev/null &
";

/// How often the unit has been started.
fn starts(proxy: &Proxy) -> usize {
    fs::read_to_string(proxy.dir().join("starts")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_stopped_application_is_started_by_its_first_requests_and_leaves_when_it_is_idle() {
    if !installed("python3", &["python3", "--version"])
        || !installed("flock", &["flock", "--version"])
    {
        return;
    }
    let proxy = Setup::new()
        .settings("site a.test manager=exec:{dir}/start manager-timeout=60s")
        .file("start", "#!/bin/sh\nexit 1\n")
        .file("application.py", APPLICATION)
        .file("address", &free_address().to_string())
        .start();
    let starter = STARTER
        .replace("AGENT", env!("CARGO_BIN_EXE_cloudbridge-agent"))
        .replace("PROXY", &proxy.for_bridges().to_string());
    std::process::Command::new("mkfifo").arg(proxy.dir().join("pipe")).status().expect("mkfifo");
    proxy.write("start", &starter);
    let ask_all = |count: usize| -> Vec<String> {
        let clients: Vec<_> = (0..count).map(|_| Client::get(&proxy, "a.test", "/")).collect();
        let answers = clients.into_iter().map(|mut client| {
            let response = client.read_response();
            assert_eq!(response.status(), 200, "{response:?}");
            response.text()
        });
        answers.collect()
    };
    let first = ask_all(100);
    assert!(first.iter().all(|process| *process == first[0]), "{first:?}");
    assert_eq!(starts(&proxy), 1);
    // It leaves by itself, in the announced way, and its application with it.
    proxy.await_no_bridges();
    let application: u32 = first[0].parse().unwrap();
    eventually("the application has ended", || !is_alive(application));
    assert!(proxy.info().number(&["counters", "leaves"]) > 0);
    // The unit may still be about to end: then the next call starts it.
    let second = ask_all(1);
    assert_ne!(second[0], first[0]);
    assert_eq!(starts(&proxy), 2);
    let calls = fs::read_to_string(proxy.dir().join("calls")).unwrap();
    assert!(calls.starts_with("a.test a.test no-backend\n"), "{calls}");
    assert_eq!(proxy.info().number(&["counters", "manager_failures"]), 0);
    proxy.await_no_bridges();
}

/// The new program's requests wait for what the old one's manager is about to start.
#[test]
fn an_upgrade_waits_for_a_program_and_leaves_no_child() {
    let script = "#!/bin/sh\ncd \"${0%/*}\"\necho $$ >>started\n\
                  until test -e go; do sleep 0.05; done\necho $$ >>ended\n";
    let setup = Setup::new().file("start", script);
    let proxy = Upgraded::with(setup.settings("site a.test manager=exec:{dir}/start"));
    let lines = |name: &str| {
        let text = fs::read_to_string(proxy.dir().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let mut client = Client::get(&proxy, "a.test", "/");
    eventually("the old program's call", || lines("started").len() == 1);
    let old = proxy.upgrade();
    // The request has gone over, and is a reason to call there.
    eventually("the new program's call", || lines("started").len() == 2);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve_to(&mut client, "served");
    assert!(is_alive(old) && lines("ended").is_empty());
    proxy.write("go", "");
    eventually("both have ended", || lines("ended").len() == 2);
    eventually("the old program has ended", || !is_alive(old));
}
