//! Backends that are killed and started again under load: every answer belongs to its question, no
//! GET fails, no POST is done twice.
//!
//! `CLOUDBRIDGE_STRESS_SECONDS` says for how long (5 without it), `CLOUDBRIDGE_STRESS_SEED` with
//! which choices.

use crate::common::{ACK, Agent, Bridge, Client, DEADLINE, Message, Proxy, Wire};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HOSTS: [&str; 3] = ["a.test", "b.test", "x.b.test"];
const REGISTRATIONS: [&[&str]; 4] =
    [&["a.test", "b.test"], &["*.b.test", "a.test"], &["*"], &["b.test", "x.b.test"]];
const BACKENDS: u64 = 12;
const CLIENTS: u64 = 12;

/// One in this many chances is taken to die. Rare enough that no request meets only dying backends.
const DEATHS: u64 = 300;

/// A small seeded generator (xorshift64*), for choices that a failing test can print the seed of.
struct Random(u64);

impl Random {
    /// A generator for this seed.
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the run has seen.
#[derive(Default)]
struct Ledger {
    over: AtomicBool,
    served: AtomicU64,
    failed_posts: AtomicU64,
    deaths: AtomicU64,
    executed: Mutex<HashSet<String>>,
}

impl Ledger {
    fn execute(&self, post: &str) {
        let new = self.executed.lock().expect("no thread died with it").insert(post.to_owned());
        assert!(new, "{post} was executed twice");
    }

    fn was_executed(&self, post: &str) -> bool {
        self.executed.lock().expect("no thread died with it").contains(post)
    }

    /// Whether it has seen enough to show anything.
    fn is_stress(&self) -> bool {
        self.served.load(Ordering::Relaxed) > 100 && self.deaths.load(Ordering::Relaxed) > 0
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One life of a backend: registers, serves for a while, and dies at some moment without a word.
/// Returns when it has died, or when the proxy has closed the bridge.
///
/// The first backends keep their hosts: if all chose by chance, no backend might be left for one of
/// the names, and then none of those that wait for others would ever have reason to change.
fn live(proxy: &Proxy, ledger: &Ledger, name: u64, random: &mut Random) {
    let chosen = random.below(REGISTRATIONS.len() as u64) as usize;
    let hosts = REGISTRATIONS.get(name as usize).unwrap_or(&REGISTRATIONS[chosen]);
    let Some(mut bridge) = park(proxy, hosts) else {
        return;
    };
    let mut fresh = true;
    loop {
        if random.below(DEATHS) == 0 {
            // Parked, or with a request just on its way.
            ledger.deaths.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The end of the run closes it; so does a proxy that has given up on it.
        let Some(request) = next_request(&mut bridge, &mut fresh, ledger, random) else {
            return;
        };
        let id = request.field("x-id").expect("every request has its id").to_owned();
        if request.start.starts_with("POST ") {
            assert_eq!(request.text(), id, "the body of another request");
            ledger.execute(&id);
        }
        if random.below(DEATHS) == 0 {
            ledger.deaths.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let closing = random.below(20) == 0;
        let connection = if closing { "Connection: close\r\n" } else { "" };
        let length = id.len();
        bridge.send_if_open(format!(
            "HTTP/1.1 200 OK\r\n{connection}X-Id: {id}\r\nContent-Length: {length}\r\n\r\n{id}"
        ));
        if closing {
            return;
        }
    }
}

/// A parked bridge; `None` when the proxy has just ended with the run.
fn park(proxy: &Proxy, hosts: &[&str]) -> Option<Bridge> {
    let mut bridge = Bridge::reused(Wire::try_connect(proxy.for_bridges())?);
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    bridge.send_if_open(format!("BRIDGE / HTTP/1.1\r\n{hosts}\r\n"));
    bridge.read_some(0)?;
    (bridge.read_head().head == ACK).then_some(bridge)
}

/// The next request on this bridge; `None` when it has been closed, or dies between the 101 and the
/// ack.
fn next_request(
    bridge: &mut Bridge,
    fresh: &mut bool,
    ledger: &Ledger,
    random: &mut Random,
) -> Option<Message> {
    bridge.read_some(0)?;
    if *fresh {
        *fresh = false;
        let head = bridge.read_head();
        if head.start.starts_with("HTTP/1.1 504") {
            return None;
        }
        assert_eq!(head.start, "HTTP/1.1 101 Upgrade");
        if random.below(DEATHS) == 0 {
            ledger.deaths.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        bridge.send_if_open(ACK);
        // Without a request it has been given up.
        bridge.read_some(0)?;
    }
    Some(bridge.accept_request())
}

/// One client: asks and compares until the run is over.
fn ask(proxy: &Proxy, ledger: &Ledger, name: u64, random: &mut Random) {
    let mut client = Client::connect(proxy);
    for number in 0.. {
        if ledger.is_over() {
            return;
        }
        let id = format!("{name}-{number}-{:x}", random.next());
        let host = HOSTS[random.below(HOSTS.len() as u64) as usize];
        let post = random.below(3) == 0;
        if post {
            let length = id.len();
            client.send(format!("POST /{id} HTTP/1.1\r\nHost: {host}\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{id}"));
        } else {
            client.send(format!("GET /{id} HTTP/1.1\r\nHost: {host}\r\nX-Id: {id}\r\n\r\n"));
        }
        let response = client.read_response();
        match response.status() {
            200 => {
                assert_eq!(response.field("x-id"), Some(id.as_str()), "the head of another answer");
                assert_eq!(response.text(), id, "the body of another answer");
                assert!(!post || ledger.was_executed(&id), "{id} was answered and not executed");
                ledger.served.fetch_add(1, Ordering::Relaxed);
            }
            502 if post => {
                ledger.failed_posts.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("{} {id} got {response:?}", if post { "POST" } else { "GET" }),
        }
        let closed =
            response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if closed || random.below(50) == 0 {
            client = Client::connect(proxy);
        }
    }
}

fn run(workers: u64) {
    let seconds = setting("CLOUDBRIDGE_STRESS_SECONDS", 5);
    let seed = setting("CLOUDBRIDGE_STRESS_SEED", u64::from(std::process::id()));
    eprintln!("CLOUDBRIDGE_STRESS_SEED={seed} with {workers} workers");
    // Backends die of themselves, often: a GET that meets two of them is to be served all the same.
    let proxy = Proxy::with(&format!("workers {workers}\nretries 16"));
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        let (proxy, ledger) = (&proxy, &ledger);
        for name in 0..BACKENDS {
            let mut random = Random::new(seed.wrapping_mul(1000) + name);
            scope.spawn(move || {
                while !ledger.is_over() {
                    live(proxy, ledger, name, &mut random);
                }
            });
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let mut random = Random::new(seed.wrapping_mul(1000) + 500 + name);
                scope.spawn(move || ask(proxy, ledger, name, &mut random))
            })
            .collect();
        let begun = Instant::now();
        let least = Duration::from_secs(seconds);
        // A machine that is busy needs longer for as much.
        let goes_on = || {
            let passed = begun.elapsed();
            passed < least || (passed < least + DEADLINE && !ledger.is_stress())
        };
        while goes_on() && clients.iter().all(|client| !client.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        ledger.over.store(true, Ordering::Relaxed);
        let failed = clients.into_iter().filter_map(|client| client.join().err()).next();
        // This closes the bridges that the backends wait on.
        proxy.terminate();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
    let [served, failed, deaths] = [&ledger.served, &ledger.failed_posts, &ledger.deaths]
        .map(|count| count.load(Ordering::Relaxed));
    eprintln!("{served} answered, {failed} POSTs failed, {deaths} backends died");
    assert!(ledger.is_stress(), "{served} answered and {deaths} deaths are no stress");
}

#[test]
fn two_workers_lose_and_swap_nothing_while_backends_die() {
    run(2);
}

#[test]
fn four_workers_lose_and_swap_nothing_while_backends_die() {
    run(4);
}

#[test]
fn processes_that_are_killed_and_started_again_cost_no_get() {
    const AGENTS: usize = 3;
    let seconds = setting("CLOUDBRIDGE_STRESS_SECONDS", 5);
    // A GET that is sent again may meet the next kill.
    let proxy = Proxy::with("retries 16");
    let over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let mut agents: Vec<Agent> = (0..AGENTS).map(|_| Agent::echo(&proxy, &["a.test"])).collect();
    std::thread::scope(|scope| {
        let (proxy, over, served) = (&proxy, &over, &served);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                scope.spawn(move || {
                    let mut client = Client::connect(proxy);
                    for number in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        client.send_get("a.test", &format!("/{name}/{number}"));
                        let response = client.read_response();
                        assert_eq!(response.status(), 200, "{response:?}");
                        let line = format!("GET /{name}/{number} HTTP/1.1\r\n");
                        assert!(response.text().starts_with(&line), "not {line:?}: {response:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut kills = 0;
        while Instant::now() < until && clients.iter().all(|client| !client.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            agents[kills % AGENTS] = Agent::echo(proxy, &["a.test"]);
            kills += 1;
        }
        over.store(true, Ordering::Relaxed);
        let failed = clients.into_iter().filter_map(|client| client.join().err()).next();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
        eprintln!("{} answered, {kills} processes killed", served.load(Ordering::Relaxed));
    });
}
