//! Threads for what an event loop must not wait for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread waits for another task before it ends.
const IDLE: Duration = Duration::from_secs(10);

type Task = Box<dyn FnOnce() + Send>;

/// How many there may be, and how much may wait for them.
pub(crate) struct Bounds {
    /// What the threads are called.
    pub(crate) name: &'static str,
    /// What cannot be done without one, for the log.
    pub(crate) task: &'static str,
    pub(crate) threads: usize,
    /// Most tasks that wait for a thread.
    pub(crate) queue: usize,
}

/// Threads for tasks of one kind. They are started as they are needed, and end when they are not.
#[derive(Clone)]
pub(crate) struct Threads(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    /// Those of them that wait for a task.
    idle: usize,
}

impl Threads {
    pub(crate) fn new(bounds: Bounds) -> Threads {
        Threads(Arc::new(Shared { bounds, state: Mutex::default(), filled: Condvar::new() }))
    }

    /// Has a thread do this. False if too much waits already, or no thread can be started.
    pub(crate) fn run(&self, task: impl FnOnce() + Send + 'static) -> bool {
        let Bounds { name, task: what, threads, queue } = self.0.bounds;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tasks.len() >= queue {
            return false;
        }
        state.tasks.push_back(Box::new(task));
        if state.idle >= state.tasks.len() || state.threads == threads {
            drop(state);
            self.0.filled.notify_one();
            return true;
        }
        let shared = Arc::clone(&self.0);
        match thread::Builder::new().name(name.to_owned()).spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                log::error!("cannot {what}: no thread can be started: {error}");
                state.tasks.pop_back();
                return false;
            }
            // The others do it.
            Err(_) => self.0.filled.notify_one(),
        }
        true
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                task();
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.idle += 1;
            let waited = self.filled.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.tasks.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const DEADLINE: Duration = Duration::from_secs(30);

    const THREADS: usize = 4;
    const QUEUE: usize = 512;
    const READERS: Bounds =
        Bounds { name: "readers", task: "read", threads: THREADS, queue: QUEUE };

    #[test]
    fn tasks_are_done_and_threads_are_used_again() {
        let readers = Threads::new(READERS);
        let (sender, receiver) = mpsc::channel();
        for _ in 0..100 {
            let sender = sender.clone();
            assert!(readers.run(move || sender.send(thread::current().id()).unwrap()));
        }
        let mut ids: Vec<_> = (0..100).map(|_| receiver.recv_timeout(DEADLINE).unwrap()).collect();
        ids.dedup();
        ids.sort_by_key(|id| format!("{id:?}"));
        ids.dedup();
        assert!(ids.len() <= THREADS, "{ids:?}");
    }

    #[test]
    fn what_waits_is_bounded_and_goes_on_when_the_disk_does() {
        let readers = Threads::new(READERS);
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let (sender, receiver) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        for _ in 0..THREADS {
            let (gate, sender, begun) = (Arc::clone(&gate), sender.clone(), begun.clone());
            assert!(readers.run(move || {
                begun.send(()).unwrap();
                drop(gate.lock().unwrap());
                sender.send(()).unwrap();
            }));
            begins.recv_timeout(DEADLINE).unwrap();
        }
        for _ in 0..QUEUE {
            let sender = sender.clone();
            assert!(readers.run(move || sender.send(()).unwrap()));
        }
        assert!(!readers.run(|| ()));
        drop(closed);
        for _ in 0..THREADS + QUEUE {
            receiver.recv_timeout(DEADLINE).unwrap();
        }
        assert!(readers.run(|| ()));
    }
}
