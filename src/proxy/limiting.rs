//! Bridges that are connected get other limits, because the settings or the answer of the program that
//! authorises have changed (`key_limits.rs`).

use std::sync::Arc;

use super::leases::KeyLease;
use super::role::{Bridge, Origin, Role};
use super::state::Shared;
use super::terms::Terms;
use super::worker::Worker;

impl Worker {
    /// Gives a bridge that is connected the limits of the settings and of the last answer about it,
    /// whatever it uses already.
    pub(super) fn limit_again(shared: &Shared, bridge: &mut Bridge) {
        let route = Arc::clone(&bridge.route);
        let Origin::Registered { keys, terms, .. } = &mut bridge.origin else { return };
        // Those that it had go when the others count it.
        let Terms { asked, limited: _before, .. } =
            terms.take().map_or_else(Terms::default, |terms| *terms);
        let (answer, said) = asked.as_ref().map_or((0, None), |hold| hold.said());
        let answered =
            said.as_ref().zip(asked.as_deref()).and_then(|(said, hold)| said.limits(hold));
        let names = keys.as_deref().map_or_else(Vec::new, KeyLease::limited_names);
        let limited = shared.key_limits.enter_again(names.into_iter(), answered);
        *terms = Terms { limited: limited.on(route.id(), route.limited()), asked, answer }.kept();
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
