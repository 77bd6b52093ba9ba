//! The pace of an exchange whose bytes are limited by the keys of its bridge (`bytes-per-second`), and
//! when those that rest go on.
//!
//! An exchange moves a part of a second's bytes, and pays for them. Where nothing is left it pays for
//! its next bytes in advance and rests until it is its turn: at first for a few, so that small exchanges
//! do not wait for what they will not move, and afterwards for as many as it has moved since its last
//! rest. So each has its turn, and however many large ones rest, one is woken for each part.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Traffic;
use crate::net::token::Token;
use crate::time::{Micros, Millis};

use super::key_limits::{Accounts, Rates};

/// The shortest rest.
const LEAST: Duration = Duration::from_millis(1);

/// What is paid for in advance before anything has been moved, in bytes: about a small request with its
/// response. What is moved beyond it is paid for afterwards.
const FIRST: u64 = 256;

/// The pace of one exchange.
pub(super) struct Pace {
    accounts: Arc<Accounts>,
    /// Bytes that have been moved and paid for.
    paid: u64,
    /// Bytes that have been paid for in advance.
    advance: u64,
    /// At these rates, which may have changed since.
    rates: Rates,
    /// Bytes that have been moved since the last rest.
    moved: u64,
    rests_until: Option<Millis>,
}

/// What a paced exchange does next.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    Moves,
    /// It rests already.
    Rests,
    /// It rests from now on, for so long.
    BeginsToRest(Duration),
}

impl Pace {
    /// `None` if nothing limits bytes.
    pub(super) fn under(accounts: &Arc<Accounts>) -> Option<Box<Pace>> {
        accounts.part()?;
        let accounts = Arc::clone(accounts);
        let (paid, advance, moved, rates) = (0, 0, 0, Rates::default());
        Some(Box::new(Pace { accounts, paid, advance, rates, moved, rests_until: None }))
    }

    /// How much it moves at once; `None` if its bytes are no longer limited.
    pub(super) fn part(&self) -> Option<usize> {
        self.accounts.part()
    }

    /// Whether it may move something now.
    pub(super) fn next(&mut self, now: Micros) -> Next {
        match self.rests_until {
            Some(until) if now.millis() < until => return Next::Rests,
            Some(_) => {
                self.rests_until = None;
                return Next::Moves;
            }
            None => {}
        }
        let owed = self.accounts.owed(now);
        match self.part() {
            Some(part) if self.advance == 0 && !owed.is_zero() => {
                self.advance = self.moved.clamp(FIRST, part as u64);
                self.moved = 0;
                self.rates = self.accounts.advance(self.advance, now);
                let rest = owed.max(LEAST);
                self.rests_until = Some(now.millis() + rest);
                Next::BeginsToRest(rest)
            }
            _ => Next::Moves,
        }
    }

    /// When its rest is over, if it rests.
    pub(super) fn rests_until(&self) -> Option<Millis> {
        self.rests_until
    }

    /// Pays for what has been moved: so much in all.
    pub(super) fn pay(&mut self, traffic: Traffic, now: Micros) {
        let all = traffic.request.saturating_add(traffic.heads).saturating_add(traffic.body);
        let moved = all.saturating_sub(self.paid);
        self.paid = self.paid.max(all);
        self.moved = self.moved.saturating_add(moved);
        let from_advance = moved.min(self.advance);
        self.advance -= from_advance;
        if moved > from_advance {
            self.accounts.charge(moved - from_advance, now);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.accounts.give_back(self.advance, &self.rates);
    }
}

/// The exchanges of a worker that rest, by when they go on. May have some that have ended since.
#[derive(Default)]
pub(super) struct Pacing(BinaryHeap<Reverse<(Millis, usize, u64)>>);

impl Pacing {
    /// An exchange, with this requester, rests until then.
    pub(super) fn add(&mut self, until: Millis, exchange: usize, requester: Token) {
        self.0.push(Reverse((until, exchange, requester.word())));
    }

    /// When the first goes on.
    pub(super) fn next(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((until, ..))| *until)
    }

    /// Takes one out whose rest is over.
    pub(super) fn take(&mut self, now: Millis) -> Option<(usize, Token)> {
        self.next().filter(|until| *until <= now)?;
        let Reverse((_, exchange, requester)) = self.0.pop()?;
        Some((exchange, Token::from_word(requester)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyLimits as Line, Limits};
    use crate::proxy::key_limits::KeyLimits;

    const S: u64 = 1_000_000;

    fn traffic(body: u64) -> Traffic {
        Traffic { request: 100, heads: 100, body }
    }

    #[test]
    fn exchanges_that_share_a_limit_move_their_parts_in_turn() {
        let table = Arc::new(KeyLimits::default());
        let limits = Limits { bytes: 80_000, ..Limits::default() };
        table.put_in_force(&[Line { name: "*".to_owned(), limits }]);
        let bridge =
            table.enter(["a.test"].into_iter(), None).unwrap().on(1, &Arc::default()).unwrap();
        let mut paces = [(); 3].map(|()| Pace::under(bridge.accounts()).unwrap());
        let at = |millis: u64| Micros(10 * S + millis * 1000);
        assert_eq!(paces[0].next(at(0)), Next::Moves);
        paces[0].pay(traffic(89_800), at(0));
        // 10,000 too many: an eighth of a second.
        let rests = [0, 1, 2].map(|which| paces[which].next(at(0)));
        let rest = |micros| Next::BeginsToRest(Duration::from_micros(micros));
        // The second waits for a part of the first, and the third for the few bytes of the second.
        assert_eq!(rests, [rest(125_000), rest(250_000), rest(253_200)]);
        assert_eq!(paces[1].next(at(249)), Next::Rests);
        assert_eq!(paces[1].next(at(250)), Next::Moves);
        paces[1].pay(traffic(9_800), at(250));
        assert_eq!(paces[1].next(at(250)), rest(128_200), "behind the third");
        drop(paces);
        assert_eq!(bridge.accounts().owed(at(250)), Duration::ZERO, "what has not been moved");
    }

    #[test]
    fn those_that_rest_go_on_in_order() {
        let mut pacing = Pacing::default();
        let tokens = [1, 2].map(|number| Token::conn(number, 1));
        pacing.add(Millis(20), 5, tokens[0]);
        pacing.add(Millis(10), 6, tokens[1]);
        assert_eq!((pacing.next(), pacing.take(Millis(9))), (Some(Millis(10)), None));
        assert_eq!(pacing.take(Millis(20)), Some((6, tokens[1])));
        assert_eq!(pacing.take(Millis(20)), Some((5, tokens[0])));
        assert_eq!((pacing.next(), pacing.take(Millis(99))), (None, None));
    }
}
