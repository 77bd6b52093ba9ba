//! The backends, and what happens to them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::application::ADDRESS;
use super::processes::{END_TIMEOUT, Log, Process, Programs};

/// How many requests each backend serves at once.
const SLOTS: &str = "4";

/// Between two events.
const INTERVAL: Duration = Duration::from_millis(1500);

/// After which what has been stopped or killed is started again.
const AWAY: Duration = Duration::from_millis(600);

/// What happens to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The agent is told to end, and then the application: a deployment.
    Stop,
    /// Both are killed: a machine's end, as far as one machine can show it.
    Kill,
    /// The application is killed; its agent notices and waits for the next one.
    Crash,
    /// Another backend comes.
    Add,
    /// It is told to end, and does not come back.
    Remove,
}

/// In this order, again and again. At any time one backend is left alone.
const SCHEDULE: [(Event, usize); 6] = [
    (Event::Stop, 0),
    (Event::Kill, 1),
    (Event::Crash, 0),
    (Event::Add, 2),
    (Event::Stop, 1),
    (Event::Remove, 2),
];

/// An application and its agent.
struct Backend {
    /// From 1.
    number: usize,
    application: Process,
    agent: Process,
    port: u16,
}

/// All backends.
pub(super) struct Fleet {
    proxy: SocketAddr,
    programs: Programs,
    log: Log,
    backends: Vec<Option<Backend>>,
    /// How many have been started again.
    restarts: u64,
    /// Events so far.
    events: usize,
    next: Instant,
    /// What is being done to a backend, and when that goes on.
    under_way: Option<(Event, usize, Instant)>,
}

impl Fleet {
    /// Starts two backends of this proxy.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(programs: &Programs, proxy: SocketAddr, log: &Log) -> io::Result<Fleet> {
        let mut fleet = Fleet {
            proxy,
            programs: programs.clone(),
            log: log.clone(),
            backends: Vec::new(),
            restarts: 0,
            events: 0,
            next: Instant::now() + INTERVAL,
            under_way: None,
        };
        for number in 1..=2 {
            let backend = fleet.backend(number)?;
            fleet.backends.push(Some(backend));
        }
        fleet.backends.push(None);
        Ok(fleet)
    }

    /// How many backends have been started again.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// What happens now, in a few words.
    pub fn news(&self) -> String {
        let Some(last) = self.events.checked_sub(1) else { return String::new() };
        let (event, place) = SCHEDULE[last % SCHEDULE.len()];
        let (whose, what) = match event {
            Event::Stop => ("backend", "stopped"),
            Event::Kill => ("backend", "killed"),
            Event::Crash => ("application", "killed"),
            Event::Add => ("backend", "added"),
            Event::Remove => ("backend", "removed"),
        };
        let returns = matches!(event, Event::Stop | Event::Kill | Event::Crash);
        let back = if returns && self.under_way.is_none() { ", back again" } else { "" };
        format!("{whose} {} {what}{back}", place + 1)
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When a process cannot be started, or has ended by itself.
    pub fn tick(&mut self) -> io::Result<()> {
        let now = Instant::now();
        match self.under_way {
            Some((event, place, due)) if due <= now => {
                let is_over = self.go_on(event, place)?;
                self.under_way = self.under_way.filter(|_| !is_over);
            }
            Some(_) => {}
            None if self.next <= now => {
                let (event, place) = SCHEDULE[self.events % SCHEDULE.len()];
                self.events += 1;
                self.next = now + INTERVAL;
                self.begin(event, place)?;
                self.under_way = Some((event, place, now + AWAY));
            }
            None => {}
        }
        self.look()
    }

    fn begin(&mut self, event: Event, place: usize) -> io::Result<()> {
        if event == Event::Add {
            let backend = self.backend(place + 1)?;
            self.backends[place] = Some(backend);
        }
        let Some(backend) = &mut self.backends[place] else { return Ok(()) };
        match event {
            Event::Stop | Event::Remove => backend.agent.terminate(),
            Event::Kill => {
                backend.agent.kill();
                backend.application.kill();
            }
            Event::Crash => backend.application.kill(),
            Event::Add => {}
        }
        Ok(())
    }

    /// Whether what was begun is over with this.
    fn go_on(&mut self, event: Event, place: usize) -> io::Result<bool> {
        let Some(backend) = &mut self.backends[place] else { return Ok(true) };
        let leaves = matches!(event, Event::Stop | Event::Remove);
        if leaves && backend.agent.is_running() {
            return Ok(false);
        }
        match event {
            Event::Add => return Ok(true),
            Event::Remove => {
                self.backends[place] = None;
                return Ok(true);
            }
            Event::Crash => {
                let (number, port) = (backend.number, backend.port);
                backend.application = start_application(&self.programs, number, port, &self.log)?.0;
            }
            Event::Stop | Event::Kill => {
                self.backends[place] = None;
                let backend = self.backend(place + 1)?;
                self.backends[place] = Some(backend);
            }
        }
        self.restarts += 1;
        Ok(true)
    }

    /// Starts a backend.
    fn backend(&self, number: usize) -> io::Result<Backend> {
        let (application, port) = start_application(&self.programs, number, 0, &self.log)?;
        let mut agent = self.programs.agent();
        let to = SocketAddr::from((IpAddr::from(ADDRESS), port));
        agent.args(["--to", &to.to_string(), "-n", SLOTS, &self.proxy.to_string()]);
        let agent = Process::start(&format!("agent {number}"), agent, &self.log)?;
        Ok(Backend { number, application, agent, port })
    }

    /// Looks for processes that have ended although nobody has ended them.
    fn look(&mut self) -> io::Result<()> {
        let touched = self.under_way.map(|(_, place, _)| place);
        for (place, backend) in self.backends.iter_mut().enumerate() {
            let Some(backend) = backend.as_mut().filter(|_| touched != Some(place)) else {
                continue;
            };
            let ended = backend.agent.ended().or_else(|| backend.application.ended());
            if let Some(how) = ended {
                return Err(io::Error::other(how));
            }
        }
        Ok(())
    }

    /// Ends all of them: first the agents, all at the same time.
    pub fn stop(&mut self, signals: &Receiver<()>) {
        let mut backends: Vec<Backend> =
            self.backends.iter_mut().filter_map(Option::take).collect();
        backends.iter_mut().for_each(|backend| backend.agent.terminate());
        let until = Instant::now() + END_TIMEOUT;
        for backend in &mut backends {
            backend.agent.stop(signals, until.saturating_duration_since(Instant::now()));
        }
    }
}

/// Starts the application of a backend; returns its port, too.
fn start_application(
    programs: &Programs,
    number: usize,
    port: u16,
    log: &Log,
) -> io::Result<(Process, u16)> {
    let name = format!("backend {number}");
    let command = programs.application(&name, port);
    let mut process = Process::start(&format!("application {number}"), command, log)?;
    let line = process.read_line()?;
    let port = line.trim().parse().map_err(|_| io::Error::other(format!("no port: {line}")))?;
    Ok((process, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_more_than_fifteen_restarts() {
        let restarts = SCHEDULE
            .iter()
            .filter(|(event, _)| matches!(event, Event::Stop | Event::Kill | Event::Crash));
        let cycle = INTERVAL * SCHEDULE.len() as u32;
        assert!(restarts.count() as f64 * 60.0 / cycle.as_secs_f64() > 20.0);
        assert!(AWAY < INTERVAL);
    }
}
