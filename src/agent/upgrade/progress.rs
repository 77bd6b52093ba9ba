//! How far two agents are when one replaces the other.

use std::sync::Arc;

use super::notes::{Left, Successor};
use crate::net::token::Token;
use crate::process::channel::Channel;
use crate::process::upgrade::{Predecessor, Program, Unwanted};
use crate::time::Millis;

use super::super::service::Service;

/// How an agent is replaced.
pub(in crate::agent) struct Upgrades {
    /// What is started.
    pub program: Program,
    /// While a new program is being started.
    pub starting: Option<Unwanted>,
    /// A new program serves in place of this one, or has until it ended in good order.
    pub was_replaced: bool,
}

/// In the old program, after the new one serves.
pub(in crate::agent) struct Replaced {
    pub channel: Arc<Channel>,
    /// What each application is to the new program, by its index here.
    successors: Vec<Option<Successor>>,
    /// Services that the new program does not have; they are served again should it fail.
    pub withdrawn: Vec<Service>,
    /// The new program knows how its applications are, and the tokens of the bridges.
    pub has_described: bool,
    /// What had nothing in progress at the beginning has gone over.
    pub has_passed: bool,
    /// Connections that have become free to go.
    pub ready: Vec<Token>,
    /// When to look for all that is free to go: at the beginning, and after the new program has not
    /// taken a message. Until then what comes is served here.
    pub again: Option<Millis>,
    /// What is left here may have changed.
    pub has_changed: bool,
    /// What the new program has last been told of that, by application.
    pub said: Vec<Left>,
    /// Encrypted bridges, which stay here, have been deregistered.
    pub has_left_encrypted: bool,
    /// When they are, though the new program has not said that it has its own.
    pub dialled_by: Millis,
}

impl Replaced {
    pub fn new(
        channel: Arc<Channel>,
        successors: Vec<Option<Successor>>,
        dialled_by: Millis,
    ) -> Replaced {
        Replaced {
            channel,
            said: vec![Left::default(); successors.len()],
            successors,
            withdrawn: Vec::new(),
            has_described: false,
            has_passed: false,
            ready: Vec::new(),
            again: Some(Millis(0)),
            has_changed: true,
            has_left_encrypted: false,
            dialled_by,
        }
    }

    /// What an application is to the new program.
    pub fn successor(&self, application: usize) -> Option<&Successor> {
        self.successors.get(application)?.as_ref()
    }

    /// Whether there is something to pass on, or to say.
    pub fn has_work(&self, now: Millis) -> bool {
        match self.again {
            Some(again) => again <= now,
            None => self.has_changed || !self.ready.is_empty(),
        }
    }
}

/// In the new program, while the old one lives.
pub(in crate::agent) struct Replacing {
    pub predecessor: Arc<Predecessor>,
    /// It is still to say what it has: until then no bridge is dialled.
    pub awaited: bool,
    /// It knows that the encrypted bridges are here.
    pub has_said_dialled: bool,
    /// What has come.
    pub bridges: u64,
    pub connections: u64,
}

/// How a new program has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::agent) enum SuccessorEnd {
    /// It was killed, or has broken down, in this way.
    Failed(String),
    /// It was told to.
    Told,
    /// It had been replaced itself, by one that serves.
    Replaced,
}
