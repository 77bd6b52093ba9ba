//! Requests that stick to one backend.

use super::*;

/// A bridge of an instance connects and parks; the number of both is the same.
#[track_caller]
fn park_of(scheduler: &mut Scheduler<u64>, host: &str, instance: u64, bridge: u64) -> Parked<u64> {
    let route = join(scheduler, host);
    let instance = InstanceId::new(instance);
    route.join_instance(instance);
    scheduler.park(&route, of(instance), bridge, bridge)
}

fn of(instance: InstanceId) -> Membership {
    Membership { group: None, instance: Some(instance) }
}

fn wanting(instance: u64) -> RouteQuery<'static> {
    let wanted = Wanted { instance: InstanceId::new(instance), waits: true };
    query("a").with_wanted(Some(wanted))
}

#[test]
fn a_request_takes_a_bridge_of_its_instance_wherever_that_is_parked() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    for (instance, bridge) in [(1, 10), (2, 20), (1, 11)] {
        assert!(is_idle(&park_of(zero, "a", instance, bridge)));
    }
    one.sync(NONE);
    assert!(is_idle(&park_of(one, "a", 1, 12)));
    assert_eq!(matched(one.enqueue(1, &wanting(2), at(5))), (20, 0));
    assert_eq!(matched(one.enqueue(2, &wanting(1), at(5))), (12, 1));
    assert_eq!(matched(one.enqueue(3, &wanting(1), at(5))), (10, 0));
    one.check_invariants();
    // It has none that is parked, and is waited for although another has one.
    waits(zero.enqueue(4, &wanting(2), at(5)));
    assert_eq!(matched(zero.enqueue(5, &query("a"), at(5))), (11, 0));
    zero.check_invariants();
}

#[test]
fn a_bridge_serves_the_oldest_of_those_that_it_may_serve() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let route = join(scheduler, "a");
    for instance in [1, 2] {
        route.join_instance(InstanceId::new(instance));
    }
    waits(scheduler.enqueue(1, &wanting(2), at(5)));
    waits(scheduler.enqueue(2, &query("a"), at(6)));
    waits(scheduler.enqueue(3, &wanting(1), at(7)));
    waits(scheduler.enqueue(4, &query("a"), at(8)));
    assert_eq!(route.load().waiting, 4);
    let mut park = |instance| {
        let of = of(InstanceId::new(instance));
        let parked = scheduler.park(&route, of, 9, 9);
        scheduler.check_invariants();
        served(parked)
    };
    assert_eq!([park(1), park(1), park(1), park(2)], [2, 3, 4, 1]);
}

#[test]
fn an_instance_on_another_worker_is_sent_to_the_request_that_waits_for_it() {
    let [zero, one] = &mut schedulers(2, BOUNDS)[..] else { panic!() };
    let route = join(zero, "a");
    route.join_instance(InstanceId::new(1));
    one.sync(NONE);
    let waiter = waits(one.enqueue(1, &wanting(1), at(5)));
    assert_eq!(one.stays_for(waiter), Some(InstanceId::new(1)));
    assert!(is_idle(&park(zero, &route, 8)), "it is of no instance");
    let transfer = sent(zero.park(&route, of(InstanceId::new(1)), 9, 9));
    assert_eq!((transfer.to, transfer.request, transfer.waiter), (1, 1, waiter));
    assert!(one.receive(waiter));
    one.check_invariants();
}

#[test]
fn a_request_goes_on_from_its_old_place_when_it_has_waited_for_its_instance() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let route = join(scheduler, "a");
    route.join_instance(InstanceId::new(1));
    let sticky = waits(scheduler.enqueue(1, &wanting(1), at(5)));
    waits(scheduler.enqueue(2, &query("a"), at(6)));
    let pos = scheduler.recall(sticky).unwrap();
    let wanted = Wanted { instance: InstanceId::new(1), waits: false };
    let query = query("a").with_wanted(Some(wanted));
    let waiter = waits(scheduler.requeue(1, pos, &query, |_| false, at(9)));
    assert_eq!(scheduler.stays_for(waiter), None);
    assert_eq!(served(park(scheduler, &route, 9)), 1);
    scheduler.check_invariants();
}

#[test]
fn an_instance_that_is_unknown_or_forgotten_is_not_waited_for() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let route = join(scheduler, "a");
    assert!(is_idle(&park(scheduler, &route, 9)));
    assert_eq!(matched(scheduler.enqueue(1, &wanting(1), at(5))), (9, 0));
    let id = InstanceId::new(1);
    for (is_forgotten, is_waited_for) in [(false, true), (true, false)] {
        join(scheduler, "a");
        route.join_instance(id);
        scheduler.leave(&route, of(id), at(10));
        if is_forgotten {
            route.shun_instance(id);
        }
        let waiter = waits(scheduler.enqueue(2, &wanting(1), at(20)));
        assert_eq!(scheduler.stays_for(waiter).is_some(), is_waited_for);
        assert!(scheduler.cancel(waiter));
    }
    assert_eq!(route.waiting(), 0);
    scheduler.check_invariants();
}

#[test]
fn requests_for_an_instance_count_towards_the_bound_of_their_route() {
    let bounds = Bounds { per_route: 2, ..BOUNDS };
    let scheduler = &mut schedulers(1, bounds)[0];
    let route = join(scheduler, "a");
    route.join_instance(InstanceId::new(1));
    waits(scheduler.enqueue(1, &wanting(1), at(5)));
    waits(scheduler.enqueue(2, &query("a"), at(5)));
    for query in [wanting(1), query("a")] {
        assert_eq!(scheduler.enqueue(3, &query, at(5)), Enqueued::RouteFull);
    }
}

#[test]
fn a_request_that_may_not_wait_for_its_instance_goes_anywhere() {
    let bounds = Bounds { per_route: 1, ..BOUNDS };
    let scheduler = &mut schedulers(1, bounds)[0];
    let route = join(scheduler, "a");
    route.join_instance(InstanceId::new(1));
    waits(scheduler.enqueue(1, &wanting(1), at(5)));
    assert!(is_idle(&park_of(scheduler, "a", 2, 20)));
    assert_eq!(matched(scheduler.enqueue(2, &wanting(1), at(6))), (20, 0));
    assert_eq!(scheduler.enqueue(3, &wanting(1), at(7)), Enqueued::RouteFull);
    scheduler.check_invariants();
}

#[test]
fn a_bridge_of_another_instance_is_not_wanted() {
    let scheduler = &mut schedulers(1, BOUNDS)[0];
    let route = join(scheduler, "a");
    let [one, two] = [1, 2].map(InstanceId::new);
    route.join_instance(one);
    waits(scheduler.enqueue(1, &wanting(1), at(5)));
    let is_wanted = [Some(one), Some(two), None].map(|of| route.is_wanted(of));
    assert_eq!(is_wanted, [true, false, false]);
    waits(scheduler.enqueue(2, &query("a"), at(6)));
    assert!(route.is_wanted(Some(two)) && route.is_wanted(None));
}
