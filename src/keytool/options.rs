//! The key tool's command line.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

use getopts::{Matches, Options as Flags};

use crate::bridge::hostkey::{Caveat, HostKey};
use crate::bridge::{number, pattern};
use crate::config;

/// The default lifetime of a modern key, in seconds: 90 days, so that a forgotten key does not stay
/// valid forever.
const LIFETIME: u64 = 90 * 86_400;

/// What `-h` prints.
pub(super) const HELP: &str = "\
Usage: cloudbridge-key [options] SECRET HOST [TIMESTAMP]
       cloudbridge-key [options] --secret-file FILE HOST [TIMESTAMP]
       cloudbridge-key [options] --secrets FILE HOST [TIMESTAMP]
       cloudbridge-key add FILE
       cloudbridge-key check KEY --secrets FILE [--host NAME]
       cloudbridge-key hash KEY
       cloudbridge-key narrow FILE [options]
       cloudbridge-key show FILE

Makes the host key with which a backend may serve HOST and every name below it,
adds a random secret to a secrets file, checks a key, or prints a key's hash,
which revokes the key when it is a line of the proxy's file `revoked`.
narrow prints a key that allows less than the one in FILE, and needs no secret;
show says what the key in FILE allows, and not the key.

Options:
        --secret-file FILE
                        read the secret from FILE, '-' for standard input; on
                        the command line others on this machine can see it
        --secrets FILE  use the secret in force in a secrets file, or check a
                        key against the file
        --modern        make a v2 key (HMAC-SHA256, with an expiry)
        --expires WHEN  when the v2 key expires: 90d or 12h after TIMESTAMP,
                        or a Unix time (default 90d); narrow counts from now,
                        and keeps the expiry by default
        --bridges N     how many bridges may be connected at once by the key
                        (default any number, or as many as before)
        --host NAME     also check that the key covers this name; narrow the
                        key to this name and those below it
        --prefix PATH   narrow the key to bridges for this path and those below
                        it
        --method LIST   narrow the key to bridges that take only these methods,
                        separated by commas
    -h, --help          print this help
    -v, --version       print the version

TIMESTAMP is when the key is made, in Unix seconds (default now). KEY and FILE
of a key may be '-' for standard input. Put -- before a secret that is the
word add, check, hash, narrow or show.
";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Version,
    Make(Make),
    /// Add a secret to this file.
    Add(PathBuf),
    Check(Check),
    /// Print the hash of this key.
    Hash(Origin),
    Narrow(Narrow),
    /// Say what the key in this file allows.
    Show(PathBuf),
}

/// A key to narrow. Of the restrictions there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    /// The key is in it.
    pub(super) file: PathBuf,
    pub(super) host: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) methods: Option<Caveat>,
    pub(super) bridges: Option<NonZeroU32>,
    pub(super) expires: Option<Expiry>,
}

/// A key to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Make {
    pub(super) secret: Secret,
    /// Verbatim.
    pub(super) host: String,
    /// In Unix seconds; `None` is now.
    pub(super) made: Option<u64>,
    pub(super) form: Form,
}

/// Where the secret of a new key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    Given(Origin),
    /// The one in force in this secrets file.
    InForce(PathBuf),
}

/// Where a secret or a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// On the command line.
    Word(Hidden),
    /// In this file; `-` is standard input.
    File(PathBuf),
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden(pub(super) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The form of a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The original's.
    Legacy,
    /// Ours.
    Modern {
        expires: Expiry,
        /// How many bridges may be connected at once.
        bridges: Option<NonZeroU32>,
    },
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// So many seconds after its timestamp.
    After(u64),
    /// At this Unix second.
    At(u64),
}

/// A key to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) key: Origin,
    /// The secrets file.
    pub(super) secrets: PathBuf,
    /// A name that it should cover.
    pub(super) host: Option<String>,
}

/// Reads the arguments (without the program's name).
///
/// # Errors
/// One sentence. It never repeats what may be a secret.
pub(super) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| argument.to_str().ok_or("an argument is not UTF-8"))
        .collect::<Result<_, _>>()?;
    let mut flags = Flags::new();
    flags.optflag("h", "help", "").optflag("v", "version", "");
    // A command is only recognised as the first word, so that after `--` the same word is a secret.
    let (command, rest): (fn(&Matches) -> _, _) = match arguments.split_first() {
        Some((&"add", rest)) => (add, rest),
        Some((&"check", rest)) => {
            flags.optopt("", "secrets", "", "").optopt("", "host", "", "");
            (check, rest)
        }
        Some((&"hash", rest)) => (hash, rest),
        Some((&"narrow", rest)) => {
            for option in ["host", "prefix", "method", "bridges", "expires"] {
                flags.optopt("", option, "", "");
            }
            (narrow, rest)
        }
        Some((&"show", rest)) => (show, rest),
        _ => {
            flags.optopt("", "secret-file", "", "").optopt("", "secrets", "", "");
            flags.optflag("", "modern", "").optopt("", "expires", "", "");
            flags.optopt("", "bridges", "", "");
            (make, &arguments[..])
        }
    };
    let matches = flags.parse(rest).map_err(|fail| match fail {
        // Not the message of getopts, which repeats the word: a secret may begin with a dash.
        getopts::Fail::UnrecognizedOption(_) => "unknown option (-h for help)".to_owned(),
        fail => fail.to_string(),
    })?;
    if matches.opt_present("help") {
        return Ok(Command::Help);
    }
    if matches.opt_present("version") {
        return Ok(Command::Version);
    }
    command(&matches)
}

fn add(matches: &Matches) -> Result<Command, String> {
    match matches.free.as_slice() {
        [file] => Ok(Command::Add(file.into())),
        _ => Err("add takes one file (-h for help)".to_owned()),
    }
}

fn check(matches: &Matches) -> Result<Command, String> {
    let [key] = matches.free.as_slice() else {
        return Err("check takes one key (-h for help)".to_owned());
    };
    let key = given(key);
    let secrets = matches.opt_str("secrets").ok_or("check needs --secrets FILE")?;
    Ok(Command::Check(Check { key, secrets: secrets.into(), host: matches.opt_str("host") }))
}

fn hash(matches: &Matches) -> Result<Command, String> {
    match matches.free.as_slice() {
        [key] => Ok(Command::Hash(given(key))),
        _ => Err("hash takes one key (-h for help)".to_owned()),
    }
}

fn show(matches: &Matches) -> Result<Command, String> {
    key_file("show", matches).map(Command::Show)
}

fn narrow(matches: &Matches) -> Result<Command, String> {
    let file = key_file("narrow", matches)?;
    let host = |word: String| {
        pattern::parse(word.as_bytes()).map_err(|bad| format!("--host is not a host name: {bad}"))
    };
    let methods = |list: String| {
        Caveat::methods(list.split(','))
            .ok_or("--method is a list of methods in capitals: GET,HEAD")
    };
    let order = Narrow {
        file,
        host: matches.opt_str("host").map(host).transpose()?,
        prefix: matches.opt_str("prefix").map(|path| prefix(&path)).transpose()?,
        methods: matches.opt_str("method").map(methods).transpose()?,
        bridges: matches.opt_str("bridges").map(|word| limit(&word)).transpose()?,
        expires: matches.opt_str("expires").map(|word| expiry(&word)).transpose()?,
    };
    let Narrow { host, prefix, methods, bridges, expires, .. } = &order;
    if (host, prefix, methods, bridges, expires) == (&None, &None, &None, &None, &None) {
        let text = "narrow needs --host, --prefix, --method, --bridges or --expires (-h for help)";
        return Err(text.to_owned());
    }
    Ok(Command::Narrow(order))
}

/// The path of a BRIDGE, as a caveat has it.
fn prefix(path: &str) -> Result<String, String> {
    let path = path.trim_end_matches('/');
    match Caveat::parse(&format!("prefix={path}")) {
        Ok(Caveat::Prefix(path)) => Ok(path),
        _ => {
            Err("--prefix is a path such as /app, without ?, #, + and commas, of at most 256 bytes"
                .to_owned())
        }
    }
}

/// The file that a key is in. A key itself would be seen by others on this machine.
fn key_file(command: &str, matches: &Matches) -> Result<PathBuf, String> {
    match matches.free.as_slice() {
        [word] if HostKey::parse(word.as_bytes()).is_ok() => Err(format!(
            "{command} takes no key, which others on this machine could see, but a file with one, or - \
             for standard input"
        )),
        [file] => Ok(file.into()),
        _ => Err(format!("{command} takes one file with a key (-h for help)")),
    }
}

/// A key, or `-` for standard input.
fn given(key: &str) -> Origin {
    match key {
        "-" => Origin::File("-".into()),
        word => Origin::Word(Hidden(word.to_owned())),
    }
}

fn make(matches: &Matches) -> Result<Command, String> {
    let (secret, rest) = secret(matches)?;
    let (host, made) = match rest {
        [host] => (host, None),
        [host, made] => (host, Some(unix_second("TIMESTAMP", made)?)),
        [] => return Err("no HOST given (-h for help)".to_owned()),
        _ => return Err("too many arguments (-h for help)".to_owned()),
    };
    Ok(Command::Make(Make { secret, host: host.clone(), made, form: form(matches)? }))
}

/// The secret, and the remaining arguments.
fn secret(matches: &Matches) -> Result<(Secret, &[String]), String> {
    let free = matches.free.as_slice();
    match (matches.opt_str("secret-file"), matches.opt_str("secrets")) {
        (Some(_), Some(_)) => Err("--secret-file or --secrets, not both".to_owned()),
        (Some(file), None) => Ok((Secret::Given(Origin::File(file.into())), free)),
        (None, Some(file)) => Ok((Secret::InForce(file.into()), free)),
        (None, None) => match free.split_first() {
            Some((word, rest)) => Ok((Secret::Given(Origin::Word(Hidden(word.clone()))), rest)),
            None => Err("no SECRET and no HOST given (-h for help)".to_owned()),
        },
    }
}

fn form(matches: &Matches) -> Result<Form, String> {
    let (expires, bridges) = (matches.opt_str("expires"), matches.opt_str("bridges"));
    if !matches.opt_present("modern") {
        return match (expires, bridges) {
            (None, None) => Ok(Form::Legacy),
            _ => Err("--expires and --bridges are for --modern keys".to_owned()),
        };
    }
    let bridges = bridges.map(|word| limit(&word)).transpose()?;
    let expires = expires.map_or(Ok(Expiry::After(LIFETIME)), |word| expiry(&word))?;
    Ok(Form::Modern { expires, bridges })
}

fn limit(word: &str) -> Result<NonZeroU32, String> {
    let count = number(word).and_then(|count| u32::try_from(count).ok());
    let count = count.and_then(NonZeroU32::new);
    count.ok_or_else(|| "--bridges is a number from 1 to 4294967295".to_owned())
}

/// A bare number is a point in time; one with a unit is relative to the key's own.
fn expiry(word: &str) -> Result<Expiry, String> {
    if word.bytes().all(|b| b.is_ascii_digit()) {
        return unix_second("--expires", word).map(Expiry::At);
    }
    let after = config::time(word).map_err(|what| format!("--expires: {what}"))?;
    Ok(Expiry::After(after.as_secs()))
}

fn unix_second(what: &str, word: &str) -> Result<u64, String> {
    number(word).ok_or_else(|| format!("{what} is a Unix time, in seconds"))
}
