//! Something for each host pattern, found by the names that the patterns stand for.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::names::NameHashes;
use super::route::Pattern;

/// A table by host pattern. Lookups allocate nothing.
#[derive(Debug)]
pub struct PatternMap<T> {
    exact: HashMap<Box<str>, T, NameHashes>,
    /// By suffix without `*.`, so that a slice of the host is the key.
    pub(super) below: HashMap<Box<str>, T, NameHashes>,
    any: Option<T>,
}

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        PatternMap { exact: HashMap::default(), below: HashMap::default(), any: None }
    }
}

impl<T> PatternMap<T> {
    /// What is filed under this very pattern.
    #[must_use]
    pub fn get(&self, pattern: &str) -> Option<&T> {
        match Pattern::read(pattern) {
            Pattern::Exact(name) => self.exact.get(name),
            Pattern::Below(suffix) => self.below.get(suffix),
            Pattern::Any => self.any.as_ref(),
        }
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, pattern: &str) -> Option<&mut T> {
        match Pattern::read(pattern) {
            Pattern::Exact(name) => self.exact.get_mut(name),
            Pattern::Below(suffix) => self.below.get_mut(suffix),
            Pattern::Any => self.any.as_mut(),
        }
    }

    /// Files `value` under `pattern`, in the place of what stood there.
    pub fn insert(&mut self, pattern: &str, value: T) {
        match Pattern::read(pattern) {
            Pattern::Exact(name) => _ = self.exact.insert(name.into(), value),
            Pattern::Below(suffix) => _ = self.below.insert(suffix.into(), value),
            Pattern::Any => self.any = Some(value),
        }
    }

    /// Takes away what is filed under `pattern`.
    pub(super) fn remove(&mut self, pattern: &str) {
        match Pattern::read(pattern) {
            Pattern::Exact(name) => _ = self.exact.remove(name),
            Pattern::Below(suffix) => _ = self.below.remove(suffix),
            Pattern::Any => self.any = None,
        }
    }

    /// Shows `visit` what is filed under each pattern that `host` (lower-case, without a port) matches, the most specific
    /// first: exact name, longest wildcard suffix, `*` (`doc/protocol.md`, "BRIDGE").
    pub(super) fn visit<'a, B>(
        &'a self,
        host: &str,
        mut visit: impl FnMut(&'a T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(value) = self.exact.get(host) {
            visit(value)?;
        }
        if !self.below.is_empty() {
            let mut rest = host;
            // A wildcard stands for one label at least, so the whole host is never a suffix of itself.
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(value) = self.below.get(suffix) {
                    visit(value)?;
                }
                rest = suffix;
            }
        }
        self.any.as_ref().map_or(ControlFlow::Continue(()), visit)
    }

    /// What is filed under the most specific pattern that `host` (lower-case, without a port) matches.
    #[must_use]
    pub fn most_specific(&self, host: &str) -> Option<&T> {
        match self.visit(host, ControlFlow::Break) {
            ControlFlow::Break(value) => Some(value),
            ControlFlow::Continue(()) => None,
        }
    }
}
