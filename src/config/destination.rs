//! Where a server that is dialled listens, as it is written in files and on command lines.

use super::address::{Address, has_port};
use super::values::is_digits;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where an application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address and port.
    Socket(SocketAddr),
    /// A name and port, resolved whenever the application is looked for.
    Name {
        /// The name.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl Destination {
    /// Reads `ADDRESS:PORT`, `HOST:PORT`, `PORT` of this machine, or `unix:PATH`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the word.
    pub fn parse(word: &str) -> Result<Destination, String> {
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
            Address::Any { port } if all_digits => {
                Ok(Destination::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
            }
            Address::Any { .. } => {
                Err(format!("{word:?} is where one listens; write ADDRESS:PORT or unix:PATH"))
            }
            Address::Socket(address) => Ok(Destination::Socket(address)),
            Address::Name { host, port } => Ok(Destination::Name { host, port }),
        }
    }
}

/// As it would be written.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Unix(path) => write!(f, "unix:{}", path.display()),
            Destination::Socket(address) => write!(f, "{address}"),
            Destination::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
