//! Name lookup in a thread of its own: the system's resolver can take seconds, and the event loop
//! must not block.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Sender};
use std::thread;

/// What a lookup found: the addresses in the resolver's order, each once; never empty.
pub type Found = io::Result<Vec<SocketAddr>>;

/// A thread that looks names up, one after another. `W` says what each lookup is for.
pub struct Resolver<W> {
    questions: Sender<(W, String, u16)>,
}

impl<W: Send + 'static> Resolver<W> {
    /// Starts the thread; it passes its results to `answer`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(answer: impl Fn(W, Found) + Send + 'static) -> io::Result<Resolver<W>> {
        let (questions, asked) = mpsc::channel::<(W, String, u16)>();
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            for (whom, host, port) in asked {
                answer(whom, look_up(&host, port));
            }
        })?;
        Ok(Resolver { questions })
    }

    /// Asks for the addresses of `host`; an answer always comes.
    pub fn ask(&self, whom: W, host: &str, port: u16) {
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
        let (sender, answers) = mpsc::channel();
        let resolver = Resolver::start(move |whom: u8, found| sender.send((whom, found)).unwrap());
        resolver.unwrap().ask(7, "localhost", 80);
        let (whom, found) = answers.recv().unwrap();
        let found = found.unwrap();
        assert_eq!(whom, 7);
        for (index, address) in found.iter().enumerate() {
            assert!(address.ip().is_loopback() && address.port() == 80);
            assert!(!found[..index].contains(address), "{found:?}");
        }
    }
}
