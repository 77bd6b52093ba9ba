//! Reload: services come and go when the files are read again.

use std::time::Duration;

use super::role::Role;
use super::service::Service;
use super::state::Agent;
use crate::process::notify;

impl Agent {
    /// Reads again what to serve, and puts it in force. If anything is wrong, nothing changes.
    pub(super) fn reload(&mut self) {
        if let Some(why) = self.doing().refuses() {
            return log::warn!("HUP: {why}");
        }
        notify::reloading();
        match (self.reread)() {
            Ok(serve) => {
                self.upgrade_timeout = serve.upgrade_timeout;
                self.exit_idle = serve.exit_idle;
                self.replace_services(&serve.services, serve.grace);
            }
            Err(problems) => {
                problems.iter().for_each(|what| log::error!("{what}"));
                log::error!("HUP: nothing changes");
            }
        }
        notify::reloaded();
    }

    /// Serves exactly these services. Those already served keep their bridges.
    fn replace_services(&mut self, services: &[Service], grace: Duration) {
        self.grace = grace;
        let mut new: Vec<&Service> = services.iter().collect();
        let mut gone = Vec::new();
        for (index, application) in self.applications.iter().enumerate() {
            if application.withdrawn {
                continue;
            }
            match new.iter().position(|service| *service == &application.service) {
                Some(same) => _ = new.remove(same),
                None => gone.push(index),
            }
        }
        let counts = (new.len(), gone.len(), services.len() - new.len());
        for service in new {
            // The options have checked it.
            if let Err(what) = self.add(service) {
                log::error!("{}: {what}", service.to);
            }
        }
        gone.into_iter().for_each(|application| self.withdraw(application));
        let (new, gone, kept) = counts;
        log::info!("HUP: {new} services added, {gone} removed, {kept} kept");
        self.maintain_now();
    }

    /// Ends a service: closes its bridges, and lets requests in progress finish.
    pub(super) fn withdraw(&mut self, application: usize) {
        self.applications[application].withdraw();
        let conns = &self.conns;
        for running in self.exchanges.iter_mut() {
            if let Some(Role::Bridge(bridge)) = conns.role(running.requester.key())
                && bridge.application == application
            {
                running.exchange.close_requester();
            }
        }
        self.close_unoccupied(application);
        let unused = |role: &Role| match role {
            Role::Upstream(upstream) => upstream.application == application && upstream.is_unused(),
            _ => false,
        };
        self.conns.keys_with(unused).into_iter().for_each(|key| self.close(key));
    }
}
