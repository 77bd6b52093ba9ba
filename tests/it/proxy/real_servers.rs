//! Servers of other people's making behind `servers=`: nginx, which keeps connections, and Python's, which speaks
//! HTTP/1.0 and closes each. nginx is killed and started under load: it sends a small response in one piece, where
//! Python's sends the head by itself, and of a response that has begun nobody can make up the rest.

use crate::common::{After, Client, DEADLINE, Proxy, Server, eventually, not_before, skipped};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A process in the foreground and the directory of its files; both end with this.
struct Process {
    child: Child,
    dir: PathBuf,
}

impl Process {
    /// Starts it and waits until it listens; `None`, said aloud, if it is not on this machine.
    fn start(mut command: Command, dir: PathBuf, address: SocketAddr) -> Option<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = quiet.spawn() else {
            skipped(&format!("{name} is not on this machine"));
            return None;
        };
        let mut process = Process { child, dir };
        eventually(&format!("{name} listens"), || {
            let ended = process.child.try_wait().expect("the child can be waited for");
            assert!(ended.is_none(), "{name} ended: {ended:?}");
            TcpStream::connect(address).is_ok()
        });
        Some(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address")
}

/// A directory that holds a file `hello` with this text.
fn directory(name: &str, hello: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cloudbridge-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("hello"), hello).expect("a file");
    dir
}

fn python(address: SocketAddr) -> Option<Process> {
    let dir = directory(&format!("python-{}", address.port()), "hello");
    let mut command = Command::new("python3");
    let port = address.port().to_string();
    command.args(["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory"]).arg(&dir);
    Process::start(command, dir, address)
}

fn nginx(address: SocketAddr) -> Option<Process> {
    let dir = directory(&format!("nginx-{}", address.port()), "hello");
    let shown = dir.display();
    let conf = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {shown}/b; proxy_temp_path {shown}/p;\n\
         fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen {address}; root {shown}; }} }}\n"
    );
    std::fs::write(dir.join("conf"), conf).expect("a file");
    // A file that its workers, who are nobody, may read.
    open_to_all(&dir);
    let program = ["/usr/sbin/nginx", "nginx"].into_iter().find(|p| Path::new(p).exists());
    let mut command = Command::new(program.unwrap_or("nginx"));
    command.arg("-c").arg(dir.join("conf")).arg("-p").arg(&dir);
    Process::start(command, dir, address)
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).expect("chmod");
}

/// Asks for `/hello` over and over, on several connections, while `meanwhile` runs. Every answer must be good.
fn under_load(proxy: &Proxy, meanwhile: impl FnOnce(&dyn Fn(usize))) -> usize {
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy);
                while !stop.load(Ordering::SeqCst) {
                    client.send_get("a.test", "/hello");
                    let response = client.read_response();
                    let good = response.status() == 200 && response.text() == "hello";
                    stop.fetch_or(!good, Ordering::SeqCst);
                    assert!(good, "{response:?}");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        meanwhile(&|more| {
            let until = asked.load(Ordering::SeqCst) + more;
            eventually(&format!("{more} more requests are served"), || {
                stop.load(Ordering::SeqCst) || asked.load(Ordering::SeqCst) >= until
            });
        });
        stop.store(true, Ordering::SeqCst);
    });
    asked.load(Ordering::SeqCst)
}

#[test]
fn nginx_and_python_serve_a_site_while_nginx_is_killed_and_started_again() {
    let (first, second) = (free_address(), free_address());
    let Some(_python) = python(first) else { return };
    let Some(other) = nginx(second) else { return };
    let proxy = Proxy::with(&format!("site a.test servers={first},{second} max=4"));
    let mut other = Some(other);
    let served = under_load(&proxy, |served| {
        served(100);
        for _ in 0..2 {
            drop(other.take());
            served(200);
            other = nginx(second);
            proxy.await_log(&format!("server {second} is there"));
            served(100);
        }
    });
    assert!(served >= 700);
}

#[test]
fn a_server_that_closes_after_each_response_is_dialled_each_time() {
    let address = free_address();
    let Some(_python) = python(address) else { return };
    let proxy = Proxy::with(&format!("site a.test servers={address} max=2"));
    assert!(under_load(&proxy, |served| served(200)) >= 200);
    let mut client = Client::get(&proxy, "a.test", "/missing");
    assert_eq!(client.read_response().status(), 404);
}

/// A listener whose backlog is full answers no SYN, as a machine does that has vanished.
#[test]
fn a_server_that_does_not_answer_is_passed_over_after_the_dial_timeout() {
    const MUTE: &str = "import socket, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(0)\n\
        print(s.getsockname()[1], flush=True); sys.stdin.read()";
    let mut command = Command::new("python3");
    let command = command.args(["-c", MUTE]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return skipped("python3 is not on this machine");
    };
    let mut line = String::new();
    let out = child.stdout.take().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("a port");
    let mute: SocketAddr = format!("127.0.0.1:{}", line.trim()).parse().expect("an address");
    let _process = Process { child, dir: PathBuf::from("/nonexistent") };
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&mute, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 100, "its backlog has no end");
    }
    let good = Server::start("good", After::Keep);
    let list = format!("{mute},{}", good.address());
    let proxy = Proxy::with(&format!("dial-timeout 300ms\nsite a.test servers={list} max=1"));
    let response = not_before(Duration::from_millis(300), || {
        let mut client = Client::get(&proxy, "a.test", "/");
        client.patience(DEADLINE);
        client.read_response()
    });
    assert_eq!(response.text(), "good");
    proxy.await_log("cannot be reached: it does not answer");
}
