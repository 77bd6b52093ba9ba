//! What real threads measure: the costs that the model is told, and what one core does to another's
//! matching.
//!
//! Figures of one thread are the best of a few rounds: whatever else the machine does makes a round
//! longer, never shorter. Those of several threads are the median: the machine may have run them
//! one after the other.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use cloudbridge::net::mailbox::Mailbox;
use cloudbridge::routing::{
    Bounds, Directory, Enqueued, Membership, Parked, Route, RouteQuery, RouteSpec, Scheduler,
};
use cloudbridge::time::Micros;
use mio::{Events, Interest, Poll, Token, Waker};

const ROUNDS: usize = 15;
const BOUNDS: Bounds =
    Bounds { per_route: 1024, unserved: 1024, unserved_waits: true, bridges_per_host: 0 };

/// Prints all of it.
pub fn print() {
    println!("| what | ns |\n| --- | ---: |");
    row("a cache line goes to another core", best(|| line_to_another_core(200_000)));
    row("mail to a worker that is awake", best(|| mail_to_the_wakeful(200_000)));
    row("mail to a worker that sleeps, until it is read", best(|| mail_to_the_sleeping(20_000)));
    row("a socket is deregistered and registered elsewhere", best(|| socket_moves(50_000)));
    for (what, pattern) in [("match + park", Pattern::Match), ("wait + serve", Pattern::Wait)] {
        for (who, threads, routes) in [
            ("one thread", 1, Routes::Own),
            ("two threads, each a route of its own", 2, Routes::Own),
            ("two threads on one route", 2, Routes::Shared),
            ("eight threads on one route", 8, Routes::Shared),
        ] {
            row(
                &format!("{what}, {who}"),
                median(|| schedulers(pattern, threads, routes, 500_000)),
            );
        }
    }
    row("a bridge is taken over, and parks", best(|| take_over(500_000)));
}

fn row(what: &str, nanos: f64) {
    println!("| {what} | {nanos:.0} |");
}

fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut rounds = [(); ROUNDS].map(|()| measure());
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn per(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}

/// Two threads take turns at one counter.
fn line_to_another_core(turns: u32) -> f64 {
    let counter = AtomicU32::new(0);
    let take_turns = |mine: u32| {
        for turn in (mine..turns).step_by(2) {
            while counter.load(SeqCst) != turn {
                std::hint::spin_loop();
            }
            counter.store(turn + 1, SeqCst);
        }
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| take_turns(1));
        take_turns(0);
    });
    per(begun.elapsed(), turns as usize)
}

/// A message is sent and read by one thread that does not wait for it.
fn mail_to_the_wakeful(count: usize) -> f64 {
    let poll = Poll::new().expect("a poll");
    let mailbox = Mailbox::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
    let mut mail = Vec::new();
    // Woken once, by the first; the others find it so.
    let begun = Instant::now();
    for item in 0..count {
        mailbox.send(item);
    }
    mailbox.empty(&mut mail);
    assert_eq!(mail.len(), count);
    per(begun.elapsed(), count)
}

/// Two threads send each other one message to and fro, each waiting in its poll for it.
fn mail_to_the_sleeping(turns: usize) -> f64 {
    let polls = [(); 2].map(|()| Poll::new().expect("a poll"));
    let boxes = [0, 1].map(|at: usize| {
        Mailbox::new(Waker::new(polls[at].registry(), Token(0)).expect("a waker"))
    });
    let play = |me: usize, mut poll: Poll| {
        let (mut events, mut mail) = (Events::with_capacity(8), Vec::new());
        for _ in 0..turns / 2 {
            while mail.is_empty() {
                poll.poll(&mut events, None).expect("poll");
                boxes[me].empty(&mut mail);
            }
            mail.clear();
            boxes[1 - me].send(());
        }
    };
    let begun = Instant::now();
    boxes[0].send(());
    thread::scope(|scope| {
        for (me, poll) in polls.into_iter().enumerate() {
            scope.spawn(move || play(me, poll));
        }
    });
    per(begun.elapsed(), turns)
}

/// A connected socket goes from one poll to another and back.
fn socket_moves(moves: usize) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let _peer = std::net::TcpStream::connect(address).expect("a connection");
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_nonblocking(true).expect("non-blocking");
    let polls = [(); 2].map(|()| Poll::new().expect("a poll"));
    let interest = Interest::READABLE | Interest::WRITABLE;
    let mut stream = mio::net::TcpStream::from_std(stream);
    polls[0].registry().register(&mut stream, Token(0), interest).expect("registered");
    let begun = Instant::now();
    for turn in 0..moves {
        polls[turn % 2].registry().deregister(&mut stream).expect("deregistered");
        // As it crosses from thread to thread; mio lets a socket change its poll no other way.
        stream = mio::net::TcpStream::from_std(std::net::TcpStream::from(stream));
        let to = &polls[(turn + 1) % 2];
        to.registry().register(&mut stream, Token(turn), interest).expect("registered");
    }
    per(begun.elapsed(), moves)
}

#[derive(Clone, Copy)]
enum Pattern {
    /// A request finds the thread's own bridge parked, and the bridge parks again.
    Match,
    /// A request waits, and the thread's bridge parks and serves it.
    Wait,
}

#[derive(Clone, Copy)]
enum Routes {
    Own,
    Shared,
}

/// Nanoseconds of CPU for one operation of each of `threads` threads.
fn schedulers(pattern: Pattern, threads: usize, routes: Routes, count: usize) -> f64 {
    let directory = Arc::new(Directory::new(8));
    let start = Barrier::new(threads);
    let measure = |me: usize| {
        // Made on its own thread, as the proxy's are filled: no two schedulers' memory lies on one
        // line.
        let mut scheduler = Scheduler::new(me, Arc::clone(&directory), BOUNDS);
        let host = match routes {
            Routes::Own => format!("host{me}.model"),
            Routes::Shared => "host.model".to_owned(),
        };
        let spec = RouteSpec::new([&host], "");
        let route =
            scheduler.join(&spec, Micros(0), &|_, _| false).expect("bridges are not bounded").route;
        start.wait();
        scheduler.sync(&|_, _| false);
        let begun = thread_time();
        play(pattern, scheduler, &route, &host, count);
        per(thread_time() - begun, count)
    };
    let measure = &measure;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|me| scope.spawn(move || measure(me))).collect();
        let sum: f64 = running.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        sum / threads as f64
    })
}

/// CPU time of this thread: there may be fewer cores than threads.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The clock stands still: no request is ever older by enough to be sent a bridge, so that no
/// bridge has to move.
fn play(
    pattern: Pattern,
    mut scheduler: Scheduler<u64>,
    route: &Arc<Route<u64>>,
    host: &str,
    count: usize,
) {
    let now = Micros(0);
    if let Pattern::Match = pattern {
        black_box(scheduler.park(route, Membership::default(), 1, 1));
    }
    for _ in 0..count {
        let enqueued = scheduler.enqueue(7, &RouteQuery::new(black_box(host), "/"), now);
        let expected = match pattern {
            Pattern::Match => matches!(enqueued, Enqueued::Matched { .. }),
            Pattern::Wait => matches!(enqueued, Enqueued::Queued(_)),
        };
        assert!(expected, "{enqueued:?}");
        let parked = scheduler.park(route, Membership::default(), 1, 1);
        let expected = match pattern {
            Pattern::Match => matches!(parked, Parked::Idle(_)),
            Pattern::Wait => matches!(parked, Parked::Serve { .. }),
        };
        assert!(expected, "{parked:?}");
    }
}

/// Two workers, on one thread, take a bridge from each other.
fn take_over(count: usize) -> f64 {
    let directory = Arc::new(Directory::new(2));
    let mut schedulers = [0, 1].map(|me| Scheduler::new(me, Arc::clone(&directory), BOUNDS));
    let spec = RouteSpec::new(["host.model"], "");
    let route =
        schedulers[0].join(&spec, Micros(0), &|_, _| false).expect("bridges are not bounded").route;
    schedulers[1].sync(&|_, _| false);
    black_box(schedulers[0].park(&route, Membership::default(), 1, 1_u64));
    let begun = thread_time();
    for turn in 0..count {
        let taker = &mut schedulers[(turn + 1) % 2];
        let query = RouteQuery::new(black_box("host.model"), "/");
        let Enqueued::Matched { bridge, owner, .. } = taker.enqueue(7, &query, Micros(0)) else {
            panic!("the bridge is gone");
        };
        assert_eq!(owner.worker, turn % 2);
        black_box(taker.park(&route, Membership::default(), 1, bridge));
    }
    per(thread_time() - begun, count)
}
