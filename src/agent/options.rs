//! The agent's command line.

use std::fs;

use getopts::{Matches, Options as Flags};

/// Most bridges of one agent: each has a thread, and a backend that needs more has outgrown an echo.
const MAX_BRIDGES: usize = 1000;

/// Bridges unless told otherwise: enough for a first look with a browser, which asks for several
/// things at once.
const BRIDGES: usize = 4;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this text.
    Help(String),
    /// Print the version.
    Version,
    /// Run.
    Echo(Echo),
}

/// How to run as an echo.
#[derive(Clone, PartialEq, Eq)]
pub struct Echo {
    /// The proxy, as `host:port` or `host`.
    pub proxy: String,
    /// How many bridges, and so how many requests at once.
    pub bridges: usize,
    /// Host patterns; never empty.
    pub hosts: Vec<String>,
    /// Path prefix.
    pub prefix: String,
    /// Host keys.
    pub keys: Vec<String>,
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Echo")
            .field("proxy", &self.proxy)
            .field("bridges", &self.bridges)
            .field("hosts", &self.hosts)
            .field("prefix", &self.prefix)
            .field("keys", &self.keys.len())
            .finish()
    }
}

fn flags() -> Flags {
    let mut flags = Flags::new();
    flags.optflag("", "echo", "answer each request with the request itself");
    flags.optopt("n", "", "bridges, and so requests at once (default 4)", "COUNT");
    flags.optmulti("", "host", "serve this host: a name, '*.' and a name, or '*'; again for more (default $BRIDGE_HOSTS, or '*')", "NAME");
    flags.optopt("", "prefix", "serve only paths below this one (default /)", "PATH");
    flags.optmulti(
        "",
        "key",
        "prove the right to a host with this key; again for more (default $BRIDGE_KEYS)",
        "KEY",
    );
    flags.optmulti(
        "",
        "key-file",
        "take keys from this file, one a line; others on this machine can see --key",
        "FILE",
    );
    flags.optflag("h", "help", "print this help");
    flags.optflag("v", "version", "print the version");
    flags
}

/// Reads the arguments (without the program's name). `variable` looks up an environment variable.
///
/// # Errors
///
/// One line that says what is wrong.
pub fn parse(
    arguments: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, String> {
    let flags = flags();
    let matches = flags.parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        let brief = "Usage: cloudbridge-agent --echo [options] PROXY[:8079]\n\n\
                     Holds bridges to a cloudbridge proxy and serves what comes over them.\n\
                     BRIDGE_HOSTS and BRIDGE_KEYS are lists with commas.";
        return Ok(Command::Help(flags.usage(brief)));
    }
    if matches.opt_present("version") {
        return Ok(Command::Version);
    }
    if !matches.opt_present("echo") {
        return Err("say what to serve: --echo (-h for help)".to_owned());
    }
    let proxy = match matches.free.as_slice() {
        [proxy] => proxy.clone(),
        [] => return Err("say where the proxy is: PROXY[:8079] (-h for help)".to_owned()),
        [_, more, ..] => return Err(format!("one proxy is enough: what is {more:?}?")),
    };
    let hosts = or_variable(matches.opt_strs("host"), || variable("BRIDGE_HOSTS"));
    let hosts = if hosts.is_empty() { vec!["*".to_owned()] } else { hosts };
    Ok(Command::Echo(Echo {
        proxy,
        bridges: bridges(&matches)?,
        hosts,
        prefix: matches.opt_str("prefix").unwrap_or_else(|| "/".to_owned()),
        keys: or_variable(keys(&matches)?, || variable("BRIDGE_KEYS")),
    }))
}

fn bridges(matches: &Matches) -> Result<usize, String> {
    let Some(text) = matches.opt_str("n") else {
        return Ok(BRIDGES);
    };
    match text.parse() {
        Ok(count) if (1..=MAX_BRIDGES).contains(&count) => Ok(count),
        _ => Err(format!("-n is a number from 1 to {MAX_BRIDGES}, not {text:?}")),
    }
}

/// The keys of --key and then those of each --key-file.
fn keys(matches: &Matches) -> Result<Vec<String>, String> {
    let mut keys = matches.opt_strs("key");
    for file in matches.opt_strs("key-file") {
        let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        keys.extend(filled(text.lines()));
    }
    Ok(keys)
}

/// What the flags gave, or else the list in a variable.
fn or_variable(given: Vec<String>, variable: impl Fn() -> Option<String>) -> Vec<String> {
    if given.is_empty() { filled(variable().unwrap_or_default().split(',')) } else { given }
}

fn filled<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, variables: &[(&str, &str)]) -> Result<Command, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&arguments, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[track_caller]
    fn echo(line: &str, variables: &[(&str, &str)]) -> Echo {
        match with(line, variables) {
            Ok(Command::Echo(echo)) => echo,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn bad(line: &str, what: &str) {
        assert_eq!(with(line, &[]), Err(what.to_owned()));
    }

    #[test]
    fn there_are_defaults() {
        let expected = Echo {
            proxy: "proxy".to_owned(),
            bridges: 4,
            hosts: vec!["*".to_owned()],
            prefix: "/".to_owned(),
            keys: Vec::new(),
        };
        assert_eq!(echo("--echo proxy", &[]), expected);
    }

    #[test]
    fn flags_are_read() {
        let expected = Echo {
            proxy: "proxy:80".to_owned(),
            bridges: 1000,
            hosts: vec!["a.test".to_owned(), "*.b.test".to_owned()],
            prefix: "/api".to_owned(),
            keys: vec!["::a.test".to_owned()],
        };
        let line =
            "-n 1000 --host a.test --host *.b.test --prefix /api --key ::a.test proxy:80 --echo";
        let variables = [("BRIDGE_HOSTS", "c.test"), ("BRIDGE_KEYS", "::c.test")];
        assert_eq!(echo(line, &variables), expected);
    }

    #[test]
    fn variables_stand_in_for_flags() {
        let variables = [("BRIDGE_HOSTS", "a.test, b.test,"), ("BRIDGE_KEYS", "::a.test")];
        let echo = echo("--echo proxy", &variables);
        assert_eq!(echo.hosts, ["a.test", "b.test"]);
        assert_eq!(echo.keys, ["::a.test"]);
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        assert_eq!(with("-v", &[]), Ok(Command::Version));
        let Ok(Command::Help(text)) = with("-h --echo", &[]) else {
            panic!("no help");
        };
        assert!(text.starts_with("Usage: cloudbridge-agent --echo [options] PROXY[:8079]\n"));
        for flag in ["--echo", "-n COUNT", "--host NAME", "--key-file FILE", "-v, --version"] {
            assert!(text.contains(flag), "{flag}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        bad("proxy", "say what to serve: --echo (-h for help)");
        bad("--echo", "say where the proxy is: PROXY[:8079] (-h for help)");
        bad("--echo a b", "one proxy is enough: what is \"b\"?");
        bad("--echo -n 0 a", "-n is a number from 1 to 1000, not \"0\"");
        bad("--echo -n 1001 a", "-n is a number from 1 to 1000, not \"1001\"");
        bad("--echo -n x a", "-n is a number from 1 to 1000, not \"x\"");
        bad("--echo --nonsense a", "Unrecognized option: 'nonsense'");
        bad("--echo --key-file /no/such a", "/no/such: No such file or directory (os error 2)");
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", echo("--echo --key sesame proxy", &[])).contains("sesame"));
    }
}
