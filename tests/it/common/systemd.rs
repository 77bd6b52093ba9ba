//! systemd as a process sees it: a socket that takes notifications, and sockets that are passed.

use super::{DEADLINE, Dir, eventually};
use cloudbridge::net::sys;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Receives notifications and keeps what it is asked to keep.
#[derive(Debug)]
pub struct Systemd {
    socket: UnixDatagram,
    dir: Dir,
}

/// A notification.
#[derive(Debug)]
pub struct Notification {
    pub lines: Vec<String>,
    pub files: Vec<OwnedFd>,
}

impl Notification {
    /// The value of this variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Systemd {
    pub fn new() -> Systemd {
        let dir = Dir::new();
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Systemd { socket, dir }
    }

    /// The value of NOTIFY_SOCKET.
    pub fn notify_socket(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// The next notification.
    #[track_caller]
    pub fn next(&self) -> Notification {
        let mut bytes = [0; 4096];
        let received = sys::receive_files(self.socket.as_fd(), &mut bytes);
        let (length, files) = received.expect("a notification");
        let text = String::from_utf8_lossy(&bytes[..length]);
        Notification { lines: text.lines().map(str::to_owned).collect(), files }
    }

    /// The next one that is not only a line for people, or a sign of life.
    #[track_caller]
    pub fn next_state(&self) -> Notification {
        loop {
            let next = self.next();
            if !["STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC"]
                .iter()
                .any(|of| next.get(of).is_some())
            {
                return next;
            }
        }
    }

    /// Waits for a notification in which the variable has such a value.
    #[track_caller]
    pub fn await_value(&self, name: &str, is_it: impl Fn(&str) -> bool) -> Notification {
        let mut found = None;
        eventually(&format!("{name} is told"), || {
            let next = self.next();
            let is_it = next.get(name).is_some_and(&is_it);
            found = Some(next).filter(|_| is_it);
            found.is_some()
        });
        found.expect("it has been told")
    }

    /// How many notifications with this variable have come that nobody has looked at. The others are
    /// dropped.
    pub fn unread(&self, name: &str) -> usize {
        self.socket.set_nonblocking(true).expect("fcntl");
        let mut bytes = [0; 4096];
        let mut count = 0;
        while let Ok((length, _)) = sys::receive_files(self.socket.as_fd(), &mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            count += usize::from(text.lines().any(|line| line.starts_with(name)));
        }
        self.socket.set_nonblocking(false).expect("fcntl");
        count
    }
}

/// What a unit's processes have had systemd keep. It keeps everything until it is told to forget it:
/// it does not notice by itself that a connection has ended.
#[derive(Debug)]
pub struct Store {
    kept: Arc<Mutex<Vec<(String, OwnedFd)>>>,
    marks: Arc<AtomicUsize>,
    dir: Dir,
}

/// A notification of the test's own, behind which there is nothing that was sent before.
const MARK: &str = "X_MARK";

impl Store {
    pub fn new() -> Store {
        let dir = Dir::new();
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        let store = Store { kept: Arc::default(), marks: Arc::default(), dir };
        let (kept, marks) = (Arc::clone(&store.kept), Arc::clone(&store.marks));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((length, files)) = sys::receive_files(socket.as_fd(), &mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                let lines = text.lines().map(str::to_owned).collect();
                let notification = Notification { lines, files };
                if notification.get(MARK).is_some() {
                    marks.fetch_add(1, Ordering::SeqCst);
                } else if notification.get("X_END").is_some() {
                    break;
                }
                let Some(name) = notification.get("FDNAME").map(str::to_owned) else { continue };
                let mut kept = kept.lock().expect("lock");
                if notification.get("FDSTOREREMOVE").is_some() {
                    kept.retain(|(known, _)| *known != name);
                }
                for file in notification.files {
                    // As systemd, which compares what it is given with what it has.
                    if !kept.iter().any(|(_, known)| inode(known) == inode(&file)) {
                        kept.push((name.clone(), file));
                    }
                }
            }
        });
        store
    }

    /// The value of NOTIFY_SOCKET.
    pub fn notify_socket(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    fn say(&self, what: &str) {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.send_to(what.as_bytes(), self.notify_socket()).expect("it is there");
    }

    /// What is kept now, when everything that has been sent so far has come.
    #[track_caller]
    pub fn kept(&self) -> Vec<(String, OwnedFd)> {
        let before = self.marks.load(Ordering::SeqCst);
        self.say(&format!("{MARK}=1"));
        eventually("systemd has read everything", || self.marks.load(Ordering::SeqCst) > before);
        let kept = self.kept.lock().expect("lock");
        kept.iter().map(|(name, file)| (name.clone(), file.try_clone().expect("a copy"))).collect()
    }

    /// The names of what is kept, without listeners.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let is_listener = |name: &String| name.starts_with("cloudbridge/listener/");
        self.kept().into_iter().map(|(name, _)| name).filter(|name| !is_listener(name)).collect()
    }

    /// Waits until so many bridges are kept.
    #[track_caller]
    pub fn await_bridges(&self, count: usize) {
        eventually(&format!("{count} bridges are kept"), || {
            self.names().iter().filter(|name| name.starts_with("cloudbridge/b")).count() == count
        });
    }

    /// Changes what is kept behind the processes' backs.
    pub fn change(&self, change: impl FnOnce(&mut Vec<(String, OwnedFd)>)) {
        change(&mut self.kept.lock().expect("lock"));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let socket = UnixDatagram::unbound().expect("a socket");
        let _ = socket.send_to(b"X_END=1", self.notify_socket());
    }
}

fn inode(file: &OwnedFd) -> u64 {
    let file = std::fs::File::from(file.try_clone().expect("a copy"));
    file.metadata().expect("fstat").ino()
}

/// Takes descriptors over its standard input, puts them where sd_listen_fds(3) looks for them, and
/// becomes its arguments.
const PASS: &str = r#"
import fcntl, os, socket, sys
names, files, _, _ = socket.recv_fds(socket.socket(fileno=os.dup(0)), 65536, 253)
high = [fcntl.fcntl(file, fcntl.F_DUPFD, 300) for file in files]
for at, file in enumerate(high):
    os.dup2(file, 3 + at)
    os.close(file)
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
environ = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(files)), LISTEN_FDNAMES=names.decode())
os.execve(sys.argv[1], sys.argv[1:], environ)
"#;

/// What [`pass`] needs, as a command that must come to a good end.
pub const PASSES: [&str; 3] = ["python3", "-c", "import socket; socket.recv_fds"];

/// A command that runs `program` with these sockets passed to it, under these names.
#[track_caller]
pub fn pass(program: &Path, sockets: &[(String, OwnedFd)]) -> Command {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let names: Vec<&str> = sockets.iter().map(|(name, _)| &**name).collect();
    let files: Vec<_> = sockets.iter().map(|(_, file)| file.as_fd()).collect();
    // They wait in the socket until the program is there.
    sys::send_files(ours.as_fd(), names.join(":").as_bytes(), &files).expect("they are sent");
    let mut command = Command::new("python3");
    command.args(["-c", PASS]).arg(program).stdin(Stdio::from(OwnedFd::from(theirs)));
    command
}
