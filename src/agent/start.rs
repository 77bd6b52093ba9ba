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
use super::upgrade::progress::Upgrades;
use super::upgrade::replacing;
use crate::exchange::Exchanges;
use crate::net::event_loop::EventLoop;
use crate::net::log_limiter::{LogLimiter, LogLimiters};
use crate::net::mailbox::Mailbox;
use crate::net::signals::Signals;
use crate::net::sys;
use crate::net::token;
use crate::process::notify;
use crate::process::upgrade::{Predecessor, Program, parent};
use crate::time::Millis;

pub use super::state::Reread;
pub use super::worker::Ended;

/// How many lines about failed exchanges of one kind may be written in 10 seconds.
const FAILURE_LINES: u32 = 10;

/// Runs an agent, in place of `predecessor` if there is one. It serves until TERM, INT or QUIT, after which requests in progress have the grace to finish; a second
/// signal ends them at once. On HUP it serves what `reread` returns, on USR2 it is replaced. Call it before any other
/// thread exists, so that only the thread that waits for signals gets them.
///
/// # Errors
/// When a thread or a poll cannot be created, or the predecessor has ended.
pub fn run(
    serve: &Serve,
    reread: Reread,
    predecessor: Option<Predecessor>,
) -> Result<Ended, String> {
    let refuse = |problem: String| match &predecessor {
        Some(old) if old.refuse(std::slice::from_ref(&problem)).is_ok() => Ok(Ended::Refused),
        _ => Err(problem),
    };
    let inherited = match predecessor.as_ref().map(replacing::receive_offer).transpose() {
        Ok(inherited) => inherited.flatten(),
        Err(problem) => return refuse(problem),
    };
    if predecessor.is_none() {
        parent::set_awaited(false);
    }
    let mut agent = match start(serve, reread) {
        Ok(agent) => agent,
        Err(error) => return refuse(error.to_string()),
    };
    if let Some(address) = &serve.healthz
        && let Err(error) = agent.answer_at(address, inherited)
    {
        return refuse(format!("cannot listen on {address}: {error}"));
    }
    match predecessor {
        Some(predecessor) => agent.replace(predecessor)?,
        None => agent.listen_for_askers(true),
    }
    notify::ready();
    agent.run().map_err(|error| error.to_string())
}

fn start(serve: &Serve, reread: Reread) -> io::Result<Agent> {
    sys::block_signals();
    let program = Program::of_this_process()?;
    let descriptors = sys::limit_descriptors(None)?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), token::WAKER.into())?;
    let mailbox = Arc::new(Mailbox::new(waker));
    let answers = Arc::clone(&mailbox);
    let resolver = Resolver::start(move |lookup, found| answers.send(Mail::Found(lookup, found)))?;
    let (mut signals, to) = (Signals::default(), Arc::clone(&mailbox));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let signal = signals.wait();
            if !parent::takes(signal) {
                to.send(Mail::Signal(signal));
            }
        }
    })?;
    let mut agent = Agent {
        conns: EventLoop::new(poll, Instant::now(), LINGER),
        exchanges: Exchanges::default(),
        applications: Vec::new(),
        proxies: Vec::new(),
        clusters: Vec::new(),
        resolver,
        shared: Vec::new(),
        freed: VecDeque::new(),
        life: Life::Serving,
        is_told: false,
        grace: serve.grace,
        upgrade_timeout: serve.upgrade_timeout,
        exit_idle: serve.exit_idle,
        last_request: Millis::default(),
        has_had_bridge: false,
        upgrades: Upgrades { program, starting: None, was_replaced: false },
        replaced: None,
        replacing: None,
        reread,
        mailbox,
        maintain_at: None,
        descriptors: usize::try_from(descriptors).unwrap_or(usize::MAX),
        most_requests: usize::MAX,
        shortage: LogLimiter::default(),
        failures_reported: LogLimiters::with_burst(FAILURE_LINES),
        supervised: Supervised::new(),
        healthz: None,
    };
    agent.conns.user_timeout = USER_TIMEOUT;
    for service in &serve.services {
        agent.add(service).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    }
    Ok(agent)
}
