//! The system calls that neither std nor mio offers, and all `unsafe` of the program.
//!
//! Every function here is safe to call with any arguments; each `unsafe` block says why.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Fills `bytes` from the kernel's source for cryptography (getrandom(2)).
///
/// # Errors
/// As getrandom(2): the kernel has no such source, or has just started.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let rest @ [_, ..] = &mut bytes[filled..] {
        match syscall!(getrandom(rest.as_mut_ptr().cast(), rest.len(), 0)) {
            Ok(count) => filled += count.unsigned_abs(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Options set on a listening socket. Linux copies them to every socket accepted from it, so no
/// connection needs system calls for them.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Idle time before the first keepalive probe, and between probes.
    pub keepalive: Duration,
    /// How long sent data may stay unacknowledged before the kernel drops the connection
    /// (TCP_USER_TIMEOUT, RFC 5482).
    pub user_timeout: Duration,
}

/// Unanswered keepalive probes before the kernel drops a connection.
const KEEPALIVE_PROBES: libc::c_int = 3;

/// Length of the accept queue; the kernel caps it at net.core.somaxconn.
const BACKLOG: libc::c_int = 4096;

/// A listening socket at `address`.
///
/// With `shared`, all sockets bound to the same address share its connections (SO_REUSEPORT).
/// Without, binding fails while another socket listens there.
///
/// # Errors
/// As socket(2), bind(2) and listen(2).
pub fn listen(address: SocketAddr, shared: bool, options: &SocketOptions) -> io::Result<OwnedFd> {
    let socket = bind(address, shared, options)?;
    syscall!(listen(socket.as_raw_fd(), BACKLOG))?;
    Ok(socket)
}

/// The same, which nobody can connect to yet.
///
/// # Errors
/// As socket(2) and bind(2).
pub fn bind(address: SocketAddr, shared: bool, options: &SocketOptions) -> io::Result<OwnedFd> {
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
        // `*` means both protocols; any other IPv6 address means only itself.
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!address.ip().is_unspecified()))?;
    }
    set_stream_options(&socket, options)?;
    let (storage, length) = to_sockaddr(address);
    syscall!(bind(fd.as_raw_fd(), (&raw const storage).cast(), length))?;
    Ok(socket)
}

/// Ends a listening socket for every process that has it (shutdown(2), tcp(7)). Connections that wait
/// there are reset.
///
/// # Errors
/// As shutdown(2).
pub fn stop_listening(socket: &impl AsFd) -> io::Result<()> {
    syscall!(shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_RD)).map(drop)
}

/// Whether connections can still come to a TCP socket that has listened (SO_ACCEPTCONN, socket(7)):
/// another process may have ended it.
///
/// # Errors
/// As getsockopt(2).
pub fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    let mut value: libc::c_int = 0;
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut value).cast());
    syscall!(getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, place, &raw mut size))?;
    Ok(value != 0)
}

/// Sets on a listening socket what the sockets accepted from it inherit.
///
/// # Errors
/// As setsockopt(2).
pub fn set_stream_options(socket: &impl AsFd, options: &SocketOptions) -> io::Result<()> {
    let fd = socket.as_fd();
    let seconds = |time: Duration| i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // Without this a read skips an urgent byte until a later urgent byte turns it into ordinary
    // data. Between the peek at a chunk's size line and its splice, that would change the line.
    set(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1)?;
    if !options.keepalive.is_zero() {
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(options.keepalive))?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(options.keepalive))?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)?;
    }
    set_user_timeout(socket, options.user_timeout)
}

/// Sets how long sent data may stay unacknowledged, or held back by the peer's closed window, before
/// the kernel drops a connection (TCP_USER_TIMEOUT, tcp(7)).
///
/// # Errors
/// As setsockopt(2).
pub fn set_user_timeout(socket: &impl AsFd, timeout: Duration) -> io::Result<()> {
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)
}

/// What the kernel knows of a TCP connection's peer.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// How many packets have been sent to it that it has not acknowledged.
    pub in_flight: u32,
    /// How many bytes it has acknowledged since the connection began.
    pub acknowledged: u64,
    /// How long ago it last acknowledged anything, or answered a probe.
    pub silent_for: Duration,
    /// The shortest time of the last minutes in which it has acknowledged something; the largest
    /// number of microseconds in 32 bits while there is none.
    pub round_trip: Duration,
}

/// The beginning of `struct tcp_info` of linux/tcp.h, as far as it is used here.
#[repr(C)]
struct TcpInfo {
    base: libc::tcp_info,
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    unsent: u32,
    min_rtt: u32,
}

/// Asks the kernel about a TCP connection's peer (TCP_INFO, tcp(7)).
///
/// # Errors
/// As getsockopt(2).
pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    // SAFETY: TcpInfo is plain integers, for which all-zero bytes are a value. What an old kernel
    // does not fill in stays zero.
    let mut info: TcpInfo = unsafe { mem::zeroed() };
    let mut size = mem::size_of_val(&info) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut info).cast());
    syscall!(getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut size))?;
    Ok(Peer {
        in_flight: info.base.tcpi_unacked,
        acknowledged: info.bytes_acked,
        silent_for: Duration::from_millis(info.base.tcpi_last_ack_recv.into()),
        round_trip: Duration::from_micros(info.min_rtt.into()),
    })
}

fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = mem::size_of_val(&value) as libc::socklen_t;
    syscall!(setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size)).map(drop)
}

fn get(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    let place = (&raw mut value).cast();
    syscall!(getsockopt(fd.as_raw_fd(), level, name, place, &raw mut size))?;
    Ok(value)
}

/// What a descriptor is that somebody else has opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nature {
    /// A Unix socket, rather than one of IPv4 or IPv6.
    pub is_unix: bool,
    /// A stream socket, rather than one of datagrams or packets.
    pub is_stream: bool,
    /// It takes connections.
    pub listens: bool,
}

/// Asks the kernel what a descriptor is (socket(7)).
///
/// # Errors
/// As getsockopt(2): it is no socket. `Unsupported` for one of another family.
pub fn nature(socket: &impl AsFd) -> io::Result<Nature> {
    let ask = |name| get(socket.as_fd(), libc::SOL_SOCKET, name);
    let is_unix = match ask(libc::SO_DOMAIN)? {
        libc::AF_UNIX => true,
        libc::AF_INET | libc::AF_INET6 => false,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let is_stream = ask(libc::SO_TYPE)? == libc::SOCK_STREAM;
    Ok(Nature { is_unix, is_stream, listens: ask(libc::SO_ACCEPTCONN)? == 1 })
}

/// The first descriptor that a program can be given beside the standard streams
/// (SD_LISTEN_FDS_START, sd_listen_fds(3)).
const FIRST_PASSED: libc::c_int = 3;

/// The first `count` descriptors beside the standard streams, which the process that started this
/// program has left open for it. They are this program's from now on, and closed in programs that it starts.
/// Only the first call has any; it must come before anything else is opened.
///
/// # Errors
/// As fcntl(2): one of them is not open. The others are left open.
pub fn passed_descriptors(count: u16) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let all = FIRST_PASSED..FIRST_PASSED + libc::c_int::from(count);
    for raw in all.clone() {
        syscall!(fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC))?;
    }
    // SAFETY: all of them are open, as has just been seen. Nobody else in this program knows them: it
    // has opened nothing yet, and this comes here only once.
    Ok(all.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect())
}

/// Watches a listening socket, edge-triggered, that other threads watch, too: a connection wakes one
/// of those that wait, the one that has watched it longest (EPOLLEXCLUSIVE, epoll_ctl(2)). All that
/// do not wait at that moment see it, too.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch_shared(poll: &impl AsRawFd, socket: &impl AsFd, token: usize) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLET | libc::EPOLLEXCLUSIVE).cast_unsigned();
    let mut event = libc::epoll_event { events, u64: token as u64 };
    let (poll, socket) = (poll.as_raw_fd(), socket.as_fd().as_raw_fd());
    syscall!(epoll_ctl(poll, libc::EPOLL_CTL_ADD, socket, &raw mut event)).map(drop)
}

/// Ends [`watch_shared`]. A socket that other processes or threads have would stay watched when only
/// this descriptor of it is closed.
///
/// # Errors
/// As epoll_ctl(2).
pub fn unwatch_shared(poll: &impl AsRawFd, socket: &impl AsFd) -> io::Result<()> {
    let (poll, socket) = (poll.as_raw_fd(), socket.as_fd().as_raw_fd());
    syscall!(epoll_ctl(poll, libc::EPOLL_CTL_DEL, socket, std::ptr::null_mut())).map(drop)
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

/// Makes the close of this socket a reset, so that the peer sees that the message was cut off.
/// After an orderly close it might take it for complete.
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

/// What tells a socket from all others that there have been since the machine started (SO_COOKIE,
/// socket(7)).
///
/// # Errors
/// As getsockopt(2).
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut value: u64 = 0;
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut value).cast());
    syscall!(getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, place, &raw mut size))?;
    Ok(value)
}

/// Ends a connection for every process that has it, at once: in order, or with a reset if
/// [`reset_on_close`] was called. A close ends it only when it is the last.
pub fn end_for_all(socket: &impl AsFd) {
    let fd = socket.as_fd().as_raw_fd();
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut size = mem::size_of_val(&linger) as libc::socklen_t;
    let place = (&raw mut linger).cast();
    let asked = syscall!(getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, place, &raw mut size));
    if asked.is_ok() && linger.l_onoff != 0 && linger.l_linger == 0 {
        // Connecting to no address ends a connection of TCP with a reset (connect(2)).
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
        let size = mem::size_of_val(&nowhere) as libc::socklen_t;
        if syscall!(connect(fd, &raw const nowhere, size)).is_ok() {
            return;
        }
    }
    // An error means that it has ended already.
    let _ = syscall!(shutdown(fd, libc::SHUT_RDWR));
}

/// A non-blocking pipe (reader, writer), asked to hold `capacity` bytes.
///
/// # Errors
/// As pipe2(2). A smaller capacity is not an error.
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

/// Sends `bytes` and tells the kernel that more follow at once, so that it does not send a packet
/// with these alone (MSG_MORE, send(2)).
///
/// # Errors
/// As send(2).
pub fn send_more(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_MORE | libc::MSG_NOSIGNAL);
    syscall!(send(fd, bytes.as_ptr().cast(), bytes.len(), flags)).map(|count| count as usize)
}

/// Sends as much of `bytes` as the kernel takes without waiting, even if the socket waits (MSG_DONTWAIT, send(2)).
///
/// # Errors
/// As send(2): `WouldBlock` if it takes nothing.
pub fn send_now(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    syscall!(send(fd, bytes.as_ptr().cast(), bytes.len(), flags)).map(|count| count as usize)
}

/// Acknowledges what a TCP socket has received at once, and what follows too until something is
/// sent (TCP_QUICKACK, tcp(7)).
///
/// # Errors
/// As setsockopt(2): `Unsupported` for a Unix socket, which has no acknowledgements.
pub fn acknowledge_now(socket: &impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)
}

/// Whether a call failed because descriptors or memory have run out.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(number, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
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

/// How many times TCP must have sent bytes again before their peer counts as unheard: one loss is
/// nothing unusual.
const SENT_AGAIN: u8 = 2;

/// For how long the peer of a TCP socket has acknowledged nothing, if it owes an acknowledgement of
/// bytes that have been sent again (TCP_INFO, tcp(7)). A peer that takes nothing because its buffers
/// are full acknowledges.
///
/// # Errors
/// As getsockopt(2).
pub fn unheard_for(socket: &impl AsFd) -> io::Result<Option<Duration>> {
    // SAFETY: tcp_info is plain integers, for which all-zero bytes are a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut size = mem::size_of_val(&info) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut info).cast());
    syscall!(getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut size))?;
    let owes = info.tcpi_unacked > 0 && info.tcpi_retransmits >= SENT_AGAIN;
    Ok(owes.then(|| Duration::from_millis(info.tcpi_last_ack_recv.into())))
}

/// Sets the limit of open descriptors to `wanted`, or to the hard limit, and returns the limit in
/// force. Only root may exceed the hard limit.
///
/// # Errors
/// As getrlimit(2), and as setrlimit(2) if `wanted` is refused.
pub fn limit_descriptors(wanted: Option<u64>) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    let soft = wanted.unwrap_or(limit.rlim_max);
    let new = libc::rlimit { rlim_cur: soft, rlim_max: soft.max(limit.rlim_max) };
    match syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const new)) {
        Ok(_) => Ok(soft),
        Err(error) if wanted.is_some() => Err(error),
        // Without an explicit limit, the old one will do.
        Err(_) => Ok(limit.rlim_cur),
    }
}

/// Which process this is after a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forked {
    /// The one that forked.
    Parent,
    /// The new one.
    Child,
}

/// Doubles the process (fork(2)).
///
/// # Errors
/// As fork(2), and `Unsupported` when the process has several threads: the child would have only
/// one, and locks held by the others would stay locked in it.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "there are other threads"));
    }
    // The reason given in `syscall!` covers the call; with one thread the child is complete.
    Ok(if syscall!(fork())? == 0 { Forked::Child } else { Forked::Parent })
}

/// Detaches from the terminal by starting a new session (setsid(2)).
///
/// # Errors
/// As setsid(2): when the process already leads a group, which a freshly forked child never does.
pub fn new_session() -> io::Result<()> {
    syscall!(setsid()).map(drop)
}

/// Redirects the standard stream `stream` to `file` (dup2(2)).
///
/// # Errors
/// As dup2(2).
pub fn replace_stream(stream: Stream, file: &impl AsFd) -> io::Result<()> {
    syscall!(dup2(file.as_fd().as_raw_fd(), stream as libc::c_int)).map(drop)
}

/// The standard streams, by their descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard input.
    Input = 0,
    /// Standard output.
    Output = 1,
    /// Standard error.
    Error = 2,
}

/// Writes to a file, pipe or socket (write(2)). Unlike std's own handles of the standard streams it
/// takes no lock: one that is held while a reader has stopped would block every other user of it.
///
/// # Errors
/// As write(2).
pub fn write(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    syscall!(write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len())).map(|count| count as usize)
}

/// Most descriptors in one message (SCM_MAX_FD of the kernel, unix(7)).
pub const MOST_FILES: usize = 253;

/// A pair of connected sockets that keep messages apart and show when the other end is closed
/// (SOCK_SEQPACKET, unix(7)).
///
/// # Errors
/// As socketpair(2).
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    syscall!(socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
    // SAFETY: both are descriptors that we have just been given and that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Room for the descriptors of a message, aligned as cmsg(3) needs it.
type Control = [u64; 130];

const _: () = assert!(
    // SAFETY: it is arithmetic.
    unsafe { libc::CMSG_SPACE((MOST_FILES * mem::size_of::<libc::c_int>()) as u32) } as usize
        <= mem::size_of::<Control>()
);

/// Sends a message with copies of these descriptors (SCM_RIGHTS, unix(7)).
///
/// # Errors
/// As sendmsg(2); `InvalidInput` for more than [`MOST_FILES`].
pub fn send_files(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if files.len() > MOST_FILES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<libc::c_int> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let size = mem::size_of_val(&raw[..]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 130];
    // SAFETY: msghdr is plain integers and pointers, for which all-zero bytes are a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: these are arithmetic and pointers into `control`, which is large and aligned
        // enough, as asserted above.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size as u32) as usize;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size);
        }
    }
    syscall!(sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)).map(drop)
}

/// Receives a message and its descriptors. An empty message is the end. What does not fit into
/// `bytes` is lost.
///
/// # Errors
/// As recvmsg(2).
pub fn receive_files(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 130];
    // SAFETY: as in `send_files`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of::<Control>();
    let flags = libc::MSG_CMSG_CLOEXEC;
    let count = syscall!(recvmsg(socket.as_raw_fd(), &raw mut message, flags))?;
    let mut files = Vec::new();
    // SAFETY: the kernel has filled in the headers that these walk over; the descriptors are ours
    // from here on, and each is taken once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(found) = header.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let size = found.cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                for at in 0..size / mem::size_of::<libc::c_int>() {
                    files.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((count as usize, files))
}

/// Options of a socket whose kernel speaks TLS (linux/tls.h), for which libc has no names.
mod ktls {
    pub const TX: libc::c_int = 1;
    pub const RX: libc::c_int = 2;
    pub const RX_EXPECT_NO_PAD: libc::c_int = 4;
    pub const SET_RECORD_TYPE: libc::c_int = 1;
    pub const GET_RECORD_TYPE: libc::c_int = 2;
}

/// Makes ready for the kernel's TLS (TCP_ULP): nothing changes before it has keys.
///
/// # Errors
/// As setsockopt(2): `ENOENT` when the kernel has no TLS, `ENOTCONN` when the connection has ended.
pub fn attach_tls(socket: &impl AsFd) -> io::Result<()> {
    let (fd, name) = (socket.as_fd().as_raw_fd(), b"tls");
    let size = name.len() as libc::socklen_t;
    syscall!(setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_ULP, name.as_ptr().cast(), size)).map(drop)
}

/// Gives the kernel the keys for what is sent or received from now on: one of the structures of
/// linux/tls.h that begin with `struct tls_crypto_info`.
///
/// # Errors
/// As setsockopt(2): `EBUSY` when there are keys already that this kernel cannot replace.
pub fn set_tls_keys(socket: &impl AsFd, for_sending: bool, info: &[u8]) -> io::Result<()> {
    let (fd, size) = (socket.as_fd().as_raw_fd(), info.len() as libc::socklen_t);
    let name = if for_sending { ktls::TX } else { ktls::RX };
    syscall!(setsockopt(fd, libc::SOL_TLS, name, info.as_ptr().cast(), size)).map(drop)
}

/// Says that the peer hardly pads its records, so that they need not be copied once more. Padded
/// records are received as well, more slowly.
///
/// # Errors
/// As setsockopt(2), when the kernel does not know this option.
pub fn expect_no_padding(socket: &impl AsFd) -> io::Result<()> {
    set(socket.as_fd(), libc::SOL_TLS, ktls::RX_EXPECT_NO_PAD, 1)
}

/// Sends a record of this type (RFC 8446, section 5.1) through the kernel's TLS, whole.
///
/// # Errors
/// As sendmsg(2).
pub fn send_record(socket: &impl AsFd, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: [u64; 4] = [0; 4];
    // SAFETY: msghdr is plain integers and pointers, for which all-zero bytes are a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: these are arithmetic and pointers into `control`, which is aligned and has room for a
    // header and a byte.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(1) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = ktls::SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as usize;
        *libc::CMSG_DATA(header) = kind;
    }
    let flags = libc::MSG_NOSIGNAL;
    syscall!(sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags)).map(drop)
}

/// Receives a record of any type through the kernel's TLS, or as much of it as there is room for.
/// Returns its type, if the kernel tells it, and its length. A length of 0 without a type is the end
/// of the stream.
///
/// # Errors
/// As recvmsg(2).
pub fn receive_record(socket: &impl AsFd, into: &mut [u8]) -> io::Result<(Option<u8>, usize)> {
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut control: [u64; 4] = [0; 4];
    // SAFETY: as in `send_record`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control);
    let count = syscall!(recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0))?;
    // SAFETY: the kernel has filled in the headers that these walk over, and the byte after one.
    let kind = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        header.as_ref().and_then(|found| {
            let is_type =
                (found.cmsg_level, found.cmsg_type) == (libc::SOL_TLS, ktls::GET_RECORD_TYPE);
            is_type.then(|| *libc::CMSG_DATA(header))
        })
    };
    Ok((kind, count as usize))
}

/// The time since the machine started (CLOCK_MONOTONIC, clock_gettime(2)): the same for every
/// process.
#[must_use]
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // It cannot fail: the clock exists, and the pointer is good.
    let _ = syscall!(clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time));
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits until a write to `to` would not fail with `WouldBlock`, at most for `timeout` if there is
/// one (poll(2)). False if it still would.
///
/// # Errors
/// As poll(2).
pub fn wait_writable(to: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: to.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let forever = |timeout: Duration| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let ready = syscall!(poll(&raw mut poll, 1, timeout.map_or(-1, forever)))?;
    Ok(ready > 0)
}

/// The user of the process at the other end of a Unix socket, when that connected (SO_PEERCRED,
/// unix(7)); `None` for any other socket.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_user(socket: &impl AsFd) -> io::Result<Option<u32>> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = mem::size_of_val(&peer) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), (&raw mut peer).cast());
    syscall!(getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut size))?;
    Ok((peer.uid != u32::MAX).then_some(peer.uid))
}

/// A file in memory with these bytes, which nobody can change any more (memfd_create(2)). `name` is
/// shown in /proc.
///
/// # Errors
/// As memfd_create(2) and write(2).
pub fn sealed_file(name: &CStr, bytes: &[u8]) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let raw = syscall!(memfd_create(name.as_ptr(), flags))?;
    // SAFETY: `raw` is a descriptor that we have just been given and that nobody else owns.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.write_all(bytes)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    syscall!(fcntl(raw, libc::F_ADD_SEALS, seals))?;
    Ok(file)
}

/// A file in memory of this many bytes, all of them zero, whose size nobody can change any more
/// (memfd_create(2)). `name` is shown in /proc.
///
/// # Errors
/// As memfd_create(2) and ftruncate(2).
pub fn memory_file(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let raw = syscall!(memfd_create(name.as_ptr(), flags))?;
    // SAFETY: `raw` is a descriptor that we have just been given and that nobody else owns.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.set_len(size)?;
    syscall!(fcntl(raw, libc::F_ADD_SEALS, libc::F_SEAL_SEAL | SIZE_SEALS))?;
    Ok(file.into())
}

/// What keeps the size of a file as it is.
const SIZE_SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// The first words of a [`memory_file`], which every process that has it shares (mmap(2)). They stay
/// for the life of the process.
///
/// # Errors
/// As mmap(2); `InvalidInput` for a file that is too small, or whose size might change.
pub fn shared_words(file: &impl AsFd, count: usize) -> io::Result<&'static [AtomicU64]> {
    let fd = file.as_fd().as_raw_fd();
    let seals = syscall!(fcntl(fd, libc::F_GET_SEALS))?;
    let size = count.checked_mul(mem::size_of::<AtomicU64>());
    let size = size.filter(|size| *size > 0).ok_or(io::ErrorKind::InvalidInput)?;
    let there = File::from(file.as_fd().try_clone_to_owned()?).metadata()?.len();
    if seals & SIZE_SEALS != SIZE_SEALS || there < size as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the kernel chooses the place, so nothing that this program has is mapped over.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), size, access, kind, fd, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // It may hold secrets, which are not for core dumps. Nothing else depends on it.
    let _ = syscall!(madvise(place, size, libc::MADV_DONTDUMP));
    // SAFETY: the mapping has this size, begins at a page, and is never removed. The file is as large
    // and cannot shrink, so all of it can be reached. Every value is one of an AtomicU64, and every
    // process reads and writes the words as such.
    Ok(unsafe { std::slice::from_raw_parts(place.cast::<AtomicU64>(), count) })
}

/// Keeps other processes of the same user from reading the memory and the descriptors of this one
/// (PR_SET_DUMPABLE, prctl(2)), as is so after a change of user.
pub fn protect_memory() {
    let [no, unused]: [libc::c_ulong; 2] = [0; 2];
    // It cannot fail: the value is one of those that there are.
    let _ = syscall!(prctl(libc::PR_SET_DUMPABLE, no, unused, unused, unused));
}

/// Makes this process the parent of its descendants whose own parents have ended
/// (PR_SET_CHILD_SUBREAPER, prctl(2)).
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    let [yes, unused]: [libc::c_ulong; 2] = [1, 0];
    syscall!(prctl(libc::PR_SET_CHILD_SUBREAPER, yes, unused, unused, unused)).map(drop)
}

/// Waits for the end of a child, whichever it is (waitpid(2)). Returns its number and its
/// [`exit_code`].
///
/// # Errors
/// As waitpid(2): `ECHILD` when there is none.
pub fn wait_child() -> io::Result<(u32, u8)> {
    let mut status = 0;
    let child = loop {
        match syscall!(waitpid(-1, &raw mut status, 0)) {
            Ok(child) => break child,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    Ok((child.unsigned_abs(), exit_code(&ExitStatus::from_raw(status))))
}

/// The exit code of a process as a shell has it: for one that was killed by a signal, 128 and the
/// signal's number.
#[must_use]
pub fn exit_code(status: &ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Sends a signal to a process (kill(2)).
///
/// # Errors
/// As kill(2).
pub fn send_signal(process: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Reload => libc::SIGHUP,
        Signal::ReopenLogs => libc::SIGUSR1,
        Signal::Upgrade => libc::SIGUSR2,
        Signal::Unused(_) => return Ok(()),
    };
    let process = libc::pid_t::try_from(process).map_err(|_| io::ErrorKind::InvalidInput)?;
    syscall!(kill(process, number)).map(drop)
}

/// Has the kernel kill the process that `command` starts (SIGKILL) when the thread that starts it
/// ends (PR_SET_PDEATHSIG, prctl(2)), in whatever way.
pub fn kill_with_parent(command: &mut Command) {
    let parent = i32::try_from(std::process::id()).unwrap_or(0);
    let prepare = move || {
        syscall!(prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))?;
        // It may have ended before the call.
        match syscall!(getppid())? == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    };
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(prepare) };
}

/// Lets the program that `command` starts begin as any other does: it leads a process group of its
/// own, no signal is blocked in it, and no descriptor is open but its three streams, not even one that
/// this process was started with.
pub fn detach_program(command: &mut Command) {
    command.process_group(0);
    let all = every_signal();
    let prepare = move || {
        // SAFETY: the set is initialised, and the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const all, std::ptr::null_mut()) };
        // Before Linux 5.11 there is no such call; this process itself opens none that would stay.
        let _ = syscall!(syscall(
            libc::SYS_close_range,
            STREAMS,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC
        ));
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(prepare) };
}

/// How many standard streams there are.
const STREAMS: libc::c_uint = 3;

fn every_signal() -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers, and the call only writes to it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// Kills every process of the group that `leader` leads (SIGKILL, kill(2)). It must not have been
/// waited for: its number could be another's by then.
///
/// # Errors
/// As kill(2).
pub fn kill_group(leader: u32) -> io::Result<()> {
    let leader = libc::pid_t::try_from(leader).map_err(|_| io::ErrorKind::InvalidInput)?;
    syscall!(kill(-leader, libc::SIGKILL)).map(drop)
}

/// Whether there is a process with this number, by what kill(2) says.
#[must_use]
pub fn exists(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else { return false };
    match syscall!(kill(process, 0)) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(libc::ESRCH),
    }
}

/// Locks the file for this process and its children, until all of them have closed it (flock(2)).
/// False when another process has it locked.
///
/// # Errors
/// As flock(2).
pub fn lock(file: &File) -> io::Result<bool> {
    match syscall!(flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// A user of this machine, as passwd(5) has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Id of its primary group.
    pub gid: u32,
}

/// Most bytes of one entry of passwd(5) or group(5): a group of ten thousand members fits.
const ENTRY: usize = 1 << 20;

/// Looks a user up by name; `None` when there is none.
///
/// # Errors
/// As getpwnam_r(3).
pub fn find_user(name: &CStr) -> io::Result<Option<User>> {
    let mut room = vec![0; ENTRY];
    let (mut entry, mut found) = (mem::MaybeUninit::<libc::passwd>::uninit(), std::ptr::null_mut());
    let (place, size) = (room.as_mut_ptr(), room.len());
    // SAFETY: everything passed is alive for the call, and the buffer goes with its own size.
    let code =
        unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), place, size, &raw mut found) };
    if found.is_null() {
        return not_found(code);
    }
    // SAFETY: `found` is not null, so it points to the entry, which has been filled in.
    let entry = unsafe { &*found };
    Ok(Some(User { uid: entry.pw_uid, gid: entry.pw_gid }))
}

/// Looks a group's id up by name; `None` when there is none.
///
/// # Errors
/// As getgrnam_r(3).
pub fn find_group(name: &CStr) -> io::Result<Option<u32>> {
    let mut room = vec![0; ENTRY];
    let (mut entry, mut found) = (mem::MaybeUninit::<libc::group>::uninit(), std::ptr::null_mut());
    let (place, size) = (room.as_mut_ptr(), room.len());
    // SAFETY: everything passed is alive for the call, and the buffer goes with its own size.
    let code =
        unsafe { libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), place, size, &raw mut found) };
    if found.is_null() {
        return not_found(code);
    }
    // SAFETY: `found` is not null, so it points to the entry, which has been filled in.
    Ok(Some(unsafe { (*found).gr_gid }))
}

/// The result when a lookup has found nothing: some C libraries report that as an error.
fn not_found<T>(code: libc::c_int) -> io::Result<Option<T>> {
    match code {
        0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The user and the group that the process acts as.
#[must_use]
pub fn acting_as() -> User {
    // SAFETY: these two take nothing and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    User { uid, gid }
}

/// Becomes `user` for good, in every thread: sets its supplementary groups (those of `name`, or
/// only its own), its group and its user id, in this order, because only root may do the first two.
///
/// # Errors
/// As initgroups(3), setgroups(2), setgid(2) and setuid(2).
pub fn become_user(name: Option<&CStr>, user: User) -> io::Result<()> {
    match name {
        Some(name) => syscall!(initgroups(name.as_ptr(), user.gid))?,
        None => syscall!(setgroups(1, &raw const user.gid))?,
    };
    syscall!(setgid(user.gid))?;
    syscall!(setuid(user.uid)).map(drop)
}

/// The signals that the programs take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: finish and exit.
    Terminate,
    /// SIGHUP: read the settings again.
    Reload,
    /// SIGUSR1: open the log files again.
    ReopenLogs,
    /// SIGUSR2: a new program takes over.
    Upgrade,
    /// SIGALRM, without the `SIG`. It means nothing to the programs, but would end them by
    /// default.
    Unused(&'static str),
}

/// The signals of [`Signal`].
const TAKEN: [libc::c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

fn signals(numbers: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers, and the calls only write to the one passed to them.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in numbers {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Keeps the signals of [`Signal`] from interrupting this thread and all that it starts: they
/// wait for [`wait_signal`]. Call it before any other thread exists.
///
/// SIGXFSZ is blocked too: a file at its size limit (RLIMIT_FSIZE) is then an error of write(2), as
/// a full disk is, and does not end the process.
pub fn block_signals() {
    let set = signals(&[&TAKEN[..], &[libc::SIGXFSZ]].concat());
    // SAFETY: the set is initialised, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for one of the signals of [`Signal`].
#[must_use]
pub fn wait_signal() -> Signal {
    let set = signals(&TAKEN);
    loop {
        let mut number = 0;
        // SAFETY: both point to live values for the length of the call.
        let failed = unsafe { libc::sigwait(&raw const set, &raw mut number) };
        match number {
            _ if failed != 0 => {}
            libc::SIGHUP => return Signal::Reload,
            libc::SIGUSR1 => return Signal::ReopenLogs,
            libc::SIGUSR2 => return Signal::Upgrade,
            libc::SIGALRM => return Signal::Unused("ALRM"),
            _ => return Signal::Terminate,
        }
    }
}

/// Gives a socket, or those that a listener accepts, the smallest buffers there are.
///
/// # Errors
/// As setsockopt(2).
#[cfg(any(test, fuzzing))]
pub fn shrink_buffers(socket: &impl AsFd) -> io::Result<()> {
    let least = 1;
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        set(socket.as_fd(), libc::SOL_SOCKET, option, least)?;
    }
    Ok(())
}

/// Sends `byte` as urgent data.
#[cfg(test)]
pub(super) fn send_urgent(socket: &impl AsFd, byte: u8) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    syscall!(send(fd, (&raw const byte).cast(), 1, libc::MSG_OOB)).map(drop)
}

/// How a file below a folder is opened.
#[derive(Clone, Copy, Debug)]
pub struct Beneath {
    /// Symbolic links are followed, as long as they stay below the folder.
    pub follows: bool,
    /// Only if all names on the way are in memory (RESOLVE_CACHED, Linux 5.12).
    pub is_cached: bool,
    /// Only on the file system of the folder.
    pub stays: bool,
}

/// `struct open_how` of linux/openat2.h.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a file below a folder for reading. Whatever its name and the links on the way are, nothing
/// outside the folder is opened, and nothing by a magic link (openat2(2), Linux 5.6). A FIFO without a
/// writer does not block.
///
/// # Errors
/// As openat2(2): `EXDEV` when the way leads out of the folder, `ELOOP` for a link that is not followed,
/// `EAGAIN` when something on the way is not in memory, or has changed meanwhile.
pub fn open_beneath(folder: BorrowedFd<'_>, name: &CStr, how: Beneath) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    if !how.follows {
        resolve |= libc::RESOLVE_NO_SYMLINKS;
    }
    if how.is_cached {
        resolve |= libc::RESOLVE_CACHED;
    }
    if how.stays {
        resolve |= libc::RESOLVE_NO_XDEV;
    }
    let how = OpenHow { flags: flags.unsigned_abs().into(), mode: 0, resolve };
    let raw = syscall!(syscall(
        libc::SYS_openat2,
        folder.as_raw_fd(),
        name.as_ptr(),
        &raw const how,
        mem::size_of_val(&how)
    ))?;
    // SAFETY: the descriptor, which fits, is one that we have just been given and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// The kind of the file system that an open file is on: the magic number of statfs(2).
///
/// # Errors
/// As fstatfs(2).
pub fn file_system(file: &impl AsFd) -> io::Result<u64> {
    // SAFETY: statfs is plain integers, for which all-zero bytes are a value.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    syscall!(fstatfs(file.as_fd().as_raw_fd(), &raw mut found))?;
    // An integer of another size on other machines; the numbers have 32 bits.
    Ok(u64::from(found.f_type as u32))
}

/// Reads from a file at `offset`, only what is in memory (RWF_NOWAIT, preadv2(2)).
///
/// # Errors
/// As preadv2(2): `EAGAIN` when nothing of it is in memory, `EOPNOTSUPP` when the file system cannot tell.
pub fn read_in_memory(file: &impl AsFd, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let place = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // The offset is in two words. On 64-bit machines the second is nothing.
    let (low, high) =
        (offset as libc::c_ulong, offset.checked_shr(libc::c_ulong::BITS).unwrap_or(0));
    let read = syscall!(syscall(
        libc::SYS_preadv2,
        file.as_fd().as_raw_fd(),
        &raw const place,
        1,
        low,
        high as libc::c_ulong,
        libc::RWF_NOWAIT
    ))?;
    Ok(read.unsigned_abs() as usize)
}

/// The number of cachestat(2) on all machines.
const SYS_CACHESTAT: libc::c_long = 451;

/// Whether the kernel has all pages of a part of a file in memory (cachestat(2), Linux 6.5). Some of them
/// may still be on their way from the disk.
///
/// # Errors
/// As cachestat(2): an older kernel does not know it, and newer ones only tell those that may write the
/// file.
pub fn has_pages(file: &impl AsFd, offset: u64, length: u64) -> io::Result<bool> {
    /// Every page size is a multiple of it.
    const PAGE: u64 = 4096;
    let (range, mut found) = ([offset, length], [0_u64; 5]);
    syscall!(syscall(
        SYS_CACHESTAT,
        file.as_fd().as_raw_fd(),
        range.as_ptr(),
        found.as_mut_ptr(),
        0
    ))?;
    let pages = (offset + length).div_ceil(PAGE) - offset / PAGE;
    Ok(length == 0 || found[0] >= pages)
}

/// Sends up to `limit` bytes of a file, from `offset` on, without copying them through the process
/// (sendfile(2)). 0 is the end of the file.
///
/// # Errors
/// `WouldBlock` when the socket is full; otherwise as sendfile(2).
pub fn send_file(
    socket: &impl AsFd,
    file: &impl AsFd,
    offset: u64,
    limit: usize,
) -> io::Result<usize> {
    let mut at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let (to, from) = (socket.as_fd().as_raw_fd(), file.as_fd().as_raw_fd());
    let sent = syscall!(sendfile(to, from, &raw mut at, limit))?;
    Ok(sent.unsigned_abs())
}

/// Asks the kernel to read a part of a file that will be needed (POSIX_FADV_WILLNEED, posix_fadvise(2)).
pub fn read_ahead(file: &impl AsFd, offset: u64, length: u64) {
    let part = [offset, length].map(|number| libc::off_t::try_from(number).unwrap_or(0));
    // It returns what is wrong: then the file is only read later.
    let _ = syscall!(posix_fadvise(
        file.as_fd().as_raw_fd(),
        part[0],
        part[1],
        libc::POSIX_FADV_WILLNEED
    ));
}

#[cfg(test)]
mod tests;
