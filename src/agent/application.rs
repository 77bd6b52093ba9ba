//! An application: its slots, its idle connections, and its health.

use super::service::Service;
use super::slots::Slots;
use crate::net::token::Token;
use crate::time::Millis;
use crate::upstream::{Addresses, Health, Purpose};

/// An application and its service.
pub(super) struct Application {
    pub service: Service,
    /// The BRIDGE request. It holds the keys, so it is never shown.
    pub registration: Vec<u8>,
    /// The file no longer names it. It stays in the table, because connections refer to it by
    /// index; a few hundred bytes per reload do not matter.
    pub withdrawn: bool,
    /// Idle connections. The most recently used, which is the least likely to be closed, is last.
    pub idle: Vec<Token>,
    pub slots: Slots,
    pub addresses: Addresses,
    pub health: Health,
}

impl Application {
    /// An application of unknown health.
    pub fn new(service: Service, registration: Vec<u8>) -> Application {
        Application {
            slots: Slots::new(service.limit),
            addresses: Addresses::of(&service.to),
            service,
            registration,
            withdrawn: false,
            idle: Vec::new(),
            health: Health::UNKNOWN,
        }
    }

    /// Withdraws it: no proxy gets another bridge for it.
    pub fn withdraw(&mut self) {
        self.withdrawn = true;
        self.registration = Vec::new();
        log::info!("{} is no longer served", self.service.to);
    }

    /// Whether to dial bridges for it now. While all its slots are taken, a new bridge could not
    /// serve a request.
    pub fn wants_bridges(&self) -> bool {
        !self.withdrawn && self.health.is_up() && self.slots.any_free()
    }

    /// Notes that it has taken a probe's connection.
    pub fn answered(&mut self, now: Millis) {
        if self.health.answered(now) {
            log::info!("the application at {} is up", self.service.to);
        }
    }

    /// Notes that it could not be reached. True if it was up until now.
    pub fn failed(&mut self, purpose: Purpose, now: Millis, why: &std::io::Error) -> bool {
        let was_up = self.health.is_up();
        let to = &self.service.to;
        if self.health.failed(purpose, now, crate::backoff::random()) {
            log::warn!(
                "the application at {to} cannot be reached: {why}; no bridge is parked for it \
                 until it is back"
            );
        } else {
            log::debug!("the application at {to} cannot be reached: {why}");
        }
        was_up && !self.health.is_up()
    }
}
