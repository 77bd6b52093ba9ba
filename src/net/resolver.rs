//! Name lookup in threads of its own: the system's resolver can take many seconds, and the event
//! loop must not block.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Most names looked up at once. A name that is never answered holds one thread at most, because it
/// is not asked for again before its answer; so this many such names hold up the others.
const THREADS_MAX: usize = 16;

/// What a lookup found: the addresses in the resolver's order, each once; never empty.
pub type Found = io::Result<Vec<SocketAddr>>;

/// Threads that look names up, at least one. `W` says what each lookup is for.
pub struct Resolver<W> {
    pool: Arc<Pool<W>>,
    questions: Sender<Question<W>>,
}

struct Question<W> {
    whom: W,
    host: String,
    port: u16,
}

/// What the threads share.
struct Pool<W> {
    asked: Mutex<Receiver<Question<W>>>,
    answer: Box<dyn Fn(W, Found) + Send + Sync>,
    load: Mutex<Load>,
}

#[derive(Default)]
struct Load {
    threads: usize,
    /// Questions without an answer.
    open: usize,
}

impl<W: Send + 'static> Resolver<W> {
    /// Starts the first thread; each passes its results to `answer`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(answer: impl Fn(W, Found) + Send + Sync + 'static) -> io::Result<Resolver<W>> {
        let (questions, asked) = mpsc::channel();
        let (asked, load) = (Mutex::new(asked), Mutex::default());
        let pool = Arc::new(Pool { asked, answer: Box::new(answer), load });
        let resolver = Resolver { pool, questions };
        resolver.start_thread()?;
        Ok(resolver)
    }

    /// Asks for the addresses of `host`; an answer always comes. No name may be asked for again
    /// before that.
    pub fn ask(&self, whom: W, host: &str, port: u16) {
        let needs_thread = {
            let mut load = self.pool.load.lock().unwrap_or_else(PoisonError::into_inner);
            load.open += 1;
            load.open > load.threads && load.threads < THREADS_MAX
        };
        if needs_thread && let Err(error) = self.start_thread() {
            log::debug!("no further thread for lookups: {error}");
        }
        // The threads end only when this sender is dropped.
        let _ = self.questions.send(Question { whom, host: host.to_owned(), port });
    }

    fn start_thread(&self) -> io::Result<()> {
        let pool = Arc::clone(&self.pool);
        thread::Builder::new().name("resolver".to_owned()).spawn(move || pool.serve())?;
        self.pool.load.lock().unwrap_or_else(PoisonError::into_inner).threads += 1;
        Ok(())
    }
}

impl<W> Pool<W> {
    /// Looks names up, one after another.
    fn serve(&self) {
        loop {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Question { whom, host, port }) = asked else { return };
            let found = look_up(&host, port);
            self.load.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
            (self.answer)(whom, found);
        }
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

    /// An answer that is not taken holds its thread as a lookup does that takes long.
    #[test]
    fn a_lookup_that_takes_long_holds_up_no_other() {
        let (sender, answers) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let held = Arc::clone(&gate);
        let answer = move |whom: u8, _| {
            if whom == 0 {
                drop(held.lock());
            }
            sender.send(whom).unwrap();
        };
        let resolver = Resolver::start(answer).unwrap();
        for whom in [0, 1, 2] {
            resolver.ask(whom, "127.0.0.1", 80);
        }
        let mut first: Vec<u8> = (0..2).map(|_| answers.recv().unwrap()).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2]);
        drop(closed);
        assert_eq!(answers.recv().unwrap(), 0);
    }
}
