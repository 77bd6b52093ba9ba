//! Listening sockets, one per worker and address.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::connect::as_tcp;
use super::sys::{self, SocketOptions};

/// One worker's share of a listening address.
pub struct Listener {
    socket: Socket,
    shown: String,
    /// Other threads accept from the same socket.
    is_shared: bool,
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
            Ok(Listener { socket, shown: address.to_string(), is_shared: false })
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

/// What tells a socket from all others, whatever its descriptors are.
///
/// # Errors
/// When no descriptor is left.
pub fn identity(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}

/// These sockets, each once: several descriptors may be of the same.
///
/// # Errors
/// When no descriptor is left.
pub fn distinct(sockets: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    let mut distinct: Vec<OwnedFd> = Vec::new();
    let mut seen = Vec::new();
    for socket in sockets {
        let identity = identity(socket)?;
        if !seen.contains(&identity) {
            seen.push(identity);
            distinct.push(socket.try_clone()?);
        }
    }
    Ok(distinct)
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
    let is_unix = is_unix(shown);
    let sockets = distinct(sockets)?;
    let mut threads: Vec<Vec<Listener>> = (0..count).map(|_| Vec::new()).collect();
    // Whether several threads accept from a socket.
    let mut is_shared = vec![false; sockets.len()];
    let mut more = Vec::new();
    for at in sockets.len()..count {
        let shared = &sockets[at % sockets.len()];
        let another = |socket: &OwnedFd| {
            let address = std::net::TcpListener::from(socket.try_clone()?).local_addr()?;
            sys::listen(address, true, options)
        };
        // A low port needs rights that this process may not have.
        let another = if is_unix { None } else { another(shared).ok() };
        is_shared[at % sockets.len()] |= another.is_none();
        more.push((at, another));
    }
    for (at, socket) in sockets.iter().enumerate() {
        threads[at % count].push(Listener::adopt(socket.try_clone()?, shown, is_shared[at]));
    }
    for (at, another) in more {
        threads[at].push(match another {
            Some(another) => Listener::adopt(another, shown, false),
            None => Listener::adopt(sockets[at % sockets.len()].try_clone()?, shown, true),
        });
    }
    Ok(threads)
}

/// A socket that somebody else keeps open, as a listener for each of `count` threads.
///
/// # Errors
/// When no descriptor is left.
pub fn share(socket: &OwnedFd, shown: &str, count: usize) -> io::Result<Vec<Listener>> {
    // systemd leaves it blocking, unless NonBlocking= says otherwise.
    std::net::TcpListener::from(socket.try_clone()?).set_nonblocking(true)?;
    (0..count).map(|_| Ok(Listener::adopt(socket.try_clone()?, shown, count > 1))).collect()
}

/// Where a socket listens that somebody else has opened, as the log shows it: an address, or `unix:`
/// and a path.
///
/// # Errors
/// What is wrong with it.
pub fn place_of(socket: &OwnedFd) -> Result<String, String> {
    let nature = sys::nature(socket).map_err(|_| "it is no socket of TCP or Unix".to_owned())?;
    if !nature.is_stream {
        return Err("it is a socket for datagrams, not for connections".to_owned());
    }
    if !nature.listens {
        return Err("it does not listen".to_owned());
    }
    let unknown = |error: io::Error| error.to_string();
    let copy = socket.try_clone().map_err(unknown)?;
    if !nature.is_unix {
        let address = std::net::TcpListener::from(copy).local_addr().map_err(unknown)?;
        return Ok(address.to_string());
    }
    let address = UnixListener::from(copy).local_addr().map_err(unknown)?;
    let name = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    };
    Ok(format!("{UNIX}{name}"))
}

/// Whether this is a place of a Unix socket.
#[must_use]
pub fn is_unix(place: &str) -> bool {
    place.starts_with(UNIX)
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
        let is_shared = count > 1;
        Ok(Listener { socket: Socket::Unix(socket), shown: shown.clone(), is_shared })
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
    fn adopt(socket: OwnedFd, shown: &str, is_shared: bool) -> Listener {
        let socket = match is_unix(shown) {
            true => Socket::Unix(mio::net::UnixListener::from_std(socket.into())),
            false => Socket::Tcp(mio::net::TcpListener::from_std(socket.into())),
        };
        Listener { socket, shown: shown.to_owned(), is_shared }
    }

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
        self.as_fd().try_clone_to_owned()
    }

    /// Watches for connections. One wakes only one of the threads that share the socket.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.is_shared {
            return sys::watch_shared(registry, self, token.0);
        }
        match &mut self.socket {
            Socket::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Unix(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// Watches no more. Closing is not enough where another thread or process has the socket.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is not watched.
    pub fn unwatch(&mut self, registry: &Registry) -> io::Result<()> {
        if self.is_shared {
            return sys::unwatch_shared(registry, self);
        }
        match &mut self.socket {
            Socket::Tcp(socket) => registry.deregister(socket),
            Socket::Unix(socket) => registry.deregister(socket),
        }
    }

    /// Leaves the next connection to another of the threads that share the socket, if there are any
    /// that wait: the kernel wakes the one that has watched longest, and one that is idle would get
    /// all of them. What has come since the last accept is seen again.
    ///
    /// # Errors
    /// As epoll_ctl(2). Then the socket may not be watched any more.
    pub fn stand_back(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if !self.is_shared {
            return Ok(());
        }
        self.unwatch(registry)?;
        self.watch(registry, token)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Where it listens, with the port that the kernel chose.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests;
