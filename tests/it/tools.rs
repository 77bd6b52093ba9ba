//! Programs that others have written, against the real binaries: curl, wrk, ab, haproxy, nginx and
//! Ruby.
//! One that is not installed is skipped, and that is said.

use crate::common::{
    Agent, Client, DEADLINE, Process, Proxy, eventually, free_address, header_v1, installed,
    pattern, run_well,
};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Whether this program can be run. If not, says that the test is skipped.
fn has(tool: &str) -> bool {
    installed(tool, &["sh", "-c", &format!("command -v {tool}")])
}

/// A proxy with two workers and an agent that echoes over four bridges.
#[track_caller]
fn echoing() -> (Proxy, Agent) {
    let proxy = Proxy::start();
    let agent = Agent::echo(&proxy, &["*"]);
    proxy.await_count("b", 4);
    (proxy, agent)
}

/// Runs curl, which says the status behind what it has received.
#[track_caller]
fn curl(proxy: &Proxy, args: &[&str]) -> String {
    let url = format!("http://{}/path?q=1", proxy.for_clients());
    let seconds = DEADLINE.as_secs().to_string();
    let mut all = vec!["-sS", "--max-time", &seconds, "-w", "\n%{http_code}", &url];
    all.extend_from_slice(args);
    run_well(Command::new("curl").args(all))
}

#[test]
fn curl_requests_of_every_kind_are_answered() {
    if !has("curl") {
        return;
    }
    let (proxy, _agent) = echoing();
    for (args, line) in [
        (&[][..], "GET /path?q=1 HTTP/1.1\r\n"),
        (&["-0"], "GET /path?q=1 HTTP/1.1\r\n"),
        (&["--http2"], "GET /path?q=1 HTTP/1.1\r\n"),
        (&["-X", "DELETE"], "DELETE /path?q=1 HTTP/1.1\r\n"),
        (&["-d", "a=b"], "POST /path?q=1 HTTP/1.1\r\n"),
        (&["-d", "a=b", "-H", "Transfer-Encoding: chunked"], "POST /path?q=1 HTTP/1.1\r\n"),
    ] {
        let answer = curl(&proxy, args);
        assert!(answer.starts_with(line) && answer.ends_with("\n200"), "{args:?}: {answer}");
        assert!(args.first() != Some(&"-d") || answer.contains("a=b"), "{args:?}: {answer}");
    }
    let head = curl(&proxy, &["-I"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n\n200"), "{head}");
    // Two requests on one connection.
    let url = format!("http://{}/second", proxy.for_clients());
    let two = curl(&proxy, &[&url, "-w", "\n%{num_connects} %{http_code}"]);
    assert!(two.contains("GET /second HTTP/1.1\r\n") && two.ends_with("\n0 200"), "{two}");
}

/// curl sends `Expect: 100-continue` with it, and waits a second at most: it goes on sooner if the
/// 100 comes.
#[test]
fn curl_uploads_a_megabyte_when_it_is_told_to_go_on() {
    if !has("curl") {
        return;
    }
    let (proxy, _agent) = echoing();
    let body = pattern(0, 1024 * 1024);
    let (file, back) = (proxy.dir().join("up"), proxy.dir().join("back"));
    std::fs::write(&file, &body).expect("a file of the test");
    let seconds = DEADLINE.as_secs().to_string();
    let url = format!("http://{}/", proxy.for_clients());
    let output = Command::new("curl")
        .args(["-sSv", "--max-time", &seconds, "--expect100-timeout", &seconds])
        .args(["-H", "Expect: 100-continue", "-w", "%{http_code}", &url, "-T"])
        .arg(&file)
        .arg("-o")
        .arg(&back)
        .output()
        .expect("curl");
    let spoken = String::from_utf8_lossy(&output.stderr);
    assert!(spoken.contains("< HTTP/1.1 100 Continue"), "{spoken}");
    assert_eq!(output.stdout, b"200", "{spoken}");
    assert!(std::fs::read(&back).expect("the answer").ends_with(&body), "not what was sent");
}

#[test]
fn wrk_sees_no_error() {
    if !has("wrk") {
        return;
    }
    let (proxy, _agent) = echoing();
    let url = format!("http://{}/", proxy.for_clients());
    // What takes longer than its timeout, two seconds by default, is an error to it.
    let args = ["-c", "64", "-t", "2", "-d", "3", "--timeout", "30s", &url];
    let report = run_well(Command::new("wrk").args(args));
    // Both lines are there only if there is something to say.
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let count = report.lines().find_map(|line| line.trim().split_once(" requests in"));
    let count: u64 = count.and_then(|(count, _)| count.parse().ok()).expect("a count");
    assert!(count > 50, "{report}");
}

#[track_caller]
fn ab(args: &[&str]) {
    if !has("ab") {
        return;
    }
    let (proxy, _agent) = echoing();
    let url = format!("http://{}/", proxy.for_clients());
    let mut all = vec!["-q", "-c", "16", "-n", "2000"];
    all.extend_from_slice(args);
    all.push(&url);
    let report = run_well(Command::new("ab").args(all));
    let figure = |name: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(name));
        line.map(|figure| figure.trim().parse::<u64>().expect("a number"))
    };
    assert_eq!(figure("Complete requests:"), Some(2000), "{report}");
    assert_eq!(figure("Failed requests:"), Some(0), "{report}");
    assert_eq!(figure("Non-2xx responses:"), None, "{report}");
    let kept = args.contains(&"-k").then_some(2000);
    assert_eq!(figure("Keep-Alive requests:"), kept, "{report}");
}

#[test]
fn ab_sees_no_error() {
    ab(&[]);
}

#[test]
fn ab_with_keep_alive_sees_no_error() {
    ab(&["-k"]);
}

/// Starts haproxy with these settings, in which `fd@0` is its address.
#[track_caller]
fn start_haproxy(proxy: &Proxy, settings: &str) -> (Process, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let file = proxy.dir().join("haproxy.cfg");
    std::fs::write(&file, settings).expect("a file of the test");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file).stdin(Stdio::from(OwnedFd::from(listener)));
    (Process::spawn("haproxy", &mut command), address)
}

/// haproxy with checks of the proxy's listener for clients, which it takes a listening socket of
/// its own for from its standard input.
#[track_caller]
fn haproxy(proxy: &Proxy) -> (Process, SocketAddr) {
    let settings = format!(
        "global\n  log stdout format raw daemon\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  timeout check 30s\n  option http-keep-alive\n  http-reuse always\n\
         frontend web\n  bind fd@0\n  default_backend cloudbridge\n\
         backend cloudbridge\n  log global\n  option httpchk\n  http-check send meth GET uri /health ver HTTP/1.1 hdr Host check.test\n  \
         http-check expect status 200\n  server proxy {} check inter 2s fastinter 100ms downinter 100ms rise 2 fall 2\n",
        proxy.for_clients()
    );
    start_haproxy(proxy, &settings)
}

/// As deployed: it checks with a request whether backends are there, keeps connections, and sends
/// requests of all its clients over each of them.
#[test]
fn haproxy_in_front_finds_backends_and_serves_many_hosts() {
    if !has("haproxy") {
        return;
    }
    let proxy =
        Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges\nunknown-host 503");
    let (haproxy, address) = haproxy(&proxy);
    haproxy.await_log("Server cloudbridge/proxy is DOWN");
    let _agent = Agent::echo(&proxy, &["*"]);
    haproxy.await_log("Server cloudbridge/proxy is UP");
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect_to(address)).collect();
    for round in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            let host = format!("h{}.test", (round + number) % 5);
            let body = format!("{round}-{number}");
            client.send(format!(
                "POST /{round}/{number} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let response = client.read_response();
            assert_eq!(response.status(), 200, "{response:?}");
            let text = response.text().to_lowercase();
            let host = format!("\r\nhost: h{}.test\r\n", (round + number) % 5);
            let line = format!("post /{round}/{number} http/1.1\r\n");
            assert!(text.starts_with(&line) && text.contains(&host), "{response:?}");
            assert!(text.ends_with(&format!("\r\n\r\n{round}-{number}")), "{response:?}");
        }
    }
}

/// haproxy that learns its clients' addresses from PROXY headers, and passes them on in such headers:
/// `send` is the option of its server. On a busy machine a check may take longer than the time between
/// two: that ends nothing.
#[track_caller]
fn announcing_haproxy(proxy: &Proxy, mode: &str, send: &str) -> (Process, SocketAddr) {
    let settings = format!(
        "defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend web\n  bind fd@0 accept-proxy\n  default_backend cloudbridge\n\
         backend cloudbridge\n  {}  server proxy {} {send} check inter 100ms fall 100\n",
        if mode == "http" { "http-reuse always\n" } else { "" },
        proxy.for_clients()
    );
    start_haproxy(proxy, &settings)
}

/// With keep-alive on both sides, each request is its own client's.
#[test]
fn haproxy_in_front_announces_its_clients() {
    if !has("haproxy") {
        return;
    }
    for (mode, send) in [
        ("http", "send-proxy"),
        ("http", "send-proxy-v2"),
        ("tcp", "send-proxy"),
        ("tcp", "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
    ] {
        let proxy = Proxy::with(
            "listen 127.0.0.1:0 clients accept-proxy=127.0.0.1\nlisten 127.0.0.1:0 bridges",
        );
        let _agent = Agent::echo(&proxy, &["a.test"]);
        let (_haproxy, address) = announcing_haproxy(&proxy, mode, send);
        let from = ["192.0.2.1", "192.0.2.2", "2001:db8::3", "192.0.2.4"];
        let mut clients = from.map(|ip| {
            let mut client = Client::connect_to(address);
            client.send(match ip.contains(':') {
                true => header_v1(&format!("[{ip}]:1")),
                false => header_v1(&format!("{ip}:1")),
            });
            (client, ip)
        });
        for _ in 0..10 {
            for (client, ip) in &mut clients {
                client.send_get("a.test", "/");
                let text = client.read_response().text();
                assert!(text.contains(&format!("X-Forwarded-For: {ip}\r\n")), "{send}: {text}");
            }
        }
        assert!(!proxy.log().contains("accept-proxy"), "{}", proxy.log());
    }
}

/// What a trusted nginx says about its clients is kept, and its ids are the same on both sides.
#[test]
fn nginx_in_front_is_trusted() {
    if !has("nginx") {
        return;
    }
    let proxy = Proxy::with(
        "trusted-proxies 127.0.0.1\nforwarded-style both\nrequest-id yes\nrequest-start s",
    );
    let _agent = Agent::echo(&proxy, &["a.test"]);
    let (address, dir) = (free_address(), proxy.dir().display().to_string());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
        .concat();
    let conf = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{ {temporary} access_log off;\n\
         upstream up {{ server {}; keepalive 4; }}\n\
         server {{ listen {address} proxy_protocol; location / {{ proxy_pass http://up;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_protocol_addr;\n\
         proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Request-Id $request_id;\n\
         add_header X-Id $request_id; }} }} }}\n",
        proxy.for_clients()
    );
    proxy.write("nginx.conf", &conf);
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p", &dir, "-c", "nginx.conf"]).stdin(Stdio::null());
    let _nginx = Process::spawn("nginx", &mut command);
    eventually("nginx listens", || TcpStream::connect(address).is_ok());
    let mut clients = ["192.0.2.1", "192.0.2.2"].map(|ip| {
        let mut client = Client::connect_to(address);
        client.send(header_v1(&format!("{ip}:1")));
        (client, ip)
    });
    for _ in 0..5 {
        for (client, ip) in &mut clients {
            client.send_get("a.test", "/");
            let response = client.read_response();
            let id = response.field("x-id").expect("nginx's id").to_owned();
            let text = response.text();
            for line in [
                format!("X-Forwarded-For: {ip}, 127.0.0.1"),
                "X-Forwarded-Proto: https".to_owned(),
                "Forwarded: for=127.0.0.1;host=a.test;proto=http".to_owned(),
                format!("X-Request-Id: {id}"),
            ] {
                assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
            }
            assert_eq!(text.matches("X-Request-Start: t=").count(), 1, "{text}");
        }
    }
}

/// The client's side of the original protocol as a Ruby server used it, with Ruby's own sockets and
/// patterns.
const RUBY: &str = r##"
require 'socket'
$stdout.sync = true
host, port = ARGV

# One bridge: a socket whose next bytes are a request, or nil to try again.
def accept(host, port)
  socket = TCPSocket.new(host, port)
  ["BRIDGE / HTTP/1.1\r\n", "Host: ruby.test\r\n", "\r\n"].each { |line| socket.write(line) }
  status = nil
  while (line = socket.gets)
    if line.strip.empty?
      case status
      when 100 then status = nil
      when 101
        socket.write("HTTP/1.1 100 Continue\r\n\r\n")
        return socket
      when 504
        socket.close
        return nil
      else raise "refused with #{status.inspect}"
      end
    elsif status.nil?
      raise "not a status line: #{line.inspect}" unless line =~ /^HTTP\/1\.[01] ([0-9]{3}) (.+)$/
      status = $1.to_i
    else
      raise "not a field: #{line.inspect}" unless line =~ /^(.+?):\s+(.+)$/
    end
  end
  raise 'closed before a 101'
end

loop do
  socket = accept(host, port)
  if socket.nil?
    puts 'again'
    next
  end
  request = socket.gets
  length = 0
  while (line = socket.gets) && !line.strip.empty?
    length = $1.to_i if line =~ /^content-length:\s*([0-9]+)/i
  end
  body = "#{request.strip} #{socket.read(length)}"
  socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: #{body.bytesize}\r\n\r\n")
  socket.write(body)
  socket.close
  puts 'served'
end
"##;

#[test]
fn a_ruby_server_is_told_to_try_again_and_serves_one_request_for_each_bridge() {
    if !has("ruby") {
        return;
    }
    let proxy = Proxy::with("bridge-timeout 1s");
    let script = proxy.dir().join("server.rb");
    std::fs::write(&script, RUBY).expect("a file of the test");
    let address = proxy.for_bridges();
    let mut command = Command::new("ruby");
    command.arg(&script).args([address.ip().to_string(), address.port().to_string()]);
    let ruby = Process::spawn("ruby", &mut command);
    ruby.await_log("again");
    let mut client = Client::connect(&proxy);
    for number in 0..20 {
        let body = format!("body {number}");
        let length = body.len();
        client.send(format!(
            "POST /{number} HTTP/1.1\r\nHost: ruby.test\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let response = client.read_response();
        assert_eq!(response.text(), format!("POST /{number} HTTP/1.1 {body}"));
        assert!(!response.has("connection"), "{response:?}");
    }
}
