//! Bridges that are connected get other limits, because the settings have changed (`key_limits.rs`).

use std::sync::Arc;

use super::role::{Bridge, Origin, Role};
use super::state::Shared;
use super::terms::Terms;
use super::worker::Worker;

impl Worker {
    /// Gives a bridge that is connected the limits of the settings, whatever it uses already.
    pub(super) fn limit_again(shared: &Shared, bridge: &mut Bridge) {
        let route = bridge.route.id();
        let Origin::Registered { keys: Some(keys), terms, .. } = &mut bridge.origin else { return };
        let before = terms.as_mut().and_then(|terms| terms.limited.take());
        let names = keys.limited_names();
        let limited = shared.key_limits.enter_again(names.into_iter(), before.as_deref());
        let limited = limited.on(route);
        match terms {
            Some(terms) => terms.limited = limited,
            None => *terms = Terms { asked: None, limited }.kept(),
        }
    }

    /// Gives all bridges of this worker the limits of the settings.
    pub(super) fn limit_all_again(&mut self) {
        let shared = Arc::clone(&self.shared);
        for key in self.conns.keys_with(|role| role.bridge().is_some()) {
            if let Some(bridge) = self.conns.role_mut(key).and_then(Role::bridge_mut) {
                Worker::limit_again(&shared, bridge);
            }
        }
        self.change_idle(|bridge| Worker::limit_again(&shared, bridge));
    }
}
