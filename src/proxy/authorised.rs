//! Registrations that the program of `authorise` is asked about (`authoriser.rs`), once their keys have
//! been found good.
//!
//! A registration waits for the answer in a role of its own. Then it is looked at from the beginning:
//! keys may have been revoked meanwhile. A bridge that is connected is asked about again when it
//! parks after a request and the answer may no longer be used; it serves on meanwhile, and is closed if
//! the answer has become no (`revocation.rs`).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::bridge::Registration;
use crate::bridge::hostkey::{Grant, HostKey, KeyHash};
use crate::http::Reply;
use crate::net::conn::Received;
use crate::net::token::Token;
use crate::routing::RouteSpec;

use super::authorise_call::{Answer, Decision};
use super::authoriser::{By, Hold, Known, Question, Told};
use super::client::RETRY_AFTER;
use super::closing::End;
use super::key_limits::Answered;
use super::leases::{Certificate, KeyLease};
use super::proofs::Held;
use super::reason::Reason;
use super::role::{Authorising, Bridge, Origin, Role};
use super::shares;
use super::state::{Mail, Shared};
use super::worker::Worker;

/// What a backend is told without an answer.
pub(super) const NO_ANSWER: &str = "whether this bridge is allowed cannot be found out now";

/// What came of the question about a registration.
pub(super) enum Consent {
    /// Nobody is to be asked.
    NotNeeded,
    /// With the answer, and its number.
    Given(Arc<Hold>, (u64, Option<Arc<Answer>>)),
    Refused(String),
    /// The program is to be asked.
    Awaited(Question),
    Unknown,
}

impl Consent {
    /// The limits of an answer.
    pub(super) fn limits(&self) -> Option<Answered<'_>> {
        match self {
            Consent::Given(hold, (_, answer)) => answer.as_ref()?.limits(hold),
            _ => None,
        }
    }

    /// What a bridge that is let in keeps of it, and the number of the answer.
    pub(super) fn hold(self) -> (Option<Arc<Hold>>, u64) {
        match self {
            Consent::Given(hold, (number, _)) => (Some(hold), number),
            _ => (None, 0),
        }
    }
}

impl Answer {
    /// Its limits, which are counted for the visitor, unless it names something else.
    pub(super) fn limits<'a>(&'a self, hold: &'a Hold) -> Option<Answered<'a>> {
        let Decision::Allowed { limits, account } = &self.decision else { return None };
        let account = account.as_deref().unwrap_or_else(|| hold.question().visitor());
        Some(Answered { account, limits: *limits })
    }
}

/// Who has a key. The visitor is the first name that was narrowed from the key of the proxy's owner: a
/// program that gives keys to visitors has made that, and nobody but it can make up others.
fn holder_of(key: &HostKey) -> By {
    let names = key.names();
    let root = names.first().copied().unwrap_or_default();
    By { root: root.into(), visitor: names.get(1).copied().unwrap_or(root).into() }
}

/// What the question says of a bridge.
struct About<'a> {
    spec: &'a RouteSpec,
    keys: Vec<&'a HostKey>,
    certificate: Option<String>,
    /// The first name that it serves by certificate.
    certified: Option<&'a str>,
    agent: Option<&'a str>,
}

fn key_to_json(key: &HostKey) -> Value {
    json!({
        "name": key.name(),
        "id": KeyHash::of(key).to_string(),
        "root": key.root().name(),
        "narrowed": key.caveats(),
    })
}

impl Worker {
    fn question(&self, key: usize, mut about: About<'_>) -> Question {
        // Whatever the order in which the backend has named its hosts.
        about.keys.sort_by_key(|key| (key.name(), KeyHash::of(key).to_string()));
        let connection = &self.conns[key];
        let at = connection.conn.local_address().ok();
        let mut text = json!({
            "hosts": about.spec.patterns().iter().map(|host| &**host).collect::<Vec<_>>(),
            "prefix": about.spec.shown_paths(),
            "keys": about.keys.iter().map(|key| key_to_json(key)).collect::<Vec<_>>(),
            "certificate": about.certificate,
            "address": connection.peer.to_string(),
            "listener": at.map(|at| at.to_string()),
        });
        let same = text.to_string();
        // Which a backend may say anew each time.
        text["agent"] = json!(about.agent);
        let first = about.spec.patterns().first().map_or("", |name| name);
        let by = match (about.keys.first(), about.certified) {
            (Some(key), _) => holder_of(key),
            (None, Some(name)) => By::keyless(name),
            (None, None) => By::keyless(&shares::shown_network(connection.peer)),
        };
        Question::new(&text.to_string(), &same, first, by)
    }

    /// Whether a registration whose keys are good is allowed. `told` is what has come of the question
    /// about it, if that has been asked.
    pub(super) fn consent(
        &self,
        key: usize,
        registration: &Registration,
        spec: &RouteSpec,
        (grants, certificate): (&[Grant], Option<&Certificate>),
        told: Option<&Told>,
    ) -> Consent {
        if self.settings().authorise.is_none() {
            return Consent::NotNeeded;
        }
        let question = self.question(
            key,
            About {
                spec,
                keys: grants.iter().filter_map(|grant| grant.proof.as_ref()).collect(),
                certificate: certificate.map(|of| of.held.shown().summary().0),
                certified: certificate.and(grants.first()).map(|grant| grant.name.as_str()),
                agent: registration.agent.as_deref(),
            },
        );
        match self.shared.authoriser.known(&question, told) {
            Known::Allowed(hold) => {
                let said = hold.said();
                Consent::Given(hold, said)
            }
            Known::Refused(reason) => Consent::Refused(reason),
            Known::Nothing => Consent::Awaited(question),
            Known::NoAnswer => Consent::Unknown,
        }
    }

    /// Asks about a registration, which waits for the answer.
    pub(super) fn await_consent(
        &mut self,
        key: usize,
        registration: &Registration,
        question: &Question,
    ) {
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        let token = self.conns[key].token();
        let is_asked = self.shared.authoriser.ask(question, move |told| {
            dismiss_if(&shared, told.lost);
            shared.mailboxes[index].send(Mail::Authorised(token, told));
        });
        if !is_asked {
            return self.refuse_unanswered(key, "too many questions wait for an answer");
        }
        let (peer, patterns) = (self.conns[key].peer, &registration.patterns);
        log::debug!("bridge from {peer} for {patterns:?}: the program is asked");
        let authorising = Box::new(Authorising { registration: registration.clone() });
        self.change_role(key, |role| {
            role.with_client(|client| Role::Authorising { client, authorising })
        });
        self.conns.set_deadline(key, self.config.settings.authorise_timeout);
        self.watch_authorising(key);
    }

    /// The program has answered, or will not.
    pub(super) fn authorised(&mut self, token: Token, told: &Told) {
        let Some(key) = self.conns.find(token) else { return };
        let mut asked = None;
        if !matches!(self.conns.role(key), Some(Role::Authorising { .. })) {
            return;
        }
        self.change_role(key, |role| match role {
            Role::Authorising { client, authorising } => {
                asked = Some(authorising);
                Role::ReadingHead { client, retry: None }
            }
            other => other,
        });
        if let Some(asked) = asked {
            self.register_told(key, &asked.registration, Some(told));
        }
    }

    /// A backend that waits for the answer has sent something, which it must not, or has closed.
    pub(super) fn watch_authorising(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        match connection.conn.receive(&mut ws.scratch) {
            Received::Nothing => {}
            Received::Bytes(_) => {
                let reply = Reply::new(400, "nothing may follow a BRIDGE request");
                self.reject_bridge(key, Reason::BadBridge, reply);
            }
            Received::End | Received::Broken(_) => self.end(key, End::Close),
        }
    }

    /// There was no answer in time.
    pub(super) fn authorising_timed_out(&mut self, key: usize) {
        self.refuse_unanswered(key, NO_ANSWER);
    }

    pub(super) fn refuse_unanswered(&mut self, key: usize, text: &str) {
        let reply = Reply { retry_after: Some(RETRY_AFTER), ..Reply::new(503, text) };
        self.reject_bridge(key, Reason::AuthoriseFailed, reply);
    }

    /// A bridge parks after a request: asks about it, if the answer may no longer be used, and gives it
    /// the limits of the last answer.
    pub(super) fn ask_again(&mut self, key: usize) {
        if self.settings().authorise.is_none() {
            return;
        }
        let Some(hold) = self.hold_of(key) else { return };
        if hold.begin_again(self.conns.now().millis()) {
            self.renew_consent(&hold);
        }
        let Some(bridge) = self.conns.role_mut(key).and_then(Role::bridge_mut) else { return };
        if bridge.terms().is_some_and(|terms| terms.answer != hold.changes()) {
            Worker::limit_again(&self.shared, bridge);
        }
    }

    /// What a bridge shares with others about which the same is asked.
    fn hold_of(&mut self, key: usize) -> Option<Arc<Hold>> {
        let bridge = self.conns.role(key).and_then(Role::bridge)?;
        let Origin::Registered { keys, terms, .. } = &bridge.origin else { return None };
        if let Some(hold) = terms.as_ref().and_then(|terms| terms.asked.as_ref()) {
            return Some(Arc::clone(hold));
        }
        let question = self.question_again(key, bridge, keys.as_deref());
        let hold = self.shared.authoriser.hold(&question);
        let bridge = self.conns.role_mut(key).and_then(Role::bridge_mut)?;
        if let Origin::Registered { terms, .. } = &mut bridge.origin {
            terms.get_or_insert_default().asked = Some(Arc::clone(&hold));
        }
        Some(hold)
    }

    /// Takes the answer that is at hand, or asks for one.
    fn renew_consent(&self, hold: &Arc<Hold>) {
        if let Some(lost) = self.shared.authoriser.recall(hold) {
            return dismiss_if(&self.shared, lost);
        }
        let shared = Arc::clone(&self.shared);
        // If too much is asked already it is asked about the next time.
        self.shared.authoriser.ask(hold.question(), move |told| {
            dismiss_if(&shared, told.lost);
            let answer = told.answer.as_ref();
            if let Some(limits) = answer.and_then(|answer| answer.limits(&told.hold)) {
                shared.key_limits.answered(limits);
            }
        });
    }

    /// The question about a bridge that nobody was asked about when it came.
    fn question_again(&self, key: usize, bridge: &Bridge, keys: Option<&KeyLease>) -> Question {
        let proofs = keys.map_or(&[][..], KeyLease::proofs);
        let seen = bridge.backend.seen();
        self.question(
            key,
            About {
                spec: bridge.route.spec(),
                keys: proofs.iter().map(Held::key).collect(),
                certificate: bridge.certificate().map(|of| of.shown().summary().0),
                certified: bridge.certificate().and(keys).and_then(|keys| keys.names().next()),
                agent: seen.agent.as_deref(),
            },
        )
    }
}

/// An answer has become no: the bridges that were let in by it are closed.
fn dismiss_if(shared: &Shared, lost: bool) {
    if lost {
        shared.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::KeysLost));
    }
}
