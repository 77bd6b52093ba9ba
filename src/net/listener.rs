//! Listening sockets, one per worker and address.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::TcpStream;

use super::connect::as_tcp;
use super::sys::{self, SocketOptions};

/// One worker's share of a listening address.
pub struct Listener {
    socket: Socket,
    shown: String,
}

enum Socket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// Opens `count` listeners that share `address`: one for each worker. Port 0 lets the kernel
/// choose a port, the same for all.
///
/// # Errors
/// When the address cannot be bound, or another process listens there, even another cloudbridge:
/// only the workers of one process share an address.
pub fn open(
    address: SocketAddr,
    count: usize,
    options: &SocketOptions,
) -> io::Result<Vec<Listener>> {
    // It only shows that nobody listens there, and keeps the port. A socket that listened would take
    // connections, and reset them when it is closed.
    let probe = match sys::bind(address, false, options) {
        // A host without IPv6: `*` then means all of IPv4.
        Err(error) if is_missing_ipv6(&error) && address.ip().is_unspecified() => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            return open(address, count, options);
        }
        other => std::net::TcpListener::from(other?),
    };
    let address = probe.local_addr()?;
    (0..count)
        .map(|_| {
            let socket = std::net::TcpListener::from(sys::listen(address, true, options)?);
            let socket = Socket::Tcp(mio::net::TcpListener::from_std(socket));
            Ok(Listener { socket, shown: address.to_string() })
        })
        .collect()
}

fn is_missing_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The file of a Unix socket that this process listens at. Removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Its device and inode: another process may have replaced the file since.
    place: (u64, u64),
    /// Another process listens there with the same socket.
    given_away: AtomicBool,
}

impl SocketFile {
    /// The file of a socket that another process has opened, and this one has inherited.
    ///
    /// # Errors
    /// When it is not there.
    pub fn inherit(path: &Path) -> io::Result<SocketFile> {
        let found = std::fs::symlink_metadata(path)?;
        let (path, place) = (std::path::absolute(path)?, (found.dev(), found.ino()));
        Ok(SocketFile { path, place, given_away: AtomicBool::new(false) })
    }

    /// Whether it is still there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == self.place)
    }

    /// Leaves the file to the process that has inherited the socket, or takes it back.
    pub fn give_away(&self, given_away: bool) {
        self.given_away.store(given_away, Ordering::Relaxed);
    }
}

/// Sockets of another process, as listeners of this one: `count` for an address that `shown` names.
/// All of the sockets are used, as connections may be waiting at each; if there are too few, more
/// are opened at the same address, or shared.
///
/// # Errors
/// When one is not a listening socket.
pub fn inherit(
    sockets: &[OwnedFd],
    shown: &str,
    count: usize,
    options: &SocketOptions,
) -> io::Result<Vec<Vec<Listener>>> {
    let is_unix = shown.starts_with(UNIX);
    let adopt = |socket: OwnedFd| {
        let socket = match is_unix {
            true => Socket::Unix(mio::net::UnixListener::from_std(socket.into())),
            false => Socket::Tcp(mio::net::TcpListener::from_std(socket.into())),
        };
        Listener { socket, shown: shown.to_owned() }
    };
    let mut threads: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
    for (at, socket) in sockets.iter().enumerate() {
        threads[at % count].push(adopt(socket.try_clone()?));
    }
    for (at, thread) in threads.iter_mut().enumerate().filter(|(_, thread)| thread.is_empty()) {
        let shared = &sockets[at % sockets.len()];
        let another = |socket: &OwnedFd| {
            let address = std::net::TcpListener::from(socket.try_clone()?).local_addr()?;
            sys::listen(address, true, options)
        };
        // A low port needs rights that this process may not have.
        let more = if is_unix { None } else { another(shared).ok() };
        thread.push(adopt(match more {
            Some(more) => more,
            None => shared.try_clone()?,
        }));
    }
    Ok(threads)
}

/// What the name of a Unix socket begins with.
const UNIX: &str = "unix:";

/// Opens `count` listeners that share the Unix socket at `path`, whose file gets the permissions
/// `mode`. A file that a process which died has left behind is replaced.
///
/// # Errors
/// When the socket cannot be bound, another process listens there, or the file is no socket.
pub fn open_unix(path: &Path, mode: u32, count: usize) -> io::Result<(Vec<Listener>, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        _ => {}
    }
    // Made under another name, and moved when it has its permissions: nobody can connect before,
    // and what a dead process has left is replaced in one step.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    let socket = UnixListener::bind(&new)?;
    let moved = std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::symlink_metadata(&new))
        .and_then(|found| std::fs::rename(&new, path).map(|()| (found.dev(), found.ino())));
    let place = moved.inspect_err(|_| _ = std::fs::remove_file(&new))?;
    let path_of = std::path::absolute(path)?;
    let file = SocketFile { path: path_of, place, given_away: AtomicBool::new(false) };
    socket.set_nonblocking(true)?;
    let shown = format!("{UNIX}{}", path.display());
    let share = |_| {
        let socket = mio::net::UnixListener::from_std(socket.try_clone()?);
        Ok(Listener { socket: Socket::Unix(socket), shown: shown.clone() })
    };
    let listeners = (0..count).map(share).collect::<io::Result<_>>()?;
    Ok((listeners, file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.given_away.load(Ordering::Relaxed) {
            return;
        }
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// The next connection and its peer's address: IPv4 as IPv4 even on a dual-stack socket, this
    /// machine's and no port for a Unix socket.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise as accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                Ok((as_tcp(stream), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            }
        }
    }

    /// Sets the options that connections accepted from now on inherit; a Unix socket has none.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(socket) => sys::set_stream_options(socket, options),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// The socket once more, for another process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            Socket::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }

    /// The socket, to register it with a poll.
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match &mut self.socket {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => socket,
        }
    }
}

/// Where it listens, with the port that the kernel chose.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
