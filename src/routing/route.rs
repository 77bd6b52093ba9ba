//! A route, as all workers share it: what it serves, and who belongs to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Micros;

use super::directory::RETENTION;
use super::spec::RouteSpec;
use super::state::{Keep, RouteState};

/// What a set of bridges serves, and who is there.
///
/// The lock and what nearly every call reads or writes under it are one cache line: all that
/// passes between two cores whose workers use the route, each its own bridges.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Route<B> {
    state: Mutex<RouteState<B>>,
    id: u64,
    spec: RouteSpec,
}

impl<B> Route<B> {
    pub(super) fn new(id: u64, spec: RouteSpec, now: Micros) -> Self {
        Route { state: Mutex::new(RouteState::new(now)), id, spec }
    }

    /// A number that no other route of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the route's bridges serve.
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// Bridges connected on any worker, parked or in an exchange.
    pub fn members(&self) -> u32 {
        self.lock().members
    }

    /// When the last bridge left it, if [`Route::members`] is 0.
    pub fn empty_since(&self) -> Micros {
        self.lock().empty_since
    }

    /// Bridges parked on any worker.
    pub fn parked(&self) -> u32 {
        self.lock().idle
    }

    /// Requests waiting on any worker; one that several routes could serve is counted on each.
    pub fn waiting(&self) -> u32 {
        self.lock().waiting
    }

    /// A bridge that is not parked has closed.
    pub fn leave(&self, now: Micros) {
        let mut state = self.lock();
        debug_assert!(state.members > 0, "a bridge left a route that it had not joined");
        state.members -= 1;
        state.empty_since = now;
    }

    /// Adds a member that [`super::Bounds::bridges_per_host`] does not count as long as the answer
    /// lives: a connection that the proxy itself has opened, or the knowledge that one could be.
    /// The route must be pinned, or have members. It leaves as any member does.
    pub fn join_exempt(self: &Arc<Self>) -> Exempt<B> {
        let joined = self.try_join();
        debug_assert!(joined, "a route that was pinned has been retired");
        self.lock().exempt += 1;
        Exempt(Arc::clone(self))
    }

    /// Adds a bridge, unless the route has been retired. One that was to be dropped is remembered
    /// again after it.
    pub(super) fn try_join(&self) -> bool {
        let mut state = self.lock();
        match state.keep {
            Keep::Retired => return false,
            Keep::Drop => state.keep = Keep::Retain,
            Keep::Retain | Keep::Pin => {}
        }
        state.members += 1;
        true
    }

    /// The members that [`super::Bounds::bridges_per_host`] counts.
    pub(super) fn counted(&self) -> u32 {
        let state = self.lock();
        state.members.saturating_sub(state.exempt)
    }

    /// Whether a request waits for it even while no bridge is connected, or one is.
    pub(super) fn is_kept(&self) -> bool {
        let state = self.lock();
        state.members > 0 || matches!(state.keep, Keep::Retain | Keep::Pin)
    }

    /// Keeps the route although it has no bridge, or has a pinned one end with its last bridge.
    /// The directory's lock is held, so the route has not been retired.
    pub(super) fn set_pinned(&self, pinned: bool) {
        let mut state = self.lock();
        match (pinned, state.keep) {
            (true, _) => state.keep = Keep::Pin,
            (false, Keep::Pin) => state.keep = Keep::Drop,
            (false, _) => {}
        }
    }

    /// Until when the route is kept, if nothing needs it.
    pub(super) fn kept_until(&self) -> Option<Micros> {
        let state = self.lock();
        match state.keep {
            _ if !state.is_unused() => None,
            Keep::Drop => Some(Micros(0)),
            Keep::Retain => Some(state.empty_since + RETENTION),
            Keep::Pin | Keep::Retired => None,
        }
    }

    /// Ends the route, unless something has come to need it meanwhile.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        let unused = state.is_unused() && state.keep != Keep::Pin;
        if unused {
            state.keep = Keep::Retired;
        }
        unused
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RouteState<B>> {
        // What a panic can interrupt in here leaves at worst one entry out of place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member of a route that no bound counts; see [`Route::join_exempt`]. To be dropped after the
/// member has left.
#[derive(Debug)]
pub struct Exempt<B>(Arc<Route<B>>);

impl<B> Drop for Exempt<B> {
    fn drop(&mut self) {
        self.0.lock().exempt -= 1;
    }
}
