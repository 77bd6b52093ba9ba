//! The blocks of a page in one shell, from the first to the last.

use super::blocks::{Block, Mark};
use super::places::Places;
use crate::common::{DEADLINE, Proxy, run_well, skipped};
use std::fmt::Write;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What the shell begins with. `await_lines N TEXT ...` waits until standard error of the block has N
/// lines with one of the texts; `await_log TEXT` until any block's has the text.
const BEGINNING: &str = r#"
set -eu
await_lines() {
    local count=$1 tries=0 pattern
    shift
    pattern=$(printf '%s\n' "$@")
    until [ "$(grep -c -F -e "$pattern" "$err")" -ge "$count" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 1500 ] || { echo "not in time: $count lines with $*" >&2; exit 1; }
        sleep 0.02
    done
}
await_log() {
    local tries=0
    until cat "$dir"/err.* | grep -q -F -e "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 1500 ] || { echo "not in time: $1" >&2; exit 1; }
        sleep 0.02
    done
}
"#;

/// Blocks that are run one after the other.
pub struct Session<'b> {
    blocks: &'b [Block],
    places: Places,
}

impl<'b> Session<'b> {
    pub fn new(blocks: &'b [Block]) -> Session<'b> {
        Session { blocks, places: Places::new() }
    }

    /// Runs them, and fails the test if one of them does not do what its page says.
    #[track_caller]
    pub fn run(&self) {
        for block in self.blocks {
            if let Some(missing) = missing(block) {
                return skipped(&format!("{}: {missing} is not installed", block.place));
            }
        }
        self.prepare();
        let script = self.script();
        let dir = self.places.dir();
        fs::write(dir.join("script"), script).expect("the script");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.arg(dir.join("script")).current_dir(dir.join("work")).process_group(0);
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", dir.join("bin").display()));
        for variable in [
            "BRIDGE_HOSTS",
            "BRIDGE_KEYS",
            "BRIDGE_BEARER_KEYS",
            "RUST_LOG",
            "NOTIFY_SOCKET",
            "PYTHONUNBUFFERED",
        ] {
            command.env_remove(variable);
        }
        let file = |name| fs::File::create(dir.join(name)).expect("a file of the test");
        command.stdin(Stdio::null()).stdout(file("out.first")).stderr(file("err.first"));
        let mut shell = Shell(command.spawn().expect("bash"));
        let until = Instant::now() + 4 * DEADLINE;
        let status = loop {
            if let Some(status) = shell.0.try_wait().expect("the shell can be waited for") {
                break Some(status);
            }
            if Instant::now() >= until {
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        if !status.is_some_and(|status| status.success()) {
            let at = fs::read_to_string(dir.join("at")).unwrap_or_default();
            let at: usize = at.trim().parse().unwrap_or(0);
            let (block, how) = (&self.blocks[at], status.map_or("hangs".into(), |s| s.to_string()));
            panic!("{}: {how}\n{}\n--- it said ---\n{}", block.place, block.text, self.said(at));
        }
        self.compare();
    }

    /// What the shell finds: the programs, and what a page takes for granted.
    fn prepare(&self) {
        let dir = self.places.dir();
        for folder in ["bin", "work", "etc/cloudbridge", "etc/cloudbridge-agent", "run/cloudbridge"]
        {
            fs::create_dir_all(dir.join(folder)).expect("a directory of the test");
        }
        for folder in ["run/app", "var/log/cloudbridge", "usr/local/bin"] {
            fs::create_dir_all(dir.join(folder)).expect("a directory of the test");
        }
        let [proxy, agent, key] = [
            env!("CARGO_BIN_EXE_cloudbridge"),
            env!("CARGO_BIN_EXE_cloudbridge-agent"),
            env!("CARGO_BIN_EXE_cloudbridge-key"),
        ];
        for (name, program) in [("cloudbridge-agent", agent), ("cloudbridge-key", key)] {
            std::os::unix::fs::symlink(program, dir.join("bin").join(name)).expect("a link");
        }
        // Where `cloudbridge ctl` looks by itself is the test's own, too.
        let socket = dir.join("run/cloudbridge/admin.sock");
        let wrapper = format!(
            "#!/bin/sh\ncase \"$*\" in\n\"ctl -\"*) ;;\n\"ctl \"*) shift; exec {proxy} ctl -a unix:{} \"$@\" ;;\n\
             esac\nexec {proxy} \"$@\"\n",
            socket.display()
        );
        self.places.write("bin/cloudbridge", &wrapper);
        run_well(Command::new(key).arg("add").arg(dir.join("etc/cloudbridge/secrets")));
        let shipped = super::root().join("conf/cloudbridge.conf");
        fs::copy(shipped, dir.join("etc/cloudbridge/cloudbridge.conf")).expect("the settings");
    }

    /// The whole script. Each block has files of its own for what it prints.
    fn script(&self) -> String {
        let dir = self.places.dir().display();
        let mut script =
            format!("dir={dir}\nreal={}{BEGINNING}", env!("CARGO_BIN_EXE_cloudbridge"));
        for (at, block) in self.blocks.iter().enumerate() {
            let text = self.places.put_into(&block.text);
            let part = match &block.mark {
                Mark::Run { .. } | Mark::Setup { .. } => format!("{text}\n{}", awaits(&text)),
                Mark::Serves { .. } => {
                    let text = in_background(&text);
                    format!("{text}\n{}", awaits(&text))
                }
                Mark::Log => {
                    let lines = text.lines().map(|line| format!("await_log {}\n", quoted(line)));
                    lines.collect()
                }
                Mark::Settings { each_line: false } => settings(&text),
                Mark::Settings { each_line: true } => text.lines().map(settings).collect(),
                Mark::AgentSettings => agent_settings(&text),
                Mark::Haproxy => haproxy(&text),
                Mark::Metrics => {
                    self.check_metrics(block);
                    continue;
                }
                Mark::Output { .. } | Mark::Text | Mark::None(_) => continue,
            };
            let _ = write!(
                script,
                "\necho {at} >\"$dir/at\"\nerr=$dir/err.{at}\nexec >\"$dir/out.{at}\" 2>\"$err\"\n{part}\n"
            );
        }
        script
    }

    /// Compares what was printed with what the page says about it.
    #[track_caller]
    fn compare(&self) {
        for (at, block) in self.blocks.iter().enumerate() {
            let Mark::Output { numbers_vary } = block.mark else { continue };
            let printed = at.checked_sub(1).map(|before| self.file("out", before));
            let printed = self.places.take_out_of(&printed.unwrap_or_default());
            let alike = same(&block.text, &printed, numbers_vary);
            assert!(
                alike,
                "{}: the page says\n{}\n--- but it is\n{printed}",
                block.place, block.text
            );
        }
    }

    /// Each metric of the block is one that a proxy shows.
    #[track_caller]
    fn check_metrics(&self, block: &Block) {
        let proxy = Proxy::start();
        let shown = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let words = block.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("cloudbridge_")) {
            let family = name.trim_end_matches("_bucket").trim_end_matches("_total");
            let known = shown.contains(&format!("# TYPE {family} "));
            assert!(known, "{}: {name} is no metric", block.place);
        }
    }

    fn file(&self, kind: &str, at: usize) -> String {
        fs::read_to_string(self.places.dir().join(format!("{kind}.{at}"))).unwrap_or_default()
    }

    fn said(&self, at: usize) -> String {
        let logs = (0..=at).map(|at| self.file("err", at)).collect::<String>();
        format!("{}\n{logs}", self.file("out", at))
    }
}

/// The shell, and all that it has started, which end with this.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let line = format!("kill -KILL -{}", self.0.id());
        // There may be nobody left.
        let _ = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// The program that the block needs and that is not here, if there is one.
fn missing(block: &Block) -> Option<String> {
    let needs = match &block.mark {
        Mark::Run { needs } | Mark::Serves { needs } => needs.clone(),
        Mark::Haproxy => vec!["haproxy".to_owned()],
        _ => return None,
    };
    needs.into_iter().find(|program| !is_installed(program))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|folder| Path::new(folder).join(program).exists())
}

/// A word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The programs that a line starts and that stay.
fn server(line: &str) -> Option<&str> {
    let command = line.trim_start();
    let words: Vec<&str> = command.split(' ').collect();
    let first = words[0].rsplit('/').next().unwrap_or("");
    let ends = ["ctl", "-t", "-h", "--help", "-v", "--version", "--import-swiftiply"];
    let stays = ["cloudbridge", "cloudbridge-agent", "gunicorn"].contains(&first)
        && !words.iter().any(|word| ends.contains(word));
    stays.then_some(first)
}

/// The text with its servers in the background.
fn in_background(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let command = line.split("  #").next().unwrap_or(line).trim_end();
        let background = server(line).is_some() && !command.ends_with('&');
        let _ = match background {
            true => writeln!(out, "{command} &"),
            false => writeln!(out, "{line}"),
        };
    }
    out
}

/// Lines of the script that wait until what the text starts in the background is ready.
fn awaits(text: &str) -> String {
    let started = text
        .lines()
        .filter(|line| line.contains('&') && !line.contains("--echo"))
        .filter_map(server);
    // gunicorn's agent waits for it, and requests wait for an echo.
    let ready = started.filter(|program| *program != "gunicorn").count();
    match ready {
        0 => String::new(),
        ready => format!("await_lines {ready} 'listening on' 'accepts bridges'\n"),
    }
}

/// Lines of the script that make the text the proxy's settings.
fn settings(text: &str) -> String {
    format!(
        "cat >\"$dir/etc/cloudbridge/cloudbridge.conf\" <<'END OF BLOCK'\n{text}\nEND OF BLOCK\n\
         cloudbridge -t -c \"$dir/etc/cloudbridge/cloudbridge.conf\"\n"
    )
}

/// Lines that start an agent with this file, once the keys that it names are there.
fn agent_settings(text: &str) -> String {
    let mut script = String::new();
    let keys = text.split_whitespace().filter_map(|word| word.strip_prefix("key-file="));
    for key in keys {
        let _ = write!(
            script,
            "mkdir -p \"$(dirname {key})\"\n\
             (umask 077; cloudbridge-key --secrets \"$dir/etc/cloudbridge/secrets\" --modern example.com >{key})\n"
        );
    }
    let services = text.lines().filter(|line| line.starts_with("service ")).count();
    let _ = write!(
        script,
        "cat >\"$dir/agent.conf\" <<'END OF BLOCK'\n{text}\nEND OF BLOCK\n\
         cloudbridge-agent -c \"$dir/agent.conf\" 127.0.0.1:1 & \nstarted=$!\n\
         await_lines {services} 'requests at once'\nkill -KILL \"$started\"\n"
    );
    script
}

/// Lines that check settings of haproxy. What a section refers to is added.
fn haproxy(text: &str) -> String {
    let mut whole = String::new();
    if !text.contains("defaults\n") {
        whole.push_str("defaults\n  mode http\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n");
    }
    whole.push_str(text);
    if !text.contains("backend cloudbridge\n") && text.contains("default_backend cloudbridge") {
        whole.push_str("\nbackend cloudbridge\n  server proxy 127.0.0.1:1\n");
    }
    if !text.contains("bind ") {
        whole.push_str("\nfrontend any\n  bind 127.0.0.1:1\n");
    }
    format!(
        "cat >\"$dir/haproxy.cfg\" <<'END OF BLOCK'\n{whole}\nEND OF BLOCK\n\
         haproxy -c -f \"$dir/haproxy.cfg\"\n"
    )
}

/// Whether the lines are those that the page has.
fn same(page: &str, printed: &str, numbers_vary: bool) -> bool {
    let prepare = |text: &str| -> Vec<String> {
        let lines = text.trim_end().lines().map(|line| line.trim_end().to_owned());
        lines.map(|line| if numbers_vary { without_numbers(&line) } else { line }).collect()
    };
    same_lines(&prepare(page), &prepare(printed))
}

fn same_lines(page: &[String], printed: &[String]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "..." => {
            (0..=printed.len()).any(|skipped| same_lines(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| same_line(line, first) && same_lines(rest, others)),
    }
}

/// Spaces at the beginning do not count, and `...` is any text.
fn same_line(page: &str, printed: &str) -> bool {
    let (page, printed) = (page.trim(), printed.trim());
    match page.split_once("...") {
        None => page == printed,
        Some((before, after)) => {
            let rest = printed.strip_prefix(before);
            rest.is_some_and(|rest| rest.ends_with(after.trim_start_matches('.')))
        }
    }
}

/// The line with one digit for each number and one space for each gap.
fn without_numbers(line: &str) -> String {
    let mut out = String::new();
    for c in line.trim().chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !((c == '0' || c == ' ') && out.ends_with(c)) {
            out.push(c);
        }
    }
    out
}

#[test]
fn outputs_are_compared_line_by_line() {
    for (page, printed, expected) in [
        ("300 status 200", "    300 status 200\n", true),
        ("300 status 200", "    299 status 200\n      1 status 502\n", false),
        ("one\n...\nfour", "one\ntwo\nthree\nfour\n", true),
        ("one\n...", "two\n", false),
        ("User-Agent: curl/...", "User-Agent: curl/8.1\n", true),
        ("one", "one\ntwo\n", false),
    ] {
        assert_eq!(same(page, printed, false), expected, "{page:?} {printed:?}");
    }
    assert!(same("a.test  3   12", "a.test 40 1\n", true));
    assert!(!same("a.test  3   12", "b.test 40 1\n", true));
}
