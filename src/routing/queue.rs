//! The requests that wait on one worker for one route, or for one instance of it.

use super::claim::Claim;
use super::list::List;
use super::order::{QueuePos, WaiterId};

/// A request's entry in the queue of one route.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: u64,
    pub(super) pos: QueuePos,
    /// On which worker it waits.
    pub(super) worker: usize,
    pub(super) id: WaiterId,
    pub(super) claim: Claim,
    /// Whether the bound on this route's queue counts it.
    pub(super) admitted: bool,
}

impl Waiting {
    /// Claims the request for a bridge; false if it has one already or is gone.
    pub(super) fn win(&self) -> bool {
        self.claim.win(self.id.stamp)
    }
}

/// In order of arrival, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: List<Waiting>,
    /// Those of them for which [`super::Bounds::per_route`] counts on this route.
    admitted: u32,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn admitted(&self) -> usize {
        self.admitted as usize
    }

    /// The place of the oldest.
    pub(super) fn first(&self) -> Option<QueuePos> {
        self.entries.first().map(|first| first.pos)
    }

    /// Puts a request behind those that came before it. Returns its entry.
    pub(super) fn enter(&mut self, waiting: Waiting) -> u32 {
        let pos = waiting.pos;
        self.admitted += u32::from(waiting.admitted);
        self.entries.insert(waiting, |other| other.pos > pos)
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.removed(|entries| entries.pop())
    }

    /// Takes a request out, if it is still there.
    pub(super) fn withdraw(&mut self, entry: u32, id: WaiterId) -> Option<Waiting> {
        let is_it =
            |entries: &List<Waiting>| entries.get(entry).is_some_and(|found| found.id == id);
        self.removed(|entries| is_it(entries).then(|| entries.remove(entry)))
    }

    fn removed(
        &mut self,
        take: impl FnOnce(&mut List<Waiting>) -> Option<Waiting>,
    ) -> Option<Waiting> {
        let waiting = take(&mut self.entries)?;
        self.admitted -= u32::from(waiting.admitted);
        Some(waiting)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.entries.iter()
    }
}
