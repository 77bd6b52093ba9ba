//! The command line of `cloudbridge demo`.

use std::ffi::OsStr;

/// The port that the proxy listens on by default.
const PORT: u16 = 8079;

const BRIEF: &str = "\
Usage: cloudbridge demo [OPTIONS] [PORT]

Starts a proxy at 127.0.0.1:PORT (8079), two small applications behind agents,
and clients that send GETs and count the answers. Every second or two a backend
is stopped, killed or added. Ctrl-C ends all of it.
The exit code is 0 if no client saw an error, 1 if one did or nothing could be
started, 2 if the command line is wrong.";

/// How to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub port: u16,
    /// When to end without being told.
    pub seconds: Option<u64>,
}

/// One of the small applications, which are processes of this program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Application {
    /// What it calls itself.
    pub name: String,
    /// 0 is a port that the kernel chooses.
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    Help(String),
    Demo(Options),
    Application(Application),
}

/// Parses the arguments behind `demo`.
pub(super) fn parse<S: AsRef<OsStr>>(args: &[S]) -> Result<Parsed, String> {
    let mut options = getopts::Options::new();
    options.optflag("h", "help", "print this help and exit").optopt(
        "",
        "seconds",
        "end after this time",
        "SECONDS",
    );
    let mut with_hidden = getopts::Options::new();
    with_hidden.optflag("h", "help", "").optopt("", "seconds", "", "").optopt(
        "",
        "application",
        "run as the application of this name",
        "NAME",
    );
    let matches = with_hidden.parse(args).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        return Ok(Parsed::Help(options.usage(BRIEF)));
    }
    let port = match matches.free.as_slice() {
        [] => PORT,
        [port] => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
        [_, more, ..] => return Err(format!("one port is enough: {more:?}")),
    };
    if let Some(name) = matches.opt_str("application") {
        return Ok(Parsed::Application(Application { name, port }));
    }
    let seconds = matches.opt_str("seconds").map(|text| match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(format!("{text:?} is not a number of seconds")),
    });
    Ok(Parsed::Demo(Options { port, seconds: seconds.transpose()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, String> {
        parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn a_port_and_a_time_may_be_given() {
        let demo = |port, seconds| Ok(Parsed::Demo(Options { port, seconds }));
        assert_eq!(parsed(""), demo(8079, None));
        assert_eq!(parsed("8080 --seconds 60"), demo(8080, Some(60)));
        let Ok(Parsed::Help(text)) = parsed("-h") else { panic!("no help") };
        assert!(text.contains("--seconds SECONDS") && !text.contains("--application"), "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parsed("http"), Err("\"http\" is not a port".to_owned()));
        assert_eq!(parsed("80 81"), Err("one port is enough: \"81\"".to_owned()));
        assert_eq!(parsed("--seconds 0"), Err("\"0\" is not a number of seconds".to_owned()));
        assert!(parsed("--port 80").is_err());
    }
}
