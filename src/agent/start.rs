//! From services to a running loop, and the signals.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Poll, Waker};

use super::application::Application;
use super::proxies::{Cluster, Lookup, Place, Proxy};
use super::resolve::Resolver;
use super::service::Service;
use super::worker::{Agent, Mail};
use crate::config::Address;
use crate::reactor::mailbox::Mailbox;
use crate::reactor::sys;
use crate::reactor::token;

pub use super::worker::Ended;

/// Serves until a signal ends it: TERM or INT, after which requests under way may take as long as
/// `grace`, and a second one, after which nothing may. Call it before any other thread exists, so
/// that signals reach nobody but the thread that waits for them.
///
/// # Errors
/// What the kernel has refused: a thread, or a poll.
pub fn run(services: &[Service], grace: Duration) -> io::Result<Ended> {
    sys::block_signals();
    if let Err(error) = sys::limit_descriptors(None) {
        log::warn!("cannot learn the limit of open descriptors: {error}");
    }
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), token::WAKER.into())?;
    let mailbox = Arc::new(Mailbox::new(waker));
    let resolver = Resolver::start(Arc::clone(&mailbox))?;
    let signals = Arc::clone(&mailbox);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            signals.send(Mail::Signal(sys::wait_signal()));
        }
    })?;
    let mut agent = Agent::new(poll, mailbox, resolver, grace);
    for service in services {
        add(&mut agent, service)?;
    }
    agent.run()
}

fn add(agent: &mut Agent, service: &Service) -> io::Result<()> {
    let registration =
        service.registration().map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    let application = agent.applications.len();
    let to = service.to.clone();
    log::info!("{} for {}, {} requests at once", to, service.hosts.join(", "), service.limit);
    agent.applications.push(Application::new(to, registration, service.limit));
    for address in &service.proxies {
        let name = address.to_string();
        match address.clone() {
            Address::Name { host, port } if service.all_addresses => agent.clusters.push(Cluster {
                application,
                host,
                port,
                members: Vec::new(),
                at: 0,
                lookup: Lookup::Idle,
            }),
            Address::Name { host, port } => {
                let place = Place::Name { host, port, lookup: Lookup::Idle };
                agent.proxies.push(Proxy::new(application, name, place, Vec::new()));
            }
            Address::Socket(socket) => {
                agent.proxies.push(Proxy::new(application, name, Place::Address, vec![socket]));
            }
            // A place to listen; the options let none through.
            Address::Any { .. } => {}
        }
    }
    Ok(())
}
