//! The few things that all programs here do with their command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::exit;
use std::str::FromStr;

use getopts::{Matches, Options};

use crate::address::Address;

/// Parses the command line; prints the help and ends the process at `-h`, and ends it with 2 on a
/// mistake.
pub fn parse(mut options: Options, brief: &str) -> Matches {
    options.optflag("h", "help", "print this help");
    match options.parse(std::env::args_os().skip(1)) {
        Ok(matches) if matches.opt_present("h") => {
            print!("{}", options.usage(brief));
            exit(0);
        }
        Ok(matches) => matches,
        Err(error) => fail(&error.to_string()),
    }
}

/// The option's value, `default` when it is absent; ends the process when it cannot be read.
pub fn value<T: FromStr>(matches: &Matches, name: &str, default: T) -> T {
    match matches.opt_str(name).map(|text| text.parse()) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(_)) => fail(&format!("--{name}: not a value it can have")),
    }
}

/// The address or Unix socket an option names, if it is there; ends the process when it is neither.
pub fn target(matches: &Matches, name: &str) -> Option<Address> {
    targets(matches, name).into_iter().next()
}

/// All addresses or Unix sockets that a repeated option names; ends the process when one is
/// neither.
pub fn targets(matches: &Matches, name: &str) -> Vec<Address> {
    let known = |text: String| match Address::parse(&text) {
        Some(address) => address,
        None => fail(&format!("--{name}: {text} is neither address:port nor unix:path")),
    };
    matches.opt_strs(name).into_iter().map(known).collect()
}

/// The address an option names, if it is there; ends the process when it is none.
pub fn address(matches: &Matches, name: &str) -> Option<SocketAddr> {
    let text = matches.opt_str(name)?;
    match text.to_socket_addrs().ok().and_then(|mut found| found.next()) {
        Some(address) => Some(address),
        None => fail(&format!("--{name}: {text} is not address:port")),
    }
}

/// Prints why the program cannot go on, and ends it with 2.
pub fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(2)
}
