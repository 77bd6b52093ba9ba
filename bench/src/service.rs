//! How long the backend works on a request, and on how many at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A request that is being worked on or waits for it: the connection's key and its serial number,
/// which tells whether the key still means the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Where the connection is.
    pub key: usize,
    /// Which connection it is.
    pub serial: u64,
}

/// Work of one fixed duration, on at most so many requests at once, first come first served.
///
/// A request whose client has gone is worked on to the end all the same, as in an application that
/// does not look.
#[derive(Debug)]
pub struct Service {
    delay: Duration,
    slots: usize,
    working: VecDeque<(Instant, Job)>,
    waiting: VecDeque<Job>,
}

impl Service {
    /// A service that takes `delay` for each request. `slots` of them at once.
    pub fn new(delay: Duration, slots: usize) -> Service {
        Service { delay, slots, working: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// Whether requests are answered at once, so that nobody need ask.
    pub fn immediate(&self) -> bool {
        self.delay.is_zero()
    }

    /// A request has come.
    pub fn add(&mut self, job: Job, now: Instant) {
        if self.working.len() < self.slots {
            self.working.push_back((now + self.delay, job));
        } else {
            self.waiting.push_back(job);
        }
    }

    /// The next request that is done by `now`. The slot it leaves goes to the one that has waited
    /// longest, from `now` on.
    pub fn done(&mut self, now: Instant) -> Option<Job> {
        if self.next().is_none_or(|due| due > now) {
            return None;
        }
        let (_, job) = self.working.pop_front()?;
        if let Some(next) = self.waiting.pop_front() {
            self.working.push_back((now + self.delay, next));
        }
        Some(job)
    }

    /// When the next request will be done. All take the same time, so it is the one begun first.
    pub fn next(&self) -> Option<Instant> {
        self.working.front().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_serves_one_after_another() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let job = |key| Job { key, serial: 7 };
        let mut service = Service::new(Duration::from_millis(20), 1);
        service.add(job(1), at(0));
        service.add(job(2), at(5));
        assert_eq!(service.done(at(19)), None);
        assert_eq!(service.done(at(20)), Some(job(1)));
        assert_eq!(service.done(at(39)), None);
        assert_eq!(service.next(), Some(at(40)));
        assert_eq!(service.done(at(40)), Some(job(2)));
        assert_eq!(service.next(), None);
    }
}
