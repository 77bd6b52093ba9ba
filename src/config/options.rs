//! The command line: the original's flags (`doc/protocol.md`, "The original command line"), and a
//! few more.

use super::directive::{Directive, Flag};
use super::load::{Overrides, Source};
use super::settings::Settings;
use super::table::TABLE;
use getopts::{Matches, Options};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Width of the help, in columns.
const WIDTH: usize = 80;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy with these settings.
    Run(Source),
    /// Check these settings and exit.
    Check(Source),
    /// Print this text and exit.
    Help(String),
    /// Convert this file of Swiftiply's settings, print the result, and exit.
    Import(PathBuf),
    /// Print this line and exit.
    Version(String),
}

/// Reads the arguments, without the program's name. Values are checked; the file is not read yet.
///
/// # Errors
/// One sentence; the caller exits with 2.
pub fn parse_args<S: AsRef<OsStr>>(args: &[S]) -> Result<Command, String> {
    let options = options();
    let matches = options.parse(args).map_err(|fail| format!("{fail}; -h lists the options"))?;
    if matches.opt_present("h") {
        return Ok(Command::Help(help(&options)));
    }
    if matches.opt_present("v") {
        return Ok(Command::Version(crate::version("cloudbridge")));
    }
    if let Some(file) = matches.opt_str("import-swiftiply") {
        return Ok(Command::Import(PathBuf::from(file)));
    }
    if matches.opt_present("c") && matches.opt_present("f") {
        return Err(
            "-c and -f are the same option, and only one file is read; -h lists them".to_owned()
        );
    }
    let file = matches.opt_str("c").or_else(|| matches.opt_str("f")).map(PathBuf::from);
    let source = Source { file, overrides: overrides(&matches), ..Source::default() };
    let problems = source.overrides.apply(&mut Settings::default());
    if let Some(first) = problems.first() {
        return Err(format!("{first}; -h lists the options"));
    }
    Ok(if matches.opt_present("t") { Command::Check(source) } else { Command::Run(source) })
}

fn options() -> Options {
    let mut options = Options::new();
    options
        .optflag("h", "help", "print this help and exit")
        .optflag("v", "version", "print the version and exit")
        .optopt("c", "config", "read settings from FILE", "FILE")
        .optopt("f", "", "the same as -c", "FILE")
        .optflag("t", "check", "check the settings, print what is wrong and exit");
    options.optopt(
        "",
        "import-swiftiply",
        "print the equivalent of a settings file of Swiftiply (YAML), and exit",
        "FILE",
    );
    for (flag, row) in flagged() {
        let about = format!("the setting {}, explained below", row.name);
        match flag.value {
            "" => options.optflag(&flag.letter.to_string(), row.name, &about),
            value => options.optopt(&flag.letter.to_string(), row.name, &about, value),
        };
    }
    options
}

/// The directives with a flag.
fn flagged() -> impl Iterator<Item = (Flag, &'static Directive<Settings>)> {
    TABLE.iter().filter_map(|row| row.flag.map(|flag| (flag, row)))
}

fn overrides(matches: &Matches) -> Overrides {
    let mut overrides = Overrides::default();
    for (flag, row) in flagged() {
        if flag.value.is_empty() {
            if matches.opt_present(row.name) {
                overrides.push(row.name, "yes");
            }
        } else if let Some(value) = matches.opt_str(row.name) {
            overrides.push(row.name, value);
        }
    }
    for address in &matches.free {
        overrides.push("listen", address);
    }
    overrides
}

fn help(options: &Options) -> String {
    let brief = "\
Usage: cloudbridge [-c FILE] [-t] [-w N] [-s FILE] [-i HOST] [-d] [-l FILE]
                   [ADDRESS:PORT ...]
       cloudbridge ctl COMMAND      asks a running proxy; `ctl -h` explains
       cloudbridge demo [PORT]      shows it at work, until Ctrl-C

A reverse-reverse HTTP proxy: clients connect to it, backends connect to it too,
and it matches them by host name. Without arguments it listens on *:8079.
Flags override the settings file; addresses replace its listen lines.";
    let mut text = options.usage(brief);
    text.push_str(
        "
Signals: TERM and INT finish what is in flight and exit (twice: at once), HUP
reloads the settings and the secrets.

Settings, one `name value` a line in FILE:
",
    );
    for row in TABLE {
        text.push_str(&format!("\n  {}\n", row.name));
        wrap(row.about, &mut text);
        wrap(&row.summary(), &mut text);
    }
    text
}

/// Adds the text in indented lines of at most [`WIDTH`] columns.
fn wrap(text: &str, out: &mut String) {
    const INDENT: &str = "     ";
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::load::load;
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[track_caller]
    fn run(args: &[&str]) -> Source {
        match parse_args(args) {
            Ok(Command::Run(source)) => source,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn settings(args: &[&str]) -> Settings {
        load(&run(args)).unwrap()
    }

    fn listens(settings: &Settings) -> Vec<String> {
        settings.listen.iter().map(|one| one.to_string()).collect()
    }

    #[test]
    fn nothing_is_the_defaults() {
        assert_eq!(settings(&[]), Settings::default());
    }

    #[test]
    fn the_originals_command_line_works() {
        let settings = settings(&["-s", "/etc/keys", "-i", "Info.example", "127.0.0.1:80", "*:81"]);
        assert_eq!(settings.secrets, Some(PathBuf::from("/etc/keys")));
        assert_eq!(settings.info_host.as_deref(), Some("info.example"));
        assert_eq!(listens(&settings), ["127.0.0.1:80", "*:81"]);
    }

    #[test]
    fn flags_may_be_long_joined_and_after_the_addresses() {
        let long = settings(&["[::1]:80", "--workers=3", "--secrets", "k", "--info-host", "i"]);
        let short = settings(&["-w3", "-sk", "-ii", "--", "[::1]:80"]);
        assert_eq!(long, short);
        assert_eq!(long.workers, 3);
    }

    #[test]
    fn config_flag_does_not_read_the_file() {
        assert_eq!(run(&["-c", "/nonexistent"]).file, Some(PathBuf::from("/nonexistent")));
        let problems = load(&run(&["--config", "/nonexistent"])).unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "cannot read /nonexistent: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn the_other_originals_flags_work() {
        assert_eq!(run(&["-f", "a.conf"]), run(&["-c", "a.conf"]));
        let both = parse_args(&["-f", "a.conf", "-c", "b.conf"]).unwrap_err();
        assert!(both.starts_with("-c and -f are the same option"), "{both}");
        let settings = settings(&["-d", "-l", "/tmp/log", "127.0.0.1:80"]);
        assert!(settings.daemonize);
        assert_eq!(settings.log_file, Some(PathBuf::from("/tmp/log")));
        assert_eq!(listens(&settings), ["127.0.0.1:80"]);
    }

    #[test]
    fn the_background_needs_a_place_for_the_log() {
        let shown = |args: &[&str]| {
            load(&run(args)).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&["-d"]),
            ["daemonize: there is no standard error in the background; set log-file too"]
        );
    }

    #[test]
    fn check_has_two_flags() {
        for flag in ["-t", "--check"] {
            let expected = run(&["-c", "f", "-w", "2"]);
            assert_eq!(parse_args(&[flag, "-c", "f", "-w", "2"]), Ok(Command::Check(expected)));
        }
    }

    #[test]
    fn the_version_is_one_line() {
        for flag in ["-v", "--version"] {
            let Ok(Command::Version(text)) = parse_args(&[flag]) else { panic!("no version") };
            let start = format!("cloudbridge {} (", env!("CARGO_PKG_VERSION"));
            assert!(text.starts_with(&start) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn the_help_has_every_flag_and_every_setting() {
        for flag in ["-h", "--help"] {
            let Ok(Command::Help(text)) = parse_args(&[flag]) else {
                panic!("no help");
            };
            for part in [
                "-h, --help",
                "-v, --version",
                "-c, --config FILE",
                "-f FILE",
                "-t, --check",
                "-d, --daemonize",
                "--import-swiftiply FILE",
                "-l, --log-file FILE",
                "-w, --workers N",
                "-s, --secrets FILE",
                "-i, --info-host HOST",
            ] {
                assert!(text.contains(part), "{part}");
            }
            // Long lines are broken between words: joined again, the sentences must be whole.
            let joined: Vec<&str> = text.split_whitespace().collect();
            let joined = joined.join(" ");
            for row in TABLE {
                let whole = format!(" {} {} {}", row.name, row.about, row.summary());
                assert!(joined.contains(&whole), "{whole}");
            }
            assert!(text.lines().all(|line| line.len() <= WIDTH));
        }
    }

    #[test]
    fn a_wrong_flag_is_one_sentence() {
        for (args, what) in [
            (&["-x"][..], "Unrecognized option: 'x'"),
            (&["-s"], "Argument to option 's' missing"),
            (&["-w", "1", "-w", "2"], "Option 'workers' given more than once"),
            (&["-w", "two"], "workers: \"two\" is not a whole number"),
            (
                &["-w", "999"],
                "workers: 999 is more than 256: workers would mostly read each other's counters",
            ),
            (
                &["-i", "a/b"],
                "info-host: \"a/b\" is not a host name (it has no port, and no wildcard)",
            ),
            (&["-s", ""], "secrets: the path is empty"),
            (&["*:99999"], "listen: port \"99999\" is above 65535"),
            (&["*:80", ":80"], "listen: *:80 is already listened on"),
        ] {
            assert_eq!(parse_args(args), Err(format!("{what}; -h lists the options")));
        }
        assert!(parse_args(&[OsStr::from_bytes(b"-c\xff")]).is_err());
    }
}
