//! The scheduler's behaviours one by one.

mod instances;
mod invariants;
mod places;

use std::sync::Arc;

use super::*;
use crate::http::Predicates;
use crate::time::Micros;

const BOUNDS: Bounds =
    Bounds { per_route: 100, unserved: 100, unserved_waits: true, bridges_per_host: 0 };

/// Requests that wait meet no predicates.
const NONE: WaitingMeets<'static> = &|_, _| false;

fn schedulers(workers: usize, bounds: Bounds) -> Vec<Scheduler<u64>> {
    let directory = Arc::new(Directory::new(workers));
    (0..workers).map(|me| Scheduler::new(me, Arc::clone(&directory), bounds)).collect()
}

fn at(micros: u64) -> Micros {
    Micros(micros)
}

fn query(host: &str) -> RouteQuery<'_> {
    RouteQuery::new(host, "/")
}

#[track_caller]
fn join(scheduler: &mut Scheduler<u64>, host: &str) -> Arc<Route<u64>> {
    scheduler.join(&RouteSpec::new([host], ""), at(0), NONE).unwrap().route
}

/// Parks `bridge` under the token of the same number.
fn park(scheduler: &mut Scheduler<u64>, route: &Arc<Route<u64>>, bridge: u64) -> Parked<u64> {
    scheduler.park(route, Membership::default(), bridge, bridge)
}

/// A bridge for `host` connects and parks.
#[track_caller]
fn park_new(
    scheduler: &mut Scheduler<u64>,
    host: &str,
    bridge: u64,
) -> (Arc<Route<u64>>, IdleHandle) {
    let route = join(scheduler, host);
    match park(scheduler, &route, bridge) {
        Parked::Idle(handle) => (route, handle),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn waits(enqueued: Enqueued<u64>) -> WaiterId {
    match enqueued {
        Enqueued::Queued(id) => id,
        other => panic!("{other:?}"),
    }
}

/// The bridge that serves a request at once, and the worker that had it.
#[track_caller]
fn matched(enqueued: Enqueued<u64>) -> (u64, usize) {
    match enqueued {
        Enqueued::Matched { bridge, owner, .. } => {
            assert_eq!(owner.token, bridge);
            (bridge, owner.worker)
        }
        other => panic!("{other:?}"),
    }
}

/// The request that a bridge serves here.
#[track_caller]
fn served(parked: Parked<u64>) -> u64 {
    match parked {
        Parked::Serve { request, .. } => request,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn sent(parked: Parked<u64>) -> Transfer {
    match parked {
        Parked::Transfer { transfer, .. } => transfer,
        other => panic!("{other:?}"),
    }
}

fn is_idle(parked: &Parked<u64>) -> bool {
    matches!(parked, Parked::Idle(_))
}

#[test]
fn requests_are_served_in_order_of_arrival_and_bridges_in_order_of_parking() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let (route, _) = park_new(scheduler, "a", 1);
    park_new(scheduler, "a", 2);
    assert_eq!(matched(scheduler.enqueue(10, &query("a"), at(5))), (1, 0));
    assert_eq!(matched(scheduler.enqueue(11, &query("a"), at(5))), (2, 0));
    for request in 12..15 {
        waits(scheduler.enqueue(request, &query("a"), at(6)));
    }
    let Parked::Serve { bridge: 2, request: 12, pos } = park(scheduler, &route, 2) else {
        panic!()
    };
    assert_eq!(pos.since(), at(6));
    assert_eq!(served(park(scheduler, &route, 1)), 13);
    scheduler.check_invariants();
}

#[test]
fn requeued_request_is_first_again() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let (route, _) = park_new(scheduler, "a", 1);
    let Enqueued::Matched { pos, .. } = scheduler.enqueue(10, &query("a"), at(5)) else { panic!() };
    waits(scheduler.enqueue(11, &query("a"), at(5)));
    waits(scheduler.requeue(10, pos, &query("a"), |_| false, at(9)));
    let expected = Parked::Serve { bridge: 1, request: 10, pos };
    assert_eq!(park(scheduler, &route, 1), expected);
}

#[test]
fn unparked_bridges_and_cancelled_requests_are_out_at_once() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let (route, handle) = park_new(scheduler, "a", 1);
    assert_eq!(scheduler.unpark(&route, handle, 1), Some(1));
    assert_eq!(scheduler.unpark(&route, handle, 1), None);
    let first = waits(scheduler.enqueue(10, &query("a"), at(5)));
    let second = waits(scheduler.enqueue(11, &query("a"), at(6)));
    waits(scheduler.enqueue(12, &query("a"), at(6)));
    assert!(scheduler.cancel(first) && !scheduler.cancel(first));
    assert_eq!(scheduler.recall(second).map(QueuePos::since), Some(at(6)));
    assert_eq!(scheduler.recall(second), None);
    assert_eq!(served(park(scheduler, &route, 1)), 12);
    assert_eq!(scheduler.counters(), Counters::default());
}

#[test]
fn handle_is_not_good_for_the_next_bridge_in_its_place() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let (route, handle) = park_new(zero, "a", 1);
    one.sync(NONE);
    assert_eq!(matched(one.enqueue(10, &query("a"), at(5))), (1, 0));
    assert_eq!(park(zero, &route, 2), Parked::Idle(handle));
    assert_eq!(zero.unpark(&route, handle, 1), None);
    assert_eq!(one.unpark(&route, handle, 2), None);
    assert_eq!(zero.with_idle(&route, handle, 1, |_| ()), None);
    assert_eq!(zero.with_idle(&route, handle, 2, |bridge| *bridge), Some(2));
    assert_eq!(zero.unpark(&route, handle, 2), Some(2));
}

#[test]
fn request_takes_its_own_workers_bridge_or_the_longest_parked_of_the_others() {
    let [zero, one, two] = &mut schedulers(3, BOUNDS)[..] else { panic!() };
    let (route, _) = park_new(two, "a", 1);
    park_new(one, "a", 2);
    park_new(two, "a", 3);
    zero.sync(NONE);
    assert!(is_idle(&park(zero, &route, 4)));
    for expected in [(4, 0), (1, 2), (2, 1), (3, 2)] {
        assert_eq!(matched(zero.enqueue(10, &query("a"), at(5))), expected);
    }
    waits(zero.enqueue(10, &query("a"), at(5)));
    zero.check_invariants();
}

#[test]
fn bridge_is_sent_to_where_a_request_waits_and_no_second_one() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync(NONE);
    let waiter = waits(zero.enqueue(10, &query("a"), at(5)));
    let transfer = sent(park(one, &route, 1));
    assert_eq!((transfer.to, transfer.request, transfer.waiter), (0, 10, waiter));
    assert!(is_idle(&park(one, &route, 2)));
    assert!(zero.recall(waiter).is_none(), "a bridge is on its way");
    assert!(zero.receive(waiter) && !zero.receive(waiter));
    assert_eq!(zero.counters().waiting, 0);
}

#[test]
fn bridge_on_its_way_to_a_cancelled_request_finds_it_gone() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync(NONE);
    let waiter = waits(zero.enqueue(10, &query("a"), at(5)));
    let transfer = sent(park(one, &route, 1));
    assert!(!zero.cancel(waiter));
    // The next request takes the same place, and is not taken for the other.
    let next = waits(zero.enqueue(11, &query("a"), at(6)));
    assert!(!zero.receive(transfer.waiter));
    assert_eq!(served(park(zero, &route, 1)), 11);
    assert!(!zero.cancel(next));
}

#[test]
fn request_whose_bridge_died_on_its_way_is_requeued_first() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync(NONE);
    waits(zero.enqueue(10, &query("a"), at(5)));
    waits(zero.enqueue(11, &query("a"), at(6)));
    let transfer = sent(park(one, &route, 1));
    assert!(zero.receive(transfer.waiter));
    waits(zero.requeue(10, transfer.pos, &query("a"), |_| false, at(9)));
    assert_eq!(sent(park(one, &route, 2)).request, 10);
}

#[test]
fn less_specific_route_serves_only_when_the_specific_one_has_nothing_anywhere() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    park_new(one, "a.b", 1);
    park_new(zero, "*.b", 2);
    zero.sync(NONE);
    assert_eq!(matched(zero.enqueue(10, &query("a.b"), at(5))), (1, 1));
    assert_eq!(matched(zero.enqueue(11, &query("a.b"), at(5))), (2, 0));
}

#[test]
fn request_in_several_queues_gets_one_bridge() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let (exact, wildcard) = (join(one, "a.b"), join(one, "*.b"));
    zero.sync(NONE);
    let waiter = waits(zero.enqueue(10, &query("a.b"), at(5)));
    waits(zero.enqueue(11, &query("x.b"), at(6)));
    assert_eq!((exact.waiting(), wildcard.waiting()), (1, 2));
    assert_eq!(sent(park(one, &wildcard, 1)).request, 10);
    // Its entry on the other route is still there, and is passed over.
    assert!(is_idle(&park(one, &exact, 2)));
    assert_eq!(exact.waiting(), 0);
    assert_eq!(sent(park(one, &wildcard, 3)).request, 11);
    assert!(zero.receive(waiter));
    zero.check_invariants();

    waits(zero.enqueue(12, &query("q.b"), at(7)));
    assert_eq!(served(park(zero, &wildcard, 4)), 12);
    assert_eq!((exact.waiting(), wildcard.waiting()), (0, 0));
}

#[test]
fn old_request_elsewhere_goes_before_a_young_one_here() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync(NONE);
    for (request, since) in [(10, 0), (11, 0), (12, 2)] {
        waits(zero.enqueue(request, &query("a"), at(since)));
    }
    let fair = FAIRNESS.as_micros() as u64;
    for (request, since) in [(20, fair), (21, fair + 1), (22, fair + 1), (23, fair + 3)] {
        waits(one.enqueue(request, &query("a"), at(since)));
    }
    // Not older by enough.
    assert_eq!(served(park(one, &route, 1)), 20);
    assert_eq!(sent(park(one, &route, 2)).request, 10);
    assert_eq!(sent(park(one, &route, 3)).request, 11);
    assert_eq!(served(park(one, &route, 4)), 21);
    assert_eq!(served(park(one, &route, 4)), 22);
    assert_eq!(sent(park(one, &route, 5)).request, 12);
    assert_eq!(served(park(one, &route, 6)), 23);
    one.check_invariants();
}

#[test]
fn new_route_finds_the_requests_that_wait_for_it_in_order() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    for (request, host, path) in
        [(10, "a", "/app/x"), (11, "a", "/"), (12, "a", "/app?y"), (13, "b", "/app")]
    {
        waits(zero.enqueue(request, &RouteQuery::new(host, path), at(request)));
    }
    assert_eq!(zero.counters().unserved, 4);
    let joined = one.join(&RouteSpec::new(["A"], "/app/"), at(14), NONE).unwrap();
    let version = one.routes_version();
    assert!(joined.new && !one.all_know(version));
    assert!(is_idle(&park(one, &joined.route, 1)));
    zero.sync(NONE);
    assert!(one.all_know(version));
    let Match { request, bridge, owner, .. } = zero.next_match().unwrap();
    assert_eq!((request, bridge, owner), (10, 1, Owner { worker: 1, token: 1 }));
    assert_eq!(zero.next_match(), None);
    assert_eq!(zero.waiting_here(&joined.route), 1);
    assert_eq!(served(park(zero, &joined.route, 1)), 12);
    assert_eq!(zero.counters(), Counters { waiting: 2, unserved: 2 });
    assert_eq!(zero.directory.unserved(), 2);
    // A wildcard is for names that nobody could have listed.
    let wildcard = join(zero, "*");
    assert_eq!(served(park(zero, &wildcard, 2)), 11);
    assert_eq!(served(park(zero, &wildcard, 2)), 13);
    zero.check_invariants();
}

#[test]
fn queues_are_bounded() {
    let bounds = Bounds { per_route: 4, unserved: 1, ..BOUNDS };
    let [zero, one] = &mut schedulers(2, bounds)[..] else { panic!() };
    let route = join(zero, "a");
    one.sync(NONE);
    // Up to the bound on one worker while the other is idle, and the other has its even share
    // nevertheless.
    for request in 0..4 {
        waits(zero.enqueue(request, &query("a"), at(5)));
    }
    assert_eq!(zero.enqueue(4, &query("a"), at(5)), Enqueued::RouteFull);
    waits(one.enqueue(5, &query("a"), at(5)));
    waits(one.enqueue(6, &query("a"), at(5)));
    assert_eq!(one.enqueue(7, &query("a"), at(5)), Enqueued::RouteFull);
    served(park(zero, &route, 1));
    served(park(zero, &route, 1));
    served(park(zero, &route, 1));
    waits(zero.enqueue(4, &query("a"), at(5)));
    // For names that nobody serves there is one bound for all.
    let first = waits(one.enqueue(8, &query("x"), at(5)));
    assert_eq!(zero.enqueue(9, &query("y"), at(5)), Enqueued::UnservedFull);
    one.cancel(first);
    waits(zero.enqueue(10, &query("y"), at(5)));
    zero.set_bounds(Bounds { unserved_waits: false, ..BOUNDS });
    assert_eq!(zero.enqueue(11, &query("y"), at(5)), Enqueued::Unknown);
}

#[test]
fn requests_do_not_count_on_less_specific_routes() {
    let scheduler = &mut schedulers(1, Bounds { per_route: 1, ..BOUNDS })[0];
    let wildcard = join(scheduler, "*.b");
    join(scheduler, "a.b");
    waits(scheduler.enqueue(1, &query("a.b"), at(5)));
    waits(scheduler.enqueue(2, &query("x.b"), at(6)));
    assert_eq!(scheduler.enqueue(3, &query("x.b"), at(6)), Enqueued::RouteFull);
    assert_eq!(wildcard.waiting(), 2);
    // A bridge of any of its routes serves a request, however full the first is.
    assert_eq!(served(park(scheduler, &wildcard, 1)), 1);
}

#[test]
fn bridges_per_host_are_bounded_over_routes_and_workers() {
    let bounds = Bounds { bridges_per_host: 2, ..BOUNDS };
    let [zero, one] = &mut schedulers(2, bounds)[..] else { panic!() };
    let route = join(zero, "a");
    one.join(&RouteSpec::new(["a", "b"], "/app"), at(0), NONE).unwrap();
    let full = one.join(&RouteSpec::new(["c", "a"], ""), at(0), NONE).unwrap_err();
    assert_eq!(full.to_string(), "too many bridges for a");
    assert!(one.join(&RouteSpec::new(["b"], ""), at(0), NONE).is_ok());
    route.leave(at(1));
    let exempt = route.join_exempt();
    assert!(one.join(&RouteSpec::new(["c", "a"], ""), at(0), NONE).is_ok());
    route.leave(at(2));
    drop(exempt);
    assert_eq!(route.members(), 0);
    assert!(one.join(&RouteSpec::new(["a"], ""), at(0), NONE).is_err());
}

#[test]
fn empty_route_is_kept_for_a_while_and_never_retired_while_a_request_waits() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let route = join(scheduler, "a");
    route.leave(at(1_000));
    let directory = Arc::clone(&scheduler.directory);
    let end = at(1_000) + RETENTION;
    assert_eq!(directory.sweep(Micros(end.0 - 1)), 0);
    let waiter = waits(scheduler.enqueue(10, &query("a"), at(5)));
    assert_eq!(directory.sweep(end), 0);
    scheduler.cancel(waiter);
    assert_eq!(directory.sweep(end), 1);
    // Before this worker has heard of it: the request waits for the route's successor.
    waits(scheduler.enqueue(11, &query("a"), at(6)));
    assert_eq!(scheduler.counters().unserved, 1);
    let again = scheduler.join(&RouteSpec::new(["a"], ""), at(7), NONE).unwrap();
    assert!(again.new && again.route.id() != route.id());
    assert_eq!(served(park(scheduler, &again.route, 1)), 11);
    scheduler.check_invariants();
}

#[test]
fn route_that_is_retired_while_a_request_enters_its_queue_is_left_out() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    join(scheduler, "a").leave(at(0));
    let pos = scheduler.next_pos(at(5));
    assert_eq!(scheduler.match_at_once(&query("a"), at(9)), None);
    let key = scheduler.waiters.insert(10, pos, &query("a"), &mut scheduler.candidates);
    assert_eq!(scheduler.directory.sweep(at(0) + RETENTION), 1);
    assert_eq!(scheduler.enter_queues(key), None);
    assert_eq!(scheduler.counters().unserved, 1);
    let again = join(scheduler, "a");
    assert_eq!(served(park(scheduler, &again, 1)), 10);
    scheduler.check_invariants();
}

#[test]
fn only_so_many_empty_routes_are_kept() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    for n in 0..EMPTY_NAMES_MAX + 5 {
        join(scheduler, &n.to_string()).leave(at(n as u64));
    }
    let directory = Arc::clone(&scheduler.directory);
    directory.sweep(at(EMPTY_NAMES_MAX as u64));
    let names = directory
        .routes()
        .iter()
        .map(|route| route.spec().patterns()[0].parse().unwrap())
        .collect::<Vec<usize>>();
    assert_eq!((names.len(), names.iter().min()), (EMPTY_NAMES_MAX, Some(&5)));
}

#[test]
fn pinned_route_is_waited_for_without_a_bridge_and_ends_when_it_is_unpinned() {
    let scheduler = &mut schedulers(1, Bounds { unserved_waits: false, ..BOUNDS })[0];
    let directory = Arc::clone(&scheduler.directory);
    let asked = query("a");
    assert!(!scheduler.knows(&asked));
    assert_eq!(scheduler.enqueue(1, &asked, at(5)), Enqueued::Unknown);

    directory.pin(&[RouteSpec::new(["a"], "/")], at(6));
    scheduler.sync(NONE);
    assert!(scheduler.knows(&asked) && !scheduler.has_bridge(&asked));
    let waiter = waits(scheduler.enqueue(2, &asked, at(7)));
    assert_eq!(directory.sweep(at(7) + 2 * RETENTION), 0);
    let route = join(scheduler, "a");
    assert!(scheduler.has_bridge(&asked) && scheduler.cancel(waiter));

    directory.pin(&[], at(8));
    scheduler.sync(NONE);
    assert!(scheduler.knows(&asked), "its bridge is still there");
    route.leave(at(9));
    assert!(!scheduler.knows(&asked));
    assert_eq!(directory.sweep(at(10)), 1);
    // What registers for it after that is remembered as any other is.
    join(scheduler, "a").leave(at(11));
    assert!(scheduler.knows(&asked));
}

#[test]
fn request_waits_for_its_own_name_and_its_fallback() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let asked = query("a").with_fallback(Some("b"));
    let b = join(scheduler, "b");
    waits(scheduler.enqueue(1, &asked, at(5)));
    waits(scheduler.enqueue(2, &asked, at(6)));
    let a = join(scheduler, "a");
    assert_eq!(served(park(scheduler, &b, 10)), 1);
    assert_eq!(served(park(scheduler, &a, 11)), 2);
    assert!(is_idle(&park(scheduler, &b, 12)));
    assert!(is_idle(&park(scheduler, &a, 13)));
    assert_eq!(matched(scheduler.enqueue(3, &asked, at(9))).0, 13);
}

#[test]
fn site_is_found_with_the_routes() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    park_new(scheduler, "a.b", 1);
    scheduler.set_sites([("*.b", 3)]);
    let Resolved { site, query } = scheduler.resolve("a.b", "/");
    assert_eq!(site, Some(3));
    assert_eq!(matched(scheduler.enqueue(1, &query, at(5))).0, 1);
    assert_eq!(scheduler.resolve("b", "/").site, None);
}

#[test]
fn lanes_are_bounded_for_each_host() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let lane = |number: u32| {
        let predicates = Predicates::read(&format!("If-Header: x-tenant={number}")).unwrap();
        RouteSpec::new(["a"], "").only_if(predicates)
    };
    for number in 0..256 {
        scheduler.join(&lane(number), at(0), NONE).unwrap();
    }
    let full = scheduler.join(&lane(256), at(0), NONE).unwrap_err();
    assert_eq!(full.to_string(), "too many predicates for a");
    assert!(scheduler.join(&lane(7), at(0), NONE).is_ok(), "it is there already");
    join(scheduler, "a");
}

#[test]
fn predicates_are_bounded_for_each_host() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let lane = |number: u32, count: usize| {
        let headers: Vec<String> =
            (0..count).map(|at| format!("If-Header: x-{at}={number}")).collect();
        let predicates = Predicates::read(&headers.join("; ")).unwrap();
        RouteSpec::new(["a"], "").only_if(predicates)
    };
    for number in 0..31 {
        scheduler.join(&lane(number, 16), at(0), NONE).unwrap();
    }
    scheduler.join(&lane(31, 10), at(0), NONE).unwrap();
    let full = scheduler.join(&lane(32, 7), at(0), NONE).unwrap_err();
    assert_eq!(full.to_string(), "too many predicates for a");
    assert!(scheduler.join(&lane(32, 6), at(0), NONE).is_ok());
}

/// Each look parses a head.
#[test]
fn a_new_lane_looks_at_so_many_requests_in_a_turn() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    zero.looks_per_turn = 4;
    for request in 0..10 {
        waits(zero.enqueue(request, &query("a"), at(request)));
    }
    let spec = RouteSpec::new(["a"], "").only_if(Predicates::read("If-Method: GET").unwrap());
    let route = one.join(&spec, at(20), NONE).unwrap().route;
    let version = one.routes_version();
    let asked = std::cell::RefCell::new(Vec::new());
    let meets: WaitingMeets<'_> = &|request, _| {
        asked.borrow_mut().push(request);
        request.is_multiple_of(2)
    };
    for (looked, waiting) in [(4, 2), (8, 4), (10, 5)] {
        assert!(!zero.all_know(version));
        zero.sync(meets);
        assert_eq!((asked.borrow().len(), route.waiting()), (looked, waiting));
        zero.check_invariants_with(&|request, _| request.is_multiple_of(2));
    }
    assert!(zero.is_synced() && zero.all_know(version));
    assert!(asked.borrow().is_sorted(), "the oldest first");
}

#[test]
fn a_new_lane_finds_the_requests_that_meet_it() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    waits(scheduler.enqueue(1, &query("a"), at(1)));
    waits(scheduler.enqueue(2, &query("a"), at(2)));
    let spec = RouteSpec::new(["a"], "").only_if(Predicates::read("If-Method: GET").unwrap());
    let joined = scheduler.join(&spec, at(3), &|request, _| request == 2).unwrap();
    assert_eq!(joined.route.waiting(), 1);
    assert_eq!(served(park(scheduler, &joined.route, 9)), 2);
    let get = |_: &Predicates| true;
    assert!(is_idle(&park(scheduler, &joined.route, 9)));
    waits(scheduler.enqueue(3, &query("a"), at(4)));
    let query = query("a").with_meets(Some(&get));
    assert_eq!(matched(scheduler.enqueue(4, &query, at(4))), (9, 0));
}
