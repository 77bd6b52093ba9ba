//! What the arbiter decides, step by step.

use super::*;

const MILLI: u64 = 1_000;

fn at(millis: u64) -> Micros {
    Micros(millis * MILLI)
}

/// An arbiter of so many places with so many proxies, which have a bridge for each.
fn with(places: usize, proxies: usize) -> Arbiter {
    let mut arbiter = Arbiter::new(places);
    for proxy in 0..proxies {
        assert_eq!(arbiter.add(), proxy);
        arbiter.set_bridges(proxy, places);
    }
    arbiter
}

/// Everything that is due.
fn told(arbiter: &mut Arbiter, now: Micros) -> Vec<(usize, usize)> {
    std::iter::from_fn(|| arbiter.due(now)).collect()
}

/// When the next message is due, which is read.
#[track_caller]
fn next(arbiter: &mut Arbiter) -> (Micros, Vec<(usize, usize)>) {
    for _ in 0..10 {
        let at = arbiter.next_deadline().expect("a deadline");
        let told = told(arbiter, at);
        if !told.is_empty() {
            return (at, told);
        }
    }
    panic!("deadlines without a message");
}

#[track_caller]
fn takes(arbiter: &mut Arbiter, proxy: usize, now: Micros) {
    assert_eq!(arbiter.arrives(proxy, true, now), Arrival::Take);
}

/// A proxy says, in its message of this number, that its oldest request waits since then.
fn waits(arbiter: &mut Arbiter, proxy: usize, since: u64, number: u64, now: Micros) {
    arbiter.waits(proxy, Some(now.since(at(since))), number, now);
}

#[test]
fn one_proxy_has_all_places_and_is_told_nothing() {
    let mut arbiter = with(2, 1);
    for round in 0..100 {
        takes(&mut arbiter, 0, at(20 * round));
        takes(&mut arbiter, 0, at(20 * round));
        assert_eq!(told(&mut arbiter, at(20 * round + 15)), []);
        arbiter.ends(0, at(20 * round + 15));
        arbiter.ends(0, at(20 * round + 15));
    }
    assert_eq!(told(&mut arbiter, at(5_000)), []);
    assert_eq!(arbiter.next_deadline(), None);
}

#[test]
fn full_is_told_once_it_has_lasted_and_free_too() {
    let mut arbiter = with(1, 2);
    takes(&mut arbiter, 0, at(0));
    assert_eq!(told(&mut arbiter, at(0)), []);
    // The one that has the place needs no limit: it has no more bridges.
    assert_eq!(next(&mut arbiter), (at(2), vec![(1, 0)]));
    arbiter.ends(0, at(50));
    assert_eq!(told(&mut arbiter, at(50)), []);
    assert_eq!(next(&mut arbiter), (at(51), vec![(1, 1)]));
    assert_eq!(arbiter.next_deadline(), None);
}

#[test]
fn short_use_is_no_news() {
    let mut arbiter = with(1, 2);
    // Taken for a millisecond at a time.
    for round in 0..100 {
        let now = at(2 * round);
        takes(&mut arbiter, 0, now);
        assert_eq!(told(&mut arbiter, now), []);
        assert_eq!(told(&mut arbiter, now + WINDOW), []);
        arbiter.ends(0, now + WINDOW);
        assert_eq!(told(&mut arbiter, now + WINDOW), []);
    }
    // And free for less than a millisecond at a time.
    takes(&mut arbiter, 0, at(300));
    told(&mut arbiter, at(300));
    assert_eq!(told(&mut arbiter, at(302)), [(1, 0)]);
    for round in 0..100 {
        let now = at(310 + 10 * round);
        arbiter.ends(0, now);
        assert_eq!(told(&mut arbiter, now), []);
        takes(&mut arbiter, 0, Micros(now.0 + 900));
        assert_eq!(told(&mut arbiter, Micros(now.0 + 900)), []);
        assert_eq!(told(&mut arbiter, Micros(now.0 + 9_000)), []);
    }
}

#[test]
fn what_crosses_a_message_is_given_back_with_the_limit() {
    let mut arbiter = with(2, 2);
    takes(&mut arbiter, 0, at(0));
    takes(&mut arbiter, 1, at(0));
    assert_eq!(arbiter.arrives(1, true, at(1)), Arrival::GiveBack(1));
    assert_eq!(arbiter.arrives(0, false, at(1)), Arrival::Wait);
    // It has been told with that.
    told(&mut arbiter, at(1));
    assert_eq!(next(&mut arbiter), (at(3), vec![(0, 1)]));
}

#[test]
fn other_changes_are_told_rarely() {
    let mut arbiter = with(8, 2);
    takes(&mut arbiter, 0, at(0));
    assert_eq!(told(&mut arbiter, at(0)), []);
    assert_eq!(next(&mut arbiter), (at(10), vec![(1, 7)]));
    for now in 11..20 {
        takes(&mut arbiter, 0, at(now));
        assert_eq!(told(&mut arbiter, at(now)), []);
        arbiter.ends(0, at(now));
        assert_eq!(told(&mut arbiter, at(now)), []);
    }
    takes(&mut arbiter, 0, at(20));
    assert_eq!(told(&mut arbiter, at(20)), []);
    assert_eq!(next(&mut arbiter), (at(30), vec![(1, 6)]));
}

#[test]
fn a_free_place_goes_to_the_proxy_that_has_waited_longest() {
    let mut arbiter = with(1, 3);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    assert_eq!(told(&mut arbiter, at(2)), [(1, 0), (2, 0)]);
    waits(&mut arbiter, 1, 20, 1, at(21));
    waits(&mut arbiter, 2, 10, 1, at(21));
    told(&mut arbiter, at(21));
    arbiter.ends(0, at(30));
    assert_eq!(told(&mut arbiter, at(30)), [(2, 1)]);
    // It is kept.
    assert_eq!(arbiter.arrives(0, true, at(31)), Arrival::GiveBack(0));
    assert_eq!(arbiter.arrives(1, true, at(31)), Arrival::GiveBack(0));
    takes(&mut arbiter, 2, at(31));
    arbiter.waits(2, None, 2, at(31));
    told(&mut arbiter, at(31));
    arbiter.ends(2, at(40));
    assert_eq!(told(&mut arbiter, at(40)), [(1, 1)]);
}

#[test]
fn requests_may_have_waited_for_longer_than_the_backend_runs() {
    let mut arbiter = with(1, 3);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    assert_eq!(told(&mut arbiter, at(2)), [(1, 0), (2, 0)]);
    arbiter.waits(1, Some(Duration::from_secs(30)), 1, at(5));
    arbiter.waits(2, Some(Duration::from_secs(60)), 1, at(5));
    arbiter.ends(0, at(10));
    assert_eq!(told(&mut arbiter, at(10)), [(2, 1)]);
    arbiter.waits(2, Some(Duration::MAX), 2, at(11));
    takes(&mut arbiter, 2, at(11));
}

#[test]
fn a_place_stays_where_it_is_unless_another_has_waited_much_longer() {
    for (own, stays) in [(15, true), (24, true), (25, false)] {
        let mut arbiter = with(2, 2);
        takes(&mut arbiter, 0, at(0));
        takes(&mut arbiter, 1, at(0));
        told(&mut arbiter, at(0));
        assert_eq!(told(&mut arbiter, at(2)), [(0, 1), (1, 1)]);
        waits(&mut arbiter, 0, own, 1, at(30));
        waits(&mut arbiter, 1, 10, 1, at(30));
        arbiter.ends(0, at(30));
        if stays {
            // It has a place for it: it need not be told.
            assert_eq!(told(&mut arbiter, at(30)), []);
            takes(&mut arbiter, 0, at(31));
        } else {
            assert_eq!(told(&mut arbiter, at(30)), [(1, 2)]);
            assert_eq!(arbiter.arrives(0, true, at(31)), Arrival::GiveBack(0));
            takes(&mut arbiter, 1, at(31));
        }
    }
}

#[test]
fn a_proxy_that_could_not_say_how_long_it_waits_is_asked_by_a_short_promise() {
    for (other, stays) in [(22, false), (28, true)] {
        for is_used in [true, false] {
            let mut arbiter = with(1, 2);
            takes(&mut arbiter, 0, at(0));
            told(&mut arbiter, at(0));
            assert_eq!(told(&mut arbiter, at(2)), [(1, 0)]);
            waits(&mut arbiter, 1, 5, 1, at(5));
            arbiter.ends(0, at(20));
            assert_eq!(told(&mut arbiter, at(20)), [(1, 1)]);
            // Its next request waits since 19, as far as is known, and it has no other bridge.
            takes(&mut arbiter, 1, at(20));
            told(&mut arbiter, at(20));
            assert_eq!(told(&mut arbiter, at(22)), [(0, 0)]);
            waits(&mut arbiter, 0, other, 1, at(29));
            arbiter.ends(1, at(30));
            if !stays {
                assert_eq!(told(&mut arbiter, at(30)), [(0, 1)]);
                assert_eq!(arbiter.arrives(1, true, at(30)), Arrival::GiveBack(0));
                continue;
            }
            assert_eq!(told(&mut arbiter, at(30)), []);
            if is_used {
                takes(&mut arbiter, 1, at(30));
                continue;
            }
            assert_eq!(next(&mut arbiter), (at(31), vec![(0, 1)]));
            // It is not believed a second time.
            takes(&mut arbiter, 1, at(31));
            told(&mut arbiter, at(31));
            assert_eq!(told(&mut arbiter, at(41)), [(0, 0)]);
            arbiter.ends(1, at(42));
            assert_eq!(told(&mut arbiter, at(42)), [(0, 1)]);
            takes(&mut arbiter, 0, at(42));
        }
    }
}

#[test]
fn a_promise_ends_when_nothing_waits_any_more() {
    let mut arbiter = with(1, 3);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    told(&mut arbiter, at(2));
    waits(&mut arbiter, 1, 5, 1, at(5));
    waits(&mut arbiter, 2, 6, 1, at(6));
    arbiter.ends(0, at(20));
    assert_eq!(told(&mut arbiter, at(20)), [(1, 1)]);
    // An old message says nothing.
    arbiter.waits(1, None, 1, at(20));
    assert_eq!(told(&mut arbiter, at(20)), []);
    arbiter.waits(1, None, 2, at(21));
    assert_eq!(told(&mut arbiter, at(21)), [(2, 1)]);
    arbiter.set_bridges(2, 0);
    assert_eq!(told(&mut arbiter, at(22)), []);
    takes(&mut arbiter, 0, at(22));
}

#[test]
fn a_promise_that_is_not_used_lapses_after_a_round_trip_and_a_moment() {
    for round_trip in [0, 70] {
        let mut arbiter = with(1, 2);
        arbiter.set_round_trip(1, Duration::from_millis(round_trip));
        takes(&mut arbiter, 0, at(0));
        told(&mut arbiter, at(0));
        told(&mut arbiter, at(2));
        waits(&mut arbiter, 1, 5, 1, at(5));
        arbiter.ends(0, at(20));
        assert_eq!(told(&mut arbiter, at(20)), [(1, 1)]);
        assert_eq!(arbiter.arrives(0, true, at(22 + round_trip)), Arrival::GiveBack(0));
        assert_eq!(told(&mut arbiter, at(22 + round_trip)), []);
        assert_eq!(told(&mut arbiter, at(23 + round_trip)), []);
        takes(&mut arbiter, 0, at(23 + round_trip));
    }
}

/// Two proxies and two places, which the first keeps busy: none is ever free for long. The other has
/// not used a promise.
fn contended() -> Arbiter {
    let mut arbiter = with(2, 2);
    takes(&mut arbiter, 0, at(0));
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    told(&mut arbiter, at(2));
    waits(&mut arbiter, 1, 5, 1, at(5));
    arbiter.ends(0, at(20));
    assert_eq!(told(&mut arbiter, at(20)), [(1, 1)]);
    told(&mut arbiter, at(23));
    takes(&mut arbiter, 0, at(23));
    told(&mut arbiter, at(23));
    arbiter
}

#[test]
fn a_proxy_that_comes_late_again_and_again_has_more_time_for_the_next_promise() {
    let mut arbiter = contended();
    let late = |arbiter: &mut Arbiter, now| {
        assert_eq!(arbiter.arrives(1, true, at(now)), Arrival::GiveBack(0));
        told(arbiter, at(now));
    };
    late(&mut arbiter, 28);
    for freed in [40, 70] {
        arbiter.ends(0, at(freed));
        assert_eq!(told(&mut arbiter, at(freed)), [(1, 1)]);
        told(&mut arbiter, at(freed + 3));
        takes(&mut arbiter, 0, at(freed + 3));
        late(&mut arbiter, freed + 8);
    }
    // As long as it has taken last time, and a moment; and it is no longer doubted.
    arbiter.ends(0, at(80));
    assert_eq!(told(&mut arbiter, at(80)), [(1, 1)]);
    told(&mut arbiter, at(88));
    assert_eq!(arbiter.arrives(0, true, at(88)), Arrival::GiveBack(1));
    takes(&mut arbiter, 1, at(88));
}

/// It says nothing more while the same request waits, and what it has said may no longer be true.
#[test]
fn a_proxy_that_has_not_used_a_promise_gets_another_one_later() {
    let mut arbiter = contended();
    let mut kept = Vec::new();
    for now in 24..400 {
        arbiter.ends(0, at(now));
        told(&mut arbiter, at(now));
        if !arbiter.has_place(0) {
            kept.push(now);
            told(&mut arbiter, at(now + 3));
        }
        takes(&mut arbiter, 0, at(now));
        told(&mut arbiter, at(now));
    }
    assert_eq!(kept, [33, 56, 99, 182, 345]);
}

#[test]
fn what_waits_here_comes_before_what_waits_at_a_proxy() {
    let mut arbiter = with(1, 2);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    told(&mut arbiter, at(2));
    waits(&mut arbiter, 1, 5, 1, at(5));
    assert_eq!(arbiter.arrives(0, false, at(6)), Arrival::Wait);
    arbiter.set_queued(1);
    arbiter.ends(0, at(20));
    assert_eq!((arbiter.spare(), told(&mut arbiter, at(20))), (1, vec![]));
    assert_eq!(arbiter.arrives(1, true, at(20)), Arrival::GiveBack(0));
    arbiter.takes(0);
    arbiter.set_queued(0);
    assert_eq!((arbiter.spare(), told(&mut arbiter, at(20))), (0, vec![]));
    arbiter.ends(0, at(21));
    assert_eq!(told(&mut arbiter, at(21)), [(1, 1)]);
    assert_eq!(arbiter.spare(), 0);
}

#[test]
fn if_what_waited_here_has_gone_its_place_is_for_all() {
    let mut arbiter = with(1, 2);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    told(&mut arbiter, at(2));
    waits(&mut arbiter, 1, 5, 1, at(5));
    arbiter.set_queued(1);
    arbiter.ends(0, at(20));
    assert_eq!(told(&mut arbiter, at(20)), []);
    arbiter.set_queued(0);
    assert_eq!(told(&mut arbiter, at(21)), [(1, 1)]);
    takes(&mut arbiter, 0, at(21));
}

#[test]
fn a_proxy_that_may_not_have_heard_is_told_again() {
    let mut arbiter = with(1, 2);
    takes(&mut arbiter, 0, at(0));
    told(&mut arbiter, at(0));
    assert_eq!(told(&mut arbiter, at(2)), [(1, 0)]);
    arbiter.tell_again(1);
    assert_eq!(told(&mut arbiter, at(3)), []);
    assert_eq!(next(&mut arbiter), (at(4), vec![(1, 0)]));
    // No bridge takes it.
    arbiter.not_told(1, at(4));
    assert_eq!(told(&mut arbiter, at(4)), []);
    assert_eq!(next(&mut arbiter), (at(5), vec![(1, 0)]));
    // One whose bridges have all gone is told when it has some again, and may have begun to count anew.
    arbiter.waits(1, None, 7, at(5));
    arbiter.set_bridges(1, 0);
    assert_eq!(told(&mut arbiter, at(6)), []);
    assert_eq!(arbiter.next_deadline(), None);
    arbiter.set_bridges(1, 1);
    assert_eq!(told(&mut arbiter, at(7)), []);
    assert_eq!(next(&mut arbiter), (at(8), vec![(1, 0)]));
    waits(&mut arbiter, 1, 8, 1, at(8));
    arbiter.ends(0, at(9));
    assert_eq!(told(&mut arbiter, at(9)), [(1, 1)]);
}

#[test]
fn a_proxy_without_bridges_that_take_messages_is_told_nothing() {
    let mut arbiter = with(1, 1);
    let old = arbiter.add();
    takes(&mut arbiter, 0, at(0));
    assert_eq!(arbiter.arrives(old, false, at(1)), Arrival::Wait);
    arbiter.set_queued(1);
    arbiter.ends(0, at(5));
    arbiter.takes(old);
    arbiter.set_queued(0);
    told(&mut arbiter, at(5));
    assert_eq!(next(&mut arbiter), (at(7), vec![(0, 0)]));
}

#[test]
fn the_places_of_another_process_are_not_given() {
    let mut arbiter = with(2, 2);
    arbiter.set_elsewhere(2);
    arbiter.set_elsewhere_of(1, 2);
    assert_eq!(arbiter.arrives(0, true, at(0)), Arrival::GiveBack(0));
    // The proxy counts those, too.
    assert_eq!(arbiter.arrives(1, true, at(0)), Arrival::GiveBack(2));
    waits(&mut arbiter, 0, 0, 1, at(1));
    told(&mut arbiter, at(1));
    arbiter.set_elsewhere_of(1, 1);
    arbiter.set_elsewhere(1);
    assert_eq!(told(&mut arbiter, at(5)), [(0, 1)]);
    takes(&mut arbiter, 0, at(6));
    assert_eq!(arbiter.arrives(1, true, at(6)), Arrival::GiveBack(1));
}

#[test]
fn a_proxy_with_a_new_token_is_told_nothing_of_the_old_ones_requests() {
    let mut arbiter = with(2, 2);
    let others = arbiter.add();
    takes(&mut arbiter, 0, at(0));
    takes(&mut arbiter, 1, at(0));
    told(&mut arbiter, at(0));
    assert_eq!(told(&mut arbiter, at(2)), [(0, 1), (1, 1)]);
    arbiter.moves(0, others);
    arbiter.renew(0);
    assert_eq!((arbiter.busy(0), arbiter.busy(others)), (0, 1));
    arbiter.set_bridges(0, 2);
    assert!(!arbiter.has_place(0));
    assert_eq!(arbiter.arrives(0, true, at(3)), Arrival::GiveBack(0));
    arbiter.ends(others, at(50));
    told(&mut arbiter, at(50));
    assert_eq!(next(&mut arbiter).1, [(0, 1), (1, 2)]);
}

/// The proxy counts them as bridges with a request. They have no place.
#[test]
fn tunnels_count_in_the_limit() {
    let mut arbiter = with(2, 2);
    arbiter.set_tunnels(0, 2);
    arbiter.set_bridges(0, 4);
    assert_eq!(told(&mut arbiter, at(0)), []);
    takes(&mut arbiter, 1, at(0));
    takes(&mut arbiter, 1, at(0));
    assert_eq!(told(&mut arbiter, at(0)), []);
    assert_eq!(next(&mut arbiter), (at(2), vec![(0, 2)]));
    arbiter.ends(1, at(20));
    arbiter.ends(1, at(20));
    assert_eq!(told(&mut arbiter, at(20)), []);
    assert_eq!(next(&mut arbiter), (at(21), vec![(0, 4)]));
    takes(&mut arbiter, 0, at(22));
    takes(&mut arbiter, 0, at(22));
    assert_eq!(arbiter.arrives(0, true, at(22)), Arrival::GiveBack(4));
    // In another process, as its requests there.
    let mut arbiter = with(1, 2);
    arbiter.set_elsewhere_of(0, 3);
    takes(&mut arbiter, 1, at(0));
    assert_eq!(told(&mut arbiter, at(0)), []);
    assert_eq!(next(&mut arbiter), (at(2), vec![(0, 3)]));
    arbiter.ends(1, at(20));
    assert_eq!(told(&mut arbiter, at(20)), []);
    assert_eq!(next(&mut arbiter), (at(21), vec![(0, 4)]));
}
