//! Applications that know nothing of the agent, where they are installed.

use crate::agent::Agent;
use crate::common::{Client, Proxy};
use crate::serving::at;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// An application as a child process.
struct Real(Child);

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `program`, in whose arguments `{port}` stands for a free port, which is returned too; `None`, with the reason on standard
/// error, where it is not installed.
fn start(program: &str, args: &[&str]) -> Option<(Real, u16)> {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let installed = quiet(Command::new(program).arg("--version"))
        .and_then(|mut child| child.wait())
        .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("skipped: {program} is not installed");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let args = args.iter().map(|arg| arg.replace("{port}", &port.to_string()));
    let child = quiet(Command::new(program).args(args)).expect("an application");
    Some((Real(child), port))
}

#[test]
fn python_serves_files() {
    let proxy = Proxy::start();
    proxy.write("hello.txt", "from a file\n");
    let dir = proxy.dir().display().to_string();
    let args = ["-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", &dir];
    let Some((_python, port)) = start("python3", &args) else { return };
    let _agent = Agent::serve(&port.to_string(), 2, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    for _ in 0..3 {
        client.send_get("a.test", "/hello.txt");
        assert_eq!(client.read_response().text(), "from a file\n");
    }
    client.send_get("a.test", "/nothing");
    assert_eq!(client.read_response().status(), 404);
}

/// An http.Server that says what it was asked, and echoes after an upgrade.
const NODE: &str = "
const server = require('http').createServer((request, response) => {
    let body = '';
    request.on('data', (data) => body += data);
    request.on('end', () => response.end(`${request.method} ${request.url} ${body}`));
});
server.on('upgrade', (request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n');
    socket.pipe(socket);
});
server.listen({port}, '127.0.0.1');
";

#[test]
fn node_serves_requests_and_upgrades() {
    let proxy = Proxy::start();
    let Some((_node, port)) = start("node", &["-e", NODE]) else { return };
    let _agent = Agent::serve(&port.to_string(), 2, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    client.send_get("a.test", "/x");
    assert_eq!(client.read_response().text(), "GET /x ");
    client.send(
        "POST /y HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "POST /y body");
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    client.send("ping");
    client.expect_exact("ping");
    client.half_close();
    client.expect_closed();
}
