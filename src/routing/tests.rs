//! The lobby's behaviours one by one, with the messages between workers spelt out.

use std::sync::Arc;

use super::*;

const BOUNDS: Bounds =
    Bounds { per_route: 100, unserved: 100, unserved_waits: true, bridges_per_host: 0 };

fn lobbies(workers: usize, bounds: Bounds) -> Vec<Lobby> {
    let directory = Arc::new(Directory::new(workers));
    (0..workers).map(|me| Lobby::new(me, Arc::clone(&directory), bounds)).collect()
}

/// A bridge for `host` connects and parks at worker 0's clock of 0.
#[track_caller]
fn park_new(lobby: &mut Lobby, host: &str, bridge: u64) -> (RouteId, Ticket) {
    let route = join(lobby, host);
    match lobby.park(route, bridge, 0) {
        Parking::Parked(ticket) => (route, ticket),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn join(lobby: &mut Lobby, host: &str) -> RouteId {
    lobby.join(&RouteSpec::new([host], ""), 0).unwrap().route
}

#[track_caller]
fn waits(arrival: Arrival) -> WaiterId {
    match arrival {
        Arrival::Waiting(id) => id,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn matched(arrival: Arrival) -> (u64, Place) {
    match arrival {
        Arrival::Matched { bridge, place, .. } => (bridge, place),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn served(parking: Parking) -> (u64, Place) {
    match parking {
        Parking::Serve { request, place } => (request, place),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn sent(parking: Parking) -> (usize, Passage) {
    match parking {
        Parking::Send { to, passage } => (to, passage),
        other => panic!("{other:?}"),
    }
}

fn mail(lobby: &mut Lobby) -> Vec<(usize, Mail)> {
    std::iter::from_fn(|| lobby.next_mail()).collect()
}

#[test]
fn requests_in_order_of_arrival_and_bridges_in_order_of_parking() {
    let lobby = &mut lobbies(1, BOUNDS)[0];
    let (route, _) = park_new(lobby, "a", 1);
    park_new(lobby, "a", 2);
    assert_eq!(matched(lobby.arrive(10, &Target::new("a", "/"), 5)).0, 1);
    assert_eq!(matched(lobby.arrive(11, &Target::new("a", "/"), 5)).0, 2);
    for request in 12..15 {
        waits(lobby.arrive(request, &Target::new("a", "/"), 6));
    }
    let (request, place) = served(lobby.park(route, 2, 7));
    assert_eq!((request, place.since()), (12, 6));
    assert_eq!(served(lobby.park(route, 1, 8)).0, 13);
    lobby.check_invariants();
}

#[test]
fn a_request_that_comes_back_is_first_again() {
    let lobby = &mut lobbies(1, BOUNDS)[0];
    let (route, _) = park_new(lobby, "a", 1);
    let (_, place) = matched(lobby.arrive(10, &Target::new("a", "/"), 5));
    waits(lobby.arrive(11, &Target::new("a", "/"), 6));
    waits(lobby.return_to_queue(10, place, &Target::new("a", "/")));
    assert_eq!(served(lobby.park(route, 1, 7)), (10, place));
}

#[test]
fn who_leaves_is_out_at_once() {
    let lobby = &mut lobbies(1, BOUNDS)[0];
    let (route, ticket) = park_new(lobby, "a", 1);
    assert!(lobby.unpark(ticket) && !lobby.unpark(ticket));
    let first = waits(lobby.arrive(10, &Target::new("a", "/"), 5));
    waits(lobby.arrive(11, &Target::new("a", "/"), 6));
    assert!(lobby.forget(first) && !lobby.forget(first));
    assert_eq!(served(lobby.park(route, 1, 7)).0, 11);
    assert_eq!(lobby.counters(), Counters::default());
}

#[test]
fn a_request_asks_for_a_bridge_that_is_parked_elsewhere() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    let (route, _) = park_new(one, "a", 1);
    zero.sync();
    waits(zero.arrive(10, &Target::new("a", "/"), 5));
    let id = one.shared(route).id();
    let want = Mail::Want { route: id, from: 0 };
    assert_eq!(mail(zero), [(1, want)]);
    let Handover { bridge, to, passage, .. } = one.on_mail(want).unwrap();
    assert_eq!((bridge, to, one.counters().parked, one.counters().moves), (1, 0, 0, 1));
    assert_eq!(served(zero.arrived(passage, bridge, 6).parking).0, 10);
    assert_eq!((mail(zero), mail(one)), (vec![], vec![]));
    zero.check_invariants();
}

#[test]
fn a_bridge_is_sent_to_where_a_request_waits_and_no_second_one() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync();
    waits(zero.arrive(10, &Target::new("a", "/"), 5));
    assert_eq!(mail(zero), []);
    let (to, passage) = sent(one.park(route, 1, 6));
    assert_eq!(to, 0);
    assert!(matches!(one.park(route, 2, 6), Parking::Parked(_)));
    assert_eq!(served(zero.arrived(passage, 1, 7).parking).0, 10);
    assert_eq!(mail(zero), []);
}

#[test]
fn a_question_that_crosses_with_a_bridge_is_answered_by_nothing() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    let (route, ticket) = park_new(one, "a", 1);
    zero.sync();
    waits(zero.arrive(10, &Target::new("a", "/"), 5));
    let [(1, want)] = mail(zero)[..] else { panic!() };
    // Bridge 1 dies before the question comes; bridge 2 saw the request and is on its way.
    one.unpark(ticket);
    let (_, passage) = sent(one.park(route, 2, 6));
    assert_eq!(one.on_mail(want), None);
    let [(0, nothing)] = mail(one)[..] else { panic!() };
    assert_eq!(served(zero.arrived(passage, 2, 7).parking).0, 10);
    assert_eq!(zero.on_mail(nothing), None);
    assert_eq!(mail(zero), []);
    zero.check_invariants();
}

#[test]
fn nobody_is_asked_for_more_than_it_has() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    park_new(one, "a", 1);
    park_new(one, "a", 2);
    zero.sync();
    for request in 10..15 {
        waits(zero.arrive(request, &Target::new("a", "/"), 5));
    }
    assert_eq!(mail(zero).len(), 2);
}

#[test]
fn a_bridge_that_dies_on_its_way_is_replaced() {
    let [zero, one, two] = &mut lobbies(3, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync();
    waits(zero.arrive(10, &Target::new("a", "/"), 5));
    let (_, passage) = sent(one.park(route, 1, 6));
    two.sync();
    // Parked, because bridge 1 is thought to be enough.
    park_new(two, "a", 2);
    one.undeliverable(route, 0, passage, 7);
    let [(0, lost)] = mail(one)[..] else { panic!() };
    assert_eq!(zero.on_mail(lost), None);
    let [(2, want)] = mail(zero)[..] else { panic!() };
    let Handover { bridge, passage, .. } = two.on_mail(want).unwrap();
    // And that one dies on arrival.
    zero.lost(passage, 8);
    assert_eq!((bridge, mail(zero)), (2, vec![]));
    assert_eq!(one.shared(route).members(), 0);
    let route = join(zero, "a");
    assert_eq!(served(zero.park(route, 3, 9)).0, 10);
}

#[test]
fn a_less_specific_route_serves_only_when_the_specific_one_has_nothing_anywhere() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    let (_, ticket) = park_new(one, "a.b", 1);
    park_new(zero, "*.b", 2);
    zero.sync();
    let ours = waits(zero.arrive(10, &Target::new("a.b", "/"), 5));
    let [(1, want)] = mail(zero)[..] else { panic!() };
    // It waits for the bridge of a.b alone: another one for *.b is of no interest.
    park_new(zero, "*.b", 3);
    zero.check_invariants();
    one.unpark(ticket);
    assert_eq!(one.on_mail(want), None);
    let [(0, nothing)] = mail(one)[..] else { panic!() };
    assert_eq!(zero.on_mail(nothing), None);
    let Match { request, bridge, .. } = zero.next_match().unwrap();
    assert_eq!((request, bridge, zero.next_match()), (10, 2, None));
    assert!(!zero.forget(ours));
}

#[test]
fn an_old_request_elsewhere_goes_before_a_young_one_here() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    let route = join(one, "a");
    zero.sync();
    waits(zero.arrive(10, &Target::new("a", "/"), 1_000));
    waits(zero.arrive(11, &Target::new("a", "/"), 1_000));
    waits(one.arrive(20, &Target::new("a", "/"), 1_000 + LEAN_MICROS));
    waits(one.arrive(21, &Target::new("a", "/"), 1_001 + LEAN_MICROS));
    waits(one.arrive(22, &Target::new("a", "/"), 1_001 + FAIRNESS_MICROS));
    let now = 1_002 + FAIRNESS_MICROS;
    // Not older by enough.
    assert_eq!(served(one.park(route, 1, now)).0, 20);
    // Older by a little: one bridge goes, and no second one while it is on its way.
    assert_eq!(sent(one.park(route, 2, now)).0, 0);
    assert_eq!(served(one.park(route, 3, now)).0, 21);
    // Older by much: this one goes, too.
    assert_eq!(sent(one.park(route, 4, now)).0, 0);
    // Then both of them have their bridge.
    assert_eq!(served(one.park(route, 5, now)).0, 22);
}

#[test]
fn a_new_route_finds_those_who_wait_for_it_in_order() {
    let [zero, one] = &mut lobbies(2, BOUNDS)[..] else { panic!() };
    waits(zero.arrive(10, &Target::new("a", "/app/x"), 5));
    waits(zero.arrive(11, &Target::new("a", "/"), 6));
    waits(zero.arrive(12, &Target::new("a", "/app?y"), 7));
    assert_eq!(zero.counters().unserved, 3);
    let joined = one.join(&RouteSpec::new(["A"], "/app/"), 8).unwrap();
    assert!(joined.new);
    assert!(matches!(one.park(joined.route, 1, 8), Parking::Parked(_)));
    zero.sync();
    let [(1, want)] = mail(zero)[..] else { panic!() };
    let Handover { bridge, passage, .. } = one.on_mail(want).unwrap();
    let Landing { route, parking } = zero.arrived(passage, bridge, 9);
    assert_eq!(served(parking).0, 10);
    assert_eq!(served(zero.park(route, bridge, 10)).0, 12);
    assert_eq!((zero.counters().waiting, zero.counters().unserved), (1, 1));
}

#[test]
fn queues_are_bounded() {
    let [zero, one] = &mut lobbies(2, Bounds { per_route: 4, unserved: 1, ..BOUNDS })[..] else {
        panic!()
    };
    join(zero, "a");
    one.sync();
    // Up to the bound on one worker while the other is idle, and the other has its even share nevertheless.
    for request in 0..4 {
        waits(zero.arrive(request, &Target::new("a", "/"), 5));
    }
    assert_eq!(zero.arrive(4, &Target::new("a", "/"), 5), Arrival::RouteFull);
    waits(one.arrive(5, &Target::new("a", "/"), 5));
    waits(one.arrive(6, &Target::new("a", "/"), 5));
    assert_eq!(one.arrive(7, &Target::new("a", "/"), 5), Arrival::RouteFull);
    // For names that nobody serves there is one bound for all.
    let first = waits(one.arrive(8, &Target::new("x", "/"), 5));
    assert_eq!(zero.arrive(9, &Target::new("y", "/"), 5), Arrival::UnservedFull);
    one.forget(first);
    waits(zero.arrive(10, &Target::new("y", "/"), 5));
    zero.set_bounds(Bounds { unserved_waits: false, ..BOUNDS });
    assert_eq!(zero.arrive(11, &Target::new("y", "/"), 5), Arrival::Unknown);
}

#[test]
fn bridges_per_host_are_bounded_over_routes_and_workers() {
    let [zero, one] = &mut lobbies(2, Bounds { bridges_per_host: 2, ..BOUNDS })[..] else {
        panic!()
    };
    let route = join(zero, "a");
    one.join(&RouteSpec::new(["a", "b"], "/app"), 0).unwrap();
    let full = one.join(&RouteSpec::new(["c", "a"], ""), 0).unwrap_err();
    assert_eq!(full.to_string(), "too many bridges for a");
    assert!(one.join(&RouteSpec::new(["b"], ""), 0).is_ok());
    zero.leave(route, 1);
    assert!(one.join(&RouteSpec::new(["c", "a"], ""), 0).is_ok());
}

#[test]
fn empty_routes_are_kept_for_a_while_and_never_while_somebody_waits() {
    let lobby = &mut lobbies(1, BOUNDS)[0];
    let route = join(lobby, "a");
    lobby.leave(route, 1_000);
    let directory = Arc::clone(&lobby.directory);
    assert_eq!(directory.sweep(999 + RETENTION_MICROS), 0);
    let waiter = waits(lobby.arrive(10, &Target::new("a", "/"), 5));
    assert_eq!(directory.sweep(1_000 + RETENTION_MICROS), 0);
    lobby.forget(waiter);
    assert_eq!(directory.sweep(1_000 + RETENTION_MICROS), 1);
    // Before this worker has heard of it: the request waits for a route that is no more, and then for its successor.
    waits(lobby.arrive(11, &Target::new("a", "/"), 6));
    let again = lobby.join(&RouteSpec::new(["a"], ""), 7).unwrap();
    assert!(again.new && again.route != route);
    assert_eq!(served(lobby.park(again.route, 1, 8)).0, 11);
    lobby.check_invariants();
}

#[test]
fn only_so_many_empty_routes_are_kept() {
    let lobby = &mut lobbies(1, BOUNDS)[0];
    for n in 0..EMPTY_NAMES_MAX + 5 {
        let route = lobby.join(&RouteSpec::new([n.to_string()], ""), 0).unwrap().route;
        lobby.leave(route, n as u64);
    }
    let directory = Arc::clone(&lobby.directory);
    directory.sweep(EMPTY_NAMES_MAX as u64);
    let names = directory
        .routes()
        .iter()
        .map(|shared| shared.spec().patterns()[0].parse().unwrap())
        .collect::<Vec<usize>>();
    assert_eq!((names.len(), names.iter().min()), (EMPTY_NAMES_MAX, Some(&5)));
}

#[test]
fn a_pinned_route_is_waited_for_without_a_bridge_and_ends_when_it_is_let_go() {
    let directory = Arc::new(Directory::new(1));
    let bounds = Bounds { unserved_waits: false, ..BOUNDS };
    let mut lobby = Lobby::new(0, Arc::clone(&directory), bounds);
    let target = Target::new("a", "/");
    assert!(!lobby.knows(&target));
    assert_eq!(lobby.arrive(1, &target, 5), Arrival::Unknown);

    directory.pin(&[RouteSpec::new(["a"], "/")], 6);
    lobby.sync();
    assert!(lobby.knows(&target) && !lobby.has_bridge(&target));
    let waiter = waits(lobby.arrive(2, &target, 7));
    assert_eq!(directory.sweep(7 + 2 * RETENTION_MICROS), 0);
    let route = join(&mut lobby, "a");
    assert!(lobby.has_bridge(&target));
    assert!(lobby.forget(waiter));

    directory.pin(&[], 8);
    lobby.sync();
    assert!(lobby.knows(&target), "its bridge is still there");
    lobby.leave(route, 9);
    assert!(!lobby.knows(&target));
    assert_eq!(directory.sweep(10), 1);
    // Whoever registers for it after that is remembered as anybody is.
    let route = join(&mut lobby, "a");
    lobby.leave(route, 11);
    assert!(lobby.knows(&target));
}

#[test]
fn a_request_waits_for_its_own_name_and_its_fallback() {
    let directory = Arc::new(Directory::new(1));
    let mut lobby = Lobby::new(0, Arc::clone(&directory), BOUNDS);
    let target = Target { host: "a", fallback: Some("b"), path: "/" };
    let b = join(&mut lobby, "b");
    waits(lobby.arrive(1, &target, 5));
    waits(lobby.arrive(2, &target, 6));
    let a = join(&mut lobby, "a");
    assert_eq!(served(lobby.park(b, 10, 7)).0, 1);
    assert_eq!(served(lobby.park(a, 11, 7)).0, 2);
    assert!(matches!(lobby.park(b, 12, 8), Parking::Parked(_)));
    assert!(matches!(lobby.park(a, 13, 8), Parking::Parked(_)));
    assert_eq!(matched(lobby.arrive(3, &target, 9)).0, 13);
}
