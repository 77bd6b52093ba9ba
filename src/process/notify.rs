//! Notifies systemd of the state of the process (sd_notify(3), units of `Type=notify`).
//!
//! A state is one datagram to the socket in `NOTIFY_SOCKET`, with descriptors for systemd to keep
//! (`FileDescriptorStoreMax=`). Failures are logged, because without the notification systemd kills
//! the unit after its start timeout.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::net::sys;

/// Where systemd listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How long to wait for systemd until it reads a state. What it is to keep, and what not, is waited for
/// without end: nobody would say it again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many descriptors systemd keeps. Since version 254 systemd sets it where
/// `FileDescriptorStoreMax=` does; for older ones the unit sets both.
const STORE: &str = "FDSTORE";

/// Whether somebody wants to be told.
#[must_use]
pub fn is_wanted() -> bool {
    std::env::var_os(SOCKET).is_some()
}

/// The process serves now. The process ID is included, because a process in the background is not
/// the one that systemd started.
pub fn ready() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// Another process serves from now on, which this one has started.
pub fn replaced_by(process: u32) {
    tell(&format!("MAINPID={process}"));
}

/// The process reads its settings again. [`reloaded`] must follow.
pub fn reloading() {
    // systemd compares the time with that of its own signal (`Type=notify-reload`).
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic().as_micros()));
}

/// It has read them, with whatever result.
pub fn reloaded() {
    tell("READY=1");
}

/// The process has begun to shut down.
pub fn stopping() {
    tell("STOPPING=1");
}

/// What the process does, in one line for `systemctl status`.
pub fn status(line: &str) {
    tell(&format!("STATUS={}", line.replace('\n', " ")));
}

/// The process is alive (`WatchdogSec=`).
pub fn alive() {
    tell("WATCHDOG=1");
}

/// It starts or stops, and needs up to so much time from now on until it says this again or is done.
/// It shortens nothing.
pub fn extend_timeout(time: Duration) {
    tell(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
}

/// How many descriptors systemd keeps for the next process; 0 for none.
#[must_use]
pub fn store_size() -> usize {
    let size = std::env::var(STORE).ok().and_then(|size| size.parse().ok());
    size.filter(|_| is_wanted()).unwrap_or(0)
}

/// Has systemd keep copies of these descriptors, and pass them to the next process under this name,
/// unless it has them already. It does not watch them: they are no less good when nobody uses them.
pub fn store(name: &str, files: &[BorrowedFd<'_>]) {
    for files in files.chunks(sys::MOST_FILES) {
        tell_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), files, None);
    }
}

/// Has systemd keep a copy of a connection under this name, until the connection has ended in both
/// directions: systemd sees that by itself.
///
/// # Errors
/// As connect(2) and sendmsg(2). It waits while systemd is slow.
pub fn store_connection(name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
    let Some(socket) = std::env::var_os(SOCKET) else { return Ok(()) };
    send(&socket, &format!("FDSTORE=1\nFDNAME={name}"), &[file], None)
}

/// Has systemd close what it keeps under this name.
pub fn forget(name: &str) {
    tell_with(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[], None);
}

fn tell(state: &str) {
    tell_with(state, &[], Some(TIMEOUT));
}

fn tell_with(state: &str, files: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&socket, state, files, timeout) {
        log::warn!("cannot notify systemd of {}: {error}", state.replace('\n', " "));
    }
}

/// Waits no longer than `timeout` for systemd to read what it has been told before.
fn send(
    socket: &OsStr,
    state: &str,
    files: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let connected = UnixDatagram::unbound()?;
    connected.connect_addr(&address)?;
    connected.set_write_timeout(timeout)?;
    sys::send_files(connected.as_fd(), state.as_bytes(), files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_that_does_not_read_is_not_waited_for_without_end() {
        let path = std::env::temp_dir().join(format!("cloudbridge-full-{}", std::process::id()));
        let _listener = UnixDatagram::bind(&path).unwrap();
        let timeout = Some(Duration::from_millis(1));
        let refused = (0..100_000).find_map(|_| send(path.as_os_str(), "X=1", &[], timeout).err());
        std::fs::remove_file(path).unwrap();
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let name = format!("cloudbridge-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (listener, socket) in [(by_path, path.clone()), (by_name, format!("@{name}").into())] {
            let send = |state, files: &[_]| send(socket.as_os_str(), state, files, None);
            send("READY=1", &[]).unwrap();
            send("FDSTORE=1", &[listener.as_fd(); 2]).unwrap();
            let mut bytes = [0; 64];
            for (sent, files) in [("READY=1", 0), ("FDSTORE=1", 2)] {
                let (length, received) = sys::receive_files(listener.as_fd(), &mut bytes).unwrap();
                assert_eq!(&bytes[..length], sent.as_bytes());
                assert_eq!(received.len(), files);
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
