//! Where the agent is asked how it is, and how that goes to a new program.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use crate::net::listener::Listener;
use crate::process::channel::Message;
use crate::process::upgrade::Offer;

/// Where the agent is asked.
pub(super) struct Healthz {
    pub listener: Listener,
    /// As configured.
    pub address: String,
    /// Questions are accepted.
    pub is_watched: bool,
}

/// Where the program that this one replaces is asked.
pub(super) struct Inherited {
    pub socket: OwnedFd,
    pub address: String,
}

impl Inherited {
    /// Reads a message of the old program's offer; `None` if it is about something else.
    pub(super) fn read(line: &Value, message: Message) -> Option<Inherited> {
        let address = line["address"].as_str().filter(|_| line["kind"] == "healthz")?.to_owned();
        let socket = message.files.into_iter().next()?;
        Some(Inherited { socket, address })
    }
}

impl Healthz {
    /// Offers it to a program that is to replace this one.
    pub(super) fn offer(&self, offer: &mut Offer) {
        // Without a descriptor the new program says that it cannot listen.
        if let Ok(socket) = self.listener.duplicate() {
            offer.add(json!({ "kind": "healthz", "address": self.address }), vec![socket]);
        }
    }
}
