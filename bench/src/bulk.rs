//! Large bodies, one after another on each connection, for a given time.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::fleet::{Fleet, Happened};
use crate::output::{Output, Piece};
use crate::site::{Answer, Site};

/// What to move, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The proxy.
    pub to: Address,
    /// The name asked for.
    pub host: String,
    /// The target of each request.
    pub path: String,
    /// What to send with each request: [`Answer::Bytes`] or [`Answer::Chunked`]; `None` to
    /// download.
    pub upload: Option<Answer>,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Bytes of content, of finished and unfinished bodies.
    pub bytes: u64,
    /// Requests answered with 200.
    pub requests: u64,
    /// Requests lost or refused.
    pub errors: u64,
    /// The time it took.
    pub took: Duration,
}

/// Moves bodies until the time is up. Fails only when it cannot dial or poll.
pub fn run(plan: &Plan) -> io::Result<Moved> {
    let mut site = Site::new(0);
    let mut fleet = Fleet::dial(&plan.to, plan.connections)?;
    let head = head(plan);
    let mut moved = Moved::default();
    let mut happened: Vec<(usize, Happened)> = Vec::new();
    let started = Instant::now();
    let until = started + plan.time;
    let mut ready: Vec<usize> = (0..plan.connections).collect();
    while Instant::now() < until {
        for index in ready.drain(..) {
            let begun = fleet.begin(index, |output| put(&head, plan.upload, &mut site, output))?;
            happened.extend(begun.map(|what| (index, what)));
        }
        if happened.is_empty() {
            fleet.turn(until, &mut happened)?;
        }
        for (index, what) in happened.drain(..) {
            match what {
                Happened::Answered(end) if end.good => moved.requests += 1,
                Happened::Answered(_) | Happened::Lost => moved.errors += 1,
            }
            ready.push(index);
        }
    }
    moved.took = started.elapsed();
    let (received, sent) = fleet.moved();
    moved.bytes = if plan.upload.is_some() { sent } else { received };
    Ok(moved)
}

fn head(plan: &Plan) -> Rc<[u8]> {
    let (path, host) = (&plan.path, &plan.host);
    let (method, framing) = match plan.upload {
        Some(Answer::Bytes(total)) => ("POST", format!("Content-Length: {total}\r\n")),
        Some(_) => ("POST", String::from("Transfer-Encoding: chunked\r\n")),
        None => ("GET", String::new()),
    };
    Rc::from(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n").into_bytes())
}

fn put(head: &Rc<[u8]>, upload: Option<Answer>, site: &mut Site, output: &mut Output) {
    output.push(Piece::once(head.clone()));
    if let Some(what) = upload {
        site.body(what, output);
    }
}
