//! Services come and go: at the start, and when the files are read again.

use std::time::Duration;

use super::application::Application;
use super::options::Serve;
use super::proxies::{Cluster, Lookup, Place, Proxy};
use super::role::{Bridge, Head, Role, Stage, Stay};
use super::service::Service;
use super::worker::Agent;
use crate::config::Address;

/// Reads again what the agent is to serve: the command line's files.
///
/// Its errors are everything that is wrong, a line each.
pub type Reread = Box<dyn Fn() -> Result<Serve, Vec<String>>>;

/// Whether an application is offered to proxies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offer {
    /// It is, while it is there.
    Standing,
    /// It was, until the file named it no longer. It stays in the table, for connections know it by its place there; the
    /// few hundred bytes are an operator's doing, and he does not reload a million times.
    Withdrawn,
}

impl Agent {
    /// Begins to serve `service`.
    ///
    /// # Errors
    /// One line about a host, prefix or key that no proxy would take.
    pub(super) fn add(&mut self, service: &Service) -> Result<(), String> {
        let registration = service.registration()?;
        let application = self.applications.len();
        let Service { to, hosts, limit, proxies, all_addresses, .. } = service;
        log::info!("{to} for {}, {limit} requests at once", hosts.join(", "));
        self.applications.push(Application::new(service.clone(), registration));
        for address in proxies {
            let name = address.to_string();
            let (place, addresses) = match address.clone() {
                Address::Name { host, port } if *all_addresses => {
                    self.clusters.push(Cluster {
                        application,
                        host,
                        port,
                        members: Vec::new(),
                        at: 0,
                        lookup: Lookup::Idle,
                    });
                    continue;
                }
                Address::Name { host, port } => {
                    (Place::Name { host, port, lookup: Lookup::Idle }, Vec::new())
                }
                Address::Socket(socket) => (Place::Address, vec![socket]),
                // A place to listen; the options let none through.
                Address::Any { .. } => continue,
            };
            self.proxies.push(Proxy::new(application, name, place, addresses));
        }
        Ok(())
    }

    /// Reads again what to serve, and does that from now on. If anything is wrong, nothing changes.
    pub(super) fn reload(&mut self) {
        if !self.is_serving() {
            return;
        }
        match (self.reread)() {
            Ok(serve) => self.serve_instead(&serve.services, serve.grace),
            Err(problems) => {
                problems.iter().for_each(|what| log::error!("{what}"));
                log::error!("HUP: nothing changes");
            }
        }
    }

    /// Serves these and nothing else. What is served already stays as it is, bridges and all.
    fn serve_instead(&mut self, services: &[Service], grace: Duration) {
        self.grace = grace;
        let mut wanted: Vec<&Service> = services.iter().collect();
        let mut unwanted = Vec::new();
        for (index, application) in self.applications.iter().enumerate() {
            if application.offer == Offer::Withdrawn {
                continue;
            }
            match wanted.iter().position(|service| **service == application.service) {
                Some(same) => _ = wanted.swap_remove(same),
                None => unwanted.push(index),
            }
        }
        let counts = (wanted.len(), unwanted.len(), services.len() - wanted.len());
        for service in wanted {
            // The options have checked it.
            if let Err(what) = self.add(service) {
                log::error!("{}: {what}", service.to);
            }
        }
        unwanted.into_iter().for_each(|application| self.retire(application));
        let (new, gone, kept) = counts;
        log::info!("HUP: {new} services are new, {gone} are gone, {kept} go on");
        let now = self.now();
        self.tend_by(now);
    }

    /// Ends a service: its bridges leave, and what is under way is finished.
    fn retire(&mut self, application: usize) {
        log::info!("{} is served no longer", self.applications[application].service.to);
        self.applications[application].offer = Offer::Withdrawn;
        self.applications[application].registration = Vec::new();
        let of = |proxy: usize| self.proxies[proxy].application == application;
        let mine: Vec<bool> = (0..self.proxies.len()).map(of).collect();
        self.say_farewell(|bridge| mine[bridge.proxy]);
        for running in self.exchanges.iter_mut() {
            if let Role::Bridge(bridge) = self.slots[running.requester.key()].role
                && mine[bridge.proxy]
            {
                running.exchange.close_requester();
            }
        }
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let idle = match self.slots[key].role {
                Role::Bridge(Bridge { proxy, stage, stay: Stay::Stays, .. }) if mine[proxy] => {
                    match stage {
                        Stage::Idle(Head::Unread) => self.slots[key].conn.is_idle(),
                        Stage::Dialling { .. } | Stage::Registering | Stage::Parked { .. } => true,
                        _ => false,
                    }
                }
                Role::Line(line) => line.application == application && !line.serves(),
                _ => false,
            };
            if idle {
                self.close(key);
            }
        }
    }

    /// Whether the bridge in slot `key` may serve another request after this one: the agent stays, and so does the service.
    pub(super) fn is_offered(&self, key: usize) -> bool {
        self.is_serving() && self.applications[self.application_of(key)].offer == Offer::Standing
    }
}
