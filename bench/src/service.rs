//! How long the backend works on a request, and on how many at once.

use std::collections::{BTreeMap, VecDeque};
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

/// Work on at most so many requests at once, first come first served. It is sleep: no CPU is used.
///
/// A request whose client has gone is worked on to the end all the same, as in an application that
/// does not look.
#[derive(Debug)]
pub struct Service {
    delay: Duration,
    slots: usize,
    /// By when they are done; then by the order in which they were begun.
    working: BTreeMap<(Instant, u64), Job>,
    begun: u64,
    waiting: VecDeque<(Duration, Job)>,
}

impl Service {
    /// A service that takes `delay` for each request that does not say otherwise. `slots` of them
    /// at once.
    pub fn new(delay: Duration, slots: usize) -> Service {
        let (working, waiting) = (BTreeMap::new(), VecDeque::new());
        Service { delay, slots, working, begun: 0, waiting }
    }

    /// Whether requests that do not say otherwise are answered at once.
    pub fn immediate(&self) -> bool {
        self.delay.is_zero()
    }

    /// A request has come, and may say how long it takes.
    pub fn add(&mut self, job: Job, time: Option<Duration>, now: Instant) {
        let time = time.unwrap_or(self.delay);
        if self.working.len() < self.slots {
            self.begin(time, job, now);
        } else {
            self.waiting.push_back((time, job));
        }
    }

    fn begin(&mut self, time: Duration, job: Job, now: Instant) {
        self.begun += 1;
        self.working.insert((now + time, self.begun), job);
    }

    /// The next request that is done by `now`. The slot it leaves goes to the one that has waited
    /// longest, from `now` on.
    pub fn done(&mut self, now: Instant) -> Option<Job> {
        if self.next().is_none_or(|due| due > now) {
            return None;
        }
        let (_, job) = self.working.pop_first()?;
        if let Some((time, next)) = self.waiting.pop_front() {
            self.begin(time, next, now);
        }
        Some(job)
    }

    /// When the next request will be done.
    pub fn next(&self) -> Option<Instant> {
        self.working.first_key_value().map(|(&(due, _), _)| due)
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
        service.add(job(1), None, at(0));
        service.add(job(2), None, at(5));
        assert_eq!(service.done(at(19)), None);
        assert_eq!(service.done(at(20)), Some(job(1)));
        assert_eq!(service.done(at(39)), None);
        assert_eq!(service.next(), Some(at(40)));
        assert_eq!(service.done(at(40)), Some(job(2)));
        assert_eq!(service.next(), None);
    }

    #[test]
    fn the_shorter_of_two_is_done_first() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let job = |key| Job { key, serial: 7 };
        let mut service = Service::new(Duration::ZERO, 2);
        service.add(job(1), Some(Duration::from_millis(30)), at(0));
        service.add(job(2), Some(Duration::from_millis(10)), at(5));
        service.add(job(3), Some(Duration::from_millis(1)), at(6));
        assert_eq!(service.next(), Some(at(15)));
        assert_eq!(service.done(at(15)), Some(job(2)));
        assert_eq!(service.done(at(16)), Some(job(3)));
        assert_eq!(service.done(at(16)), None);
        assert_eq!(service.done(at(30)), Some(job(1)));
    }
}
