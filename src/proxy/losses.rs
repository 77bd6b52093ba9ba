//! What a worker keeps of bridges that have lost their keys, and what the log says of them
//! (`revocation.rs` uses it).

use std::collections::HashMap;
use std::time::Duration;

use crate::net::token::Token;
use crate::time::Millis;

use super::proofs::Lost;

/// Most names of keys that a line of the log shows.
const NAMES_SHOWN: usize = 10;

/// How many bridges of a worker have lost their keys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dismissed {
    pub(super) closed: usize,
    pub(super) finishing: usize,
}

/// The busy bridges of a worker that have lost their keys, and when their exchanges are cut.
#[derive(Default)]
pub(super) struct Graces {
    until: HashMap<u64, Millis>,
    next: Option<Millis>,
}

impl Graces {
    pub(super) fn add(&mut self, bridge: Token, until: Millis) {
        // One that has lost its key twice has the time of the first.
        let until = *self.until.entry(bridge.word()).or_insert(until);
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// When the first is over.
    pub(super) fn next(&self) -> Option<Millis> {
        self.next
    }

    /// Takes those out that are over.
    pub(super) fn over(&mut self, now: Millis) -> Vec<Token> {
        let over = self.until.extract_if(|_, until| *until <= now);
        let over = over.map(|(word, _)| Token::from_word(word)).collect();
        self.next = self.until.values().min().copied();
        over
    }
}

impl Lost {
    /// The names, as a line of the log shows them.
    pub(super) fn shown(&self) -> String {
        let shown = self.names.iter().take(NAMES_SHOWN).map(String::as_str);
        let shown = shown.collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(NAMES_SHOWN) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    /// What a reload has changed, of keys and of certificates (`shown`), in a sentence. Keys that are
    /// sent as they are may have been `refused` by it.
    pub(super) fn report(
        &self,
        refused: bool,
        shown: &Lost,
        all: &[Dismissed],
        grace: Duration,
    ) -> String {
        let closed: usize = all.iter().map(|dismissed| dismissed.closed).sum();
        let finishing: usize = all.iter().map(|dismissed| dismissed.finishing).sum();
        let keys = || format!("host keys are no longer good, for {}", self.shown());
        let certificates = || format!("certificates are no longer good, of {}", shown.shown());
        let of = match (self.names.is_empty(), shown.names.is_empty()) {
            (true, true) if refused => "host keys must be proven from now on".to_owned(),
            (true, true) => "no host key has become bad".to_owned(),
            (false, true) => keys(),
            (true, false) => certificates(),
            (false, false) => format!("{}; {}", keys(), certificates()),
        };
        match (closed, finishing) {
            (0, 0) => format!("{of}; no bridge has lost its key"),
            (closed, 0) => format!("{of}; {} closed", bridges(closed)),
            (closed, finishing) => format!(
                "{of}; {} closed, and {} when their requests are served, within {} s",
                bridges(closed),
                bridges(finishing),
                grace.as_secs_f32()
            ),
        }
    }
}

/// So many bridges, in words.
pub(super) fn bridges(count: usize) -> String {
    match count {
        1 => "1 bridge".to_owned(),
        count => format!("{count} bridges"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_grace_counts_and_each_ends_once() {
        let mut graces = Graces::default();
        let [one, two] = [1, 2].map(|number| Token::conn(number, 1));
        assert_eq!(graces.next(), None);
        graces.add(one, Millis(100));
        graces.add(two, Millis(90));
        graces.add(one, Millis(300));
        assert_eq!(graces.next(), Some(Millis(90)));
        assert_eq!(graces.over(Millis(89)), []);
        assert_eq!(graces.over(Millis(90)), [two]);
        assert_eq!(graces.next(), Some(Millis(100)));
        assert_eq!(graces.over(Millis(500)), [one]);
        assert_eq!((graces.next(), graces.over(Millis(500))), (None, vec![]));
    }

    #[test]
    fn a_report_is_a_sentence_with_names_alone() {
        let names = |count: usize| (0..count).map(|number| format!("{number}.test")).collect();
        let report = |count, all: &[Dismissed]| {
            let lost = Lost { names: names(count), bridges: 0 };
            lost.report(false, &Lost::default(), all, Duration::from_secs(30))
        };
        let [one, two] =
            [(1, 0), (1, 2)].map(|(closed, finishing)| Dismissed { closed, finishing });
        assert_eq!(report(0, &[]), "no host key has become bad; no bridge has lost its key");
        let refused =
            Lost::default().report(true, &Lost::default(), &[one], Duration::from_secs(30));
        assert_eq!(refused, "host keys must be proven from now on; 1 bridge closed");
        assert_eq!(report(1, &[one]), "host keys are no longer good, for 0.test; 1 bridge closed");
        assert_eq!(
            report(12, &[one, two]),
            "host keys are no longer good, for 0.test, 1.test, 2.test, 3.test, 4.test, 5.test, \
             6.test, 7.test, 8.test, 9.test and 2 more; 2 bridges closed, and 2 bridges when their \
             requests are served, within 30 s"
        );
    }
}
