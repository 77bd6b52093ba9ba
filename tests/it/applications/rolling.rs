//! Agents and applications that are restarted one after another under load.

use super::backend::MEMBERS;
use super::fleet::{Fleet, SLOTS};
use super::load::{Load, Report};
use crate::common::Proxy;

/// Requests that the fleet answers between two restarts: hardly any request then meets two.
const BETWEEN_RESTARTS: u64 = 50;

/// Does `restart` to one member after another under load. Returns how many times, too.
#[track_caller]
fn each_in_turn(restart: impl Fn(&mut Fleet, usize)) -> (Report, Fleet, usize) {
    let proxy = Proxy::start();
    let mut fleet = Fleet::start(proxy.for_bridges());
    let ledger = fleet.ledger.clone();
    let mut restarts = 0;
    let report = Load::run(proxy.for_clients(), &ledger, |load| {
        (0..MEMBERS).for_each(|number| fleet.await_served(number));
        while !load.is_done() || restarts < MEMBERS {
            let number = restarts % MEMBERS;
            load.disturb(|| {
                restart(&mut fleet, number);
                fleet.await_served(number);
            });
            restarts += 1;
            fleet.await_answers(BETWEEN_RESTARTS);
        }
    });
    eprintln!("{restarts} restarts");
    (report, fleet, restarts)
}

/// As a deployment does it: the agent is told to leave and has left before its application is
/// ended.
#[test]
fn a_rolling_restart_loses_nothing_and_repeats_nothing() {
    let (report, ..) = each_in_turn(|fleet, number| {
        fleet.stop_agent(number);
        fleet.take_backend(number).crash();
        fleet.start_backend(number);
        fleet.start_agent(number);
    });
    report.assert_none_failed(|_| true);
}

/// The proxy knows from the agent's receipts which POSTs have not reached their application, and
/// sends those elsewhere. Between a receipt and the first byte to the application lies one system
/// call: a POST whose agent is killed then fails although no application has it. Either way only a
/// kill can make a POST fail, and no more of them than the agent had in hand. A GET is sent again
/// after the first kill.
#[test]
fn agents_that_are_killed_lose_only_what_their_application_had_received() {
    let (report, _, kills) = each_in_turn(|fleet, number| {
        fleet.kill_agent(number);
        fleet.start_agent(number);
    });
    report.assert_none_failed(|_| false);
    report.assert_each_failed_during_disturbances();
    let failed: Vec<_> = report.failed_posts().collect();
    assert!(failed.iter().all(|failure| failure.what.starts_with("502 ")), "{failed:?}");
    assert!(failed.len() <= kills * SLOTS, "{} failed in {kills} kills", failed.len());
}

/// A connection that the application closes just when a POST comes over it: whether it was done
/// only the application knows.
#[test]
fn an_application_that_restarts_behind_its_agent_loses_only_what_it_had_received() {
    let (report, fleet, _) = each_in_turn(|fleet, number| {
        fleet.stop_backend(number);
        fleet.start_backend(number);
    });
    let seen = fleet.ledger.posts();
    report.assert_none_failed(|failure| !failure.is_post || !seen.contains_key(&failure.id));
}

#[test]
fn an_application_that_crashes_behind_its_agent_costs_no_get_and_repeats_no_post() {
    let (report, _, crashes) = each_in_turn(|fleet, number| {
        fleet.take_backend(number).crash();
        fleet.start_backend(number);
    });
    report.assert_none_failed(|_| false);
    report.assert_each_failed_during_disturbances();
    let failed = report.failed_posts().count();
    assert!(failed <= crashes * SLOTS, "{failed} failed with {crashes} applications");
}
