//! Mail between the threads of the process.
//!
//! Any thread may put mail into a worker's box; the worker is woken and empties it once per turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mio::Waker;

/// One worker's box.
pub struct Mailbox<T> {
    mail: Mutex<Vec<T>>,
    /// Something is in the box.
    filled: AtomicBool,
    /// The worker has been woken and has not looked yet: no need to wake it twice.
    woken: AtomicBool,
    waker: Waker,
}

impl<T> Mailbox<T> {
    /// A box whose owner waits on the poll that `waker` belongs to.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Mailbox {
            mail: Mutex::new(Vec::new()),
            filled: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            waker,
        }
    }

    /// Puts `item` in and wakes the owner. Mail from one sender arrives in order.
    pub fn send(&self, item: T) {
        self.post(item);
        self.wake();
    }

    /// Puts `item` in without waking the owner, which reads it on its next turn.
    pub fn post(&self, item: T) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        self.filled.store(true, Ordering::SeqCst);
    }

    /// Wakes the owner without mail: something shared has changed.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // An eventfd write fails only when its counter is full, and then the owner is awake.
            let _ = self.waker.wake();
        }
    }

    /// Moves all mail into `into`. Mail sent after this wakes the owner again.
    pub fn empty(&self, into: &mut Vec<T>) {
        // Loads first: the box is mostly empty, and a write would take the cache line from senders.
        if self.woken.load(Ordering::SeqCst) {
            self.woken.store(false, Ordering::SeqCst);
        }
        if self.filled.load(Ordering::SeqCst) && self.filled.swap(false, Ordering::SeqCst) {
            into.append(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
