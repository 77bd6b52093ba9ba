//! After the program has replaced another: bridges that have something in progress in old programs
//! count among those of their backend that do (`doc/protocol.md`, "Places"). Otherwise a backend's bound,
//! which counts them, would seem to leave room for more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bridge::BackendToken;
use crate::routing::RouteSpec;

use super::backends::{Backend, Key};
use super::role::Route;
use super::state::{InUseElsewhere, Mail, Shared};
use super::worker::Worker;

/// What the old programs have said so far.
#[derive(Default)]
pub(super) struct Noted {
    /// The backends of each route that have any. They keep their numbers while they are held here.
    routes: HashMap<RouteSpec, (Arc<Route>, Vec<Arc<Backend>>)>,
}

impl Noted {
    /// These are the bridges of a route that are in use.
    pub(super) fn set(&mut self, shared: &Shared, spec: &RouteSpec, of: &[(BackendToken, u32)]) {
        let known = self.routes.remove(spec);
        let route = known.as_ref().map(|(route, _)| Arc::clone(route));
        let Some(route) = route.or_else(|| shared.directory.route(spec)) else { return };
        let now = shared.now().millis();
        let mut backends = Vec::new();
        for &(token, count) in of {
            let backend = shared.backends.of(Key::Token(token), now);
            say(shared, &route, &backend, count);
            backends.push(backend);
        }
        for backend in known.into_iter().flat_map(|(_, backends)| backends) {
            if !backends.iter().any(|other| Arc::ptr_eq(other, &backend)) {
                say(shared, &route, &backend, 0);
            }
        }
        if !backends.is_empty() {
            self.routes.insert(spec.clone(), (route, backends));
        }
    }

    /// None is in use any longer.
    pub(super) fn clear(&mut self, shared: &Shared) {
        for (route, backends) in std::mem::take(&mut self.routes).into_values() {
            backends.iter().for_each(|backend| say(shared, &route, backend, 0));
        }
    }
}

fn say(shared: &Shared, route: &Arc<Route>, backend: &Arc<Backend>, count: u32) {
    let (route, backend) = (Arc::clone(route), Arc::clone(backend));
    // One worker takes note, in the order in which it is said.
    shared.mailboxes[0].send(Mail::InUseElsewhere(InUseElsewhere { route, backend, count }));
}

impl Worker {
    /// What comes of it is collected in this turn.
    pub(super) fn note_in_use(&mut self, of: &InUseElsewhere) {
        self.scheduler.set_elsewhere(&of.route, of.backend.id.number(), of.count);
    }
}
