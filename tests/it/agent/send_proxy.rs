//! `--send-proxy`: the application is told of its clients by PROXY headers.

use crate::common::{
    Agent, Client, Dir, Message, Process, Proxy, at, eventually, free_address, header_v1, installed,
};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An application that reads a PROXY header of version 2 from each connection, and answers each
/// request with the address in it and the number of the connection.
struct App {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    locals: Arc<AtomicUsize>,
}

impl App {
    fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let app = App {
            address: listener.local_addr().expect("its address"),
            open: Arc::default(),
            most: Arc::default(),
            locals: Arc::default(),
        };
        let (open, most, locals) =
            (Arc::clone(&app.open), Arc::clone(&app.most), Arc::clone(&app.locals));
        std::thread::spawn(move || {
            let mut number = 0;
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                let Some(header) = read_header(&mut stream) else { continue };
                if header[12] == 0x20 {
                    // A check of the agent's.
                    locals.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                number += 1;
                let answer = format!("{} {number}", client_in(&header));
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(stream, &answer);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        app
    }
}

fn read_header(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).ok()?;
    assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "{}", header.escape_ascii());
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).ok()?;
    Some(header)
}

fn client_in(header: &[u8]) -> IpAddr {
    match header[12..14] {
        [0x21, 0x11] => Ipv4Addr::from(<[u8; 4]>::try_from(&header[16..20]).unwrap()).into(),
        [0x21, 0x21] => Ipv6Addr::from(<[u8; 16]>::try_from(&header[16..32]).unwrap()).into(),
        _ => panic!("{}", header.escape_ascii()),
    }
}

/// Answers requests without bodies until the connection ends.
fn serve(mut stream: TcpStream, answer: &str) {
    let (mut held, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(end) = held.windows(4).position(|four: &[u8]| four == b"\r\n\r\n") {
            held.drain(..end + 4);
            let length = answer.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => held.extend_from_slice(&bytes[..count]),
        }
    }
}

/// A proxy whose clients are announced to it, so that a test can have any address.
fn proxy() -> Proxy {
    Proxy::with("listen 127.0.0.1:0 clients accept-proxy=127.0.0.1\nlisten 127.0.0.1:0 bridges")
}

fn agent(proxy: &Proxy, to: &str, limit: usize) -> Agent {
    Agent::start(&["--send-proxy", "--to", to, &format!("-n{limit}"), &at(proxy)])
}

fn client(proxy: &Proxy, from: &str) -> Client {
    let mut client = Client::connect(proxy);
    client.send(header_v1(from));
    client
}

#[track_caller]
fn ask(client: &mut Client) -> String {
    client.send_get("a.test", "/");
    let answer: Message = client.read_response();
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text()
}

/// One connection is one client's: it is kept for that one, and closed to make room for others.
#[test]
fn a_connection_carries_requests_of_one_client() {
    let (app, proxy) = (App::start(), proxy());
    let _agent = agent(&proxy, &app.address.to_string(), 2);
    // The third asks twice in a row.
    let mut clients = ["192.0.2.7:1", "192.0.2.7:2", "[2001:db8::7]:1", "192.0.2.9:1"]
        .map(|from| (client(&proxy, from), from.parse::<SocketAddr>().unwrap().ip().to_string()));
    let mut seen = Vec::new();
    for _ in 0..20 {
        for at in [0, 1, 2, 2, 3] {
            let (client, address) = &mut clients[at];
            let answer = ask(client);
            let (told, number) = answer.split_once(' ').unwrap();
            assert_eq!(told, address.as_str());
            seen.push(number.to_owned());
        }
    }
    // Some requests were the second of their client on a connection.
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert!(seen.len() < all, "every request had a connection of its own");
    eventually("no connection is left but those of two places", || {
        app.open.load(Ordering::SeqCst) <= 2
    });
    // A probe, before the first.
    assert!(app.locals.load(Ordering::SeqCst) >= 1);
}

/// An application that serves one connection after another is not blocked by an idle one.
#[test]
fn with_one_place_there_is_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(header) = read_header(&mut stream) else { continue };
            if header[12] != 0x20 {
                let answer = client_in(&header).to_string();
                serve(stream, &answer);
            }
        }
    });
    let proxy = proxy();
    let _agent = agent(&proxy, &address.to_string(), 1);
    let mut clients =
        ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(|from| client(&proxy, from));
    for _ in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(ask(client), format!("192.0.2.{}", number + 1));
        }
    }
}

/// A client cannot choose the address that the application is told.
#[test]
fn only_the_proxy_is_believed() {
    for style in ["x", "rfc7239", "both"] {
        let app = App::start();
        let proxy = Proxy::with(&format!("forwarded-style {style}"));
        let _agent = agent(&proxy, &app.address.to_string(), 2);
        let answer = Client::ask(
            &proxy,
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.66\r\n\
             Forwarded: for=192.0.2.66\r\nConnection: close\r\n\r\n",
        );
        assert!(answer.text().starts_with("127.0.0.1 "), "{style}: {answer:?}");
    }
}

#[test]
fn health_checks_are_announced_as_the_agents_own() {
    let (app, proxy) = (App::start(), proxy());
    let args = ["--send-proxy", "--check", "/up", "--check-interval", "100ms"];
    let to = app.address.to_string();
    let _agent = Agent::start(&[&args[..], &["--to", &to, &at(&proxy)]].concat());
    eventually("checks", || app.locals.load(Ordering::SeqCst) >= 2);
}

/// nginx and haproxy as applications that insist on the header.
#[test]
fn nginx_reads_it() {
    if !installed("nginx", &["nginx", "-v"]) {
        return;
    }
    let (dir, address) = (Dir::new(), free_address());
    let path = dir.path().display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {path}/{kind};"))
        .concat();
    let conf = dir.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; pid {path}/pid; error_log stderr;\n\
             events {{ worker_connections 64; }}\n\
             http {{ {temporary} access_log off;\n\
             server {{ listen {address} proxy_protocol; return 200 \"$proxy_protocol_addr\"; }} }}\n"
        ),
    );
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p", &path, "-c"]).arg(&conf).stdin(Stdio::null());
    let nginx = Process::spawn("nginx", &mut command);
    addresses_arrive(address);
    assert!(!nginx.log().contains("broken header"), "{}", nginx.log());
}

#[test]
fn haproxy_reads_it() {
    if !installed("haproxy", &["haproxy", "-v"]) {
        return;
    }
    let (dir, address) = (Dir::new(), free_address());
    let conf = dir.write(
        "haproxy.cfg",
        &format!(
            "global\n  log stdout format raw daemon\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend app\n  bind {address} accept-proxy\n  log global\n  \
             http-request return status 200 content-type text/plain lf-string \"%[src]\"\n"
        ),
    );
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&conf).stdin(Stdio::null());
    let _haproxy = Process::spawn("haproxy", &mut command);
    addresses_arrive(address);
}

#[track_caller]
fn addresses_arrive(app: SocketAddr) {
    let proxy = proxy();
    let _agent = agent(&proxy, &app.to_string(), 3);
    let mut clients = ["192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.3:1", "192.0.2.1:2"]
        .map(|from| (client(&proxy, from), from));
    for _ in 0..10 {
        for (client, from) in &mut clients {
            let expected: SocketAddr = from.parse().unwrap();
            assert_eq!(ask(client), expected.ip().to_string());
        }
    }
}
