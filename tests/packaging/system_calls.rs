//! The units' filters against the system calls that the programs make: in every mode, none is refused.

use crate::tools::{DEADLINE, Dir, eventually, has, run, source};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

/// A body that is moved inside the kernel: above `splice-threshold`.
const LARGE: usize = 300_000;

/// The system calls that a unit permits.
fn permitted(unit: &str) -> BTreeSet<String> {
    let text = source(&format!("conf/{unit}"));
    let mut permitted = members("@default");
    for line in text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (removes, sets) = match line.strip_prefix('~') {
            Some(sets) => (true, sets),
            None => (false, line),
        };
        for name in sets.split(' ').flat_map(members) {
            if removes {
                permitted.remove(&name);
            } else {
                permitted.insert(name);
            }
        }
    }
    // Whatever a filter says, these are permitted.
    permitted.extend(members("@default"));
    permitted
}

/// The system calls of a set, those of the sets in it included.
fn members(set: &str) -> BTreeSet<String> {
    if !set.starts_with('@') {
        return BTreeSet::from([set.to_owned()]);
    }
    let text = run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", set]));
    let lines = text.lines().skip(1).map(str::trim);
    let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.flat_map(members).collect()
}

/// A program under strace.
struct Traced {
    strace: Child,
    /// What strace has written.
    trace: PathBuf,
    /// What the program has on standard error.
    log: PathBuf,
}

impl Traced {
    fn start(dir: &Dir, name: &str, program: &str, arguments: &[&str]) -> Traced {
        let trace = dir.path().join(format!("{name}.trace"));
        let log = dir.path().join(format!("{name}.log"));
        let mut strace = Command::new("strace");
        // By its own number it can be sent signals: strace is the child's child.
        strace.args(["-D", "-f", "-q", "-o"]).arg(&trace).arg(program).args(arguments);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        Traced { strace: strace.spawn().unwrap(), trace, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line of the log, and returns what follows `mark` in it.
    #[track_caller]
    fn said(&self, mark: &str) -> String {
        let found = || {
            let log = self.log();
            log.split_once(mark)
                .and_then(|(_, rest)| rest.split_once('\n'))
                .map(|(line, _)| line.to_owned())
        };
        eventually(mark, found)
    }

    fn signal(process: u32, signal: &str) {
        run(Command::new("kill").args([format!("-{signal}"), process.to_string()]));
    }

    /// The calls that were made until it and its last program had ended.
    #[track_caller]
    fn calls(mut self, last: u32) -> BTreeSet<String> {
        let status = eventually("it ends", || self.strace.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
        let last = last.to_string();
        let has_ended = |line: &str| {
            line.split_whitespace().next() == Some(&last) && line.contains("+++ exited with 0 +++")
        };
        // strace is a process of its own, and writes after that.
        let text = eventually("the trace is whole", || {
            let text = String::from_utf8_lossy(&fs::read(&self.trace).unwrap()).into_owned();
            text.lines().any(has_ended).then_some(text)
        });
        let name = |line: &str| {
            let call = line.split_once(' ')?.1.trim_start().split_once('(')?.0;
            call.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                .then(|| call.to_owned())
        };
        text.lines().filter_map(name).filter(|name| !name.is_empty()).collect()
    }
}

/// An application: answers each request with a large body.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let whole = end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
            if bytes.len() < whole {
                break;
            }
            bytes.drain(..whole);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            if stream.write_all(&[answer.as_bytes(), &vec![b'x'; LARGE]].concat()).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// A request with a large body, and its answer.
#[track_caller]
fn exchange(proxy: &str, host: &str) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &vec![b'y'; LARGE]].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > LARGE, "{} bytes", answer.len());
}

/// The answer to a GET over a connection of its own.
#[track_caller]
fn answer_of(proxy: &str, host: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// A request for a site whose manager starts nothing.
#[track_caller]
fn have_started(proxy: &str, host: &str) {
    let answer = answer_of(proxy, host, "/");
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{} bytes", answer.len());
}

/// A file of the proxy's own, copied behind its head or sent by the kernel.
#[track_caller]
fn fetch(proxy: &str, name: &str, size: usize) {
    let answer = answer_of(proxy, "files.test", &format!("/{name}"));
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > size, "{}", answer.len());
}

#[test]
fn filters_permit_what_every_mode_needs() {
    if !has("strace") || !has("systemd-analyze") {
        return;
    }
    let allowed = Command::new("strace").args(["-q", "-o", "/dev/null", "true"]).status().unwrap();
    if !allowed.success() {
        println!("skipped: strace may not trace here");
        return;
    }
    let (dir, application) = (Dir::new(), application());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let settings = format!(
        "workers 2\nlisten 127.0.0.1:0\nlisten unix:{} admin\naccess-log {} format=json\nlog-file {}\n\
         pidfile {}\nsecrets {}\nsite dialled.test servers=localhost:{} check=/\nupgrade-timeout 1s\nrequest-id yes\n\
         site managed.test manager=exec:/bin/true manager-timeout=300ms\n\
         site files.test docroot={}\n",
        at("admin"),
        at("access.log"),
        at("proxy.log"),
        at("pid"),
        at("secrets"),
        application.port(),
        at("www")
    );
    fs::create_dir(dir.path().join("www")).unwrap();
    fs::write(dir.path().join("www/small"), "small").unwrap();
    fs::write(dir.path().join("www/large"), vec![b'x'; LARGE]).unwrap();
    let settings = dir.write("conf", &settings).display().to_string();
    let key_tool = env!("CARGO_BIN_EXE_cloudbridge-key");
    run(Command::new(key_tool).args(["add", &at("secrets")]));
    let key =
        run(Command::new(key_tool).args(["--secrets", &at("secrets"), "--modern", "agent.test"]));
    let program = env!("CARGO_BIN_EXE_cloudbridge");

    let mut proxy = Traced::start(&dir, "proxy", program, &["-c", &settings]);
    proxy.log = dir.path().join("proxy.log");
    fs::write(&proxy.log, fs::read(&proxy.log).unwrap_or_default()).unwrap();
    let address = proxy.said("listening on ");
    let address = address.split([' ', ',']).next().unwrap().to_owned();
    let key_file = dir.write("agent.key", &key);
    run(Command::new("chmod").arg("600").arg(&key_file));
    let file = format!(
        "service localhost:{} host=agent.test n=2 check=/ key-file={} proxy={address}\n",
        application.port(),
        key_file.display()
    );
    let file = dir.write("agent.conf", &file).display().to_string();
    let agent =
        Traced::start(&dir, "agent", env!("CARGO_BIN_EXE_cloudbridge-agent"), &["-c", &file]);
    exchange(&address, "agent.test");
    exchange(&address, "dialled.test");
    have_started(&address, "managed.test");
    fetch(&address, "small", 5);
    fetch(&address, "large", LARGE);

    let ctl = |words: &[&str]| {
        let place = format!("unix:{}", at("admin"));
        let all = [&["ctl", "-a", &place], words].concat();
        run(Command::new(program).args(all))
    };
    ctl(&["hosts"]);
    ctl(&["reload"]);
    let process = || -> u32 { fs::read_to_string(at("pid")).unwrap().trim().parse().unwrap() };
    let old = process();
    Traced::signal(old, "USR1");
    ctl(&["upgrade"]);
    exchange(&address, "agent.test");
    let agent_process = agent.strace.id();
    Traced::signal(agent_process, "HUP");
    Traced::signal(agent_process, "USR2");
    let new_agent: u32 = agent.said("process ").split(' ').next().unwrap().parse().unwrap();
    exchange(&address, "agent.test");
    exchange(&address, "dialled.test");
    let new = process();
    assert_ne!(new, old);
    Traced::signal(new, "TERM");
    Traced::signal(new_agent, "TERM");

    for (unit, traced, last) in
        [("cloudbridge.service", proxy, new), ("cloudbridge-agent@.service", agent, new_agent)]
    {
        let (calls, permitted) = (traced.calls(last), permitted(unit));
        // What was traced was the programs at work.
        for call in ["execve", "epoll_wait", "accept4", "splice", "sendmsg", "setpgid"] {
            let is_of_agent = unit.contains("agent");
            assert!(
                calls.contains(call) || is_of_agent && ["accept4", "setpgid"].contains(&call),
                "{unit}: no {call}: {calls:?}"
            );
        }
        let refused: Vec<&String> = calls.difference(&permitted).collect();
        assert!(refused.is_empty(), "{unit} refuses {refused:?}");
    }
}
