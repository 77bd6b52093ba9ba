//! A proxy that is restarted under load.

use super::backend::MEMBERS;
use super::fleet::Fleet;
use super::load::Load;
use crate::common::{Proxy, Setup, let_pass, own_address};
use std::time::Duration;

/// How long the proxy is away, in turn: long enough for the agents' pauses to have grown to their
/// longest, and as short as can be.
const AWAY: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(2500)];

#[test]
fn every_agent_is_back_after_a_restart_of_the_proxy_under_load() {
    let proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let address = proxy.for_clients();
    let fleet = Fleet::start(proxy.for_bridges());
    let mut slot = Some(proxy);
    let report = Load::run(address, &fleet.ledger, |load| {
        (0..MEMBERS).for_each(|number| fleet.await_served(number));
        for away in AWAY.into_iter().cycle() {
            let mut old = slot.take().expect("it runs");
            old.terminate();
            assert!(old.wait_exit().success());
            let_pass(away);
            slot = Some(Setup::new().settings(&format!("listen {address}")).start());
            (0..MEMBERS).for_each(|number| fleet.await_served(number));
            if load.is_done() {
                break;
            }
        }
    });
    // The proxy may close a client's idle connection just when a request is on its way, which is to
    // be sent again. One that it has taken and passed on it has to answer.
    let seen = fleet.ledger.posts();
    report.assert_none_failed(|failure| !failure.unheard || seen.contains_key(&failure.id));
}
