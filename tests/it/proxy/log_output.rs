//! Where the logs go: a pipe that nobody reads, a socket, a full disk. Whatever it is, no request
//! waits for it, and lines that are lost are counted.

use crate::common::{Client, DEADLINE, Dir, eventually, free_address, installed, run_well};
use std::fs::{File, metadata, read_to_string};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Requests whose lines are more than a pipe and the proxy's own buffers hold.
const MANY: usize = 2_000;

/// A proxy whose outputs are the test's. Its settings are in the file `conf`.
struct Bare {
    child: Child,
    dir: Dir,
    address: SocketAddr,
}

impl Bare {
    /// Starts it by `shell`, a line in which `"$@"` runs it.
    #[track_caller]
    fn start(shell: &str, settings: &str, stdout: Stdio, stderr: Stdio) -> Bare {
        let (dir, address) = (Dir::new(), free_address());
        let settings = format!("listen {address}\nworkers 2\nunknown-host 404\n{settings}\n");
        let settings = settings.replace("{dir}", &dir.path().display().to_string());
        let conf = dir.write("conf", &settings);
        let child = Command::new("sh")
            .args(["-c", shell, "sh", env!("CARGO_BIN_EXE_cloudbridge"), "-c"])
            .arg(conf)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        let bare = Bare { child: child.expect("sh"), dir, address };
        eventually("it listens", || TcpStream::connect(address).is_ok());
        bare
    }

    /// A request that the proxy answers itself.
    #[track_caller]
    fn ask(&self, path: &str) {
        let mut client = Client::connect_to(self.address);
        client.send_get("a.test", path);
        assert_eq!(client.read_response().status(), 404);
    }

    /// [`MANY`] requests, each with a line of more than a kilobyte in the access log.
    #[track_caller]
    fn ask_many(&self) {
        let path = format!("/{}", "p".repeat(1_023));
        (0..MANY).for_each(|_| self.ask(&path));
    }

    fn signal(&self, name: &str) {
        crate::common::signal(self.child.id(), name);
    }

    #[track_caller]
    fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    fn read(&self, file: &str) -> String {
        read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    #[track_caller]
    fn await_text(&self, file: &str, text: &str) {
        eventually(&format!("{text:?} in {file}"), || self.read(file).contains(text));
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the shell starts the proxy with its log in a file.
const LOG_IN_FILE: &str = "exec \"$@\" 2>\"${3%conf}log\"";

#[test]
fn access_log_into_a_pipe_that_nobody_reads_holds_up_no_request_and_no_signal() {
    let mut proxy = Bare::start(LOG_IN_FILE, "access-log -", Stdio::piped(), Stdio::null());
    proxy.ask_many();
    proxy.await_text("log", "access log: lines are lost: they come faster than they are taken");
    proxy.signal("TERM");
    assert!(proxy.wait_exit().success());
}

#[test]
fn lost_lines_of_the_access_log_are_counted_when_its_reader_goes_on() {
    let mut proxy = Bare::start(LOG_IN_FILE, "access-log -", Stdio::piped(), Stdio::null());
    proxy.ask_many();
    let pipe = proxy.child.stdout.take().expect("a pipe");
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let reader = std::thread::spawn(move || {
        BufReader::new(pipe).lines().for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst));
    });
    proxy.await_text("log", "lines were lost; it takes lines again");
    let log = proxy.read("log");
    let lost = log
        .lines()
        .find_map(|line| line.split("access log: ").nth(1)?.split_once(" lines were lost"));
    let lost: usize = lost.expect("a count").0.parse().expect("a number");
    eventually("each line is read or counted", || read.load(Ordering::SeqCst) + lost == MANY);
    proxy.signal("TERM");
    assert!(proxy.wait_exit().success());
    reader.join().expect("the reader");
    assert_eq!(read.load(Ordering::SeqCst) + lost, MANY);
}

#[test]
fn log_into_a_pipe_that_nobody_reads_holds_up_no_request_and_no_signal() {
    // Every answer of the proxy's own is a line.
    let mut proxy = Bare::start("exec \"$@\"", "log-level debug", Stdio::null(), Stdio::piped());
    (0..2 * MANY).for_each(|_| proxy.ask("/"));
    proxy.signal("TERM");
    assert!(proxy.wait_exit().success());
}

/// A process must also end whose last lines nobody takes.
#[test]
fn a_log_that_nobody_reads_holds_up_no_end() {
    let (mut reader, writer) = full_pipe();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
    let mut agent =
        agent.arg("--nonsense").stdin(Stdio::null()).stderr(writer).spawn().expect("it");
    let mut status = None;
    eventually("the agent ends", || {
        status = agent.try_wait().expect("a child");
        status.is_some()
    });
    assert_eq!(status.expect("it has ended").code(), Some(2));
    let mut byte = [0];
    reader.read_exact(&mut byte).expect("what filled the pipe");
}

/// A pipe that takes no more, and a writing end for a child.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("a pipe");
    let mut filler = writer.try_clone().expect("a descriptor");
    // As much as a pipe holds (pipe(7)).
    filler.write_all(&[b'x'; 65_536]).expect("room");
    (reader, writer)
}

/// As under systemd, which has the time of each line already.
#[test]
fn lines_in_the_journal_have_a_priority_and_no_time() {
    let dir = Dir::new();
    let journal = dir.path().join("journal");
    let file = File::create(&journal).expect("a file");
    let data = file.metadata().expect("its inode");
    let stream = format!("JOURNAL_STREAM={}:{}", data.dev(), data.ino());
    let shell = format!("{stream} exec \"$@\"");
    let mut proxy = Bare::start(&shell, "log-level debug", Stdio::null(), Stdio::from(file));
    proxy.ask("/");
    proxy.signal("TERM");
    assert!(proxy.wait_exit().success());
    let log = read_to_string(&journal).expect("the journal");
    assert!(log.starts_with("<6>listening on ") && log.contains("\n<7>127.0.0.1:"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<') && line[2..].starts_with('>')), "{log}");
    // Another stream, such as a log file, is not the journal.
    let other = format!(
        "JOURNAL_STREAM={}:{} exec \"$@\" 2>\"${{3%conf}}log\"",
        data.dev(),
        data.ino() + 1
    );
    let other = Bare::start(&other, "", Stdio::null(), Stdio::null());
    other.await_text("log", " INFO ] listening on ");
    for (stream, priority) in [(data.ino(), "<3>"), (data.ino() + 1, "")] {
        let file = File::create(&journal).expect("a file");
        let status = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"))
            .arg("--nonsense")
            .env("JOURNAL_STREAM", format!("{}:{stream}", data.dev()))
            .stderr(file)
            .status();
        assert_eq!(status.expect("the agent").code(), Some(2));
        let said = read_to_string(&journal).expect("the journal");
        assert!(said.starts_with(&format!("{priority}cloudbridge-agent: ")), "{said}");
    }
}

/// As a syslog daemon that is started late, restarted, and busy for a while.
#[test]
fn datagram_socket_that_is_missing_or_full_holds_up_no_request() {
    let proxy = Bare::start(
        LOG_IN_FILE,
        "access-log unix-datagram:{dir}/socket format=\"%{target} %{status}\"",
        Stdio::null(),
        Stdio::null(),
    );
    proxy.ask("/nobody");
    proxy.await_text("log", "access log: lines are lost: No such file or directory");
    let daemon = UnixDatagram::bind(proxy.dir.path().join("socket")).expect("a socket");
    daemon.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let receive = || {
        let mut bytes = [0; 4_096];
        let count = daemon.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    // One after the other: workers do not wait for each other with their lines.
    for target in ["/one", "/two"] {
        proxy.ask(target);
        assert_eq!(receive(), format!("{target} 404"));
    }
    proxy.await_text("log", "access log: 1 lines were lost; it takes lines again");
    // More than the socket and the proxy hold.
    proxy.ask_many();
    proxy.ask("/last");
    while receive() != "/last 404" {
        daemon.set_read_timeout(Some(Duration::from_millis(1_500))).expect("a timeout");
        let mut bytes = [0; 4_096];
        while daemon.recv(&mut bytes).is_ok() {}
        daemon.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        proxy.ask("/last");
    }
}

/// As under systemd, whose journal is a socket: it cannot be opened by its name in /dev.
#[test]
fn access_log_on_standard_output_works_with_a_socket() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    ours.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let proxy =
        Bare::start(LOG_IN_FILE, "access-log -", Stdio::from(OwnedFd::from(theirs)), Stdio::null());
    let mut lines = BufReader::new(ours).lines();
    proxy.ask("/one");
    assert!(lines.next().expect("a line").expect("text").contains(" a.test GET /one 404 "));
    proxy.signal("HUP");
    proxy.await_text("log", "have been read again");
    proxy.ask("/two");
    assert!(lines.next().expect("a line").expect("text").contains(" a.test GET /two 404 "));
}

/// The pipe belongs to root, so the user could not open it again.
#[test]
fn reload_as_another_user_keeps_standard_output() {
    if metadata("/proc/self").expect("/proc").uid() != 0 {
        return crate::common::skipped("only root can become another user");
    }
    let mut proxy =
        Bare::start(LOG_IN_FILE, "access-log -\nuser nobody", Stdio::piped(), Stdio::null());
    let mut lines = BufReader::new(proxy.child.stdout.take().expect("a pipe")).lines();
    proxy.signal("HUP");
    proxy.await_text("log", "have been read again");
    proxy.ask("/after");
    assert!(lines.next().expect("a line").expect("text").contains("GET /after 404"));
}

/// A limit of the file's size is what a test has instead of a full disk: both take a part of a line
/// and then nothing.
#[test]
fn full_disk_loses_lines_and_glues_none_together() {
    if !installed("prlimit", &["prlimit", "--version"]) {
        return;
    }
    const LIMIT: usize = 4_096;
    let mut proxy =
        Bare::start(LOG_IN_FILE, "access-log {dir}/access", Stdio::null(), Stdio::null());
    let limit = |limit: &str| {
        let process = proxy.child.id().to_string();
        run_well(Command::new("prlimit").args(["--pid", &process, &format!("--fsize={limit}")]));
    };
    limit(&format!("{LIMIT}:unlimited"));
    (0..100).for_each(|_| proxy.ask("/before"));
    proxy.await_text("log", "access log: lines are lost: File too large");
    eventually("the file is full", || proxy.read("access").len() == LIMIT);
    limit("unlimited:unlimited");
    (0..10).for_each(|_| proxy.ask("/after"));
    proxy.await_text("log", "lines were lost; it takes lines again");
    proxy.signal("TERM");
    assert!(proxy.wait_exit().success());
    let access = proxy.read("access");
    let after: Vec<&str> = access[LIMIT..].lines().skip(1).collect();
    assert!(!after.is_empty(), "{access}");
    for line in after {
        assert_eq!(line.split(' ').count(), 8, "{line:?} in {access}");
    }
}
