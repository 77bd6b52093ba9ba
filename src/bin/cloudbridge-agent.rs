//! The agent: connects applications to cloudbridge proxies.
//!
//! Exit codes: 0 after `-h`, `-v` and a signal to stop; 1 after a second signal, if the start
//! failed, and if the proxy refuses an echo; 2 for a bad command line or file.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use cloudbridge::agent::echo;
use cloudbridge::agent::options::{self, Command, Echo, Serve};
use cloudbridge::agent::start::{self, Ended, Reread};
use cloudbridge::net::sys;
use cloudbridge::process::logging::{self, Log};
use cloudbridge::process::panics;
use cloudbridge::process::upgrade::{Predecessor, parent};
use env_logger::{Builder, Env};

fn main() -> ExitCode {
    panics::end_process();
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let predecessor = match Predecessor::find() {
        Ok(predecessor) => predecessor,
        Err(what) => return complain(&what, 1),
    };
    match parse(&arguments) {
        Ok(Command::Help(text)) => print(&text),
        Ok(Command::Version) => print(&format!("{}\n", cloudbridge::version("cloudbridge-agent"))),
        Ok(Command::Check) => print("cloudbridge-agent: nothing is wrong\n"),
        Ok(Command::Echo(echo)) => run_echo(&echo),
        Ok(Command::Serve(serve)) => {
            let log = start_log("info");
            exit(log, run(&serve, arguments, predecessor))
        }
        Err(problems) => {
            let told = predecessor.is_some_and(|old| old.refuse(&problems).is_ok());
            if !told {
                problems.iter().for_each(|what| _ = complain(what, 2));
            }
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Command, Vec<String>> {
    options::parse(arguments, |name| env::var(name).ok())
}

fn start_log(level: &str) -> Log {
    // Before any thread exists, so that only the thread that waits for signals gets them.
    sys::block_signals();
    logging::start(Builder::from_env(Env::default().default_filter_or(level)))
}

fn run(
    serve: &Serve,
    arguments: Vec<String>,
    predecessor: Option<Predecessor>,
) -> Result<Ended, String> {
    let reread: Reread = Box::new(move || match parse(&arguments)? {
        Command::Serve(serve) => Ok(serve),
        _ => Err(vec!["the file no longer fits the command line".to_owned()]),
    });
    start::run(serve, reread, predecessor)
}

fn run_echo(echo: &Echo) -> ExitCode {
    let log = start_log("warn");
    let Echo { proxy, bridges, scope, .. } = echo;
    let listener = match echo.listener() {
        Ok(listener) => listener,
        Err(error) => return complain(&error.to_string(), 2),
    };
    log::info!("{bridges} bridges to {proxy} for {}", scope.hosts.join(", "));
    exit(log, echo::run(&listener, *bridges).map_err(|error| format!("{proxy}: {error}")))
}

fn exit(log: Log, ended: Result<Ended, String>) -> ExitCode {
    // What led to the end comes before it.
    drop(log);
    match ended {
        Ok(Ended::Left) => parent::stay().unwrap_or(ExitCode::SUCCESS),
        Ok(Ended::AtOnce | Ended::Refused) => ExitCode::FAILURE,
        Err(what) => complain(&what, 1),
    }
}

/// A closed pipe is not an error.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Nobody may be reading standard error.
    logging::say(&format!("cloudbridge-agent: {what}"));
    ExitCode::from(code)
}
