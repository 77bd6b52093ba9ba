//! What the programs say about their own command lines.

use crate::tools::run;
use std::process::Command;

/// An option of a program.
#[derive(Debug, PartialEq)]
pub struct Flag {
    pub short: Option<String>,
    pub long: Option<String>,
    /// The placeholder for its value, such as `FILE`.
    pub value: Option<String>,
    pub about: String,
}

impl Flag {
    /// `-c` and `--config`, as far as there are.
    pub fn names(&self) -> Vec<String> {
        let short = self.short.iter().map(|short| format!("-{short}"));
        short.chain(self.long.iter().map(|long| format!("--{long}"))).collect()
    }

    /// What its value is.
    pub fn takes(&self) -> Value {
        match self.value.as_deref() {
            None => Value::Nothing,
            Some("FILE") => Value::File,
            Some("MODE") => Value::Words(&["private", "any"]),
            Some(_) => Value::Text,
        }
    }

    pub fn repeats(&self) -> bool {
        self.about.contains("may be repeated") || self.long.as_deref() == Some("key-file")
    }
}

/// What the value of an option may be, for completion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Nothing,
    File,
    Words(&'static [&'static str]),
    /// Something that a shell cannot know.
    Text,
}

/// A command of a program, such as `drain` of `cloudbridge ctl`.
#[derive(Debug, PartialEq)]
pub struct Subcommand {
    pub name: String,
    /// The words behind it, such as `TARGET` or `[HOST]`.
    pub words: String,
    pub about: String,
}

/// A program, or `cloudbridge ctl`.
pub struct Program {
    pub flags: Vec<Flag>,
    pub commands: Vec<Subcommand>,
}

pub fn proxy() -> Program {
    read(env!("CARGO_BIN_EXE_cloudbridge"), &["--help"])
}

pub fn ctl() -> Program {
    read(env!("CARGO_BIN_EXE_cloudbridge"), &["ctl", "--help"])
}

pub fn agent() -> Program {
    read(env!("CARGO_BIN_EXE_cloudbridge-agent"), &["--help"])
}

pub fn key() -> Program {
    read(env!("CARGO_BIN_EXE_cloudbridge-key"), &["--help"])
}

fn read(program: &str, arguments: &[&str]) -> Program {
    let text = run(Command::new(program).args(arguments));
    let mut commands = listed(&text);
    commands.extend(of_usage(&text));
    let program = Program { flags: flags(&text), commands };
    assert!(!program.flags.is_empty(), "{text}");
    program
}

/// The list below `Options:`. The text about an option begins on its line or on the next one, in
/// column 24.
fn flags(help: &str) -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    let lines = help.lines().skip_while(|line| *line != "Options:").skip(1);
    for line in lines.take_while(|line| !line.trim().is_empty()) {
        let Some(entry) = line.trim_start().strip_prefix('-').filter(|_| !is_continued(line))
        else {
            let flag = flags.last_mut().expect("the list begins with an option");
            flag.about = format!("{} {}", flag.about, line.trim()).trim().to_owned();
            continue;
        };
        let mut flag = Flag { short: None, long: None, value: None, about: String::new() };
        let mut rest = entry;
        if !rest.starts_with('-') {
            let (short, more) = rest.split_at(1);
            flag.short = Some(short.to_owned());
            rest = more.strip_prefix(", -").unwrap_or(more);
        }
        if let Some(long) = rest.strip_prefix('-') {
            let (long, more) = long.split_once(' ').unwrap_or((long, ""));
            flag.long = Some(long.to_owned());
            rest = more;
        } else {
            rest = rest.strip_prefix(' ').unwrap_or(rest);
        }
        // A value is one space away, and a text further.
        let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
        if !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase()) {
            flag.value = Some(word.to_owned());
            rest = more;
        }
        flag.about = rest.trim().to_owned();
        flags.push(flag);
    }
    flags
}

fn is_continued(line: &str) -> bool {
    line.starts_with(&" ".repeat(24))
}

/// The commands below `COMMAND is one of:`, each with a text in a column of its own.
fn listed(help: &str) -> Vec<Subcommand> {
    let mut commands: Vec<Subcommand> = Vec::new();
    let lines = help.lines().skip_while(|line| !line.ends_with("COMMAND is one of:")).skip(1);
    for line in lines.take_while(|line| line.starts_with("    ")) {
        if is_continued(line) {
            let command = commands.last_mut().expect("the list begins with a command");
            command.about = format!("{} {}", command.about, line.trim());
            continue;
        }
        let (form, about) = line.trim().split_once("  ").expect("a command has a text");
        let (name, words) = form.split_once(' ').unwrap_or((form, ""));
        commands.push(Subcommand {
            name: name.to_owned(),
            words: words.to_owned(),
            about: about.trim().to_owned(),
        });
    }
    commands
}

/// The commands that only the lines of usage name: `cloudbridge-key add FILE`.
fn of_usage(help: &str) -> Vec<Subcommand> {
    let lines = help.lines().take_while(|line| !line.is_empty());
    let command = |line: &str| {
        let form = line.trim_start_matches("Usage:").trim().strip_prefix("cloudbridge-key ")?;
        let (name, words) = form.split_once(' ')?;
        let is_word = name.chars().all(|c| c.is_ascii_lowercase());
        let about = String::new();
        is_word.then(|| Subcommand { name: name.to_owned(), words: words.to_owned(), about })
    };
    lines.filter_map(command).collect()
}

#[test]
fn help_is_read() {
    let proxy = proxy();
    let flag = |long: &str| {
        let is = |flag: &&Flag| flag.long.as_deref() == Some(long);
        proxy.flags.iter().find(is).unwrap_or_else(|| panic!("no --{long}"))
    };
    let config = flag("config");
    assert_eq!(
        (config.names(), config.takes()),
        (vec!["-c".into(), "--config".into()], Value::File)
    );
    let import = flag("import-swiftiply");
    assert!(import.about.ends_with("(YAML), and exit"), "{import:?}");
    assert_eq!(proxy.flags.iter().filter(|flag| flag.long.is_none()).count(), 1, "-f");
    let ctl = ctl();
    let key = ctl.flags.iter().find(|flag| flag.long.as_deref() == Some("key")).unwrap();
    assert_eq!((key.takes(), key.about.as_str()), (Value::Nothing, "TARGET is the name of a key"));
    let names: Vec<&str> = ctl.commands.iter().map(|command| command.name.as_str()).collect();
    assert!(names.starts_with(&["hosts", "backends", "sites", "drain"]), "{names:?}");
    let names: Vec<String> = self::key().commands.into_iter().map(|command| command.name).collect();
    assert_eq!(names, ["add", "check", "hash", "narrow", "show"]);
}
