//! Backends that several proxies share say how many places they have for this one's requests.

use std::sync::Arc;

use crate::time::Micros;

use super::groups::GroupId;
use super::outcome::{Match, Sent, Transfer};
use super::route::Route;
use super::scheduler::Scheduler;
use super::state::{IdleHandle, Membership, Owner, Restored, Telling};

impl<B> Scheduler<B> {
    /// A backend says that at most `places` bridges of its group on this route may have a request at
    /// once; `at` is the number of its message. False if a later message has been taken, or if the group
    /// has ended: then nothing changes. May produce matches and sent bridges; see
    /// [`Scheduler::next_match`] and [`Scheduler::next_sent`].
    pub fn set_places(
        &mut self,
        route: &Arc<Route<B>>,
        group: GroupId,
        places: u32,
        at: u64,
    ) -> bool {
        let is_news = route.lock().set_places(group, places, at);
        if is_news {
            self.restore(route, group);
        }
        is_news
    }

    /// Listens to a parked bridge, as [`Scheduler::with_idle`]. What `hear` returns beside its result are
    /// the places and the number of a message, as for [`Scheduler::set_places`]. They are put in force
    /// under the same lock: without it another worker can take the bridge, and end its group.
    pub fn hear_idle<T>(
        &mut self,
        route: &Arc<Route<B>>,
        handle: IdleHandle,
        token: u64,
        hear: impl FnOnce(&mut B) -> (T, Option<(u32, u64)>),
    ) -> Option<T> {
        let owner = Owner { worker: self.me, token };
        let mut state = route.lock();
        let (heard, said) = state.idle_mut(handle, owner).map(hear)?;
        let group = state.group_of(handle, owner);
        let changed =
            said.zip(group).filter(|&((places, at), group)| state.set_places(group, places, at));
        drop(state);
        if let Some((_, group)) = changed {
            self.restore(route, group);
        }
        Some(heard)
    }

    /// So many bridges of a backend, named as for [`Route::join_group`], have a request in programs
    /// that this one has replaced: they count among those that have one. May produce matches and sent
    /// bridges.
    pub fn set_elsewhere(&mut self, route: &Arc<Route<B>>, backend: u64, count: u32) {
        let group = route.lock().set_elsewhere(backend, count);
        if let Some(group) = group {
            self.restore(route, group);
        }
    }

    /// A bridge that is not parked has closed. With a group as [`Scheduler::set_places`]: another
    /// bridge of the backend may get a request in its place.
    pub fn leave(&mut self, route: &Arc<Route<B>>, of: Membership, now: Micros) {
        if let Some(group) = of.group {
            route.lock().leave_group(group);
            self.restore(route, group);
        }
        if let Some(instance) = of.instance {
            route.lock().leave_instance(instance, now);
        }
        route.leave(now);
    }

    /// The next bridge for a request on another worker, after [`Scheduler::set_places`] or
    /// [`Scheduler::leave`].
    pub fn next_sent(&mut self) -> Option<Sent<B>> {
        self.sent.pop_front()
    }

    /// The next backend to be told at once that nothing waits for it here, after whatever may give it a
    /// place: it has one, and was told of a request that has been served elsewhere.
    pub fn next_declined(&mut self) -> Option<(Arc<Route<B>>, Telling)> {
        self.declined.pop_front()
    }

    /// Whether there is a match, a sent bridge, or a place that is declined.
    pub fn has_found(&self) -> bool {
        !(self.matches.is_empty() && self.sent.is_empty() && self.declined.is_empty())
    }

    /// Keeps what `RouteState::decline` has returned for [`Scheduler::next_declined`].
    pub(super) fn note_declined(&mut self, route: &Arc<Route<B>>, telling: Option<Telling>) {
        self.declined.extend(telling.map(|telling| (Arc::clone(route), telling)));
    }

    /// Brings back those withdrawn bridges of the group for which there are places.
    fn restore(&mut self, route: &Arc<Route<B>>, group: GroupId) {
        loop {
            // Without the lock when the waiter leaves its other queues.
            let mut state = route.lock();
            let Some(Restored { bridge, owner, waiting }) = state.restore(group) else {
                let telling = state.decline(group);
                drop(state);
                return self.note_declined(route, telling);
            };
            drop(state);
            let (request, pos, id) = (waiting.request, waiting.pos, waiting.id);
            if waiting.worker == self.me {
                self.remove_waiter(id.key, Some(route));
                self.matches.push_back(Match { request, bridge, owner, pos });
            } else {
                let transfer = Transfer { to: waiting.worker, request, waiter: id, pos };
                self.sent.push_back(Sent { bridge, owner, transfer });
            }
        }
    }
}
