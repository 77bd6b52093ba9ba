//! The system calls that neither std nor mio offers, and all `unsafe` of the program.
//!
//! Every function here is safe to call with any arguments; each block says why.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Calls libc and turns -1 into the error that errno names.
macro_rules! syscall {
    ($call:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: each use passes descriptors that are borrowed or owned for the length of the
        // call, and pointers to live, initialised values together with their own size.
        let result = unsafe { libc::$call($($argument),*) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }};
}

/// What is set on a listening socket; Linux hands it on to every socket accepted from it, so
/// that no connection pays for it with system calls of its own.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Idle time before the first keepalive probe, and between probes.
    pub keepalive: Duration,
    /// How long sent data may stay unacknowledged before the connection is given up
    /// (TCP_USER_TIMEOUT, RFC 5482).
    pub user_timeout: Duration,
}

/// Keepalive probes that may go unanswered before the kernel gives a connection up.
const KEEPALIVE_PROBES: libc::c_int = 3;

/// The queue of connections that the kernel has accepted and we have not; the kernel lowers it
/// to net.core.somaxconn.
const BACKLOG: libc::c_int = 4096;

/// A listening socket at `address`.
///
/// With `shared`, every socket that asks for the same address gets a share of its connections
/// (SO_REUSEPORT). Without, binding fails while anybody else listens there.
///
/// # Errors
/// As socket(2), bind(2) and listen(2).
pub fn listen(address: SocketAddr, shared: bool, options: &SocketOptions) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let raw = syscall!(socket(family, kind, 0))?;
    // SAFETY: `raw` is a descriptor that we have just been given and that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let fd = socket.as_fd();
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        // `*` means both protocols; a written-out IPv6 address means that one alone.
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!address.ip().is_unspecified()))?;
    }
    set_stream_options(&socket, options)?;
    let (storage, length) = to_sockaddr(address);
    syscall!(bind(fd.as_raw_fd(), (&raw const storage).cast(), length))?;
    syscall!(listen(fd.as_raw_fd(), BACKLOG))?;
    Ok(socket)
}

/// Sets on a listening socket what the sockets accepted from it inherit.
///
/// # Errors
/// As setsockopt(2).
pub fn set_stream_options(socket: &impl AsFd, options: &SocketOptions) -> io::Result<()> {
    let fd = socket.as_fd();
    let seconds = |time: Duration| i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if !options.keepalive.is_zero() {
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(options.keepalive))?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(options.keepalive))?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)?;
    }
    let milliseconds = i32::try_from(options.user_timeout.as_millis()).unwrap_or(i32::MAX);
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)
}

fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = mem::size_of_val(&value) as libc::socklen_t;
    syscall!(setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size)).map(drop)
}

fn to_sockaddr(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain integers, for which all-zero bytes are a value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let place = &raw mut storage;
    let length = match address {
        SocketAddr::V4(v4) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr.
            unsafe { place.cast::<libc::sockaddr_in>().write(value) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(value) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Makes the close of this socket a reset: the peer sees that something was cut off, where an
/// orderly end would look like the end of the message.
///
/// # Errors
/// As setsockopt(2).
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = mem::size_of_val(&linger) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    syscall!(setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size))
        .map(drop)
}

/// A non-blocking pipe (reader, writer), asked to hold `capacity` bytes.
///
/// # Errors
/// As pipe2(2). That the kernel grants a smaller capacity is not an error.
pub fn pipe(capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    syscall!(pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC))?;
    // SAFETY: pipe2 has filled in two new descriptors that nobody else owns.
    let (reader, writer) =
        unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let size = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
    let _ = syscall!(fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, size));
    Ok((reader, writer))
}

/// Moves up to `limit` bytes between a pipe and a socket inside the kernel (splice(2)).
///
/// # Errors
/// As splice(2); `WouldBlock` does not tell which of the two was not ready.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let none = std::ptr::null_mut();
    loop {
        match syscall!(splice(from.as_raw_fd(), none, to.as_raw_fd(), none, limit, flags)) {
            Ok(count) => return Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends `bytes` and tells the kernel that more follows at once, so that it does not make a
/// packet of these alone (MSG_MORE, send(2)).
///
/// # Errors
/// As send(2).
pub fn send_more(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_MORE | libc::MSG_NOSIGNAL);
    syscall!(send(fd, bytes.as_ptr().cast(), bytes.len(), flags)).map(|count| count as usize)
}

/// How many bytes of a TCP socket's sending side its peer has not acknowledged yet (SIOCOUTQ,
/// tcp(7)).
///
/// # Errors
/// As ioctl(2).
pub fn send_queue(socket: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    syscall!(ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Raises the soft limit of open descriptors to the hard one and says what it is now.
///
/// # Errors
/// As getrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    if syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const wanted)).is_ok() {
        limit = wanted;
    }
    Ok(limit.rlim_cur)
}

/// The signals that the proxy understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish and leave.
    Terminate,
    /// SIGHUP: read the settings again.
    Reload,
}

fn signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers, and the calls only write to the one passed to them.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Keeps the signals of [`Signal`] from interrupting this thread and all that it starts: they
/// wait for [`wait_signal`]. Call it before any other thread exists.
pub fn block_signals() {
    let set = signals();
    // SAFETY: the set is initialised, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for one of the signals of [`Signal`].
#[must_use]
pub fn wait_signal() -> Signal {
    let set = signals();
    loop {
        let mut number = 0;
        // SAFETY: both point to live values for the length of the call.
        let failed = unsafe { libc::sigwait(&raw const set, &raw mut number) };
        match number {
            _ if failed != 0 => {}
            libc::SIGHUP => return Signal::Reload,
            _ => return Signal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const OPTIONS: SocketOptions =
        SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) };

    #[test]
    fn shared_listeners_share_a_port_and_others_do_not() {
        let first =
            TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
        let address = first.local_addr().unwrap();
        listen(address, true, &OPTIONS).unwrap();
        let error = listen(address, false, &OPTIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_wildcard_takes_both_protocols() {
        let listener =
            TcpListener::from(listen("[::]:0".parse().unwrap(), false, &OPTIONS).unwrap());
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener =
            TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), true, &OPTIONS).unwrap());
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn the_descriptor_limit_is_known() {
        assert!(raise_descriptor_limit().unwrap() >= 256);
    }
}
