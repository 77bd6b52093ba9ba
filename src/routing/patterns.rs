//! A table by host pattern, looked up by the host names that the patterns match.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::names::NameHashes;

/// A table with room for more patterns than this is shrunk when most of them are gone.
const KEPT: usize = 1024;

/// A table by host pattern. Lookups allocate nothing.
#[derive(Debug, Default)]
pub(super) struct PatternMap<T> {
    exact: HashMap<Arc<str>, u32, NameHashes>,
    /// By the suffix, without `*.`.
    below: HashMap<Arc<str>, u32, NameHashes>,
    any: Option<u32>,
    values: Slab<T>,
}

/// Progress of a walk through the patterns that match a host, most specific first: exact name,
/// longest wildcard suffix, `*` (`doc/protocol.md`, "BRIDGE").
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Walk {
    #[default]
    Exact,
    /// Next is the longest suffix behind this byte of the host.
    Below(usize),
    Any,
    Over,
}

/// One parsed host pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern<'a> {
    /// This name and no other.
    Exact(&'a str),
    /// Every name with one or more labels before `.suffix`; holds the suffix without `*.`.
    Below(&'a str),
    /// Every name.
    Any,
}

impl<'a> Pattern<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        match text.strip_prefix("*.") {
            Some(suffix) => Pattern::Below(suffix),
            None if text == "*" => Pattern::Any,
            None => Pattern::Exact(text),
        }
    }

    /// Whether it matches `host`.
    pub(crate) fn has(self, host: &str) -> bool {
        match self {
            Pattern::Exact(name) => host == name,
            Pattern::Below(suffix) => {
                host.strip_suffix(suffix).is_some_and(|labels| labels.ends_with('.'))
            }
            Pattern::Any => true,
        }
    }

    /// Of two patterns that match a name, the more specific has less.
    pub(crate) fn generality(self) -> usize {
        match self {
            Pattern::Exact(_) => 0,
            Pattern::Below(suffix) => usize::MAX - 1 - suffix.len(),
            Pattern::Any => usize::MAX,
        }
    }
}

impl<T> PatternMap<T> {
    fn key(&self, pattern: &str) -> Option<u32> {
        match Pattern::read(pattern) {
            Pattern::Exact(name) => self.exact.get(name).copied(),
            Pattern::Below(suffix) => self.below.get(suffix).copied(),
            Pattern::Any => self.any,
        }
    }

    /// The value of exactly this pattern.
    pub(super) fn get(&self, pattern: &str) -> Option<&T> {
        self.key(pattern).map(|key| &self.values[key as usize])
    }

    /// The value of exactly this pattern, inserted as the default if it is missing.
    pub(super) fn entry(&mut self, pattern: &Arc<str>) -> &mut T
    where
        T: Default,
    {
        let key = self.key(pattern).unwrap_or_else(|| {
            let key = self.values.insert(T::default()) as u32;
            match Pattern::read(pattern) {
                Pattern::Exact(_) => _ = self.exact.insert(Arc::clone(pattern), key),
                Pattern::Below(suffix) => _ = self.below.insert(suffix.into(), key),
                Pattern::Any => self.any = Some(key),
            }
            key
        });
        &mut self.values[key as usize]
    }

    /// Changes the value of `pattern`, and removes it if `change` returns true.
    pub(super) fn change(&mut self, pattern: &str, change: impl FnOnce(&mut T) -> bool) {
        let Some(key) = self.key(pattern) else { return };
        if change(&mut self.values[key as usize]) {
            self.values.remove(key as usize);
            match Pattern::read(pattern) {
                Pattern::Exact(name) => _ = self.exact.remove(name),
                Pattern::Below(suffix) => _ = self.below.remove(suffix),
                Pattern::Any => self.any = None,
            }
            if self.values.capacity() > KEPT && self.values.len() < self.values.capacity() / 4 {
                self.shrink();
            }
        }
    }

    /// Gives back the memory of patterns that were removed. Keys change.
    fn shrink(&mut self) {
        let mut values = Slab::with_capacity(self.values.len() * 2);
        let maps = [&mut self.exact, &mut self.below];
        let keys = maps.into_iter().flat_map(HashMap::values_mut).chain(&mut self.any);
        for key in keys {
            *key = values.insert(self.values.remove(*key as usize)) as u32;
        }
        self.values = values;
        self.exact.shrink_to(self.exact.len() * 2);
        self.below.shrink_to(self.below.len() * 2);
    }

    /// The next step of a walk for `host` (lower-case, without a port): the key of the value found.
    pub(super) fn step(&self, host: &str, walk: &mut Walk) -> Option<u32> {
        loop {
            let found = match *walk {
                Walk::Exact => {
                    *walk = if self.below.is_empty() { Walk::Any } else { Walk::Below(0) };
                    self.exact.get(host).copied()
                }
                // A wildcard matches at least one label, so the whole host is not a suffix.
                Walk::Below(at) => match host[at..].find('.') {
                    Some(dot) => {
                        *walk = Walk::Below(at + dot + 1);
                        self.below.get(&host[at + dot + 1..]).copied()
                    }
                    None => {
                        *walk = Walk::Any;
                        None
                    }
                },
                Walk::Any => {
                    *walk = Walk::Over;
                    self.any
                }
                Walk::Over => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }

    /// The value that a step of a walk has found. The table must not have changed since.
    pub(super) fn value(&self, key: u32) -> &T {
        &self.values[key as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> PatternMap<T> {
        pub(in crate::routing) fn len(&self) -> usize {
            self.values.len()
        }
    }

    #[test]
    fn patterns_are_walked_from_the_most_specific_on() {
        let mut map = PatternMap::default();
        for pattern in ["*", "*.com", "*.b.com", "a.b.com", "x.b.com"] {
            *map.entry(&pattern.into()) = pattern;
        }
        let walk = |host: &str| {
            let mut walk = Walk::default();
            std::iter::from_fn(|| map.step(host, &mut walk)).map(|key| *map.value(key)).collect()
        };
        for (host, found) in [
            ("a.b.com", vec!["a.b.com", "*.b.com", "*.com", "*"]),
            ("x.y.b.com", vec!["*.b.com", "*.com", "*"]),
            ("q.b.com", vec!["*.b.com", "*.com", "*"]),
            ("b.com", vec!["*.com", "*"]),
            ("com", vec!["*"]),
            ("*.b.com", vec!["*.b.com", "*.com", "*"]),
            ("", vec!["*"]),
        ] {
            let seen: Vec<&str> = walk(host);
            assert_eq!(seen, found, "{host}");
        }
        assert_eq!((map.get("*.com"), map.get("b.com")), (Some(&"*.com"), None));
    }

    #[test]
    fn memory_of_many_patterns_is_given_back_with_them() {
        let mut map = PatternMap::default();
        let patterns: Vec<Arc<str>> = (0..20_000)
            .map(|number| match number % 2 {
                0 => format!("h{number}").into(),
                _ => format!("*.h{number}").into(),
            })
            .chain(["*".into()])
            .collect();
        patterns.iter().for_each(|pattern| *map.entry(pattern) = Arc::clone(pattern).into());
        let (last, most) = patterns.split_at(100);
        most.iter().for_each(|pattern| map.change(pattern, |_: &mut Option<Arc<str>>| true));
        assert!(map.values.capacity() <= 2 * KEPT && map.exact.capacity() <= 4 * KEPT);
        assert!(
            last.iter()
                .all(|pattern| map.get(pattern).is_some_and(|v| v.as_ref() == Some(pattern)))
        );
        assert_eq!((map.len(), map.get(&patterns[300]), map.get("*")), (100, None, None));
    }

    #[test]
    fn what_was_taken_away_is_not_found() {
        let mut map = PatternMap::default();
        for pattern in ["*.a", "a", "*"] {
            *map.entry(&pattern.into()) = 1;
            *map.entry(&pattern.into()) += 1;
            assert_eq!(map.get(pattern), Some(&2));
            map.change(pattern, |_| false);
            map.change(pattern, |_| true);
            assert_eq!((map.get(pattern), map.len()), (None, 0));
        }
        assert_eq!(map.step("x.a", &mut Walk::default()), None);
    }
}
