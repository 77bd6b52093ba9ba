//! One request to the admin listener, over TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long a connect over TCP, and an ordinary answer, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Unix(PathBuf),
    /// `ADDRESS:PORT`.
    Tcp(String),
}

/// The admin listener of a proxy.
pub(super) struct Server {
    pub place: Place,
    pub token: Option<String>,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// An answer's status, and the stream behind its head with what has been read of it.
struct Opened {
    status: u16,
    begun: Vec<u8>,
    rest: Box<dyn Stream>,
}

impl Server {
    /// For messages.
    pub fn shown(&self) -> String {
        match &self.place {
            Place::Unix(path) => path.display().to_string(),
            Place::Tcp(address) => address.clone(),
        }
    }

    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        self.whole(&self.head("GET", path, ""), Some(TIMEOUT))
    }

    /// Waits as long as the proxy does.
    pub fn post(&self, path: &str, body: &str) -> io::Result<(u16, String)> {
        let fields =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.whole(&format!("{}{body}", self.head("POST", path, &fields)), None)
    }

    /// Sends a line of text, if there is one, and waits as long as the proxy does.
    pub fn send(&self, method: &str, path: &str, line: Option<&str>) -> io::Result<(u16, String)> {
        let fields = match line {
            None => String::new(),
            Some(line) => {
                format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", line.len())
            }
        };
        let head = self.head(method, path, &fields);
        self.whole(&format!("{head}{}", line.unwrap_or_default()), None)
    }

    /// Copies an endless answer to `out`. The text of a refusal, if it is one.
    pub fn stream(&self, path: &str, out: &mut impl Write) -> io::Result<Option<String>> {
        let mut opened = self.open(&self.head("GET", path, ""), None)?;
        if opened.status != 200 {
            return rest_of(opened).map(|(_, text)| Some(text));
        }
        out.write_all(&opened.begun)?;
        let mut bytes = [0; 4096];
        loop {
            let count = opened.rest.read(&mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            out.write_all(&bytes[..count])?;
            out.flush()?;
        }
    }

    fn head(&self, method: &str, path: &str, fields: &str) -> String {
        let host = match &self.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(address) => address,
        };
        let token = match &self.token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}{fields}\r\n")
    }

    fn whole(&self, request: &str, timeout: Option<Duration>) -> io::Result<(u16, String)> {
        rest_of(self.open(request, timeout)?)
    }

    fn open(&self, request: &str, timeout: Option<Duration>) -> io::Result<Opened> {
        let mut stream: Box<dyn Stream> = match &self.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                Box::new(stream)
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(timeout)?;
                Box::new(stream)
            }
        };
        stream.write_all(request.as_bytes())?;
        let mut begun = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let count = stream.read(&mut bytes)?;
            begun.extend_from_slice(&bytes[..count]);
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            let parsed = head.parse(&begun).map_err(|_| not_ours())?;
            if let httparse::Status::Complete(len) = parsed {
                let status = head.code.unwrap_or(0);
                begun.drain(..len);
                return Ok(Opened { status, begun, rest: stream });
            }
            if count == 0 || begun.len() > MAX_HEAD {
                return Err(not_ours());
            }
        }
    }
}

/// Every answer but a stream ends with its connection.
fn rest_of(mut opened: Opened) -> io::Result<(u16, String)> {
    opened.rest.read_to_end(&mut opened.begun)?;
    let text = String::from_utf8(opened.begun).map_err(|_| not_ours())?;
    Ok((opened.status, text))
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no admin listener")
}
