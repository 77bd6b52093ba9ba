//! The key tool: makes host keys, adds secrets to a secrets file, checks keys against one, and narrows
//! keys.
//!
//! - `options`: the command line
//! - `adding`: adds a secret to a file, atomically
//! - `checking`: explains why a key is invalid
//! - `narrowing`: makes a key that allows less, and shows what one allows
//! - `datetime`: Unix time, and how it is printed
//!
//! Keys and secrets themselves are in [`crate::bridge::hostkey`].

mod adding;
mod checking;
mod datetime;
mod failure;
mod narrowing;
mod options;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::Path;

use crate::bridge::Secrets;
use crate::bridge::hostkey::{HostKey, KeyHash, Terms};
use crate::bridge::pattern;

pub use failure::Failure;

use datetime::unix_time;
use options::{Command, Expiry, Form, Hidden, Make, Origin};

/// Runs the command in the arguments (without the program's name) and returns what to print.
///
/// # Errors
/// What is wrong, and the exit code.
pub fn run(arguments: &[OsString], stdin: &mut dyn Read) -> Result<String, Failure> {
    let now = unix_time();
    match options::parse(arguments).map_err(Failure::usage)? {
        Command::Help => Ok(options::HELP.to_owned()),
        Command::Version => Ok(format!("{}\n", crate::version("cloudbridge-key"))),
        Command::Make(order) => make(&order, stdin, now),
        Command::Add(file) => adding::add(&file, now).map(|added| {
            added.wait();
            let from = datetime::utc(added.from);
            format!(
                "{}: a new secret, in force from {from}; send HUP to the proxy\n",
                file.display()
            )
        }),
        Command::Check(order) => {
            let key = key_of(order.key, stdin)?;
            let secrets = secrets_in(&order.secrets)?;
            let file = order.secrets.display().to_string();
            checking::check(key.trim(), order.host.as_deref(), &secrets, &file, now)
        }
        Command::Hash(key) => {
            let key = read(&key_of(key, stdin)?)?;
            Ok(format!("{}\n", KeyHash::of(&key)))
        }
        Command::Narrow(order) => {
            let key = read(&one_line(&order.file, "key", stdin)?)?;
            narrowing::narrow(&key, &order, now)
        }
        Command::Show(file) => Ok(narrowing::show(&read(&one_line(&file, "key", stdin)?)?)),
    }
}

fn read(key: &str) -> Result<HostKey, Failure> {
    HostKey::parse(key.trim().as_bytes())
        .map_err(|bad| Failure::of(format!("the key is malformed: {bad}")))
}

fn make(order: &Make, stdin: &mut dyn Read, now: u64) -> Result<String, Failure> {
    let single = |secret: &str| Secrets::always(secret).map_err(Failure::of);
    let secrets = match &order.secret {
        options::Secret::Given(Origin::Word(Hidden(secret))) => single(secret)?,
        options::Secret::Given(Origin::File(file)) => single(&one_line(file, "secret", stdin)?)?,
        options::Secret::InForce(file) => secrets_in(file)?,
    };
    let canonical = pattern::parse(order.host.as_bytes())
        .map_err(|bad| Failure::usage(format!("HOST is not a host name: {bad}")))?;
    let made = order.made.unwrap_or(now);
    let key = match order.form {
        // Verbatim: the original hashes what it was given.
        Form::Legacy => secrets.make_legacy(made, &order.host, now),
        Form::Modern { expires, bridges } => {
            let expires = match expires {
                Expiry::At(at) => Some(at),
                Expiry::After(seconds) => made.checked_add(seconds),
            };
            let expires = expires.filter(|at| *at > made).ok_or_else(|| {
                Failure::usage(
                    "--expires: a key cannot expire before it is made (days are written 90d)",
                )
            })?;
            secrets.make_modern(&Terms { made, expires, bridges, name: canonical }, now)
        }
    };
    key.map(|key| key + "\n").ok_or_else(|| {
        let when = datetime::utc(made.min(now));
        Failure::of(format!("no secret of that file was in force at {when}"))
    })
}

fn key_of(key: Origin, stdin: &mut dyn Read) -> Result<String, Failure> {
    match key {
        Origin::Word(Hidden(key)) => Ok(key),
        Origin::File(file) => one_line(&file, "key", stdin),
    }
}

/// The single line in a file, or on standard input for `-`, without its line end.
fn one_line(file: &Path, what: &str, stdin: &mut dyn Read) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        stdin.read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::of(format!("{}: {error}", file.display())))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        return Err(Failure::of(format!("{}: a {what} is one line", file.display())));
    }
    Ok(line.to_owned())
}

fn secrets_in(file: &Path) -> Result<Secrets, Failure> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| Failure::of(format!("{name}: {error}")))?;
    Secrets::parse(&text, &name).map_err(|lines| Failure { lines, code: 1 })
}

#[cfg(test)]
mod tests;
