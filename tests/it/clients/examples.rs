//! The examples at the heads of the modules, run as they stand.

use super::language::{Language, clients};
use crate::common::{Client, Dir, Process, Proxy, at, eventually};
use std::process::{Command, Stdio};

/// The asyncio example at the head of the Python module, for `a.test` at this proxy.
fn asyncio_example(proxy: &Proxy) -> String {
    let module = clients().join("python/cloudbridge.py");
    let text = std::fs::read_to_string(module).expect("the module");
    let end = text.find("    asyncio.run(").expect("the example's last line");
    let begin = text[..end].rfind("    import asyncio\n").expect("its first line");
    let end = end + text[end..].find('\n').expect("its end");
    let lines = text[begin..end].lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    let example = lines.collect::<Vec<_>>().join("\n").replace(r"\\", r"\");
    example.replace("proxy.example.com:8079", &at(proxy)).replace("app.example.com", "a.test")
}

/// A body that is left unread would be the next request, and its answer the next client's.
#[test]
fn asyncio_example_reads_bodies_or_closes() {
    if !Language::Asyncio.is_here() {
        return;
    }
    let (proxy, dir) = (Proxy::start(), Dir::new());
    dir.write("example.py", &asyncio_example(&proxy));
    let mut command = Command::new("python3");
    command
        .arg(dir.path().join("example.py"))
        .env("PYTHONPATH", clients().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let _program = Process::spawn("the example", &mut command);
    eventually("bridges are parked", || proxy.count("b") > 0);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut client = Client::connect(&proxy);
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
            hidden.len()
        ),
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
    ] {
        for _ in 0..20 {
            client.send(&request);
            assert_eq!(client.read_response().text(), "hello\n");
        }
    }
    assert!(!proxy.log().contains("without a request"), "{}", proxy.log());
}
