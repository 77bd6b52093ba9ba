//! Backends in Ruby that speak swiftclient as the original's example does, with ab in front and
//! SIGKILL behind. What is not installed is skipped, and that is said.

use crate::common::{Client, Load, Process, Proxy, eventually, installed, run_well, skipped};
use std::process::Command;

/// A backend with some connections to one listener: address, port, key, how many, and `echo` or
/// `hold`. It answers each request with its own text and `Connection: close`, and yet stays; or it
/// takes requests and never answers. When a connection ends it dials again after a second at most.
const BACKEND: &str = r##"
require 'socket'
host, port, key, count, manner = ARGV[0], ARGV[1].to_i, ARGV[2], ARGV[3].to_i, ARGV[4]
address = Socket.getaddrinfo(host, nil)[0][3].split('.').map { |part| '%02x' % part.to_i }.join
preamble = 'swiftclient' + address + ('%04x' % $$) + ('%02x' % key.bytesize) + key
dial = lambda do
  begin
    socket = TCPSocket.new(host, port)
    socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    socket.write(preamble)
    socket
  rescue SystemCallError
    sleep rand
    retry
  end
end
held = {}
count.times { held[dial.call] = String.new }
puts 'connected'
STDOUT.flush
loop do
  ready, = IO.select(held.keys)
  ready.each do |socket|
    begin
      held[socket] << socket.readpartial(65536)
    rescue EOFError, SystemCallError
      held.delete(socket)
      socket.close
      held[dial.call] = String.new
      next
    end
    next if manner == 'hold'
    while (at = held[socket].index("\r\n\r\n"))
      head = held[socket][0, at + 4]
      length = head =~ /^content-length: *([0-9]+)/i ? $1.to_i : 0
      break if held[socket].bytesize < head.bytesize + length
      request = held[socket].slice!(0, head.bytesize + length)
      socket.write("HTTP/1.1 200 ...\r\nConnection: close\r\nContent-Type: text/plain\r\n" \
                   "Content-Length: #{request.bytesize}\r\n\r\n#{request}")
    end
  end
end
"##;

/// Starts a backend, which is killed with SIGKILL when it is dropped.
#[track_caller]
fn backend(proxy: &Proxy, site: &str, key: &str, count: u32, manner: &str) -> Process {
    let listener = proxy.swiftclient_listener(site);
    let mut command = Command::new("ruby");
    command
        .args(["-e", BACKEND, &listener.ip().to_string(), &listener.port().to_string(), key])
        .args([&count.to_string(), manner]);
    Process::spawn("ruby", &mut command)
}

/// Whether this program can be run. If not, says that the test is skipped.
fn has(tool: &str) -> bool {
    installed(tool, &["sh", "-c", &format!("command -v {tool}")])
}

/// Twenty-five clients at once ask for 4,000 pages of the site.
#[track_caller]
fn ab(line: &str, key: &str) {
    if !has("ab") || !has("ruby") {
        return;
    }
    let proxy = Proxy::with(line);
    let _backends: Vec<Process> =
        (0..2).map(|_| backend(&proxy, "www.test", key, 8, "echo")).collect();
    proxy.await_count("b", 16);
    let mut command = Command::new("ab");
    command.args(["-q", "-k", "-c", "25", "-n", "4000", "-H", "Host: www.test"]);
    let report = run_well(command.arg(format!("http://{}/some/page", proxy.for_clients())));
    let figure = |name: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(name));
        line.map(|figure| figure.trim().parse::<u64>().expect("a number"))
    };
    assert_eq!(figure("Complete requests:"), Some(4_000), "{report}\n{}", proxy.log());
    assert_eq!(figure("Failed requests:"), Some(0), "{report}");
    assert_eq!(figure("Non-2xx responses:"), None, "{report}");
    // The backends have said `Connection: close` 4,000 times, and each is still on its first
    // connection.
    proxy.await_count("b", 16);
    let info = proxy.info();
    assert!(info.number(&["counters", "accepted"]) < 4_000 + 500, "{}", proxy.log());
    assert_eq!(info.number(&["counters", "retries"]), 0);
}

#[test]
fn ab_sees_no_failure() {
    ab("site www.test swiftiply=127.0.0.1:0", "");
}

#[test]
fn ab_sees_no_failure_where_backends_show_a_key() {
    ab("site www.test swiftiply=127.0.0.1:0 key=\"a key\"", "a key");
}

#[test]
fn redeploy_retries_a_post_whose_backend_was_killed() {
    if !has("ruby") {
        return;
    }
    let proxy = Proxy::with("site www.test swiftiply=127.0.0.1:0 redeploy=16k");
    for _ in 0..3 {
        // With one connection: with two the request may be given to the other, which dies just
        // then.
        let doomed = backend(&proxy, "www.test", "", 1, "hold");
        proxy.await_count("b", 1);
        let mut client = Client::request(
            &proxy,
            "POST /pay HTTP/1.1\r\nHost: www.test\r\nContent-Length: 6\r\n\r\namount",
        );
        eventually("the backend has the request", || proxy.count("B") == 1);
        drop(doomed);
        proxy.await_no_bridges();
        let _other = backend(&proxy, "www.test", "", 1, "echo");
        let response = client.read_response();
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with("POST /pay HTTP/1.1\r\n"), "{response:?}");
        assert!(response.text().ends_with("\r\n\r\namount"), "{response:?}");
        drop(_other);
        proxy.await_no_bridges();
    }
    assert_eq!(proxy.info().number(&["counters", "retries"]), 3);
}

#[test]
fn backends_that_are_killed_and_come_back_under_load_cost_no_request() {
    if !has("ruby") {
        return;
    }
    // A process that is killed ends its connections one after the other, and a request may meet
    // several of them.
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 redeploy=16k\nretries 16");
    let _steady = backend(&proxy, "a.test", "", 4, "echo");
    proxy.await_count("b", 4);
    let is_answer =
        |path: &str, text: &str| text.starts_with(&format!("POST {path} ")) && text.ends_with("hi");
    Load::run(&proxy, "POST", 4, is_answer, |load| {
        for _ in 0..3 {
            let doomed = backend(&proxy, "a.test", "", 4, "echo");
            eventually("it is connected", || {
                proxy.info().number(&["sites", "a.test", "bridges"]) == 8
            });
            load.await_more(5);
            drop(doomed);
            load.await_more(1);
        }
    });
}

/// Two addresses of a namespace of its own: a backend dials from one to the other, as from another
/// machine.
const ELSEWHERE: &str = r#"
ip link set lo up && ip addr add 10.9.0.2/32 dev lo && ip addr add 10.9.0.3/32 dev lo || exit 77
"$1" -c "$2" -w 2 2>"$2.log" &
proxy=$!
python3 - <<'END'
import socket, time
def dial(port, preamble, timeout):
    until = time.time() + 30
    while True:
        peer = socket.socket()
        peer.bind(("10.9.0.2", 0))
        peer.settimeout(timeout)
        try:
            peer.connect(("10.9.0.3", port))
            break
        except OSError:
            assert time.time() < until
            time.sleep(0.01)
    peer.sendall(preamble)
    try:
        return "closed" if peer.recv(1) == b"" else "answered"
    except ConnectionResetError:
        return "closed"
    except TimeoutError:
        return "parked"
print(dial(30000, b"swiftclient0a090002123400", 30), dial(30001, b"swiftclient0a090002123403abc", 1))
END
kill $proxy
wait $proxy
"#;

#[test]
fn site_without_a_key_refuses_backends_of_other_addresses() {
    if !has("python3") || !has("unshare") {
        return;
    }
    let conf = std::env::temp_dir().join(format!("cloudbridge-elsewhere-{}", std::process::id()));
    let lines = "listen 127.0.0.1:0\nsite a.test swiftiply=10.9.0.3:30000\nsite b.test swiftiply=10.9.0.3:30001 key=abc\n";
    std::fs::write(&conf, lines).expect("a file of the test");
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", ELSEWHERE, "sh", env!("CARGO_BIN_EXE_cloudbridge")])
        .arg(&conf)
        .output()
        .expect("unshare can be started");
    // Without root there is no namespace, and without iproute2 no address.
    if !output.status.success() && output.stdout.is_empty() {
        return skipped(&String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), "closed parked\n", "{output:?}");
}
