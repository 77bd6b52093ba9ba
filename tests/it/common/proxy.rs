//! The proxy as a child process: its settings, its log, its signals and its end.

use super::dir::Dir;
use super::systemd::pass;
use super::{Client, DEADLINE, Json, Process, encryption, eventually, logged, process};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The host name under which a proxy shows what the original showed, if a test has it.
const INFO_HOST: &str = "info.test";

/// Where the test asks a proxy for its state, in its directory.
const ADMIN: &str = "admin.sock";

/// A proxy that is about to be started.
#[derive(Debug, Default)]
pub struct Setup {
    settings: String,
    args: Vec<String>,
    files: Vec<(String, String)>,
    descriptors: Option<u32>,
    variables: Vec<(String, String)>,
    passed: Vec<(String, OwnedFd)>,
    under: Vec<String>,
    tls: bool,
}

impl Setup {
    /// Two workers, one listener for everything on a free port of 127.0.0.1, an admin listener at a
    /// Unix socket, and otherwise the defaults, but for the time that a backend has to acknowledge a request: a test
    /// on a busy machine may take longer than half a second.
    pub fn new() -> Setup {
        Setup::default()
    }

    /// Adds lines to the settings file. `{dir}` in them stands for the directory of this proxy's
    /// own files. A line of one of the settings of [`Setup::new`] replaces it.
    #[must_use]
    pub fn settings(mut self, lines: &str) -> Setup {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    /// Adds arguments after `-c FILE`.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Setup {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Puts a file into the proxy's directory.
    #[must_use]
    pub fn file(mut self, name: &str, contents: &str) -> Setup {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// Has its listeners for clients and bridges speak TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Setup {
        self.tls = true;
        self
    }

    /// Starts the proxy under this limit of open descriptors.
    #[must_use]
    pub fn descriptors(mut self, limit: u32) -> Setup {
        self.descriptors = Some(limit);
        self
    }

    /// Has this command start the proxy, which is named to it by its last words.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Setup {
        self.under.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Starts it with this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Passes a socket of this name to it, as systemd does. That needs what [`super::PASSES`] shows.
    #[must_use]
    pub fn pass(mut self, name: &str, socket: impl Into<OwnedFd>) -> Setup {
        self.passed.push((name.to_owned(), socket.into()));
        self
    }

    /// Starts it with no settings file, as the original was: its arguments alone, which name this
    /// many addresses.
    #[track_caller]
    pub fn start_without_file(self, listeners: usize) -> Proxy {
        let dir = Dir::new();
        let path = dir.path().display().to_string();
        for (name, contents) in &self.files {
            dir.write(name, contents);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        command.args(self.args.iter().map(|arg| arg.replace("{dir}", &path))).stdin(Stdio::null());
        Proxy::spawn(command, dir, String::new(), listeners, false)
    }

    /// Starts it, and waits until it says that it listens.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let tls = self.tls || encryption::over_tls();
        let (command, dir, settings) = self.prepare();
        let listeners = settings.lines().map(listeners_of).sum();
        Proxy::spawn(command, dir, settings, listeners, tls)
    }

    /// Starts it, which must fail. Returns what it says.
    #[track_caller]
    pub fn refused(self) -> String {
        let (mut command, _dir, _) = self.prepare();
        let output = process::run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    /// The command, the directory of its files, and its settings.
    #[track_caller]
    fn prepare(self) -> (Command, Dir, String) {
        let dir = Dir::new();
        for (name, contents) in &self.files {
            dir.write(name, contents);
        }
        let path = dir.path().display().to_string();
        let settings = complete(&self.settings).replace("{dir}", &path);
        let conf = if self.tls || encryption::over_tls() {
            for (name, contents) in encryption::files() {
                dir.write(name, contents);
            }
            dir.write("cloudbridge.conf", &encryption::encrypted(&settings, &path))
        } else {
            dir.write("cloudbridge.conf", &settings)
        };
        let program = env!("CARGO_BIN_EXE_cloudbridge");
        let mut command = match self.descriptors {
            None if !self.under.is_empty() => {
                let mut command = Command::new(&self.under[0]);
                command.args(&self.under[1..]).arg(program);
                command
            }
            None if self.passed.is_empty() => Command::new(program),
            None => pass(Path::new(program), &self.passed),
            Some(limit) => {
                let mut shell = Command::new("sh");
                let line = format!("ulimit -n {limit} && exec \"$@\"");
                shell.args(["-c", &line, "sh", program]);
                shell
            }
        };
        command.arg("-c").arg(&conf).args(&self.args).envs(self.variables);
        command.env_remove("RUST_LOG");
        if self.passed.is_empty() {
            command.stdin(Stdio::null());
        }
        (command, dir, settings)
    }
}

/// The settings with the lines that every test has, unless it brings its own.
fn complete(lines: &str) -> String {
    let has = |directive: &str| lines.lines().any(|line| line.split(' ').next() == Some(directive));
    let mut settings = String::new();
    for (directive, value) in
        [("listen", "127.0.0.1:0"), ("workers", "2"), ("bridge-ack-timeout", "30s")]
    {
        if !has(directive) {
            settings.push_str(&format!("{directive} {value}\n"));
        }
    }
    if !lines.contains(ADMIN) {
        settings.push_str(&format!("listen unix:{{dir}}/{ADMIN} admin\n"));
    }
    settings + lines
}

/// A running proxy, and a [`Process`].
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    listeners: Vec<(SocketAddr, String)>,
    dir: Dir,
    settings: String,
    tls: bool,
}

impl Proxy {
    /// Starts a proxy with the settings of [`Setup::new`].
    #[track_caller]
    pub fn start() -> Proxy {
        Setup::new().start()
    }

    /// Starts a proxy with these settings more.
    #[track_caller]
    pub fn with(settings: &str) -> Proxy {
        Setup::new().settings(settings).start()
    }

    #[track_caller]
    fn spawn(
        mut command: Command,
        dir: Dir,
        settings: String,
        listeners: usize,
        tls: bool,
    ) -> Proxy {
        command.env_remove("RUST_LOG");
        let process = Process::spawn("the proxy", &mut command);
        let mut proxy = Proxy { process, listeners: Vec::new(), dir, settings, tls };
        eventually("the proxy listens", || {
            proxy.listeners = proxy.log().lines().filter_map(listener).collect();
            assert!(proxy.exit_status().is_none(), "the proxy ended:\n{}", proxy.log());
            proxy.listeners.len() >= listeners
        });
        proxy
    }

    /// The value of a line of the metrics, which is named with its labels.
    #[track_caller]
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let value = text.lines().find_map(|have| have.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().expect("a number")
    }

    /// The first address that serves clients.
    #[track_caller]
    pub fn for_clients(&self) -> SocketAddr {
        self.address("clients")
    }

    /// The first address that serves bridges.
    #[track_caller]
    pub fn for_bridges(&self) -> SocketAddr {
        self.address("bridges")
    }

    /// The first admin address.
    #[track_caller]
    pub fn for_admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// The first address where agent checks are answered.
    #[track_caller]
    pub fn for_agent_checks(&self) -> SocketAddr {
        self.address("agent checks")
    }

    /// Where the backends of `site` come in: the address that was last announced for it.
    #[track_caller]
    pub fn swiftclient_listener(&self, site: &str) -> SocketAddr {
        self.swiftclient_listeners(site)
            .pop()
            .unwrap_or_else(|| panic!("no swiftclient listener of {site} in {}", self.log()))
    }

    /// Every address that has been announced for the backends of `site`, in order.
    pub fn swiftclient_listeners(&self, site: &str) -> Vec<SocketAddr> {
        let whom = format!("(swiftclient backends of {site})");
        self.log()
            .lines()
            .filter_map(listener)
            .filter(|(_, k)| *k == whom)
            .map(|(a, _)| a)
            .collect()
    }

    /// Every address that it listens on, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address).collect()
    }

    #[track_caller]
    fn address(&self, serves: &str) -> SocketAddr {
        match self.listeners.iter().find(|(_, kinds)| kinds.contains(serves)) {
            Some((address, _)) => *address,
            None => panic!("no listener for {serves} among {:?}", self.listeners),
        }
    }

    /// Where its own files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces one of its files at once, as an operator's editor does.
    pub fn write(&self, name: &str, contents: &str) {
        let path = self.dir.path().display().to_string();
        let contents = match name {
            "cloudbridge.conf" if self.tls => encryption::encrypted(contents, &path),
            _ => contents.to_owned(),
        };
        let new = self.dir.write(&format!("{name}.new"), &contents);
        std::fs::rename(new, self.dir.path().join(name)).expect("rename");
    }

    /// Puts `new` in the place of `old` in its settings file, for the next reload.
    #[track_caller]
    pub fn change_settings(&self, old: &str, new: &str) {
        assert!(self.settings.contains(old), "no {old:?} in {}", self.settings);
        self.write("cloudbridge.conf", &self.settings.replace(old, new));
    }

    /// Sends SIGHUP, and waits until every worker has the new settings.
    #[track_caller]
    pub fn reload_well(&self) {
        let before = self.log().matches(logged::READ_AGAIN).count();
        self.reload();
        eventually("the reload", || self.log().matches(logged::READ_AGAIN).count() > before);
    }

    /// What the admin listener tells of it.
    #[track_caller]
    pub fn info(&self) -> Json {
        let answer = self.admin("GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        Json::parse(body)
    }

    /// The answer to a request at the admin listener's Unix socket.
    #[track_caller]
    pub fn admin(&self, request: &str) -> String {
        let mut stream = self.admin_stream(request);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// A connection to that socket, over which the request has been sent.
    #[track_caller]
    pub fn admin_stream(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.dir.path().join(ADMIN)).expect("the socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    }

    /// The info host.
    #[track_caller]
    pub fn info_host(&self) -> Json {
        let request = format!("GET / HTTP/1.1\r\nHost: {INFO_HOST}\r\nConnection: close\r\n\r\n");
        let response = Client::ask(self, request);
        assert_eq!(response.status(), 200, "{response:?}");
        Json::parse(&response.text())
    }

    /// How many connections are in the state that the info host calls by this letter.
    #[track_caller]
    pub fn count(&self, letter: &str) -> u64 {
        let kind = match letter {
            "?" => "idle",
            "b" => "bridge_parked",
            "c" => "client_waiting",
            "B" => "bridge_busy",
            "C" => "client_busy",
            "E" => "closing",
            _ => panic!("no connections are called {letter}"),
        };
        self.info().number(&["connections", kind])
    }

    /// Waits until that many connections are in the state of this letter.
    #[track_caller]
    pub fn await_count(&self, letter: &str, count: u64) {
        eventually(&format!("{count} connections in state {letter}"), || {
            self.count(letter) == count
        });
    }

    /// Waits until the proxy knows that no bridge is left. One that has served may not be parked
    /// yet when its response has come, so a count of the parked ones is not enough.
    #[track_caller]
    pub fn await_no_bridges(&self) {
        eventually("no bridge is left", || {
            let info = self.info();
            let count = |kind| info.number(&["connections", kind]);
            count("bridge_parked") + count("bridge_busy") == 0
        });
    }

    /// Its resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.kernel_status("VmRSS:")
    }

    /// The most resident memory that it has ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.kernel_status("VmHWM:")
    }

    /// A size that the kernel tells of it, in bytes.
    fn kernel_status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// The processor time that it has used, all threads together.
    pub fn processor_time(&self) -> Duration {
        /// What the kernel counts in here: USER_HZ, which is 100 on every Linux of today.
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("/proc");
        let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // proc(5): utime and stime are fields 14 and 15, and field 3 is the first after the name.
        let ticks = |at: usize| fields[at - 3].parse::<u32>().expect("a number of ticks");
        TICK * (ticks(14) + ticks(15))
    }
}

impl Deref for Proxy {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the proxy's settings ---\n{}", self.settings);
        }
    }
}

/// How many addresses a line of the settings has it listen on.
fn listeners_of(line: &str) -> usize {
    let addresses = |word: &str| Some(word.strip_prefix("swiftiply=")?.split(',').count());
    let mut words = line.split(' ');
    match words.next() {
        Some("listen") if line.contains("unix:") || line.contains("systemd:unix") => 0,
        Some("listen" | "agent-check") => 1,
        Some("site") => words.filter_map(addresses).sum(),
        _ => 0,
    }
}

/// The address and the kinds that a line of the log announces: `listening on 127.0.0.1:8079
/// (clients and bridges)`.
pub(super) fn listener(line: &str) -> Option<(SocketAddr, String)> {
    let (address, kinds) = line.split_once(logged::LISTENING)?.1.split_once(' ')?;
    Some((address.parse().ok()?, kinds.to_owned()))
}
