//! The proxy: options, settings, listeners, workers, signals, exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use cloudbridge::config::{self, Command, Source};
use cloudbridge::ctl;
use cloudbridge::demo;
use cloudbridge::import;
use cloudbridge::net::signals::{self, Signals};
use cloudbridge::net::sys::{self, Signal};
use cloudbridge::process::activation::{self, Passed};
use cloudbridge::process::logging::{self, Log};
use cloudbridge::process::pidfile::Pidfile;
use cloudbridge::process::starter::{Launch, Starter};
use cloudbridge::process::upgrade::{
    Offer, Predecessor, Program, Stage, Successor, Unwanted, parent,
};
use cloudbridge::process::{notify, panics, watchdog};
use cloudbridge::proxy::Config;
use cloudbridge::proxy::admin::Control;
use cloudbridge::proxy::start::{self, Proxy};
use cloudbridge::proxy::supervision::Supervision;
use cloudbridge::proxy::upgrade::Inheritance;
use log::LevelFilter;

/// In front of error messages.
const PROGRAM: &str = "cloudbridge";

/// What the main thread waits for.
enum Event {
    Signal(Signal),
    /// The operator asks for something at an admin listener.
    Control(Control),
    /// A new program serves, or why it does not. With the number of the operator who has asked.
    Upgraded(Option<u64>, Result<Successor, Vec<String>>),
    /// The new program has failed, in this way; or it has ended as it was told.
    SuccessorEnded(Option<String>),
    /// Whether the new program is replaced itself.
    Overtaken(bool),
    /// The program that this one has replaced has ended.
    PredecessorEnded,
    /// The watchdog wants to know whether this thread turns.
    Turn(Sender<()>),
    /// All workers have ended.
    Ended,
}

fn main() -> ExitCode {
    panics::end_process();
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((first, rest)) if first == "ctl" => return ctl::run(rest),
        Some((first, rest)) if first == "demo" => return demo::run(rest),
        _ => {}
    }
    match config::parse_args(&args) {
        Ok(Command::Help(text) | Command::Version(text)) => {
            // A closed pipe (`--help | head -1`) is not an error.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Command::Check(source)) => check(&source),
        Ok(Command::Run(source)) => run(&source),
        Ok(Command::Import(file)) => import(&file),
        Err(problem) => {
            eprintln!("{PROGRAM}: {problem}");
            ExitCode::from(2)
        }
    }
}

fn check(source: &Source) -> ExitCode {
    match start::load(source) {
        Ok(_) => {
            println!("cloudbridge: the settings are good");
            ExitCode::SUCCESS
        }
        Err(problems) => fail(&problems),
    }
}

fn import(file: &Path) -> ExitCode {
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return fail(&[format!("cannot read {shown}: {error}")]),
    };
    match import::swiftiply(&text, &shown.to_string()) {
        Ok(imported) => {
            // A closed pipe is not an error.
            let _ = std::io::stdout().write_all(imported.text.as_bytes());
            if imported.left_out > 0 {
                let count = imported.left_out;
                eprintln!("{PROGRAM}: {count} of its settings became comments that say why");
            }
            ExitCode::SUCCESS
        }
        Err(problems) => {
            fail(&problems.iter().map(|problem| format!("{shown}:{problem}")).collect::<Vec<_>>())
        }
    }
}

fn run(source: &Source) -> ExitCode {
    // Before anything else is open, and before a fork changes the number of the process.
    let passed = match activation::take() {
        Ok(passed) => passed,
        Err(problem) => return fail(&[problem]),
    };
    let _ = watchdog::period();
    let predecessor = match Predecessor::find() {
        Ok(predecessor) => predecessor,
        Err(problem) => return fail(&[problem]),
    };
    if let Some(predecessor) = predecessor {
        return replace(source, predecessor);
    }
    notify::status("starting");
    let config = match start::load(source) {
        Ok(config) => config,
        Err(problems) => return fail(&problems),
    };
    if !config.settings.daemonize {
        return run_here(source, config, Starter::foreground(), None, passed);
    }
    match Starter::background(PROGRAM) {
        Ok(Launch::Background(starter)) => run_here(source, config, starter, None, passed),
        Ok(Launch::Done(code)) => code,
        Err(error) => fail(&[format!("cannot go into the background: {error}")]),
    }
}

/// Runs in this process in place of the one that has started it.
fn replace(source: &Source, predecessor: Predecessor) -> ExitCode {
    let loaded = Inheritance::receive(&predecessor).map_err(|problem| vec![problem]);
    let loaded = loaded.and_then(|offer| {
        // A reload is to read the files themselves.
        let mut first = source.clone();
        first.kept = offer
            .root_files
            .read()
            .map_err(|error| vec![format!("cannot read what the old program has kept: {error}")])?;
        first.updates = offer.updates.clone();
        start::load(&first).map(|config| (offer, config))
    });
    match loaded {
        Ok((inheritance, config)) => {
            let replaced = Some((predecessor, inheritance));
            run_here(source, config, Starter::foreground(), replaced, Vec::new())
        }
        Err(problems) => match predecessor.refuse(&problems) {
            Ok(()) => ExitCode::FAILURE,
            Err(_) => fail(&problems),
        },
    }
}

/// Runs in this process, perhaps in place of another program, and reports the result of the start:
/// to that one, or to `starter`.
fn run_here(
    source: &Source,
    mut config: Config,
    mut starter: Starter,
    replaced: Option<(Predecessor, Inheritance)>,
    passed: Vec<Passed>,
) -> ExitCode {
    let (predecessor, inheritance) = replaced.unzip();
    let mut refuse = |problem: String| {
        if let Some(predecessor) = &predecessor {
            return match predecessor.refuse(std::slice::from_ref(&problem)) {
                Ok(()) => ExitCode::FAILURE,
                Err(_) => fail(&[problem]),
            };
        }
        starter.refuse(PROGRAM, &[problem])
    };
    let program = match Program::of_this_process() {
        Ok(program) => program,
        Err(error) => return refuse(format!("cannot tell where this program is: {error}")),
    };
    let has_log_file = config.log_file.is_some();
    if predecessor.is_none() && !config.settings.daemonize {
        parent::set_awaited(config.settings.supervised);
    }
    // Before any thread exists, so that only the thread that waits for signals gets them.
    sys::block_signals();
    let log = match start_log(&mut config) {
        Ok(log) => log,
        Err(problem) => return refuse(problem),
    };
    let (sender, events) = mpsc::channel();
    let started = start_proxy(source, config, sender.clone(), inheritance, passed);
    let (proxy, mut pidfile) = match started {
        Ok(started) => started,
        Err(problem) => {
            if has_log_file {
                log::error!("{problem}");
            }
            return refuse(problem);
        }
    };
    if let Some(predecessor) = &predecessor
        && let Err(error) = predecessor.serving()
    {
        // The operator who has ended it wants no other.
        log::error!("the old program has ended: {error}");
        return ExitCode::FAILURE;
    }
    // A script that has started the proxy finds in the log what the start has to say.
    log.flush();
    let (workers, handle) = (proxy.workers, proxy.handle);
    handle.store_listeners();
    let ask = sender.clone();
    let supervision = Supervision::start(&handle, move |done| _ = ask.send(Event::Turn(done)));
    starter.serving();
    watch_signals(sender.clone());
    if let Some(predecessor) = predecessor {
        let ended = sender.clone();
        handle.succeed(predecessor, move || _ = ended.send(Event::PredecessorEnded));
    }
    let again = sender.clone();
    thread::spawn(move || {
        workers.into_iter().for_each(|worker| _ = worker.join());
        let _ = sender.send(Event::Ended);
    });
    let main = Main {
        source,
        handle: &handle,
        supervision,
        pidfile: &mut pidfile,
        sender: again,
        program,
        is_overtaken: false,
        is_told: false,
        starting: None,
        has_ended: false,
        was_replaced: false,
    };
    let code = main.serve(&events);
    drop(pidfile);
    handle.flush_access_log();
    handle.finish_store();
    handle.end_channel();
    handle.finish_managers();
    handle.finish_answers();
    drop(log);
    code.or_else(parent::stay).unwrap_or(ExitCode::SUCCESS)
}

fn start_proxy(
    source: &Source,
    config: Config,
    sender: Sender<Event>,
    mut inheritance: Option<Inheritance>,
    passed: Vec<Passed>,
) -> Result<(Proxy, Option<Pidfile>), String> {
    // Before the sockets, so that the error of a second proxy names the pidfile and not a port.
    let inherited = inheritance.as_mut().and_then(|inheritance| inheritance.pidfile.take());
    let claim = |path: &Path| match inherited.and_then(|file| Pidfile::inherit(file, path)) {
        Some(pidfile) => Ok(pidfile),
        None => Pidfile::claim(path),
    };
    let mut pidfile = config.settings.pidfile.as_deref().map(claim).transpose()?;
    let control = move |control| _ = sender.send(Event::Control(control));
    let proxy = Proxy::start(config, source, control, inheritance, passed)?;
    if let Some(pidfile) = &mut pidfile {
        pidfile.give_away(false);
        pidfile.write().map_err(|error| format!("cannot write the pidfile: {error}"))?;
    }
    Ok((proxy, pidfile))
}

/// The main thread while the workers run.
struct Main<'m> {
    source: &'m Source,
    handle: &'m start::Handle,
    supervision: Supervision,
    pidfile: &'m mut Option<Pidfile>,
    sender: Sender<Event>,
    program: Program,
    /// The program that has replaced this one has been replaced itself.
    is_overtaken: bool,
    /// Somebody has told this program to stop. It may shut down without that.
    is_told: bool,
    /// While a new program is being started.
    starting: Option<Unwanted>,
    /// The workers have ended, and that new program has not.
    has_ended: bool,
    /// A new program serves in place of this one, or has until it ended in good order.
    was_replaced: bool,
}

impl Main<'_> {
    /// Acts on signals until all workers have ended. Returns the exit code, unless everything has
    /// gone to a new program.
    fn serve(mut self, events: &Receiver<Event>) -> Option<ExitCode> {
        let mut stage = Stage::Serving;
        for event in events {
            match event {
                Event::Signal(Signal::Reload) => match stage.refuses() {
                    None => _ = self.reload(),
                    Some(why) => log::warn!("HUP: {why}"),
                },
                Event::Control(Control::Reload(id)) => {
                    let answer = match stage.refuses() {
                        None => self.reload(),
                        Some(why) => Err(vec![why.to_owned()]),
                    };
                    self.handle.answer(id, answer);
                }
                Event::Control(Control::Site(id, change)) => match stage.refuses() {
                    None => self.handle.change_site(id, &change),
                    Some(why) => self.handle.refuse_site_change(id, why),
                },
                // Redis is asked again soon.
                Event::Control(Control::Servers(_)) if stage.refuses().is_some() => {}
                Event::Control(Control::Servers(found)) => self.handle.put_servers(&found),
                Event::Signal(Signal::ReopenLogs) => self.handle.reopen_logs(),
                Event::Signal(Signal::Unused(name)) => signals::ignored(name),
                Event::Signal(Signal::Upgrade) => match stage.refuses() {
                    None => stage = self.upgrade(None, None),
                    Some(why) => log::warn!("USR2: {why}"),
                },
                Event::Control(Control::Upgrade(id, path)) => match stage.refuses() {
                    None => stage = self.upgrade(Some(id), path),
                    Some(why) => self.handle.answer(id, Err(vec![why.to_owned()])),
                },
                Event::Upgraded(asked, result) => {
                    self.starting = None;
                    stage = self.upgraded(stage, asked, result);
                    if self.has_ended {
                        log::info!("all done");
                        return Some(ExitCode::SUCCESS);
                    }
                }
                Event::Overtaken(is) => self.is_overtaken = is,
                Event::SuccessorEnded(Some(how)) if stage == Stage::Replaced => {
                    if self.is_overtaken {
                        log::error!("the program that replaced this one has ended ({how})");
                        self.shut_down(&mut stage);
                    } else {
                        stage = self.go_on(&how);
                    }
                }
                Event::SuccessorEnded(None) if stage == Stage::Replaced => {
                    self.is_told |= parent::has_passed_stop();
                    self.shut_down(&mut stage);
                }
                Event::SuccessorEnded(_) => {}
                // The new program has systemd keep them, or this one when that has failed.
                Event::PredecessorEnded if stage == Stage::Replaced => {}
                Event::PredecessorEnded => self.handle.store_listeners(),
                Event::Turn(done) => _ = done.send(()),
                Event::Signal(Signal::Terminate) => {
                    let is_second =
                        std::mem::replace(&mut self.is_told, true) && stage == Stage::Draining;
                    // systemd sends TERM once more when the newest program has ended.
                    if is_second && self.was_replaced && notify::is_wanted() {
                        log::info!("second signal: still finishing what is in flight");
                    } else if is_second {
                        log::warn!("second signal: exiting at once");
                        return Some(ExitCode::FAILURE);
                    }
                    self.shut_down(&mut stage);
                }
                Event::Control(Control::Stop(id)) => {
                    self.is_told = true;
                    self.handle.answer(id, Ok(vec!["shutting down".to_owned()]));
                    self.shut_down(&mut stage);
                }
                Event::Ended if stage == Stage::Draining && self.starting.is_some() => {
                    self.has_ended = true;
                }
                Event::Ended if matches!(stage, Stage::Draining | Stage::Replaced) => {
                    log::info!("all done");
                    return (stage == Stage::Draining).then_some(ExitCode::SUCCESS);
                }
                Event::Ended if stage == Stage::Failed => return Some(ExitCode::FAILURE),
                Event::Ended => {
                    log::error!("the workers have failed");
                    return Some(ExitCode::FAILURE);
                }
            }
        }
        Some(ExitCode::FAILURE)
    }

    fn shut_down(&self, stage: &mut Stage) {
        let before = std::mem::replace(stage, Stage::Draining);
        if before != Stage::Draining {
            log::info!("shutting down: finishing what is in flight");
            if let Some(unwanted) = &self.starting {
                unwanted.set();
            }
            // First: systemd may not read what it is told.
            self.handle.drain();
            self.supervision.stopping(self.handle.longest_drain());
        }
    }

    fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        self.supervision.reload(|| self.handle.reload(self.source))
    }

    /// Starts the program anew, or the one at `path`, in a thread of its own, which says what has
    /// come of it.
    fn upgrade(&mut self, asked: Option<u64>, path: Option<PathBuf>) -> Stage {
        let mut program = self.program.clone();
        program.path = path.unwrap_or(program.path);
        let offer = match self.offer() {
            Ok(offer) => offer,
            Err(error) => {
                self.report_refusal(asked, vec![error.to_string()]);
                return Stage::Serving;
            }
        };
        log::info!("upgrade: starting {}", program.path.display());
        self.supervision.upgrading();
        let sender = self.sender.clone();
        let unwanted = Unwanted::default();
        let theirs = unwanted.clone();
        let start = move || {
            let _ = sender.send(Event::Upgraded(asked, program.start(&offer, &theirs)));
        };
        match thread::Builder::new().name("upgrade".to_owned()).spawn(start) {
            Ok(_) => {
                self.starting = Some(unwanted);
                Stage::Upgrading
            }
            Err(error) => {
                self.report_refusal(asked, vec![error.to_string()]);
                Stage::Serving
            }
        }
    }

    fn offer(&self) -> std::io::Result<Offer> {
        let mut offer = self.handle.offer()?;
        if let Some(pidfile) = &self.pidfile {
            offer.add_pidfile(pidfile.file().try_clone()?.into());
        }
        offer.finish();
        Ok(offer)
    }

    /// A new program serves, or it has been given up.
    fn upgraded(
        &mut self,
        stage: Stage,
        asked: Option<u64>,
        result: Result<Successor, Vec<String>>,
    ) -> Stage {
        let successor = match result {
            Ok(successor) => successor,
            Err(problems) => {
                // It may have written its own number.
                self.write_pidfile();
                if stage == Stage::Draining {
                    asked.into_iter().for_each(|id| self.handle.answer(id, Err(problems.clone())));
                    return stage;
                }
                self.report_refusal(asked, problems);
                return if stage == Stage::Upgrading { Stage::Serving } else { stage };
            }
        };
        if stage == Stage::Draining {
            successor.kill();
            self.write_pidfile();
            let why = || vec!["this program has been told to end".to_owned()];
            asked.into_iter().for_each(|id| self.handle.answer(id, Err(why())));
            return stage;
        }
        let process = successor.process;
        let line =
            format!("upgrade: process {process} serves; this one finishes what is in flight");
        log::info!("{line}");
        if let Some(id) = asked {
            self.handle.answer(id, Ok(vec![line]));
        }
        self.was_replaced = true;
        self.supervision.replaced_by(process);
        parent::set_replaced(true);
        if let Some(pidfile) = self.pidfile {
            pidfile.give_away(true);
        }
        let (channel, watch) = successor.watch();
        let sender = self.sender.clone();
        thread::spawn(move || sender.send(Event::SuccessorEnded(watch.wait())));
        self.is_overtaken = false;
        let sender = self.sender.clone();
        self.handle.be_replaced(channel, move |is| _ = sender.send(Event::Overtaken(is)));
        Stage::Replaced
    }

    /// The new program has ended before this one: what is left here is served as before.
    fn go_on(&mut self, how: &str) -> Stage {
        if let Some(pidfile) = self.pidfile {
            pidfile.give_away(false);
        }
        parent::set_replaced(false);
        self.was_replaced = false;
        if !self.handle.go_on() {
            log::error!("the new program has ended ({how}), which had everything of this one");
            return Stage::Failed;
        }
        log::error!("the new program has ended ({how}): this one goes on");
        self.write_pidfile();
        self.supervision.serves_again();
        // The other one may have written its sites there.
        if self.handle.keeps_updates() {
            let _ = self.reload();
        }
        Stage::Serving
    }

    fn write_pidfile(&mut self) {
        if let Some(Err(error)) = self.pidfile.as_mut().map(Pidfile::write) {
            log::error!("cannot write the pidfile: {error}");
        }
    }

    fn report_refusal(&self, asked: Option<u64>, problems: Vec<String>) {
        problems.iter().for_each(|problem| log::error!("upgrade: {problem}"));
        log::error!("upgrade: nothing has changed: this program goes on");
        self.supervision.upgrade_refused(&problems);
        if let Some(id) = asked {
            self.handle.answer(id, Err(problems));
        }
    }
}

fn watch_signals(sender: Sender<Event>) {
    let mut signals = Signals::default();
    thread::spawn(move || {
        loop {
            let signal = signals.wait();
            if !parent::takes(signal) && sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

fn start_log(config: &mut Config) -> Result<Log, String> {
    start::redirect_log(config)?;
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Trace);
    let log = logging::start(builder);
    // Not in the builder, so that a reload can change it.
    log::set_max_level(config.settings.log_level);
    Ok(log)
}

fn fail(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("{PROGRAM}: {problem}");
    }
    ExitCode::FAILURE
}
