//! The proxy: options, settings, listeners, workers, signals, exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use cloudbridge::config::{self, Command, Source};
use cloudbridge::ctl;
use cloudbridge::import;
use cloudbridge::net::signals::{self, Signals};
use cloudbridge::net::sys::{self, Signal};
use cloudbridge::process::logging::{self, Log};
use cloudbridge::process::notify;
use cloudbridge::process::pidfile::Pidfile;
use cloudbridge::process::starter::{Launch, Starter};
use cloudbridge::proxy::Config;
use cloudbridge::proxy::admin::Control;
use cloudbridge::proxy::start::{self, Proxy};
use log::LevelFilter;

/// In front of error messages.
const PROGRAM: &str = "cloudbridge";

/// What the main thread waits for.
enum Event {
    Signal(Signal),
    /// The operator asks for something at an admin listener.
    Control(Control),
    /// All workers have ended.
    Ended,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == "ctl"
    {
        return ctl::run(rest);
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
    let config = match start::load(source) {
        Ok(config) => config,
        Err(problems) => return fail(&problems),
    };
    if !config.settings.daemonize {
        return run_here(source, config, Starter::foreground());
    }
    match Starter::background(PROGRAM) {
        Ok(Launch::Background(starter)) => run_here(source, config, starter),
        Ok(Launch::Done(code)) => code,
        Err(error) => fail(&[format!("cannot go into the background: {error}")]),
    }
}

/// Runs in this process, and reports the result of the start to `starter`.
fn run_here(source: &Source, mut config: Config, mut starter: Starter) -> ExitCode {
    let has_log_file = config.log_file.is_some();
    // Before any thread exists, so that only the thread that waits for signals gets them.
    sys::block_signals();
    let log = match start_log(&mut config) {
        Ok(log) => log,
        Err(problem) => return starter.refuse(PROGRAM, &[problem]),
    };
    let (sender, events) = mpsc::channel();
    let (proxy, pidfile) = match start_proxy(source, config, sender.clone()) {
        Ok(started) => started,
        Err(problem) => {
            if has_log_file {
                log::error!("{problem}");
            }
            return starter.refuse(PROGRAM, &[problem]);
        }
    };
    // A script that has started the proxy finds in the log what the start has to say.
    log.flush();
    notify::ready();
    starter.serving();
    watch_signals(sender.clone());
    let (workers, handle) = (proxy.workers, proxy.handle);
    thread::spawn(move || {
        workers.into_iter().for_each(|worker| _ = worker.join());
        let _ = sender.send(Event::Ended);
    });
    let code = serve(source, &handle, &events);
    drop(pidfile);
    handle.flush_access_log();
    drop(log);
    code
}

fn start_proxy(
    source: &Source,
    config: Config,
    sender: Sender<Event>,
) -> Result<(Proxy, Option<Pidfile>), String> {
    // Before the sockets, so that the error of a second proxy names the pidfile and not a port.
    let mut pidfile = config.settings.pidfile.as_deref().map(Pidfile::claim).transpose()?;
    let control = move |control| _ = sender.send(Event::Control(control));
    let proxy = Proxy::start(config, source, control)?;
    if let Some(pidfile) = &mut pidfile {
        pidfile.write().map_err(|error| format!("cannot write the pidfile: {error}"))?;
    }
    Ok((proxy, pidfile))
}

/// Acts on signals until all workers have ended.
fn serve(source: &Source, handle: &start::Handle, events: &Receiver<Event>) -> ExitCode {
    let mut draining = false;
    for event in events {
        match event {
            Event::Signal(Signal::Reload) if draining => {
                log::warn!("HUP: nothing is reloaded while shutting down");
            }
            Event::Signal(Signal::Reload) => _ = handle.reload(source),
            Event::Signal(Signal::ReopenLogs) => handle.reopen_logs(),
            Event::Signal(Signal::Unused(name)) => signals::ignored(name),
            Event::Control(Control::Reload(id)) if draining => {
                handle.answer(id, Err(vec!["nothing is reloaded while shutting down".to_owned()]));
            }
            Event::Control(Control::Reload(id)) => handle.answer(id, handle.reload(source)),
            Event::Signal(Signal::Terminate) if draining => {
                log::warn!("second signal: exiting at once");
                return ExitCode::FAILURE;
            }
            Event::Signal(Signal::Terminate) => shut_down(handle, &mut draining),
            Event::Control(Control::Stop(id)) => {
                handle.answer(id, Ok(vec!["shutting down".to_owned()]));
                shut_down(handle, &mut draining);
            }
            Event::Ended if draining => {
                log::info!("all done");
                return ExitCode::SUCCESS;
            }
            Event::Ended => {
                log::error!("the workers have failed");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::FAILURE
}

fn shut_down(handle: &start::Handle, draining: &mut bool) {
    if !std::mem::replace(draining, true) {
        log::info!("shutting down: finishing what is in flight");
        notify::stopping();
        handle.drain();
    }
}

fn watch_signals(sender: Sender<Event>) {
    let mut signals = Signals::default();
    thread::spawn(move || while sender.send(Event::Signal(signals.wait())).is_ok() {});
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
