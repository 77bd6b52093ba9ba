//! Clients that are not ours, with a backend that is.

use super::Authority;
use crate::common::{
    Agent, App, Client, Dir, Process, Proxy, eventually, free_address, installed, nginx, ok,
    run_well,
};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

/// More than fits into a batch of records.
const SIZE: usize = 1_000_003;

/// A proxy with a backend of `a.test`, which answers with the body of a POST, or a large one.
struct Service {
    authority: Authority,
    proxy: Proxy,
    _agent: Agent,
    _app: App,
}

fn service() -> Option<Service> {
    let authority = Authority::new()?;
    authority.issue("site", "DNS:a.test,IP:127.0.0.1");
    let proxy = super::proxy(&authority.tls("site"), "");
    let app = App::start(|seen| match seen.body.is_empty() {
        true => ok(vec![b'x'; SIZE]),
        false => ok(&seen.body),
    });
    let bridges = proxy.for_bridges().to_string();
    let agent = Agent::start(&["--to", &app.to(), "-n4", "--host", "a.test", &bridges]);
    proxy.await_count("b", 4);
    Some(Service { authority, proxy, _agent: agent, _app: app })
}

impl Service {
    fn port(&self) -> u16 {
        self.proxy.for_clients().port()
    }
}

#[test]
fn curl_is_served() {
    let Some(service) = service() else { return };
    if !installed("curl", &["curl", "--version"]) {
        return;
    }
    let port = service.port();
    let curl = |options: &str| {
        service.authority.sh(&format!(
            "curl -sS -m 25 --cacert ca.pem --resolve a.test:{port}:127.0.0.1 {options}"
        ))
    };
    for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
        let size = curl(&format!("{version} https://a.test:{port}/ | wc -c"));
        assert_eq!(size.trim(), SIZE.to_string());
        // It would like HTTP/2.
        let url = format!("https://a.test:{port}/");
        let write = "-o /dev/null -w '%{http_code} %{http_version} %{num_connects} '";
        let said = curl(&format!("{version} --http2 {write} {url} {write} {url}"));
        assert_eq!(said.trim(), "200 1.1 1 200 1.1 0");
        let said = curl(&format!("{version} --data-binary 'hello' {url}"));
        assert_eq!(said, "hello");
    }
}

#[test]
fn python_is_served() {
    let Some(service) = service() else { return };
    if !installed("Python", &["python3", "-c", "import ssl"]) {
        return;
    }
    let (port, ca) = (service.port(), service.authority.path("ca.pem"));
    let program = format!(
        r#"
import socket, ssl
context = ssl.create_default_context(cafile={ca:?})
context.set_alpn_protocols(["h2", "http/1.1"])
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context.minimum_version = context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", {port}), timeout=25)
    with context.wrap_socket(raw, server_hostname="a.test", suppress_ragged_eofs=False) as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"
        # A byte a record.
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n":
            tls.sendall(bytes([byte]))
        got = b""
        while chunk := tls.recv(65536):
            got += chunk
        # Without a close_notify this would have been an error.
        assert got.endswith(b"x" * {SIZE}), len(got)
print("good")
"#
    );
    let said = run_well(Command::new("python3").args(["-c", &program]));
    assert_eq!(said, "good\n");
}

#[test]
fn node_is_served() {
    let Some(service) = service() else { return };
    if !installed("Node", &["node", "--version"]) {
        return;
    }
    let (port, ca) = (service.port(), service.authority.path("ca.pem"));
    let program = format!(
        r#"
const https = require("https"), fs = require("fs");
const agent = new https.Agent({{ keepAlive: true, maxSockets: 2 }});
const options = {{ host: "127.0.0.1", port: {port}, servername: "a.test", agent,
    headers: {{ Host: "a.test" }}, ca: fs.readFileSync({ca:?}) }};
let left = 8;
for (let i = 0; i < 8; i++) https.get(options, (response) => {{
    let size = 0;
    response.on("data", (chunk) => size += chunk.length);
    response.on("end", () => {{
        if (size !== {SIZE}) throw new Error(size);
        if (--left === 0) {{ console.log("good"); agent.destroy(); }}
    }});
}});
"#
    );
    assert_eq!(run_well(Command::new("node").args(["-e", &program])), "good\n");
}

/// Sends requests through a proxy in front that speaks TLS with ours.
#[track_caller]
fn through(process: &Process, address: SocketAddr) {
    eventually("the proxy in front listens", || {
        assert!(crate::common::is_alive(process.id()), "it has ended: {}", process.log());
        TcpStream::connect(address).is_ok()
    });
    for round in 0..3 {
        let mut client = Client::connect_to(address);
        client.send_get("a.test", "/");
        assert_eq!(client.read_response().body.len(), SIZE, "{round}");
        let request = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
        client.send(request);
        assert_eq!(client.read_response().text(), "hello", "{round}");
    }
}

#[test]
fn nginx_is_served() {
    let Some(service) = service() else { return };
    if !installed("nginx", &["nginx", "-v"]) {
        return;
    }
    let (dir, address) = (Dir::new(), free_address());
    let (clients, ca) = (service.proxy.for_clients(), service.authority.path("ca.pem"));
    let path = dir.path().display();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
        .concat();
    let file = dir.write(
        "nginx.conf",
        &format!(
            "pid {path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{folders}\
             upstream up {{ server {clients}; keepalive 4; }}\nserver {{ listen {address};\n\
             location / {{ proxy_pass https://up; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
             proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name a.test;\n\
             proxy_ssl_server_name on; proxy_ssl_session_reuse on; }} }} }}\n"
        ),
    );
    through(&nginx(&file), address);
}

#[test]
fn haproxy_is_served() {
    let Some(service) = service() else { return };
    if !installed("haproxy", &["haproxy", "-v"]) {
        return;
    }
    let (dir, address) = (Dir::new(), free_address());
    let (clients, ca) = (service.proxy.for_clients(), service.authority.path("ca.pem"));
    let file = dir.write(
        "haproxy.cfg",
        &format!(
            "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\n\
             frontend f\n bind {address}\n default_backend b\nbackend b\n\
             server s {clients} ssl verify required ca-file {ca} sni str(a.test) alpn http/1.1\n"
        ),
    );
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file).stdin(Stdio::null());
    let haproxy = Process::spawn("haproxy", &mut command);
    through(&haproxy, address);
}
