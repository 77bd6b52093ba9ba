//! From services to a running loop, and the signals.

use std::io;
use std::sync::Arc;
use std::thread;

use mio::{Poll, Waker};

use super::options::Serve;
use super::resolve;
use super::worker::{Agent, Mail};
use crate::net::mailbox::Mailbox;
use crate::net::sys;
use crate::net::token;

pub use super::services::Reread;
pub use super::worker::Ended;

/// Serves until a signal ends it: TERM or INT, after which requests under way may take as long as the
/// grace, and a second one, after which nothing may. HUP has it serve what `reread` says. Call it before any other thread exists, so
/// that signals reach nobody but the thread that waits for them.
///
/// # Errors
/// What the kernel has refused: a thread, or a poll.
pub fn run(serve: &Serve, reread: Reread) -> io::Result<Ended> {
    sys::block_signals();
    if let Err(error) = sys::limit_descriptors(None) {
        log::warn!("cannot learn the limit of open descriptors: {error}");
    }
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), token::WAKER.into())?;
    let mailbox = Arc::new(Mailbox::new(waker));
    let resolver = resolve::start(Arc::clone(&mailbox))?;
    let signals = Arc::clone(&mailbox);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            signals.send(Mail::Signal(sys::wait_signal()));
        }
    })?;
    let mut agent = Agent::new(poll, mailbox, resolver, serve.grace, reread);
    for service in &serve.services {
        agent.add(service).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    }
    agent.run()
}
