//! Servers of other people's making behind `servers=`: nginx, which keeps connections, and
//! Python's, which speaks HTTP/1.0 and closes each. nginx is killed and started under load: it
//! sends a small response in one piece, where Python's sends the head by itself, and of a response
//! that has begun nobody can make up the rest.

use crate::common::{
    After, App, Client, Dir, Load, Process, Proxy, Stopwatch, eventually, free_address, installed,
    logged,
};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A server of one file, `hello`, and the directory that the file is in.
struct Files {
    process: Process,
    _dir: Dir,
}

impl Files {
    /// Starts a server whose arguments, with its directory for `{dir}`, are these, and waits until
    /// it listens.
    #[track_caller]
    fn start(program: &'static str, args: &[&str], conf: &str, address: SocketAddr) -> Files {
        let dir = Dir::new();
        let path = dir.path().display().to_string();
        dir.write("hello", "hello");
        dir.write("conf", &conf.replace("{dir}", &path));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), mode)
            .expect("a server without root's rights reads it");
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| arg.replace("{dir}", &path))).stdin(Stdio::null());
        let mut files = Files { process: Process::spawn(program, &mut command), _dir: dir };
        eventually(&format!("{program} listens"), || {
            assert!(files.process.exit_status().is_none(), "{program} ended");
            TcpStream::connect(address).is_ok()
        });
        files
    }
}

#[track_caller]
fn python(address: SocketAddr) -> Files {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let args = ["-m", "http.server", &port, "--bind", &host, "--directory", "{dir}"];
    Files::start("python3", &args, "", address)
}

#[track_caller]
fn nginx(address: SocketAddr) -> Files {
    // One process, which takes its connections with it when it is killed.
    let conf = format!(
        "daemon off; master_process off; pid {{dir}}/pid; error_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {{dir}}/b; proxy_temp_path {{dir}}/p;\n\
         fastcgi_temp_path {{dir}}/f; uwsgi_temp_path {{dir}}/u; scgi_temp_path {{dir}}/s;\n\
         server {{ listen {address}; root {{dir}}; }} }}\n"
    );
    Files::start("nginx", &["-c", "{dir}/conf", "-p", "{dir}", "-e", "stderr"], &conf, address)
}

fn has_python() -> bool {
    installed("python3", &["python3", "--version"])
}

#[test]
fn nginx_and_python_serve_a_site_while_nginx_is_killed_and_started_again() {
    if !has_python() || !installed("nginx", &["nginx", "-v"]) {
        return;
    }
    let (first, second) = (free_address(), free_address());
    let _python = python(first);
    let mut killed = Some(nginx(second));
    // A request may meet both kills.
    let proxy = Proxy::with(&format!("site a.test servers={first},{second} max=4\nretries 2"));
    let is_answer = |_: &str, text: &str| text == "hello";
    Load::run(&proxy, "GET", 8, is_answer, |load| {
        load.await_more(12);
        for _ in 0..2 {
            drop(killed.take());
            load.await_more(25);
            let set_aside =
                proxy.log().contains(&format!("{second} {}", logged::CANNOT_BE_REACHED));
            killed = Some(nginx(second));
            // Within so few requests it may not have been dialled.
            if set_aside {
                proxy.await_log(&format!("{second}{}", logged::IS_UP));
            }
            load.await_more(12);
        }
    });
}

#[test]
fn a_server_that_closes_after_each_response_is_dialled_each_time() {
    if !has_python() {
        return;
    }
    let address = free_address();
    let _python = python(address);
    let proxy = Proxy::with(&format!("site a.test servers={address} max=2"));
    let is_answer = |_: &str, text: &str| text == "hello";
    Load::run(&proxy, "GET", 8, is_answer, |load| load.await_more(25));
    let mut client = Client::get(&proxy, "a.test", "/missing");
    assert_eq!(client.read_response().status(), 404);
}

/// A listener whose backlog is full answers no SYN, as a machine does that has vanished.
#[test]
fn a_server_that_does_not_answer_is_passed_over_after_the_dial_timeout() {
    const MUTE: &str = "import socket, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(0)\n\
        print(s.getsockname()[1], flush=True); sys.stdin.read()";
    if !has_python() {
        return;
    }
    let mut command = Command::new("python3");
    let python = Process::spawn("python3", command.args(["-c", MUTE]).stdin(Stdio::piped()));
    python.await_log("\n");
    let mute: SocketAddr = format!("127.0.0.1:{}", python.log().trim()).parse().expect("a port");
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&mute, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 100, "its backlog has no end");
    }
    let good = App::named("good", After::Keep);
    let list = format!("{mute},{}", good.address());
    let proxy = Proxy::with(&format!("dial-timeout 300ms\nsite a.test servers={list} max=1"));
    let clock = Stopwatch::start();
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "good");
    clock.assert_passed(Duration::from_millis(300));
    proxy.await_log(&format!("{}: it does not answer", logged::CANNOT_BE_REACHED));
}
