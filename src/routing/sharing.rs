//! Backends that several proxies share say how many places they have for this one's requests.

use std::sync::Arc;

use crate::time::Micros;

use super::groups::GroupId;
use super::outcome::{Match, Sent, Transfer};
use super::route::Route;
use super::scheduler::Scheduler;
use super::state::Restored;

impl<B> Scheduler<B> {
    /// A backend says that at most `places` bridges of its group on this route may have a request at
    /// once; `at` is the number of its message. False if a later message has been taken: then
    /// nothing changes. May produce matches and sent bridges; see [`Scheduler::next_match`] and
    /// [`Scheduler::next_sent`].
    pub fn set_places(
        &mut self,
        route: &Arc<Route<B>>,
        group: GroupId,
        places: u32,
        at: u64,
    ) -> bool {
        let mut state = route.lock();
        let is_news = state.group_mut(group).set_places(places, at);
        if is_news {
            state.withdraw_surplus(group);
        }
        drop(state);
        if is_news {
            self.restore(route, group);
        }
        is_news
    }

    /// A bridge that is not parked has closed. With a group as [`Scheduler::set_places`]: another
    /// bridge of the backend may get a request in its place.
    pub fn leave(&mut self, route: &Arc<Route<B>>, group: Option<GroupId>, now: Micros) {
        if let Some(group) = group {
            route.lock().leave_group(group);
            self.restore(route, group);
        }
        route.leave(now);
    }

    /// The next bridge for a request on another worker, after [`Scheduler::set_places`] or
    /// [`Scheduler::leave`].
    pub fn next_sent(&mut self) -> Option<Sent<B>> {
        self.sent.pop_front()
    }

    /// Brings back those withdrawn bridges of the group for which there are places.
    fn restore(&mut self, route: &Arc<Route<B>>, group: GroupId) {
        loop {
            // Without the lock when the waiter leaves its other queues.
            let restored = route.lock().restore(group);
            let Some(Restored { bridge, owner, waiting }) = restored else { return };
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
