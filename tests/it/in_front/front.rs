//! haproxy or nginx with its example file, and a cloudbridge with the settings that the file names.

use super::certificate;
use super::example::Example;
use crate::common::{
    Agent, Bridge, Client, Dir, Process, Proxy, Setup, at, eventually, free_address,
    haproxy_servers, installed, nginx, own_address, run_well,
};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The proxy's secrets.
pub const SECRETS: &str = "1600000000:sesame\n";

/// Which file is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `haproxy.cfg`.
    Haproxy,
    /// The same, with the line for PROXY headers in place of the fields.
    HaproxyWithHeader,
    /// `nginx.conf`.
    Nginx,
}

/// All of them.
pub const KINDS: [Kind; 3] = [Kind::Haproxy, Kind::HaproxyWithHeader, Kind::Nginx];

/// A proxy in front, and the cloudbridge behind it.
pub struct Front {
    kind: Kind,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub proxy: Proxy,
    pub dir: Dir,
    /// The settings of the cloudbridge, with its addresses.
    settings: Example,
    /// The program in front.
    _process: Process,
}

/// A key for this name, which may be `*`.
#[track_caller]
pub fn key(name: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"));
    run_well(command.args(["sesame", name])).trim().to_owned()
}

/// The settings of a cloudbridge at this address, in place of those of the example and of all
/// addresses of the machine; the kernel chooses the ports.
#[track_caller]
pub fn settings_at(settings: Example, example: &str, ip: IpAddr) -> Example {
    let ports = ["8080", "8404", "8405"].iter().fold(settings, |settings, port| {
        let old = format!("{example}:{port}");
        if settings.text().contains(&old) {
            settings.with(&old, format!("{ip}:0"))
        } else {
            settings
        }
    });
    let ports = ports.with("*:8079", format!("{ip}:0"));
    ports.with("/etc/cloudbridge/secrets", "{dir}/secrets")
}

/// Starts a cloudbridge.
#[track_caller]
pub fn cloudbridge(settings: &Example) -> Proxy {
    Setup::new().settings(settings.text()).file("secrets", SECRETS).file("token", "open\n").start()
}

/// The settings with the ports that the kernel has given to this proxy, for one that takes its place.
#[track_caller]
pub fn pinned(settings: Example, proxy: &Proxy) -> Example {
    [
        ("clients", proxy.for_clients()),
        ("bridges", proxy.for_bridges()),
        ("admin", proxy.for_admin()),
    ]
    .into_iter()
    .fold(settings, |settings, (kind, address)| {
        let old = format!("{}:0 {kind}", address.ip());
        settings.with(&old, format!("{address} {kind}"))
    })
}

/// Has a settings file of haproxy say on its standard output what it says to syslog, and leaves the
/// user as it is where there is no right to change it.
#[track_caller]
pub fn for_this_user(example: Example) -> Example {
    let example = example.with("/dev/log", "stdout format raw");
    match run_well(Command::new("id").arg("-u")).trim() {
        "0" => example,
        _ => example.without_line("user haproxy").without_line("group haproxy"),
    }
}

/// Starts haproxy with this file, and waits until it listens at `address`.
#[track_caller]
pub fn start_haproxy(dir: &Dir, name: &str, example: &Example, address: SocketAddr) -> Process {
    let file = dir.write(name, example.text());
    let mut command = Command::new("haproxy");
    let process =
        Process::spawn("haproxy", command.args(["-db", "-f"]).arg(file).stdin(Stdio::null()));
    await_listener(&process, address);
    process
}

#[track_caller]
fn await_listener(process: &Process, address: SocketAddr) {
    eventually("the proxy in front listens", || {
        assert!(crate::common::is_alive(process.id()), "it has ended: {}", process.log());
        TcpStream::connect(address).is_ok()
    });
}

impl Front {
    /// Starts it, unless something is missing, which is said.
    #[track_caller]
    pub fn start(kind: Kind) -> Option<Front> {
        let program = if kind == Kind::Nginx { "nginx" } else { "haproxy" };
        if !installed(program, &[program, "-v"]) || !certificate::can_be_made() {
            return None;
        }
        let dir = Dir::new();
        certificate::authority(&dir, "authority");
        certificate::issue(&dir, "authority", "a.test", "site.pem");
        let site = dir.path().join("site.pem").display().to_string();
        let [http, https] = [free_address(), free_address()];
        let example = Example::read(if kind == Kind::Nginx { "nginx.conf" } else { "haproxy.cfg" });
        let mut settings = settings_at(example.settings(), "127.0.0.1", own_address());
        if kind == Kind::HaproxyWithHeader {
            settings = settings.with(" clients", " clients accept-proxy=127.0.0.1");
        }
        let proxy = cloudbridge(&settings);
        settings = pinned(settings, &proxy);
        let (clients, admin) = (proxy.for_clients(), proxy.for_admin());
        let process = match kind {
            Kind::Nginx => {
                let example = example
                    .with("127.0.0.1:8080", clients)
                    .with("listen 80;", format!("listen {http};"))
                    .with("listen 443 ", format!("listen {https} "))
                    .with("/etc/nginx/site.pem", &site);
                start_nginx(&dir, example, http)
            }
            _ => {
                let mut example = for_this_user(example)
                    .with("127.0.0.1:8080", clients)
                    .with("*:80\n", format!("{http}\n"))
                    .with("*:443", https)
                    .with("port 8404", format!("port {}", admin.port()))
                    .with("/run/haproxy/admin.sock", socket_in(&dir).display())
                    .with("/etc/haproxy/site.pem", &site);
                if kind == Kind::HaproxyWithHeader {
                    example = with_header(&example);
                }
                start_haproxy(&dir, "haproxy.cfg", &example, http)
            }
        };
        Some(Front { kind, http, https, proxy, dir, settings, _process: process })
    }

    /// Whether haproxy sends requests to its only server; nginx has no checks.
    pub fn is_up(&self) -> bool {
        self.server("srv_op_state").is_none_or(|state| state == "2")
    }

    /// Waits until haproxy is sure that its server is up: one that it has not checked yet is down when
    /// the first check fails, and not the third.
    #[track_caller]
    pub fn await_up(&self) {
        eventually("the check is content", || {
            self.server("srv_check_health").is_none_or(|health| health == "3")
        });
    }

    /// A field of haproxy's only server, which is there from the start on.
    fn server(&self, field: &str) -> Option<String> {
        let is_nginx = self.kind == Kind::Nginx;
        (!is_nginx).then(|| {
            let servers = haproxy_servers(&self.socket(), "cloudbridge");
            servers.get("cloudbridge").map(|row| row[field].clone()).unwrap_or_default()
        })
    }

    /// Where haproxy tells of itself.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }

    /// An agent that answers the requests for every host with themselves.
    #[track_caller]
    pub fn echo(&self) -> Agent {
        let key = key("*");
        let agent =
            Agent::start(&["--echo", "-n4", "--host", "*", "--key", &key, &at(&self.proxy)]);
        self.proxy.await_count("b", 4);
        agent
    }

    /// A bridge of `a.test`.
    #[track_caller]
    pub fn park(&self) -> Bridge {
        let key = key("a.test");
        let registration = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {key}\r\n\r\n");
        Bridge::register(&self.proxy, registration)
    }

    /// A client of the proxy in front.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect_to(self.http)
    }

    /// A client that has sent this.
    #[track_caller]
    pub fn request(&self, request: impl AsRef<[u8]>) -> Client {
        let mut client = self.client();
        client.send(request);
        client
    }

    /// Kills the cloudbridge.
    #[track_caller]
    pub fn kill_proxy(&mut self) {
        self.proxy.signal("KILL");
        self.proxy.wait_exit();
    }

    /// Starts another where it was.
    #[track_caller]
    pub fn start_proxy_again(&mut self) {
        self.proxy = cloudbridge(&self.settings);
    }

    /// Fails unless the next request that this bridge gets is a sentinel, sent now.
    #[track_caller]
    pub fn assert_untouched(&self, bridge: &mut Bridge) {
        let mut sentinel = self.client();
        sentinel.send_get("a.test", "/sentinel");
        assert_eq!(bridge.serve_to(&mut sentinel, "sentinel"), "GET /sentinel HTTP/1.1");
    }
}

fn socket_in(dir: &Dir) -> PathBuf {
    dir.path().join("haproxy.sock")
}

/// The file of haproxy with PROXY headers, as its comments say: without `option forwardfor`, and
/// with the other server line.
#[track_caller]
fn with_header(example: &Example) -> Example {
    let is_server = |line: &&str| line.trim_start().starts_with("server ");
    let fields = example.text().lines().find(is_server).expect("a server").trim().to_owned();
    let example = example.clone().without_line("option forwardfor").without_line(&fields);
    example.with("#server ", "server ")
}

/// Starts nginx with this file, and waits until it listens at `address`. What Debian has compiled in
/// for it, folders of root's for the bodies of requests, is the test's, too.
#[track_caller]
pub fn start_nginx(dir: &Dir, example: Example, address: SocketAddr) -> Process {
    let path = dir.path().display();
    let others: String = ["fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {path}/{kind};\n"))
        .concat();
    let example = example
        .with("/run/nginx.pid", format!("{path}/nginx.pid"))
        .with("/var/log/nginx/error.log", "/dev/stderr")
        .with("/var/log/nginx/access.log", "/dev/stderr")
        .with("/var/lib/nginx/", format!("{path}/"))
        .with("\nhttp {\n", format!("\nhttp {{\n{others}"));
    let file = dir.write("nginx.conf", example.text());
    let process = nginx(&file);
    await_listener(&process, address);
    process
}
