//! `cloudbridge ctl`: asks a running proxy's admin listener, for people and for scripts
//! (`doc/admin.md`).

mod http;
mod options;
mod show;

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use http::Server;
use options::{Command, Options, Parsed};

/// The proxy has done it.
const DONE: u8 = 0;
/// The proxy has not, and says why.
const REFUSED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// No proxy answers.
const UNREACHABLE: u8 = 3;

/// Runs `cloudbridge ctl` with the arguments behind `ctl`.
#[must_use]
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> ExitCode {
    let options = match options::parse(args) {
        Ok(Parsed::Help(text)) => {
            // A closed pipe is not an error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Ok(Parsed::Run(options)) => options,
        Err(problem) => {
            eprintln!("cloudbridge ctl: {problem}; -h lists the options");
            return ExitCode::from(USAGE);
        }
    };
    let server = match options.server() {
        Ok(server) => server,
        Err(problem) => {
            eprintln!("cloudbridge ctl: {problem}");
            return ExitCode::from(USAGE);
        }
    };
    match ask(&server, &options) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let hint = match options.has_no_place() {
                true => "; if the proxy's admin listener is elsewhere, -a or -c says where",
                false => "",
            };
            eprintln!("cloudbridge ctl: {}: {error}{hint}", server.shown());
            ExitCode::from(UNREACHABLE)
        }
    }
}

fn ask(server: &Server, options: &Options) -> std::io::Result<u8> {
    match &options.command {
        Command::Hosts => state(server, options, show::hosts),
        Command::Backends(host) => {
            state(server, options, |state| show::backends(state, host.as_deref()))
        }
        Command::Sites => state(server, options, show::sites),
        Command::Old => state(server, options, show::old_programs),
        Command::Events => {
            let refused = server.stream("/events", &mut std::io::stdout())?;
            Ok(refused.map_or(DONE, |text| refuse(&text)))
        }
        Command::Act { path, body } => act(server, options, path, body),
    }
}

/// Prints the state, or what `show` makes of it.
fn state(
    server: &Server,
    options: &Options,
    show: impl FnOnce(&Value) -> String,
) -> std::io::Result<u8> {
    let (status, text) = server.get("/state.json")?;
    if status != 200 {
        return Ok(refuse(&text));
    }
    let state: Value = serde_json::from_str(&text)?;
    let text = if options.json { format!("{state}\n") } else { show(&state) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(DONE)
}

fn act(server: &Server, options: &Options, path: &str, body: &Value) -> std::io::Result<u8> {
    let (status, text) = server.post(path, &body.to_string())?;
    let text = text.trim_end();
    if options.json {
        println!("{}", json!({ "status": status, "text": text }));
        return Ok(if status == 200 { DONE } else { REFUSED });
    }
    if status == 200 {
        println!("{text}");
        return Ok(DONE);
    }
    Ok(refuse(text))
}

fn refuse(text: &str) -> u8 {
    for line in text.trim_end().lines() {
        eprintln!("cloudbridge ctl: {line}");
    }
    REFUSED
}
