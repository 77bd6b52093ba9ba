//! An application: its places, its idle lines, and whether it is there. What is done about that is
//! told in `lines`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::service::{Destination, Service};
use super::services::Offer;
use crate::backoff::Backoff;
use crate::net::token::Token;

/// Pauses between probes. An application that restarts is back in a few times 100 ms, and one
/// connect in two seconds costs nothing.
const PROBES: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// An application and what stands between it and the proxies.
pub(super) struct Application {
    /// Where it is, and for whom.
    pub service: Service,
    /// Whether it is offered.
    pub offer: Offer,
    /// The BRIDGE request for it. It holds the keys, so it is never shown.
    pub registration: Vec<u8>,
    /// How many of its places are free.
    pub free: usize,
    /// Its addresses, the one that answered last in front; none for a Unix socket, or for a name
    /// that has not been looked up.
    pub addresses: Vec<SocketAddr>,
    /// Whether it is there.
    pub health: Health,
    /// Idle lines, the one that served last at the end: it is the least likely to be closed.
    pub idle: Vec<Token>,
    /// Bridges that wait for a place, in the order they came. Those that have gone since are passed
    /// over.
    pub queue: VecDeque<Token>,
}

/// Which probe of a check. There are two, because a process that ends closes its connections and its
/// listening socket one after the other, and a child that it has just forked may keep the latter for a
/// moment more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Check {
    First,
    Second,
}

/// Whether an application is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// It took the last connection.
    Up,
    /// It took the last connection and has closed an idle one since; a probe is under way.
    Checking(Check),
    /// It took the first probe of a check; the second is due at this time, in milliseconds.
    Doubted { at: u64 },
    /// It has not answered so many probes in a row; the next is due at this time, in milliseconds.
    Down { failures: u32, at: u64 },
    /// As before, and a probe is under way.
    Probing { failures: u32 },
}

impl Application {
    /// One that has not been looked for.
    pub fn new(service: Service, registration: Vec<u8>) -> Application {
        let addresses = match service.to {
            Destination::Socket(address) => vec![address],
            Destination::Unix(_) | Destination::Name { .. } => Vec::new(),
        };
        Application {
            free: service.limit,
            service,
            offer: Offer::Standing,
            registration,
            addresses,
            health: Health::Down { failures: 0, at: 0 },
            idle: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Whether bridges are to be parked for it.
    pub fn is_wanted(&self) -> bool {
        self.offer == Offer::Standing && self.is_up()
    }

    /// Whether it takes requests, as far as is known.
    pub fn is_up(&self) -> bool {
        matches!(self.health, Health::Up | Health::Checking(_) | Health::Doubted { .. })
    }

    /// Notes, at `now` in milliseconds, that it has taken a probe's connection. True if that is news.
    pub fn answered(&mut self, now: u64) -> bool {
        let was_up = self.is_up();
        self.health = match self.health {
            Health::Checking(Check::First) => {
                Health::Doubted { at: now + PROBES.first.as_millis() as u64 }
            }
            _ => Health::Up,
        };
        !was_up
    }

    /// Takes a place, if one is free and nobody stands in the queue for it.
    pub fn take_place(&mut self) -> bool {
        let takes = self.free > 0 && self.queue.is_empty();
        if takes {
            self.free -= 1;
        }
        takes
    }

    /// The next in the queue, if a place is free; the caller finds out whether it is still there.
    pub fn next_in_queue(&mut self) -> Option<Token> {
        if self.free == 0 { None } else { self.queue.pop_front() }
    }

    /// Notes a failure to reach it, at `now` in milliseconds. True if that is news.
    pub fn failed(&mut self, now: u64, random: f64) -> bool {
        let failures = match self.health {
            Health::Up | Health::Checking(_) | Health::Doubted { .. } => 1,
            Health::Probing { failures } => failures.saturating_add(1),
            Health::Down { .. } => return false,
        };
        let pause = PROBES.pause(failures, random);
        self.health = Health::Down { failures, at: now + pause.as_millis() as u64 };
        failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application() -> Application {
        let service = Service {
            hosts: vec!["*".to_owned()],
            prefix: "/".to_owned(),
            keys: Vec::new(),
            to: Destination::Unix("/x".into()),
            limit: 2,
            proxies: Vec::new(),
            all_addresses: false,
        };
        Application::new(service, Vec::new())
    }

    #[test]
    fn places_are_given_first_come_first_served() {
        let mut app = application();
        assert!(app.take_place() && app.take_place() && !app.take_place());
        let (first, second) = (Token::conn(1, 0), Token::conn(2, 0));
        app.queue.extend([first, second]);
        assert_eq!(app.next_in_queue(), None);
        app.free = 1;
        // Whoever comes now comes after those in the queue.
        assert!(!app.take_place());
        assert_eq!(app.next_in_queue(), Some(first));
    }

    #[test]
    fn a_check_is_two_probes() {
        let mut app = application();
        app.health = Health::Checking(Check::First);
        assert!(!app.answered(1_000));
        assert_eq!(app.health, Health::Doubted { at: 1_100 });
        app.health = Health::Checking(Check::Second);
        assert!(!app.answered(1_100));
        assert_eq!(app.health, Health::Up);
        app.health = Health::Checking(Check::Second);
        assert!(app.failed(0, 0.0) && !app.is_up());
        app.health = Health::Probing { failures: 1 };
        assert!(app.answered(0));
    }

    #[test]
    fn probes_back_off_up_to_two_seconds_and_only_the_first_failure_is_news() {
        let mut app = application();
        app.health = Health::Up;
        assert!(app.failed(1_000, 0.0));
        assert_eq!(app.health, Health::Down { failures: 1, at: 1_100 });
        assert!(!app.failed(1_000, 0.0) && !app.is_up());
        for (failures, pause) in [(1, 200), (4, 1_600), (5, 2_000), (u32::MAX, 2_000)] {
            app.health = Health::Probing { failures };
            assert!(!app.failed(0, 0.0));
            let failures = failures.saturating_add(1);
            assert_eq!(app.health, Health::Down { failures, at: pause });
        }
        app.health = Health::Probing { failures: 0 };
        assert!(app.failed(0, 1.0));
        assert_eq!(app.health, Health::Down { failures: 1, at: 50 });
    }
}
