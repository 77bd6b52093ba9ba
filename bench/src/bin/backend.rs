//! The backend of all benchmarks: listens for the ordinary proxies, or dials cloudbridge, or both.

use std::io;
use std::time::Duration;

use cloudbridge_bench::backend::{Hosts, Plan, run};
use cloudbridge_bench::{options, sys};

const BRIEF: &str = "backend [--listen ADDRESS:PORT] [--bridge ADDRESS:PORT|unix:PATH --bridges N]

/                  a small body                  /bytes/N         N bytes, Content-Length
/chunked/N/SIZE    N bytes in chunks of SIZE     any with a body  the number of its bytes
/work/MICROS       a small body, after so long
A WebSocket handshake, on any target, gets an echo.";

fn main() -> io::Result<()> {
    let mut known = getopts::Options::new();
    known.optopt("", "listen", "where to listen", "ADDRESS:PORT");
    known.optopt("", "bridge", "which cloudbridge to dial", "TARGET");
    known.optopt("", "bridges", "bridges to hold (64)", "N");
    known.optopt("", "host", "the host name they all offer (*)", "NAME");
    known.optopt("", "hosts", "offer host0.bench, host1.bench and so on, N of them", "N");
    known.optopt("", "body", "size of the small body (64)", "BYTES");
    known.optopt("", "delay", "time each request takes (0)", "MS");
    known.optopt(
        "",
        "slots",
        "requests worked on at once, of those that take time (no limit)",
        "N",
    );
    let given = options::parse(known, BRIEF);
    let hosts = match options::value(&given, "hosts", 0) {
        0 => Hosts::One(options::value(&given, "host", String::from("*"))),
        hosts => Hosts::Numbered(hosts),
    };
    let plan = Plan {
        listen: options::address(&given, "listen"),
        proxy: options::target(&given, "bridge"),
        bridges: options::value(&given, "bridges", 64),
        hosts,
        small_body: options::value(&given, "body", 64),
        delay: Duration::from_secs_f64(options::value(&given, "delay", 0.0_f64).max(0.0) / 1000.0),
        slots: options::value(&given, "slots", usize::MAX),
    };
    if plan.listen.is_none() && plan.proxy.is_none() {
        options::fail("neither --listen nor --bridge: nothing to do (-h for help)");
    }
    sys::raise_descriptor_limit()?;
    run(plan)
}
