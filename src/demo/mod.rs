//! `cloudbridge demo`: a proxy, two small applications behind agents, and clients that count, in one
//! terminal. Every second or two a backend is stopped, killed or added, and no client sees an
//! error.
//!
//! All of it runs on loopback, in processes of the installed programs. Begin with [`run`], which is
//! what happens in order; `fleet.rs` has the schedule.

mod application;
mod clients;
mod fleet;
mod options;
mod processes;
mod show;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clients::Clients;
use fleet::Fleet;
use options::{Options, Parsed};
use processes::{END_TIMEOUT, Log, Process, Programs};
use show::Display;

use crate::net::signals::Signals;
use crate::net::sys::{self, Signal};

/// How often the line is written anew, and how soon anything is noticed.
const TICK: Duration = Duration::from_millis(100);

/// How long the proxy may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The command line is wrong.
const USAGE: u8 = 2;

/// Runs `cloudbridge demo` with the arguments behind `demo`. The exit code is 0 if no client saw an
/// error.
#[must_use]
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> ExitCode {
    let result = match options::parse(args) {
        Ok(Parsed::Help(text)) => {
            // A closed pipe is not an error.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Application(application)) => application::run(&application),
        Ok(Parsed::Demo(options)) => demo(&options),
        Err(problem) => {
            eprintln!("cloudbridge demo: {problem}; -h lists the options");
            return ExitCode::from(USAGE);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cloudbridge demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> io::Result<ExitCode> {
    // Before any thread exists, so that only the one that waits for signals gets them.
    sys::block_signals();
    let signals = watch_signals();
    let programs = Programs::find()?;
    let log = Log::default();
    let (mut proxy, listening) = start_proxy(&programs, options.port, &log)?;
    let mut fleet = Fleet::start(&programs, listening.clients, &log)?;
    let mut display = Display::new();
    display.introduce(listening.clients, listening.admin)?;
    let clients = Clients::start(listening.clients);
    let until = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut failure = None;
    let started = Instant::now();
    while !is_told_to_stop(&signals) && until.is_none_or(|until| Instant::now() < until) {
        let step = proxy.ended().map_or_else(|| fleet.tick(), |how| Err(io::Error::other(how)));
        let shown = step.and_then(|()| display.update(&clients.counts(), &fleet));
        if let Err(error) = shown {
            failure = Some(error);
            break;
        }
    }
    let elapsed = started.elapsed();
    let counts = clients.stop(END_TIMEOUT);
    fleet.stop(&signals);
    proxy.stop(&signals, END_TIMEOUT);
    let shown = display.conclude(&counts, &fleet, elapsed);
    for error in &counts.shown {
        eprintln!("cloudbridge demo: a client saw: {error}");
    }
    if failure.is_some() || counts.errors > 0 {
        log.print();
    }
    failure.map_or(shown, Err)?;
    Ok(if counts.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Signals to stop, each once.
fn watch_signals() -> Receiver<()> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut signals = Signals::default();
        loop {
            let is_end = matches!(signals.wait(), Signal::Terminate | Signal::Reload);
            if is_end && tell.send(()).is_err() {
                return;
            }
        }
    });
    told
}

/// Lets a tick pass, unless there is a signal to stop.
fn is_told_to_stop(signals: &Receiver<()>) -> bool {
    signals.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout)
}

/// Where the proxy listens.
struct Listening {
    clients: SocketAddr,
    admin: SocketAddr,
}

/// Starts the proxy at this port; 0 is one that the kernel chooses.
fn start_proxy(programs: &Programs, port: u16, log: &Log) -> io::Result<(Process, Listening)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // The proxy shares its port with other sockets of its own kind, so it would not notice another
    // proxy of this user.
    if let Err(error) = TcpListener::bind(address) {
        let next = port.checked_add(1).unwrap_or(8080);
        return Err(io::Error::other(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{address} is taken: choose another port, as in `make run PORT={next}` or `cloudbridge demo {next}`"
            ),
            _ => format!("cannot listen on {address}: {error}"),
        }));
    }
    // An application that is killed takes connections for a moment after it has closed others: a GET
    // that is repeated at once may meet that, and is repeated again.
    let settings = format!("listen {address}\nlisten 127.0.0.1:0 admin\nretries 4\n");
    let mut command = programs.proxy();
    command.args(["-c", "/dev/stdin"]);
    let (mut process, lines) = Process::start_and_listen("proxy", command, &settings, log)?;
    let (mut clients, mut admin) = (None, None);
    let until = Instant::now() + START_TIMEOUT;
    while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
        let Some((_, listener)) = line.split_once("listening on ") else { continue };
        let (address, kind) = listener.split_once(' ').unwrap_or_default();
        let address = address.parse().ok();
        *(if kind == "(admin)" { &mut admin } else { &mut clients }) = address;
        if let (Some(clients), Some(admin)) = (clients, admin) {
            return Ok((process, Listening { clients, admin }));
        }
    }
    process.kill();
    log.print();
    Err(io::Error::other("the proxy does not start"))
}
