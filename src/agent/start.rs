//! From services to a running loop, and the signals.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use mio::{Poll, Waker};

use super::lookup::Resolver;
use super::options::Serve;
use super::state::{Agent, LINGER, Life, Mail, USER_TIMEOUT};
use super::supervision::Supervised;
use crate::exchange::Exchanges;
use crate::net::event_loop::EventLoop;
use crate::net::log_limiter::{LogLimiter, LogLimiters};
use crate::net::mailbox::Mailbox;
use crate::net::signals::Signals;
use crate::net::sys;
use crate::net::token;
use crate::process::notify;

pub use super::state::Reread;
pub use super::worker::Ended;

/// How many lines about failed exchanges of one kind may be written in 10 seconds.
const FAILURE_LINES: u32 = 10;

/// Serves until TERM, INT or QUIT, after which requests in progress have the grace to finish; a second
/// signal ends them at once. On HUP it serves what `reread` returns. Call it before any other
/// thread exists, so that only the thread that waits for signals gets them.
///
/// # Errors
/// When a thread or a poll cannot be created.
pub fn run(serve: &Serve, reread: Reread) -> io::Result<Ended> {
    sys::block_signals();
    let descriptors = sys::limit_descriptors(None)?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), token::WAKER.into())?;
    let mailbox = Arc::new(Mailbox::new(waker));
    let answers = Arc::clone(&mailbox);
    let resolver = Resolver::start(move |lookup, found| answers.send(Mail::Found(lookup, found)))?;
    let (mut signals, to) = (Signals::default(), Arc::clone(&mailbox));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            to.send(Mail::Signal(signals.wait()));
        }
    })?;
    let mut agent = Agent {
        conns: EventLoop::new(poll, Instant::now(), LINGER),
        exchanges: Exchanges::default(),
        applications: Vec::new(),
        proxies: Vec::new(),
        clusters: Vec::new(),
        resolver,
        freed: VecDeque::new(),
        life: Life::Serving,
        grace: serve.grace,
        reread,
        mailbox,
        maintain_at: None,
        descriptors: usize::try_from(descriptors).unwrap_or(usize::MAX),
        most_requests: usize::MAX,
        shortage: LogLimiter::default(),
        failures_reported: LogLimiters::with_burst(FAILURE_LINES),
        supervised: Supervised::new(),
    };
    agent.conns.user_timeout = USER_TIMEOUT;
    for service in &serve.services {
        agent.add(service).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    }
    notify::ready();
    agent.run()
}
