//! What the predicates of backends are compared with (`doc/protocol.md`, "Predicates").

use std::net::IpAddr;

use crate::config::Settings;
use crate::http::request::{self, Request};
use crate::http::{Limits, Predicates, RequestFacts};
use crate::net::event_loop::EventLoop;
use crate::net::token::Token;

use super::role::Role;
use super::state::{Config, Parked};

/// What is known of a request that came from `peer`.
pub(super) fn of<'a>(
    request: &'a Request<'a, 'a>,
    peer: IpAddr,
    settings: &'a Settings,
) -> RequestFacts<'a> {
    let &Request { method, path, fields, framing, .. } = request;
    RequestFacts::new(method, path, fields, framing, peer, &settings.trusted_proxies)
}

/// Whether a request that waits meets predicates: its head is still at the front of its client's
/// input.
pub(super) fn of_waiting<'a>(
    conns: &'a EventLoop<Role, Parked>,
    config: &'a Config,
    limits: &'a Limits,
) -> impl Fn(u64, &Predicates) -> bool + 'a {
    move |token, predicates| {
        let Some(key) = conns.find(Token::from_word(token)) else { return false };
        let (input, mut storage) = (conns[key].conn.input.bytes(), request::storage());
        match request::parse(input, &mut storage, limits) {
            Ok(Some(request)) => {
                predicates.are_met_by(&of(&request, conns[key].peer, &config.settings))
            }
            // It is found when it is looked at for its own sake.
            Ok(None) | Err(_) => false,
        }
    }
}
