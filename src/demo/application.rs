//! One of the small applications: an HTTP server that knows nothing of bridges.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::options::Application;

/// Where applications listen. The kernel gives no port of this address to a connection that is
/// dialled, so one that is started again finds its port free.
pub(super) const ADDRESS: [u8; 4] = [127, 0, 0, 2];

/// How long a request takes: enough for some to be in progress whenever a process is killed.
const WORK: Duration = Duration::from_millis(10);

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Serves until it is killed. It prints its port.
pub(super) fn run(application: &Application) -> io::Result<ExitCode> {
    let listener = TcpListener::bind((std::net::IpAddr::from(ADDRESS), application.port))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        // A client may have gone before it was accepted.
        let Ok(stream) = stream else { continue };
        let name = application.name.clone();
        thread::spawn(move || serve(stream, &name));
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers the requests of one connection. A body is not read, so it ends the connection.
fn serve(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut input = Vec::new();
    while let Some(end) = read_head(&mut stream, &mut input)? {
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        input.drain(..end);
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        thread::sleep(WORK);
        let body = format!("{target} from {name}\n");
        let is_last = !matches!(method, "GET" | "HEAD") || has_body(&head);
        let connection = if is_last { "close" } else { "keep-alive" };
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        if method != "HEAD" {
            answer.push_str(&body);
        }
        stream.write_all(answer.as_bytes())?;
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads until a head is whole; returns its length, or `None` at the end of the connection.
fn read_head(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece)?;
        if count == 0 || input.len() > MAX_HEAD {
            return Ok(None);
        }
        input.extend_from_slice(&piece[..count]);
    }
}

fn has_body(head: &str) -> bool {
    head.lines().skip(1).any(|line| {
        let name = line.split(':').next().unwrap_or("");
        name.eq_ignore_ascii_case("content-length")
            || name.eq_ignore_ascii_case("transfer-encoding")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_announce_a_body_are_told_apart() {
        assert!(!has_body("GET / HTTP/1.1\r\nHost: content-length\r\n\r\n"));
        assert!(has_body("GET / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 1\r\n\r\n"));
        assert!(has_body("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }
}
