//! The same protocol between real threads, with real atomics: rounds of a few hundred hurried operations on every
//! worker, and after each round, when all messages have come, nobody may wait beside what could serve it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::*;

const RUN: Duration = Duration::from_millis(700);
const OPERATIONS_PER_ROUND: usize = 300;
const HOSTS: [&str; 3] = ["a.x", "b.x", "c"];
const PATTERNS: [&[&str]; 4] = [&["a.x"], &["*.x"], &["*"], &["b.x", "c"]];

enum Message {
    Mail(Mail),
    Bridge(u64, Passage),
}

struct Shared {
    barrier: Barrier,
    /// Messages sent and not yet dealt with.
    under_way: AtomicUsize,
    stop: AtomicUsize,
    served: AtomicU64,
}

struct Worker {
    lobby: Lobby,
    inbox: Receiver<Message>,
    outboxes: Vec<Sender<Message>>,
    shared: Arc<Shared>,
    started: Instant,
    rng: u64,
    last: u64,
    busy: Vec<(u64, RouteId)>,
    /// Some of these have been served meanwhile.
    waiting: Vec<WaiterId>,
    bridges: usize,
}

impl Worker {
    fn below(&mut self, n: usize) -> usize {
        // xorshift64*
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        (self.rng.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn post(&self, to: usize, message: Message) {
        self.shared.under_way.fetch_add(1, SeqCst);
        self.outboxes[to].send(message).unwrap();
    }

    fn flush(&mut self) {
        while let Some((to, mail)) = self.lobby.next_mail() {
            self.post(to, Message::Mail(mail));
        }
        while let Some(found) = self.lobby.next_match() {
            self.busy.push((found.bridge, found.route));
        }
    }

    fn parked(&mut self, bridge: u64, route: RouteId, parking: Parking) {
        match parking {
            Parking::Serve { .. } => {
                self.shared.served.fetch_add(1, Relaxed);
                self.busy.push((bridge, route));
            }
            Parking::Send { to, passage } => self.post(to, Message::Bridge(bridge, passage)),
            Parking::Parked(_) => {}
        }
        self.flush();
    }

    /// Deals with one message, if there is one.
    fn receive(&mut self) -> bool {
        let Ok(message) = self.inbox.try_recv() else {
            return false;
        };
        match message {
            Message::Mail(mail) => {
                if let Some(Handover { bridge, to, passage, .. }) = self.lobby.on_mail(mail) {
                    self.post(to, Message::Bridge(bridge, passage));
                }
            }
            Message::Bridge(_, passage) if self.below(20) == 0 => {
                let now = self.now();
                self.lobby.lost(passage, now);
            }
            Message::Bridge(bridge, passage) => {
                let now = self.now();
                let Landing { route, parking } = self.lobby.arrived(passage, bridge, now);
                self.parked(bridge, route, parking);
            }
        }
        self.flush();
        // After the messages that it caused have been counted.
        self.shared.under_way.fetch_sub(1, SeqCst);
        true
    }

    fn operate(&mut self) {
        let now = self.now();
        self.last += 1;
        match self.below(16) {
            0 if self.bridges < 6 => {
                let spec = RouteSpec::new(PATTERNS[self.below(PATTERNS.len())], "");
                let route = self.lobby.join(&spec, now).unwrap().route;
                self.bridges += 1;
                self.flush();
                let parking = self.lobby.park(route, self.last, now);
                self.parked(self.last, route, parking);
            }
            1 if !self.waiting.is_empty() => {
                let at = self.below(self.waiting.len());
                let waiter = self.waiting.swap_remove(at);
                self.lobby.forget(waiter);
            }
            2 => self.lobby.sync(),
            3 if !self.busy.is_empty() && self.below(20) == 0 => {
                let at = self.below(self.busy.len());
                let (_, route) = self.busy.swap_remove(at);
                self.lobby.leave(route, now);
                self.bridges = self.bridges.saturating_sub(1);
            }
            4..=8 if self.lobby.counters().waiting < 20 => {
                let host = HOSTS[self.below(HOSTS.len())];
                match self.lobby.arrive(self.last, &Target::new(host, "/"), now) {
                    Arrival::Matched { bridge, route, .. } => self.busy.push((bridge, route)),
                    Arrival::Waiting(waiter) => self.waiting.push(waiter),
                    other => panic!("{other:?}"),
                }
            }
            _ if !self.busy.is_empty() => {
                let at = self.below(self.busy.len());
                let (bridge, route) = self.busy.swap_remove(at);
                let parking = self.lobby.park(route, bridge, now);
                self.parked(bridge, route, parking);
            }
            _ => {}
        }
        self.flush();
    }

    fn round(&mut self) {
        for _ in 0..OPERATIONS_PER_ROUND {
            self.receive();
            self.operate();
        }
        self.shared.barrier.wait();
        // Nobody joins any more, so after this everybody knows every route.
        self.lobby.sync();
        self.flush();
        self.shared.barrier.wait();
        while self.shared.under_way.load(SeqCst) > 0 {
            if !self.receive() {
                std::thread::yield_now();
            }
        }
        self.shared.barrier.wait();
        self.lobby.check_invariants();
        for shared in self.lobby.directory.routes() {
            let (parked, waiting) = (shared.parked(), shared.waiting());
            assert!(
                parked == 0 || waiting == 0,
                "{waiting} wait beside {parked}: {:?}",
                shared.spec()
            );
            assert_eq!(shared.cells[self.lobby.me].demand.incoming.load(SeqCst), 0);
        }
        let lobby = &self.lobby;
        self.waiting.retain(|waiter| lobby.waiters.contains(*waiter));
        self.shared.barrier.wait();
    }
}

fn run(workers: usize) {
    let directory = Arc::new(Directory::new(workers));
    let bounds =
        Bounds { per_route: 1_000, unserved: 1_000, unserved_waits: true, bridges_per_host: 0 };
    let shared = Arc::new(Shared {
        barrier: Barrier::new(workers),
        under_way: AtomicUsize::new(0),
        stop: AtomicUsize::new(0),
        served: AtomicU64::new(0),
    });
    let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
    let started = Instant::now();
    let threads: Vec<_> = inboxes
        .into_iter()
        .enumerate()
        .map(|(me, inbox)| {
            let mut worker = Worker {
                lobby: Lobby::new(me, Arc::clone(&directory), bounds),
                inbox,
                outboxes: outboxes.clone(),
                shared: Arc::clone(&shared),
                started,
                rng: 0x9E37_79B9 + me as u64,
                last: (me as u64) << 48,
                busy: Vec::new(),
                waiting: Vec::new(),
                bridges: 0,
            };
            std::thread::spawn(move || {
                // A panic would leave the others at the barrier for ever.
                struct Abort;
                impl Drop for Abort {
                    fn drop(&mut self) {
                        if std::thread::panicking() {
                            std::process::abort();
                        }
                    }
                }
                let _abort = Abort;
                while worker.shared.stop.load(SeqCst) == 0 {
                    worker.shared.barrier.wait();
                    worker.round();
                    if worker.lobby.me == 0 && worker.started.elapsed() > RUN {
                        worker.shared.stop.store(1, SeqCst);
                    }
                    worker.shared.barrier.wait();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(shared.served.load(Relaxed) > 0);
}

#[test]
fn two_threads_lose_nothing() {
    run(2);
}

#[test]
fn three_threads_lose_nothing() {
    run(3);
}

#[test]
fn four_threads_lose_nothing() {
    run(4);
}
