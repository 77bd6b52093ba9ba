//! A route, shared by all workers: what it serves, and its members.

use std::mem::offset_of;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Micros;

use super::failures::Failures;
use super::groups::GroupId;
use super::spec::RouteSpec;
use super::state::{Keep, RETENTION, RouteState, Telling, ToTell};
use super::traffic::Traffic;
use super::wanted::InstanceId;

/// What a set of bridges serves, and its state.
///
/// The lock and what nearly every call uses under it share one cache line. Nothing else passes
/// between two cores whose workers use the route, each with its own bridges.
/// The second line has the rest of what a match looks at, and the part of the spec that a look-up by
/// the most specific name needs.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Route<B> {
    state: Mutex<RouteState<B>>,
    spec: RouteSpec,
    id: u64,
    traffic: Traffic,
    limited: Arc<AtomicUsize>,
    failures: Failures,
}

const _: () = {
    let spec = offset_of!(Route<Box<u8>>, spec);
    assert!(spec >= 64 && spec + RouteSpec::LOOKED_UP <= 128);
};

impl<B> Route<B> {
    pub(super) fn new(id: u64, spec: RouteSpec, now: Micros) -> Self {
        let (traffic, failures) = (Traffic::default(), Failures::default());
        let (state, limited) = (Mutex::new(RouteState::new(now)), Arc::default());
        Route { state, id, spec, traffic, limited, failures }
    }

    /// Unique in this process, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the route's bridges serve.
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// What has passed over it.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How many of its bridges have limits by which requests are to be counted. The owner of the
    /// bridges counts them.
    pub fn limited(&self) -> &Arc<AtomicUsize> {
        &self.limited
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Relaxed) > 0
    }

    /// What has gone wrong on it lately, as far as that is noted.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Bridges connected on any worker, parked or in an exchange.
    pub fn members(&self) -> u32 {
        self.lock().members
    }

    /// When the last member left, if [`Route::members`] is 0.
    pub fn empty_since(&self) -> Micros {
        self.lock().empty_since
    }

    /// Bridges parked on any worker that may get a request.
    pub fn parked(&self) -> u32 {
        self.lock().idle
    }

    /// Bridges parked on any worker for which their backends have no place.
    pub fn withdrawn(&self) -> u32 {
        self.lock().withdrawn
    }

    /// By backend, as [`Route::join_group`] was given it, how many of its bridges are withdrawn.
    pub fn withdrawn_by_backend(&self) -> Vec<(u64, u32)> {
        self.lock().withdrawn_by_backend()
    }

    /// By backend, how many of its bridges have something in progress; only of those that have a group.
    pub fn in_progress_by_backend(&self) -> Vec<(u64, u32)> {
        self.lock().in_progress_by_backend()
    }

    /// Whether a bridge of the group that is not parked could have a request next.
    pub fn has_place(&self, group: Option<GroupId>) -> bool {
        self.lock().has_place(group)
    }

    /// Requests waiting on any worker; one that several routes could serve is counted on each.
    pub fn waiting(&self) -> u32 {
        self.lock().all_waiting()
    }

    /// All of these at one moment.
    pub fn load(&self) -> Load {
        let state = self.lock();
        Load {
            members: state.members,
            parked: state.idle,
            withdrawn: state.withdrawn,
            waiting: state.all_waiting(),
            oldest: state.oldest(),
        }
    }

    /// A bridge that is not parked is one of a backend that may say how many of its bridges have a
    /// request at once, [`super::Scheduler::set_places`]. It is in this group until
    /// [`super::Scheduler::leave`].
    pub fn join_group(&self, backend: u64) -> GroupId {
        self.lock().join_group(backend)
    }

    /// A bridge that is not parked is one of this instance, until [`super::Scheduler::leave`].
    pub fn join_instance(&self, instance: InstanceId) {
        self.lock().join_instance(instance);
    }

    /// No request is to wait for this instance, until a bridge of it joins again. Those that wait
    /// already go on: [`super::Scheduler::stays_for`].
    pub fn shun_instance(&self, instance: InstanceId) {
        self.lock().shun_instance(instance);
    }

    /// In the program that this one replaces, bridges of this instance were connected until `last`.
    /// Requests wait for it as if they had left here.
    pub fn expect_instance(&self, instance: InstanceId, last: Micros) {
        self.lock().expect_instance(instance, last);
    }

    /// The instances that requests may wait for, and until when each had a bridge: now, or before.
    pub fn instances_there(&self, now: Micros) -> Vec<(InstanceId, Micros)> {
        self.lock().instances_there(now)
    }

    /// Whether a request waits that a bridge of this instance, or of none, may serve.
    pub fn is_wanted(&self, of: Option<InstanceId>) -> bool {
        self.lock().is_wanted(of)
    }

    /// What is to be told to backends for whose bridges there is no place, because a request waits:
    /// since when the oldest one has waited, or that none waits any more. Each is told once; not
    /// sooner than `pause` after the last call that had something to look at. The caller asks when a
    /// request begins to wait, and at the time that is returned; any worker may.
    pub fn tell(&self, now: Micros, pause: Duration) -> ToTell {
        self.lock().tell(now, pause)
    }

    /// Whether [`Route::tell`] may have something for the group, one of whose bridges has been parked.
    pub fn has_news(&self, group: GroupId) -> bool {
        self.lock().has_news(group)
    }

    /// When the message says that it has been sent: now, and after all that its backend has been sent for
    /// this route before. `None` if it would be wrong, because something else is to be told since then.
    pub fn sent_at(&self, telling: &Telling, now: Micros) -> Option<Micros> {
        self.lock().sent_at(telling, now)
    }

    /// What [`Route::tell`] has returned could not be told: it is due again.
    pub fn not_told(&self, telling: &Telling) {
        self.lock().not_told(telling);
    }

    /// A bridge that is not parked, and is in no group and of no instance, has closed.
    pub fn leave(&self, now: Micros) {
        let mut state = self.lock();
        debug_assert!(state.members > 0, "a bridge left a route that it had not joined");
        state.members -= 1;
        state.empty_since = now;
        state.release_memory();
    }

    /// Adds a member that [`super::Bounds::bridges_per_host`] does not count while the returned
    /// value exists: a connection that the proxy itself has opened, or a server to which it could
    /// open one. The route must be pinned, or have members. The member leaves like any other.
    pub fn join_exempt(self: &Arc<Self>) -> Exempt<B> {
        let joined = self.try_join();
        debug_assert!(joined, "a route that was pinned has been retired");
        self.lock().exempt += 1;
        Exempt(Arc::clone(self))
    }

    /// Adds a bridge, unless the route has been retired. A route that was about to be dropped is
    /// retained again.
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
    pub fn counted(&self) -> u32 {
        let state = self.lock();
        state.members.saturating_sub(state.exempt)
    }

    /// Whether requests may wait for it: a bridge is connected, or the route is kept without one.
    pub(super) fn is_kept(&self) -> bool {
        self.lock().is_kept()
    }

    /// Pins the route, so that it stays without a bridge, or unpins it, so that it ends with its
    /// last bridge. The directory's lock is held, so the route has not been retired.
    pub(super) fn set_pinned(&self, pinned: bool) {
        let mut state = self.lock();
        match (pinned, state.keep) {
            (true, _) => state.keep = Keep::Pin,
            (false, Keep::Pin) => state.keep = Keep::Drop,
            (false, _) => {}
        }
    }

    /// Forgets the instances that left long ago.
    pub(super) fn forget_late(&self, now: Micros) {
        self.lock().forget_late(now);
    }

    /// Until when the route is kept, if nothing uses it.
    pub(super) fn kept_until(&self) -> Option<Micros> {
        let state = self.lock();
        match state.keep {
            _ if !state.is_unused() => None,
            Keep::Drop => Some(Micros(0)),
            Keep::Retain => Some(state.empty_since + RETENTION),
            Keep::Pin | Keep::Retired => None,
        }
    }

    /// Retires the route, unless it is in use again.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        let unused = state.is_unused() && state.keep != Keep::Pin;
        if unused {
            state.keep = Keep::Retired;
        }
        unused
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RouteState<B>> {
        // A panic under the lock leaves at worst one entry out of place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The use of a route at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bridges connected, parked or not.
    pub members: u32,
    /// Bridges parked for which their backends have a place.
    pub parked: u32,
    /// Bridges parked for which their backends have none.
    pub withdrawn: u32,
    /// Requests waiting; one that several routes could serve is counted on each.
    pub waiting: u32,
    /// When the first of them arrived.
    pub oldest: Option<Micros>,
}

/// A member of a route that no bound counts; see [`Route::join_exempt`]. Drop it after the member
/// has left.
#[derive(Debug)]
pub struct Exempt<B>(Arc<Route<B>>);

impl<B> Drop for Exempt<B> {
    fn drop(&mut self) {
        self.0.lock().exempt -= 1;
    }
}
