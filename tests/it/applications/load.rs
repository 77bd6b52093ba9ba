//! A load of GETs and POSTs, and what has come of it.

use super::backend::{Fate, Ledger};
use super::client::{Answer, Client, Outcome};
use crate::common::{Ends, let_pass};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Clients, each with one request at a time: fewer than there are places while one member is away.
const CLIENTS: usize = 12;

/// A client makes its connection anew after so many requests.
const PER_CONNECTION: u64 = 50;

/// What requests take at the application, in milliseconds, in turn.
const WORK: [u64; 5] = [0, 1, 2, 5, 10];

/// How long a client waits before it dials a proxy again that is not there.
const PAUSE: Duration = Duration::from_millis(2);

/// One load at a time: two would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// How long a load goes on.
pub fn length() -> Duration {
    let long = std::env::var("CLOUDBRIDGE_LONG").is_ok_and(|value| value == "1");
    Duration::from_secs(if long { 60 } else { 8 })
}

/// A request that was not answered with 200.
#[derive(Clone, Debug)]
pub struct Failure {
    /// It was a POST.
    pub is_post: bool,
    /// Its id.
    pub id: String,
    /// What came instead.
    pub what: String,
    /// No byte of an answer had come when the connection ended.
    pub unheard: bool,
    /// From the request to the failure.
    during: Range<Instant>,
}

/// A load that is running.
pub struct Load<'a> {
    to: &'a [SocketAddr],
    ledger: &'a Ledger,
    begun: Instant,
    over: AtomicBool,
    gets: AtomicU64,
    posts: Mutex<Vec<String>>,
    failures: Mutex<Vec<Failure>>,
    disturbances: Mutex<Vec<Range<Instant>>>,
}

/// What has come of a load.
pub struct Report {
    /// The requests that failed.
    pub failures: Vec<Failure>,
    /// How many GETs were answered.
    pub gets: u64,
    /// How many POSTs were.
    pub posts: u64,
    disturbances: Vec<Range<Instant>>,
}

impl Load<'_> {
    /// Runs a load on the proxy at `to` while `during` does what it does. Fails the test if an
    /// answer belongs to another request, or if a POST was done twice, or was answered and not
    /// done.
    #[track_caller]
    pub fn run(to: SocketAddr, ledger: &Ledger, during: impl FnOnce(&Load<'_>)) -> Report {
        Load::run_at(&[to], ledger, during)
    }

    /// As [`Load::run`], on several proxies: a client goes to the next when one is not there, and
    /// from time to time.
    #[track_caller]
    pub fn run_at(to: &[SocketAddr], ledger: &Ledger, during: impl FnOnce(&Load<'_>)) -> Report {
        let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
        let load = Load {
            to,
            ledger,
            begun: Instant::now(),
            over: AtomicBool::new(false),
            gets: AtomicU64::new(0),
            posts: Mutex::default(),
            failures: Mutex::default(),
            disturbances: Mutex::default(),
        };
        std::thread::scope(|scope| {
            let load = &load;
            for client in 0..CLIENTS {
                scope.spawn(move || load.ask(client));
            }
            let _ends = Ends(&load.over);
            during(load);
        });
        load.report()
    }

    /// Whether it has gone on for [`length`].
    pub fn is_done(&self) -> bool {
        self.begun.elapsed() >= length()
    }

    /// Notes for how long `what` takes: only requests of that time may fail for it.
    pub fn disturb(&self, what: impl FnOnce()) {
        let begun = Instant::now();
        what();
        let during = begun..Instant::now();
        self.disturbances.lock().expect("no thread died with it").push(during);
    }

    fn failures(&self) -> MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().expect("no thread died with it")
    }

    /// One client: asks and compares until the load is over.
    fn ask(&self, client: usize) {
        // A thread that finds a wrong answer fails the test, and ends the others with it.
        let _ends = Ends(&self.over);
        let mut connection = Client::new(self.to, client);
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("{client}-{number}");
            let is_post = number % 3 == 0;
            let asked = Instant::now();
            match connection.ask(&request(&id, is_post, number)) {
                Outcome::Answered(answer) if answer.status == 200 => {
                    self.answered(&id, is_post, &answer);
                }
                Outcome::Answered(answer) => {
                    let what = format!("{} {}", answer.status, answer.body.trim_end());
                    let during = asked..Instant::now();
                    self.failures().push(Failure { is_post, id, what, unheard: false, during });
                }
                Outcome::Refused => let_pass(PAUSE),
                Outcome::Lost { begun, why } => {
                    let what = format!("lost: {why}");
                    let during = asked..Instant::now();
                    self.failures().push(Failure { is_post, id, what, unheard: !begun, during });
                }
            }
            if number % PER_CONNECTION == 0 {
                connection.renew();
            }
        }
    }

    fn answered(&self, id: &str, is_post: bool, answer: &Answer) {
        assert_eq!(answer.id.as_deref(), Some(id), "the head of another answer: {answer:?}");
        assert_eq!(answer.body, id, "the body of another answer: {answer:?}");
        if is_post {
            self.posts.lock().expect("no thread died with it").push(id.to_owned());
        } else {
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[track_caller]
    fn report(self) -> Report {
        let seen = self.ledger.posts();
        for (id, fate) in seen.iter() {
            assert!(fate.executed <= 1, "POST {id} was done twice: {fate:?}");
        }
        let posts = self.posts.into_inner().expect("no thread died with it");
        let nowhere = Fate::default();
        for id in &posts {
            let fate = seen.get(id).unwrap_or(&nowhere);
            assert_eq!(fate.executed, 1, "POST {id} was answered: {fate:?}");
        }
        let failures = self.failures.into_inner().expect("no thread died with it");
        let gets = self.gets.into_inner();
        eprintln!("{gets} GETs and {} POSTs answered, {} failed", posts.len(), failures.len());
        let disturbances = self.disturbances.into_inner().expect("no thread died with it");
        Report { failures, gets, posts: posts.len() as u64, disturbances }
    }
}

impl Report {
    /// Fails the test if any request of a kind that `which` names has failed.
    #[track_caller]
    pub fn assert_none_failed(&self, which: impl Fn(&Failure) -> bool) {
        let failed: Vec<&Failure> = self.failures.iter().filter(|one| which(one)).collect();
        let first = &failed[..failed.len().min(5)];
        assert!(failed.is_empty(), "{} of {} failed, such as {first:#?}", failed.len(), self.all());
        assert!(self.all() > 100, "{} requests are no load", self.all());
    }

    /// Fails the test if a POST has failed at a time when nothing was done that could explain it,
    /// or a GET with fewer than two things done: it is sent again after the first.
    #[track_caller]
    pub fn assert_each_failed_during_disturbances(&self) {
        let explained = |failure: &&Failure| {
            let Range { start, end } = failure.during;
            let met = self.disturbances.iter().filter(|one| one.start < end && start < one.end);
            met.count() >= if failure.is_post { 1 } else { 2 }
        };
        let unexplained: Vec<_> = self.failures.iter().filter(|one| !explained(one)).collect();
        assert!(unexplained.is_empty(), "nothing explains {unexplained:#?}");
    }

    /// The POSTs that failed.
    pub fn failed_posts(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(|failure| failure.is_post)
    }

    fn all(&self) -> u64 {
        self.gets + self.posts + self.failures.len() as u64
    }
}

fn request(id: &str, is_post: bool, number: u64) -> String {
    let work = WORK[(number % WORK.len() as u64) as usize];
    if is_post {
        let length = id.len();
        format!(
            "POST /{id}?{work} HTTP/1.1\r\nHost: a.test\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{id}"
        )
    } else {
        format!("GET /{id}?{work} HTTP/1.1\r\nHost: a.test\r\nX-Id: {id}\r\n\r\n")
    }
}
