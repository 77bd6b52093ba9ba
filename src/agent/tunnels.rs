//! Tunnels (WebSockets and other upgraded connections) have places of their own: they live for long
//! and mostly rest, and must not take those of requests.
//!
//! A request for an upgrade takes a place for its tunnel (`--tunnels`) beside its slot (`-n`). Once
//! the application has agreed, the slot is free, and the bridge no longer counts as one that serves
//! requests: the proxy gets another. A proxy that is told how many bridges may have a request counts it
//! among those that have one, so the number includes it (`places.rs`).

use super::role::{Bridge, Role, TunnelPlace};
use super::state::Agent;
use crate::exchange::RequestMeta;

impl Agent {
    /// Takes a place for the tunnel that a request asks for. False if none is free.
    pub(super) fn reserve_tunnel(&mut self, key: usize, meta: &RequestMeta) -> bool {
        if !meta.upgrade {
            return true;
        }
        let now = self.now();
        let Some(Role::Bridge(bridge)) = self.conns.role_mut(key) else { return false };
        let app = &mut self.applications[bridge.application];
        let taken = app.take_tunnel(now);
        if taken {
            bridge.tunnel = TunnelPlace::Reserved;
        }
        taken
    }

    /// An exchange goes on. If it has become a tunnel, it no longer counts as a request.
    pub(super) fn note_tunnel(&mut self, exchange: usize) {
        let running = self.exchanges.get_mut(exchange);
        if !running.exchange.is_tunnel() {
            return;
        }
        let key = running.requester.key();
        let Some(Role::Bridge(bridge)) = self.conns.role_mut(key) else { return };
        if std::mem::replace(&mut bridge.tunnel, TunnelPlace::Open) == TunnelPlace::Open {
            return;
        }
        let &mut Bridge { application, proxy, party, .. } = bridge;
        let had_slot = std::mem::take(&mut bridge.slot);
        self.proxies[proxy].bridge_closed(true);
        self.listener_is_tunnel(key);
        if had_slot {
            self.release_slot(application, party);
        }
        self.maintain_now();
    }

    /// A bridge gives back its place among the tunnels, if it has one.
    pub(super) fn release_tunnel(&mut self, application: usize, place: TunnelPlace) {
        if place != TunnelPlace::None {
            self.applications[application].tunnels_free += 1;
        }
    }
}
