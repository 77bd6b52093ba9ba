//! The loads that wrk does not know: large bodies both ways, a fixed rate, WebSocket messages.
//!
//! The last line it prints is `RESULT {json}`, with latencies in microseconds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cloudbridge_bench::address::Address;
use cloudbridge_bench::histogram::Histogram;
use cloudbridge_bench::random::Times;
use cloudbridge_bench::site::Answer;
use cloudbridge_bench::{bulk, echo, encrypted, options, pace, sys};
use getopts::Matches;

const BRIEF: &str = "load bulk | rate | echo | tls  --to ADDRESS:PORT | unix:PATH [options]

bulk   bodies one after another: downloads, or uploads with --upload
rate   small requests at times fixed beforehand, latencies counted from then; with --work without the
       work that each request asks for
echo   WebSocket messages of --size bytes, each sent when the last one is back
tls    requests by TLS, one after another, or with --close a connection for each";

fn main() -> io::Result<()> {
    let mut known = getopts::Options::new();
    known.optmulti("", "to", "the proxy (127.0.0.1:8079); rate: may be repeated", "TARGET");
    known.optopt("", "host", "the host asked for (app.bench)", "NAME");
    known.optopt("", "path", "the target asked for (/)", "PATH");
    known.optopt("", "connections", "connections (64)", "N");
    known.optopt("", "seconds", "for how long (5)", "S");
    known.optopt("", "upload", "bulk: send bodies of so many bytes", "BYTES");
    known.optopt("", "chunk", "bulk: send them in chunks of this size", "BYTES");
    known.optopt("", "rate", "rate: requests per second (1000)", "R");
    known.optflag("", "poisson", "rate: at random times instead of regular ones");
    known.optopt(
        "",
        "work",
        "rate: ask the backend to work on each request (exponential, heavy-tailed)",
        "TIMES",
    );
    known.optopt("", "mean", "rate: how long, on average (20)", "MS");
    known.optopt("", "ca", "tls: the issuer of the proxy's certificate", "FILE");
    known.optflag("", "close", "tls: a connection for each request");
    known.optflag("", "resume", "tls: handshakes with a ticket");
    known.optopt("", "size", "echo: bytes of each message (64)", "BYTES");
    let given = options::parse(known, BRIEF);
    sys::raise_descriptor_limit()?;
    match given.free.first().map(String::as_str) {
        Some("bulk") => bulk(&given),
        Some("rate") => rate(&given),
        Some("echo") => echo(&given),
        Some("tls") => tls(&given),
        _ => options::fail("which load: bulk, rate, echo or tls? (-h for help)"),
    }
}

/// What all three need: where to, host, path, connections, time.
fn common(given: &Matches) -> (Address, String, String, usize, Duration) {
    let default = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8079)));
    (
        options::target(given, "to").unwrap_or(default),
        options::value(given, "host", String::from("app.bench")),
        options::value(given, "path", String::from("/")),
        options::value(given, "connections", 64),
        Duration::from_secs(options::value(given, "seconds", 5)),
    )
}

fn bulk(given: &Matches) -> io::Result<()> {
    let (to, host, path, connections, time) = common(given);
    let total = options::value(given, "upload", 0);
    let upload = match options::value(given, "chunk", 0) {
        _ if total == 0 => None,
        0 => Some(Answer::Bytes(total)),
        size => Some(Answer::Chunked { total, size }),
    };
    let plan = bulk::Plan { to, host, path, upload, connections, time };
    let moved = bulk::run(&plan)?;
    println!(
        r#"RESULT {{"bytes": {}, "requests": {}, "errors": {}, "seconds": {:.6}}}"#,
        moved.bytes,
        moved.requests,
        moved.errors,
        moved.took.as_secs_f64()
    );
    Ok(())
}

fn rate(given: &Matches) -> io::Result<()> {
    let (to, host, path, connections, time) = common(given);
    let rate = options::value(given, "rate", 1000.0);
    let poisson = given.opt_present("poisson");
    let mean = Duration::from_secs_f64(options::value(given, "mean", 20.0_f64).max(0.0) / 1000.0);
    let work = given
        .opt_present("work")
        .then(|| pace::Work { times: options::value(given, "work", Times::Exponential), mean });
    let all = options::targets(given, "to");
    let to = if all.is_empty() { vec![to] } else { all };
    let plan = pace::Plan { to, host, path, work, rate, poisson, connections, time };
    let paced = pace::run(&plan)?;
    let counts = [paced.requests, paced.errors, paced.unanswered];
    result(counts, paced.took, &paced.latency);
    Ok(())
}

fn echo(given: &Matches) -> io::Result<()> {
    let (to, host, path, connections, time) = common(given);
    let size = options::value(given, "size", 64);
    let echoed = echo::run(&echo::Plan { to, host, path, size, connections, time })?;
    let counts = [echoed.messages, echoed.errors, 0];
    result(counts, echoed.took, &echoed.latency);
    Ok(())
}

fn tls(given: &Matches) -> io::Result<()> {
    let (to, host, path, connections, time) = common(given);
    let Address::Tcp(to) = to else { options::fail("--to: TLS is for TCP") };
    let plan = encrypted::Plan {
        to,
        host,
        path,
        ca: options::value(given, "ca", PathBuf::from("ca.pem")),
        close: given.opt_present("close"),
        resume: given.opt_present("resume"),
        upload: options::value(given, "upload", 0),
        connections,
        time,
    };
    let done = encrypted::run(&plan)?;
    println!(
        r#"RESULT {{"bytes": {}, "requests": {}, "errors": {}, "seconds": {:.6}}}"#,
        done.bytes,
        done.requests,
        done.errors,
        done.took.as_secs_f64()
    );
    Ok(())
}

/// Prints the counts of requests answered, failed and not answered, and the latencies.
fn result(counts: [u64; 3], took: Duration, latency: &Histogram) {
    let [requests, errors, unanswered] = counts;
    let micros = |share| latency.percentile(share).as_secs_f64() * 1e6;
    println!(
        r#"RESULT {{"requests": {requests}, "errors": {errors}, "unanswered": {unanswered}, "seconds": {:.6}, "mean": {:.1}, "p50": {:.1}, "p90": {:.1}, "p99": {:.1}, "p999": {:.1}, "max": {:.1}}}"#,
        took.as_secs_f64(),
        latency.mean().as_secs_f64() * 1e6,
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        latency.longest().as_secs_f64() * 1e6
    );
}
