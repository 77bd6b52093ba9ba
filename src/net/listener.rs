//! Listening sockets, one per worker and address.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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
    let probe = match sys::listen(address, false, options) {
        // A host without IPv6: `*` then means all of IPv4.
        Err(error) if is_missing_ipv6(&error) && address.ip().is_unspecified() => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            return open(address, count, options);
        }
        other => std::net::TcpListener::from(other?),
    };
    let address = probe.local_addr()?;
    drop(probe);
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
}

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
    let file = SocketFile { path: std::path::absolute(path)?, place };
    socket.set_nonblocking(true)?;
    let shown = format!("unix:{}", path.display());
    let share = |_| {
        let socket = mio::net::UnixListener::from_std(socket.try_clone()?);
        Ok(Listener { socket: Socket::Unix(socket), shown: shown.clone() })
    };
    let listeners = (0..count).map(share).collect::<io::Result<_>>()?;
    Ok((listeners, file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.place) {
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
