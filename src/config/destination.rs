//! Addresses of servers to dial, as written in files and on command lines.

use super::address::{Address, has_port};
use super::values::is_digits;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A port of this machine: 127.0.0.1, or ::1 if nothing listens there. Many applications that
    /// are told to listen on `localhost` choose only one of the two.
    Local {
        /// TCP port.
        port: u16,
    },
    /// IP address and port.
    Socket(SocketAddr),
    /// Resolved before each dial.
    Name {
        /// Host name.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl Destination {
    /// Reads `ADDRESS:PORT`, `HOST:PORT`, `PORT` of this machine, or `unix:PATH`.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn parse(word: &str) -> Result<Destination, String> {
        if let Some(path) = word.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: is followed by the path of a socket".to_owned()),
                path => Ok(Destination::Unix(PathBuf::from(path))),
            };
        }
        let all_digits = is_digits(word);
        match Address::parse(word)? {
            _ if !has_port(word) => {
                Err(format!("{word:?} has no port; write ADDRESS:PORT or unix:PATH"))
            }
            Address::Any { port } if all_digits => Ok(Destination::Local { port }),
            Address::Any { .. } | Address::Unix(_) | Address::Passed(_) => {
                Err(format!("{word:?} cannot be dialled; write ADDRESS:PORT or unix:PATH"))
            }
            Address::Socket(address) => Ok(Destination::Socket(address)),
            Address::Name { host, port } => Ok(Destination::Name { host, port }),
        }
    }
}

/// As in the file, but for a port alone, which is shown as `localhost:PORT`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Local { port } => write!(f, "localhost:{port}"),
            Destination::Unix(path) => write!(f, "unix:{}", path.display()),
            Destination::Socket(address) => write!(f, "{address}"),
            Destination::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
