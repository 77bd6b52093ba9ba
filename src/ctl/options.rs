//! The command line of `cloudbridge ctl`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::http::{Place, Server};
use crate::config::{self, Address, Source};

/// Where the packaged settings have it.
const DEFAULT_SOCKET: &str = "/run/cloudbridge/admin.sock";

/// How long `wait` waits unless told otherwise, in seconds.
const WAIT: u64 = 60;

/// What is asked of the proxy.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Hosts,
    Backends(Option<String>),
    Sites,
    Old,
    Events,
    Act { path: &'static str, body: Value },
}

/// The parsed command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub command: Command,
    pub json: bool,
    config: Option<PathBuf>,
    place: Option<Place>,
    token: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    Help(String),
    Run(Options),
}

const BRIEF: &str = "\
Usage: cloudbridge ctl [OPTIONS] COMMAND

Asks a running proxy. COMMAND is one of:
    hosts                     host names, with slots free and busy, and waiting
    backends [HOST]           backends, with their addresses, keys and age
    sites                     the sites of the settings, and calls of their managers
    drain TARGET              no new requests for TARGET; its parked bridges are
                              closed, and it is kept out until `undrain`
    undrain TARGET            takes that back
    drop TARGET               closes the bridges of TARGET at once
    wait HOST [-n N]          until N slots of HOST are free
    events                    what changes, as it changes
    reload                    reads the settings again: what changed, or why not
    old                       programs that an upgrade has replaced and that still
                              finish something: tunnels, requests
    upgrade [BINARY]          starts the program anew, or this one in its place, which
                              takes over everything without a peer noticing; or
                              says why it cannot
    stop                      finishes what is in flight and exits
TARGET is a host name or pattern, an address, or the ID of a backend; with
--key, the name of a key.
The exit code is 0 if it was done, 1 if not, 2 if the command line is wrong, 3
if no proxy answers.";

fn options() -> getopts::Options {
    let mut options = getopts::Options::new();
    options
        .optflag("h", "help", "print this help and exit")
        .optopt("c", "config", "the proxy's settings, which say where it listens", "FILE")
        .optopt("a", "admin", "its admin listener: unix:PATH or ADDRESS:PORT", "WHERE")
        .optopt("", "token", "the file of its admin token", "FILE")
        .optflag("", "json", "print JSON")
        .optflag("", "key", "TARGET is the name of a key")
        .optopt("n", "", "how many slots to wait for (1)", "N")
        .optopt("", "timeout", "how long to wait for them, in seconds (60)", "SECONDS");
    options
}

/// # Errors
/// One sentence.
pub(super) fn parse<S: AsRef<OsStr>>(args: &[S]) -> Result<Parsed, String> {
    let options = options();
    let matches = options.parse(args).map_err(|fail| fail.to_string())?;
    if matches.opt_present("h") {
        return Ok(Parsed::Help(options.usage(BRIEF)));
    }
    let number = |name: &str, default: u64| match matches.opt_str(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{text:?} is not a number")),
    };
    let (count, timeout) = (number("n", 1)?, number("timeout", WAIT)?);
    let words: Vec<&str> = matches.free.iter().map(String::as_str).collect();
    let target = |target: &str| match matches.opt_present("key") {
        true => json!({ "key": target }),
        false => json!({ "target": target }),
    };
    let command = match words[..] {
        [] => return Err("no command is given".to_owned()),
        ["hosts"] => Command::Hosts,
        ["backends"] => Command::Backends(None),
        ["backends", host] => Command::Backends(Some(host.to_ascii_lowercase())),
        ["sites"] => Command::Sites,
        ["old"] => Command::Old,
        ["events"] => Command::Events,
        ["drain", name] => Command::Act { path: "/drain", body: target(name) },
        ["undrain", name] => Command::Act { path: "/undrain", body: target(name) },
        ["drop", name] => Command::Act { path: "/drop", body: target(name) },
        ["wait", host] => Command::Act {
            path: "/wait",
            body: json!({ "host": host, "count": count, "timeout": timeout.saturating_mul(1000) }),
        },
        ["reload"] => Command::Act { path: "/reload", body: json!({}) },
        ["upgrade"] => Command::Act { path: "/upgrade", body: json!({}) },
        ["upgrade", program] => {
            // The proxy is somewhere else.
            let path = std::path::absolute(program).map_err(|error| error.to_string())?;
            let path = path.to_str().ok_or("the path is not UTF-8")?;
            Command::Act { path: "/upgrade", body: json!({ "program": path }) }
        }
        ["stop"] => Command::Act { path: "/stop", body: json!({}) },
        [first, ..] => return Err(format!("{first:?} is no command, or its words are wrong")),
    };
    let place = matches.opt_str("admin").map(place_given).transpose()?;
    Ok(Parsed::Run(Options {
        command,
        json: matches.opt_present("json"),
        config: matches.opt_str("config").map(PathBuf::from),
        place,
        token: matches.opt_str("token").map(PathBuf::from),
    }))
}

/// Reads what follows `-a`.
fn place_given(text: String) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Place::Unix(path.into()));
    }
    match Address::parse(&text)? {
        Address::Any { port } => Ok(Place::Tcp(format!("127.0.0.1:{port}"))),
        _ => Ok(Place::Tcp(text)),
    }
}

impl Options {
    /// Whether nothing says where the admin listener is.
    pub fn has_no_place(&self) -> bool {
        self.place.is_none() && self.config.is_none()
    }

    /// Where to ask, and with which token.
    ///
    /// # Errors
    /// One sentence.
    pub fn server(&self) -> Result<Server, String> {
        let (mut place, mut token) = (self.place.clone(), self.token.clone());
        if let Some(file) = &self.config {
            let settings = config::load(&Source { file: Some(file.clone()), ..Source::default() })
                .map_err(|problems| problems[0].to_string())?;
            place = place.or_else(|| settings.admin_place().map(place_of));
            token = token.or(settings.admin_token);
        }
        let place = place.unwrap_or_else(|| Place::Unix(DEFAULT_SOCKET.into()));
        let token = match token {
            // The socket's permissions have decided, and the file may not be readable.
            Some(_) if matches!(place, Place::Unix(_)) => None,
            Some(file) => Some(read_token(&file)?),
            None => None,
        };
        Ok(Server { place, token })
    }
}

fn place_of(address: String) -> Place {
    match address.strip_prefix("unix:") {
        Some(path) => Place::Unix(path.into()),
        None => Place::Tcp(address.replace("*:", "127.0.0.1:")),
    }
}

fn read_token(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("cannot read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn command(line: &str) -> Command {
        match parse(&line.split(' ').collect::<Vec<_>>()) {
            Ok(Parsed::Run(options)) => options.command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_and_their_words() {
        assert_eq!(command("hosts"), Command::Hosts);
        assert_eq!(command("backends A.test"), Command::Backends(Some("a.test".to_owned())));
        assert_eq!(
            command("drain 10.0.0.1"),
            Command::Act { path: "/drain", body: json!({ "target": "10.0.0.1" }) }
        );
        assert_eq!(
            command("drop --key customer"),
            Command::Act { path: "/drop", body: json!({ "key": "customer" }) }
        );
        assert_eq!(
            command("wait a.test -n 4 --timeout 9"),
            Command::Act {
                path: "/wait",
                body: json!({ "host": "a.test", "count": 4, "timeout": 9000 })
            }
        );
    }

    #[test]
    fn wrong_words_are_one_sentence() {
        for (line, problem) in [
            ("", "\"\" is no command, or its words are wrong"),
            ("drain", "\"drain\" is no command, or its words are wrong"),
            ("wait a -n x", "\"x\" is not a number"),
            ("-x hosts", "Unrecognized option: 'x'"),
            (
                "-a http://127.0.0.1:8404 hosts",
                "\"http://127.0.0.1:8404\" is a URL; write only its host and port",
            ),
        ] {
            let error = parse(&line.split(' ').collect::<Vec<_>>()).unwrap_err();
            assert_eq!(error, problem);
        }
        assert_eq!(parse::<&str>(&[]).unwrap_err(), "no command is given");
    }

    #[test]
    fn without_a_place_it_is_the_packaged_socket() {
        let Ok(Parsed::Run(options)) = parse(&["hosts"]) else { panic!() };
        assert_eq!(options.server().unwrap().place, Place::Unix(DEFAULT_SOCKET.into()));
        let Ok(Parsed::Run(options)) = parse(&["-a", "127.0.0.1:8404", "hosts"]) else { panic!() };
        let server = options.server().unwrap();
        assert_eq!(server.place, Place::Tcp("127.0.0.1:8404".to_owned()));
        assert_eq!(server.token, None);
        let Ok(Parsed::Run(options)) = parse(&["-a", "8404", "hosts"]) else { panic!() };
        assert_eq!(options.server().unwrap().place, Place::Tcp("127.0.0.1:8404".to_owned()));
    }
}
