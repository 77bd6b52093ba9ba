//! Some applications behind one proxy, each with its agent.

use super::backend::{Backend, Ledger, MEMBERS};
use crate::common::{Agent, eventually, own_address};
use std::net::SocketAddr;
use std::sync::Arc;

/// Requests that each agent lets through at once.
pub const SLOTS: usize = 4;

/// All of them.
pub struct Fleet {
    proxy: String,
    /// What they have seen together.
    pub ledger: Arc<Ledger>,
    members: Vec<Member>,
}

struct Member {
    backend: Option<Backend>,
    agent: Option<Agent>,
    address: SocketAddr,
}

impl Fleet {
    /// Starts them, and waits for nothing.
    #[track_caller]
    pub fn start(proxy: SocketAddr) -> Fleet {
        let ledger = Arc::new(Ledger::default());
        let mut fleet = Fleet { proxy: proxy.to_string(), ledger, members: Vec::new() };
        for number in 0..MEMBERS {
            let backend = Backend::start((own_address(), 0).into(), number, &fleet.ledger);
            let address = backend.address();
            fleet.members.push(Member { backend: Some(backend), agent: None, address });
            fleet.start_agent(number);
        }
        fleet
    }

    /// Starts an application where it was before.
    #[track_caller]
    pub fn start_backend(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.backend = Some(Backend::start(member.address, number, &self.ledger));
    }

    /// Takes an application out, for the caller to end it.
    #[track_caller]
    pub fn take_backend(&mut self, number: usize) -> Backend {
        self.members[number].backend.take().expect("it runs")
    }

    /// Ends an application in good order.
    #[track_caller]
    pub fn stop_backend(&mut self, number: usize) {
        let backend = self.take_backend(number);
        backend.stop(self.members[number].agent.as_ref().expect("it runs"));
    }

    /// Starts an agent.
    #[track_caller]
    pub fn start_agent(&mut self, number: usize) {
        let member = &mut self.members[number];
        let proxies = std::slice::from_ref(&self.proxy);
        member.agent = Some(Agent::serve(&member.address.to_string(), SLOTS, proxies));
    }

    /// Tells an agent to leave, and waits until it has.
    #[track_caller]
    pub fn stop_agent(&mut self, number: usize) {
        let mut agent = self.members[number].agent.take().expect("it runs");
        agent.terminate();
        assert!(agent.wait_exit().success(), "{}", agent.log());
    }

    /// Kills an agent (SIGKILL).
    pub fn kill_agent(&mut self, number: usize) {
        self.members[number].agent = None;
    }

    /// Waits until a member has answered one request more.
    #[track_caller]
    pub fn await_served(&self, number: usize) {
        let before = self.ledger.served(number);
        eventually(&format!("member {number} serves"), || self.ledger.served(number) > before);
    }

    /// Waits until the members have answered `count` requests more between them.
    #[track_caller]
    pub fn await_answers(&self, count: u64) {
        let answers = || (0..MEMBERS).map(|member| self.ledger.served(member)).sum::<u64>();
        let enough = answers() + count;
        eventually("the fleet serves", || answers() >= enough);
    }
}
