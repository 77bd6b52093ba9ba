//! A proxy that is restarted under load.

use super::backend::MEMBERS;
use super::fleet::Fleet;
use super::load::Load;
use crate::common::{DEADLINE, Proxy, Setup, let_pass, own_address};
use std::time::{Duration, Instant};

/// The longest that an agent waits before it dials a proxy again, and half a second for a machine that runs a load and all the tests.
const BACK_WITHIN: Duration = Duration::from_millis(1500);

/// How long the proxy is away, in turn: long enough for the agents' pauses to have grown to their longest, and as short as can be.
const AWAY: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(2500)];

/// How often it is looked who has served.
const POLL: Duration = Duration::from_millis(2);

/// How long after `from` each member had served again, the slowest of them.
#[track_caller]
fn all_back(fleet: &Fleet, from: Instant) -> Duration {
    let before: Vec<u64> = (0..MEMBERS).map(|number| fleet.ledger.served(number)).collect();
    while (0..MEMBERS).any(|number| fleet.ledger.served(number) == before[number]) {
        assert!(from.elapsed() < DEADLINE, "somebody has not come back: {before:?}");
        std::thread::sleep(POLL);
    }
    from.elapsed()
}

#[test]
fn after_a_restart_of_the_proxy_under_load_every_agent_is_back_within_a_second() {
    let proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let address = proxy.for_clients();
    let fleet = Fleet::start(proxy.for_bridges());
    let mut slot = Some(proxy);
    let mut slowest = Duration::ZERO;
    let report = Load::run(address, &fleet.ledger, |load| {
        (0..MEMBERS).for_each(|number| fleet.await_served(number));
        for away in AWAY.into_iter().cycle() {
            let mut old = slot.take().expect("it runs");
            old.terminate();
            assert!(old.wait_exit(DEADLINE).success());
            let_pass(away);
            slot = Some(Setup::new().settings(&format!("listen {address}")).start());
            let took = all_back(&fleet, Instant::now());
            assert!(took < BACK_WITHIN, "after {away:?} it took {took:?}");
            slowest = slowest.max(took);
            if load.is_done() {
                break;
            }
        }
    });
    eprintln!("the slowest was back after {slowest:?}");
    // The proxy may close a client's idle connection just when a request is on its way, which is to be sent again. One that it has
    // taken and passed on it has to answer.
    let seen = fleet.ledger.posts();
    report.assert_none_failed(|failure| !failure.unheard || seen.contains_key(&failure.id));
}
