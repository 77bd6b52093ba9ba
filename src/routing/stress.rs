//! The scheduler on real threads, with real locks and atomics: rounds of a few hundred operations
//! on every worker. After each round, when all mail has arrived, no request may wait beside a
//! bridge that could serve it, and nothing may be lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::*;
use crate::http::Predicates;
use crate::time::Micros;

const RUN: Duration = Duration::from_millis(700);
const OPERATIONS_PER_ROUND: usize = 300;
/// Enough turns to ask all requests that wait about all routes with predicates.
const TURNS_TO_SYNC: usize = 100;
const HOSTS: [&str; 3] = ["a.x", "b.x", "c"];
const PATTERNS: [&[&str]; 4] = [&["a.x"], &["*.x"], &["*"], &["b.x", "c"]];

/// How many instances the bridges are of; one bridge, and one request, in as many is of none.
const INSTANCES: usize = 3;

/// Every other request meets the predicates of a route that has some.
const MEETS: WaitingMeets<'static> = &|request, _| request.is_multiple_of(2);

/// What the request with this number asks for.
fn query_of(request: u64, wanted: Option<Wanted>) -> RouteQuery<'static> {
    let (yes, no): (Meets<'static>, Meets<'static>) = (&|_| true, &|_| false);
    let host = HOSTS[request as usize / 2 % HOSTS.len()];
    let meets = if request.is_multiple_of(2) { yes } else { no };
    RouteQuery::new(host, "/").with_meets(Some(meets)).with_wanted(wanted)
}

/// A bridge that knows its route and instance, as the proxy's do.
#[derive(Debug)]
struct Bridge {
    route: Arc<Route<Box<Bridge>>>,
    of: Membership,
}

/// A bridge on its way; none if it has died.
type Message = (Option<Box<Bridge>>, Transfer);

struct Shared {
    barrier: Barrier,
    /// Messages sent and not yet handled.
    under_way: AtomicUsize,
    /// Bridges connected: what the routes' members must add up to.
    bridges: AtomicUsize,
    busy: AtomicUsize,
    served: AtomicUsize,
    stop: AtomicBool,
}

/// An idle bridge: its route, its entry there and its token.
type IdleBridge = (Arc<Route<Box<Bridge>>>, IdleHandle, u64);

struct Worker {
    scheduler: Scheduler<Box<Bridge>>,
    inbox: Receiver<Message>,
    outboxes: Vec<Sender<Message>>,
    shared: Arc<Shared>,
    started: Instant,
    rng: u64,
    last: u64,
    #[expect(clippy::vec_box, reason = "a parked bridge is a box, as in the proxy")]
    busy: Vec<Box<Bridge>>,
    /// Some of these have been matched or taken over meanwhile.
    idle: Vec<IdleBridge>,
    waiting: HashMap<u64, WaiterId>,
}

impl Worker {
    fn below(&mut self, n: usize) -> usize {
        // xorshift64*
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        (self.rng.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn now(&self) -> Micros {
        Micros(self.started.elapsed().as_micros() as u64)
    }

    fn any_waiting(&mut self) -> Option<(u64, WaiterId)> {
        let at = self.below(self.waiting.len().max(1));
        self.waiting.iter().nth(at).map(|(request, waiter)| (*request, *waiter))
    }

    fn any_instance(&mut self) -> Option<InstanceId> {
        let number = self.below(INSTANCES + 1) as u64;
        (number > 0).then(|| InstanceId::new(number))
    }

    fn close(&mut self, bridge: &Bridge) {
        let now = self.now();
        self.scheduler.leave(&bridge.route, bridge.of, now);
        self.shared.bridges.fetch_sub(1, SeqCst);
    }

    fn park(&mut self, bridge: Box<Bridge>) {
        self.last += 1;
        let (route, of, token) = (Arc::clone(&bridge.route), bridge.of, self.last);
        match self.scheduler.park(&route, of, token, bridge) {
            Parked::Serve { bridge, request, .. } => {
                self.waiting.remove(&request).expect("a request was served that did not wait");
                self.serve(bridge);
            }
            Parked::Transfer { bridge, transfer } => {
                let dies = self.below(20) == 0;
                if dies {
                    self.close(&bridge);
                }
                self.shared.under_way.fetch_add(1, SeqCst);
                self.outboxes[transfer.to].send(((!dies).then_some(bridge), transfer)).unwrap();
            }
            Parked::Idle(handle) => self.idle.push((route, handle, token)),
        }
    }

    fn serve(&mut self, bridge: Box<Bridge>) {
        self.shared.served.fetch_add(1, Relaxed);
        self.busy.push(bridge);
    }

    fn enqueued(&mut self, request: u64, enqueued: Enqueued<Box<Bridge>>) {
        match enqueued {
            Enqueued::Matched { bridge, .. } => self.serve(bridge),
            Enqueued::Queued(waiter) => _ = self.waiting.insert(request, waiter),
            other => panic!("{other:?}"),
        }
    }

    fn take_matches(&mut self) {
        while let Some(Match { request, bridge, .. }) = self.scheduler.next_match() {
            self.waiting.remove(&request).expect("a request was matched that did not wait");
            self.serve(bridge);
        }
    }

    /// Handles one message, if there is one.
    fn receive(&mut self) -> bool {
        let Ok((bridge, transfer)) = self.inbox.try_recv() else {
            return false;
        };
        let Transfer { request, waiter, pos, .. } = transfer;
        let waits = self.waiting.get(&request) == Some(&waiter);
        assert_eq!(self.scheduler.receive(waiter), waits);
        if waits {
            self.waiting.remove(&request);
        }
        match (bridge, waits) {
            (Some(bridge), true) => self.serve(bridge),
            (Some(bridge), false) => self.park(bridge),
            (None, true) => self.requeue(request, pos),
            (None, false) => {}
        }
        // After the messages that it caused have been counted.
        self.shared.under_way.fetch_sub(1, SeqCst);
        true
    }

    /// A request goes back to its place, and anywhere.
    fn requeue(&mut self, request: u64, pos: QueuePos) {
        let (query, now) = (query_of(request, None), self.now());
        let enqueued = self.scheduler.requeue(request, pos, &query, |_| false, now);
        self.enqueued(request, enqueued);
    }

    /// The wait of a request for its instance ends, while a bridge may be given to it.
    fn stop_staying(&mut self) {
        let Some((request, waiter)) = self.any_waiting() else { return };
        if self.scheduler.stays_for(waiter).is_some()
            && let Some(pos) = self.scheduler.recall(waiter)
        {
            self.waiting.remove(&request);
            self.requeue(request, pos);
        }
    }

    fn operate(&mut self) {
        let now = self.now();
        match self.below(20) {
            0 if self.busy.len() + self.idle.len() < 6 => {
                let mut spec = RouteSpec::new(PATTERNS[self.below(PATTERNS.len())], "");
                if self.below(4) == 0 {
                    spec = spec.only_if(Predicates::read("If-Method: GET").unwrap());
                }
                let Joined { route, .. } = self.scheduler.join(&spec, now, MEETS).unwrap();
                let instance = self.any_instance();
                instance.into_iter().for_each(|id| route.join_instance(id));
                self.shared.bridges.fetch_add(1, SeqCst);
                self.take_matches();
                let of = Membership { group: None, instance };
                self.park(Box::new(Bridge { route, of }));
            }
            1 => {
                if let Some((request, waiter)) = self.any_waiting() {
                    self.scheduler.cancel(waiter);
                    self.waiting.remove(&request);
                }
            }
            2 => {
                self.scheduler.sync(MEETS);
                self.take_matches();
            }
            17..=19 => self.stop_staying(),
            3 if !self.busy.is_empty() && self.below(20) == 0 => {
                let bridge = self.busy.pop().expect("a bridge");
                self.close(&bridge);
            }
            4 if !self.idle.is_empty() => {
                let at = self.below(self.idle.len());
                let (route, handle, token) = self.idle.swap_remove(at);
                if let Some(bridge) = self.scheduler.unpark(&route, handle, token) {
                    self.close(&bridge);
                }
            }
            5..=9 if self.waiting.len() < 20 => {
                self.last += 1;
                let waits = self.below(4) > 0;
                let wanted = self.any_instance().map(|instance| Wanted { instance, waits });
                let query = query_of(self.last, wanted);
                let enqueued = self.scheduler.enqueue(self.last, &query, now);
                self.enqueued(self.last, enqueued);
            }
            10 if self.below(50) == 0 => {
                self.scheduler.directory.sweep(now + RETENTION);
            }
            _ if !self.busy.is_empty() => {
                let at = self.below(self.busy.len());
                let bridge = self.busy.swap_remove(at);
                self.park(bridge);
            }
            _ => {}
        }
    }

    fn round(&mut self) {
        for _ in 0..OPERATIONS_PER_ROUND {
            self.receive();
            self.operate();
        }
        self.shared.barrier.wait();
        // No route comes or goes any more, so after this everybody knows every route. A turn asks only so
        // many requests.
        for _ in 0..TURNS_TO_SYNC {
            self.scheduler.sync(MEETS);
            self.take_matches();
        }
        assert!(self.scheduler.is_synced());
        self.shared.barrier.wait();
        while self.shared.under_way.load(SeqCst) > 0 {
            if !self.receive() {
                std::thread::yield_now();
            }
        }
        self.shared.busy.fetch_add(self.busy.len(), SeqCst);
        self.shared.barrier.wait();
        self.scheduler.check_invariants_with(MEETS);
        assert_eq!(self.scheduler.counters().waiting, self.waiting.len());
        let routes = self.scheduler.directory.routes();
        let members: u32 = routes.iter().map(|route| route.members()).sum();
        let parked: u32 = routes.iter().map(|route| route.parked()).sum();
        let (bridges, busy) = (self.shared.bridges.load(SeqCst), self.shared.busy.load(SeqCst));
        assert_eq!((members as usize, parked as usize + busy), (bridges, bridges), "lost bridges");
        let mine = &self.scheduler;
        self.idle.retain(|(route, handle, token)| {
            mine.with_idle(route, *handle, *token, |_| ()).is_some()
        });
        self.shared.barrier.wait();
        self.shared.busy.store(0, SeqCst);
    }
}

fn run(workers: usize) {
    let directory = Arc::new(Directory::new(workers));
    let bounds =
        Bounds { per_route: 1_000, unserved: 1_000, unserved_waits: true, bridges_per_host: 0 };
    let shared = Arc::new(Shared {
        barrier: Barrier::new(workers),
        under_way: AtomicUsize::new(0),
        bridges: AtomicUsize::new(0),
        busy: AtomicUsize::new(0),
        served: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
    let started = Instant::now();
    let threads: Vec<_> = inboxes
        .into_iter()
        .enumerate()
        .map(|(me, inbox)| {
            let mut worker = Worker {
                scheduler: Scheduler::new(me, Arc::clone(&directory), bounds),
                inbox,
                outboxes: outboxes.clone(),
                shared: Arc::clone(&shared),
                started,
                rng: 0x9E37_79B9 + me as u64,
                last: (me as u64) << 48,
                busy: Vec::new(),
                idle: Vec::new(),
                waiting: HashMap::new(),
            };
            std::thread::spawn(move || {
                // A panic would leave the others at the barrier forever.
                struct Abort;
                impl Drop for Abort {
                    fn drop(&mut self) {
                        if std::thread::panicking() {
                            std::process::abort();
                        }
                    }
                }
                let _abort = Abort;
                while !worker.shared.stop.load(SeqCst) {
                    worker.shared.barrier.wait();
                    worker.round();
                    if worker.scheduler.me == 0 && worker.started.elapsed() > RUN {
                        worker.shared.stop.store(true, SeqCst);
                    }
                    worker.shared.barrier.wait();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
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
fn eight_threads_lose_nothing() {
    run(8);
}
