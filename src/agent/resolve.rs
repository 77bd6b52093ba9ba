//! Names are looked up in a thread of their own: the resolver of the system can take seconds, and the
//! loop has none to spare.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::worker::Mail;
use crate::reactor::mailbox::Mailbox;

/// For whom a name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// The proxy of this index.
    Proxy(usize),
    /// The cluster of this index.
    Cluster(usize),
    /// The application of this index.
    Application(usize),
}

/// What a lookup found: the addresses in the resolver's order, each once; never empty.
pub(super) type Found = io::Result<Vec<SocketAddr>>;

/// A thread that looks names up, one after another.
pub(super) struct Resolver {
    questions: Sender<(For, String, u16)>,
}

impl Resolver {
    /// Starts the thread; its answers go to `mailbox`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn start(mailbox: Arc<Mailbox<Mail>>) -> io::Result<Resolver> {
        let (questions, asked) = mpsc::channel::<(For, String, u16)>();
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            for (whom, host, port) in asked {
                mailbox.send(Mail::Found(whom, look_up(&host, port)));
            }
        })?;
        Ok(Resolver { questions })
    }

    /// Asks for the addresses of `host`; the answer comes by mail, always.
    pub fn ask(&self, whom: For, host: &str, port: u16) {
        // The thread ends only when this sender is dropped.
        let _ = self.questions.send((whom, host.to_owned(), port));
    }
}

fn look_up(host: &str, port: u16) -> Found {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_each_address_once() {
        let found = look_up("localhost", 80).unwrap();
        for (index, address) in found.iter().enumerate() {
            assert!(address.ip().is_loopback() && address.port() == 80);
            assert!(!found[..index].contains(address), "{found:?}");
        }
    }
}
