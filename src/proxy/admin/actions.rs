//! What may be changed while the proxy runs: the parameters of an action, and what came of it.

use std::path::PathBuf;

use serde_json::Value;

use crate::bridge::BackendToken;
use crate::time::Millis;

use super::super::operator::{Order, Selector};
use super::super::role::Route;
use super::super::state::Shared;
use super::control::Control;
use super::wanted::{AskedSite, Verb};

/// Longest wait for slots, in milliseconds: a day.
const LONGEST_WAIT: u64 = 24 * 60 * 60 * 1000;

/// An action that waits for its end.
pub(in crate::proxy) enum Acting {
    /// Its body has not come yet.
    Body { verb: Verb, length: usize },
    /// The line of a site has not come yet.
    Line(AskedSite),
    /// For the workers.
    Ordered { order: u64, verb: Verb, left: usize, closed: usize, finishing: usize },
    /// For the main thread.
    Controlled { key: u64 },
    /// For free slots.
    Slots { host: String, count: u32, until: Millis },
}

/// What follows when the body of an action is known.
pub(super) enum Step {
    Order(Order),
    Controlled(Control),
    Acting(Acting),
    Answer(u16, String),
}

/// The parameters of an action.
pub(super) struct Request {
    body: Value,
}

impl Request {
    /// # Errors
    /// One sentence, when the body is not a JSON object.
    pub fn read(body: &[u8]) -> Result<Request, String> {
        if body.is_empty() {
            return Ok(Request { body: Value::Null });
        }
        match serde_json::from_slice(body) {
            Ok(body @ Value::Object(_)) => Ok(Request { body }),
            _ => Err("the body is not a JSON object".to_owned()),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.body.get(name).and_then(Value::as_u64)
    }

    /// Whether it names the program to start. That is for those who could start it in the proxy's
    /// name anyway.
    pub fn names_program(&self) -> bool {
        self.body.get("program").is_some()
    }

    /// The program that it names.
    fn program(&self) -> Result<Option<PathBuf>, String> {
        if !self.names_program() {
            return Ok(None);
        }
        let path = self.text("program").map(PathBuf::from).filter(|path| path.is_absolute());
        path.map(Some).ok_or_else(|| "program is not an absolute path".to_owned())
    }

    /// Whom the action concerns: one of `route`, `host`, `address`, `backend`, `key`; or `target`,
    /// which is whatever it looks like.
    fn selector(&self, shared: &Shared) -> Result<Selector, String> {
        if let Some(id) = self.number("route") {
            let routes = shared.directory.routes();
            let route = routes.iter().find(|route| route.id() == id);
            let route = route.ok_or_else(|| format!("there is no route {id}"))?;
            return Ok(Selector::Route(route.spec().clone()));
        }
        if let Some(host) = self.text("host") {
            return Ok(Selector::Host(host.to_ascii_lowercase()));
        }
        if let Some(address) = self.text("address") {
            let address = address.parse().map_err(|_| format!("{address:?} is not an address"))?;
            return Ok(Selector::Address(address));
        }
        if let Some(backend) = self.text("backend") {
            return Ok(Selector::Backend(backend.to_owned()));
        }
        if let Some(key) = self.text("key") {
            return Ok(Selector::Key(key.to_owned()));
        }
        let Some(target) = self.text("target") else {
            return Err("the body names no route, host, address, backend, key or target".to_owned());
        };
        // No host has a slash, but the ID of a backend without a token may.
        let is_id = BackendToken::is_public_id(target) || target.contains('/');
        Ok(match target.parse() {
            Ok(address) => Selector::Address(address),
            Err(_) if is_id => Selector::Backend(target.to_owned()),
            Err(_) => Selector::Host(target.to_ascii_lowercase()),
        })
    }

    /// Begins the action.
    pub fn begin(&self, verb: Verb, id: u64, shared: &Shared, now: Millis) -> Step {
        match self.begun(verb, id, shared, now) {
            Ok(step) => step,
            Err(problem) => Step::Answer(400, problem),
        }
    }

    fn begun(&self, verb: Verb, id: u64, shared: &Shared, now: Millis) -> Result<Step, String> {
        Ok(match verb {
            Verb::Drain => {
                let selector = self.selector(shared)?;
                if !shared.drained.add(&selector) {
                    return Err("too much is drained already".to_owned());
                }
                Step::Order(Order { id, selector, at_once: false })
            }
            Verb::Drop => {
                Step::Order(Order { id, selector: self.selector(shared)?, at_once: true })
            }
            Verb::Undrain => {
                let removed = match self.number("drain") {
                    Some(id) => shared.drained.remove(|drain| drain.id == id),
                    None => {
                        let selector = self.selector(shared)?;
                        shared.drained.remove(|drain| drain.selector == selector)
                    }
                };
                match removed {
                    true => Step::Answer(200, "it takes requests again".to_owned()),
                    false => Step::Answer(404, "it was not drained".to_owned()),
                }
            }
            Verb::Wait => {
                let host = self.text("host").ok_or("the body names no host")?.to_ascii_lowercase();
                let count = u32::try_from(self.number("count").unwrap_or(1)).unwrap_or(u32::MAX);
                let timeout = self.number("timeout").unwrap_or(60_000).min(LONGEST_WAIT);
                let until = now + std::time::Duration::from_millis(timeout);
                Step::Acting(Acting::Slots { host, count, until })
            }
            Verb::Reload => Step::Controlled(Control::Reload(id)),
            Verb::Stop => Step::Controlled(Control::Stop(id)),
            Verb::Upgrade => Step::Controlled(Control::Upgrade(id, self.program()?)),
        })
    }
}

/// Slots free for a host name or pattern, on all routes that serve it.
pub(super) fn slots(shared: &Shared, host: &str) -> u32 {
    let named = |route: &&std::sync::Arc<Route>| {
        route.spec().patterns().iter().any(|pattern| **pattern == *host)
    };
    shared.directory.routes().iter().filter(named).map(|route| route.parked()).sum()
}

/// What came of an order, in a sentence.
pub(super) fn outcome(verb: Verb, closed: usize, finishing: usize) -> String {
    let bridges = |count: usize| match count {
        1 => "1 bridge".to_owned(),
        count => format!("{count} bridges"),
    };
    match (verb, closed, finishing) {
        (Verb::Drop, 0, _) => "no bridge is connected".to_owned(),
        (Verb::Drop, closed, _) => format!("{} closed", bridges(closed)),
        (_, 0, 0) => "drained; no bridge was connected".to_owned(),
        (_, closed, 0) => format!("drained; {} closed", bridges(closed)),
        (_, closed, finishing) => {
            format!("drained; {} closed, {finishing} finishing a request", bridges(closed))
        }
    }
}
