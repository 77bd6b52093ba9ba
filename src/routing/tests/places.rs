//! Backends that say how many places they have.

use std::time::Duration;

use super::*;

const PAUSE: Duration = Duration::from_millis(10);

fn of(group: GroupId) -> Membership {
    Membership { group: Some(group), instance: None }
}

/// A bridge of a backend connects and parks.
#[track_caller]
fn park_of(
    scheduler: &mut Scheduler<u64>,
    backend: u64,
    bridge: u64,
) -> (Arc<Route<u64>>, GroupId, IdleHandle) {
    let route = join(scheduler, "a.test");
    let group = route.join_group(backend);
    match scheduler.park(&route, of(group), bridge, bridge) {
        Parked::Idle(handle) => (route, group, handle),
        other => panic!("{other:?}"),
    }
}

/// A request takes the bridge on another worker, and the bridge closes.
#[track_caller]
fn take_and_close(scheduler: &mut Scheduler<u64>, route: &Arc<Route<u64>>, group: GroupId) {
    matched(scheduler.enqueue(1, &query("a.test"), at(1)));
    scheduler.leave(route, of(group), at(2));
}

#[test]
fn what_a_bridge_says_is_in_force_before_another_worker_can_end_its_group() {
    let [mut one, mut two] = <[_; 2]>::try_from(schedulers(2, BOUNDS)).unwrap();
    let (route, group, handle) = park_of(&mut one, 7, 1);
    two.sync(NONE);
    let heard = one.hear_idle(&route, handle, 1, |bridge| (*bridge, Some((0, 1))));
    assert_eq!((heard, route.parked(), route.withdrawn()), (Some(1), 0, 1));
    assert_eq!(one.hear_idle(&route, handle, 1, |_| ((), Some((1, 2)))), Some(()));
    assert_eq!((route.parked(), route.withdrawn()), (1, 0));
    take_and_close(&mut two, &route, group);
    // It is another worker's by now.
    assert_eq!(one.hear_idle(&route, handle, 1, |_| ((), Some((0, 3)))), None);
}

#[test]
fn a_message_of_a_group_that_has_ended_does_nothing() {
    let [mut one, mut two] = <[_; 2]>::try_from(schedulers(2, BOUNDS)).unwrap();
    let (route, group, _) = park_of(&mut one, 7, 1);
    two.sync(NONE);
    take_and_close(&mut two, &route, group);
    assert!(!one.set_places(&route, group, 0, 1));
}

#[test]
fn bridges_in_use_in_an_old_program_count() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let route = join(&mut scheduler, "a.test");
    scheduler.set_elsewhere(&route, 7, 2);
    let (_, group, _) = park_of(&mut scheduler, 7, 1);
    assert_eq!(route.parked(), 1, "no bound is known");
    assert!(scheduler.set_places(&route, group, 2, 1));
    assert_eq!((route.parked(), route.withdrawn()), (0, 1));
    assert_eq!(route.in_progress_by_backend(), [(7, 2)]);
    let request = scheduler.enqueue(5, &query("a.test"), at(1));
    waits(request);
    scheduler.set_elsewhere(&route, 7, 1);
    let found = scheduler.next_match().expect("a place is free");
    assert_eq!((found.request, found.bridge), (5, 1));
    assert_eq!(route.in_progress_by_backend(), [(7, 2)]);
    scheduler.leave(&route, of(group), at(2));
    // Nothing of the backend is left here, and something there.
    assert_eq!(route.in_progress_by_backend(), [(7, 1)]);
    scheduler.set_elsewhere(&route, 7, 0);
    assert_eq!(route.in_progress_by_backend(), []);
}

#[test]
fn a_backend_that_could_not_be_told_is_told_over_another_bridge() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let (route, group, _) = park_of(&mut scheduler, 7, 1);
    park_of(&mut scheduler, 7, 2);
    assert!(scheduler.set_places(&route, group, 0, 1));
    waits(scheduler.enqueue(5, &query("a.test"), at(100)));
    let first = route.tell(at(100), PAUSE).tellings;
    assert_eq!(first.len(), 1);
    route.not_told(&first[0]);
    let second = route.tell(at(20_000), PAUSE).tellings;
    assert_eq!((second.len(), second[0].oldest), (1, Some(at(100))));
    assert_ne!(second[0].owner.token, first[0].owner.token);
    assert_eq!(route.tell(at(40_000), PAUSE).tellings, []);
    // What has been said since then is not taken back.
    route.not_told(&Telling { oldest: Some(at(1)), ..second[0] });
    assert_eq!(route.tell(at(60_000), PAUSE).tellings, []);
}

#[test]
fn nothing_is_looked_at_again_while_none_waits_and_the_backend_cannot_be_told() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let (route, group, _) = park_of(&mut scheduler, 7, 1);
    assert!(scheduler.set_places(&route, group, 0, 1));
    let request = waits(scheduler.enqueue(5, &query("a.test"), at(100)));
    assert_eq!(route.tell(at(100), PAUSE).tellings.len(), 1);
    assert!(scheduler.set_places(&route, group, 1, 2));
    assert_eq!(scheduler.next_match().expect("it is served").bridge, 1);
    assert!(!scheduler.cancel(request));
    assert_eq!(route.tell(at(20_000), PAUSE), ToTell::default());
    // When the bridge parks there is something to say, which does not wait.
    assert!(route.has_news(group));
    assert!(matches!(scheduler.park(&route, of(group), 1, 1), Parked::Idle(_)));
    let (_, telling) = scheduler.next_declined().expect("its place is not needed");
    assert_eq!((telling.group, telling.oldest), (group, None));
    assert!(!route.has_news(group) && !scheduler.has_found());
}

/// Its backend keeps it for the request, which another one has by now.
#[test]
fn a_place_for_which_nothing_waits_any_more_is_declined_at_once() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let (route, late, _) = park_of(&mut scheduler, 7, 1);
    let (_, first, _) = park_of(&mut scheduler, 8, 2);
    for group in [late, first] {
        assert!(scheduler.set_places(&route, group, 0, 1));
    }
    waits(scheduler.enqueue(5, &query("a.test"), at(100)));
    assert_eq!(route.tell(at(100), PAUSE).tellings.len(), 2);
    assert!(scheduler.set_places(&route, first, 1, 2));
    assert_eq!(scheduler.next_match().expect("it is served").bridge, 2);
    assert!(!scheduler.has_found(), "its place is used");
    assert!(scheduler.set_places(&route, late, 1, 2));
    assert!(scheduler.has_found());
    let (_, telling) = scheduler.next_declined().expect("its place is not");
    assert_eq!((telling.group, telling.owner.token, telling.oldest), (late, 1, None));
    // That is said once.
    assert!(scheduler.set_places(&route, late, 2, 3));
    assert!(!scheduler.has_found());
    assert_eq!(route.tell(at(20_000), PAUSE).tellings, []);
}

/// Two workers have something to say of the same backend, and the later one says it first.
#[test]
fn what_has_been_told_later_is_not_overtaken() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let (route, group, _) = park_of(&mut scheduler, 7, 1);
    assert!(scheduler.set_places(&route, group, 0, 1));
    let first = waits(scheduler.enqueue(5, &query("a.test"), at(100)));
    let told = route.tell(at(100), PAUSE).tellings;
    assert_eq!(route.sent_at(&told[0], at(100)), Some(at(100)));
    assert!(scheduler.cancel(first));
    let none = route.tell(at(20_000), PAUSE).tellings;
    // Its clock is a little behind that of the other.
    assert_eq!(route.sent_at(&none[0], at(90)), Some(at(101)));
    waits(scheduler.enqueue(6, &query("a.test"), at(40_000)));
    let again = route.tell(at(40_000), PAUSE).tellings;
    assert_eq!(route.sent_at(&none[0], at(40_000)), None);
    assert_eq!(route.sent_at(&again[0], at(40_000)), Some(at(40_000)));
}

/// Each look is at so many groups, and not at what is left of those that have ended.
#[test]
fn the_backend_that_is_left_after_a_rush_is_told_at_once() {
    let mut scheduler = schedulers(1, BOUNDS).remove(0);
    let route = join(&mut scheduler, "a.test");
    let groups: Vec<_> = (0..5_000).map(|backend| route.join_group(backend)).collect();
    let (_, group, _) = park_of(&mut scheduler, 5_000, 1);
    for group in groups {
        let route = join(&mut scheduler, "a.test");
        scheduler.leave(&route, of(group), at(1));
    }
    assert!(scheduler.set_places(&route, group, 0, 1));
    waits(scheduler.enqueue(5, &query("a.test"), at(100)));
    let ToTell { tellings, again } = route.tell(at(100), PAUSE);
    assert_eq!((tellings.len(), again), (1, Some(at(100) + PAUSE)));
}
