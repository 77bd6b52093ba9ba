//! System calls that std and mio do not offer. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// A pipe, as the two ends `splice` needs. Both ends are non-blocking.
#[derive(Debug)]
pub struct Pipe {
    /// The end bytes come out of.
    pub output: OwnedFd,
    /// The end bytes go into.
    pub input: OwnedFd,
}

impl Pipe {
    /// Opens a pipe. `capacity` is in bytes; `None` leaves the kernel's default (64 KiB).
    ///
    /// Fails when descriptors run out, or when the capacity is above `/proc/sys/fs/pipe-max-size`.
    pub fn open(capacity: Option<i32>) -> io::Result<Pipe> {
        let mut ends = [-1; 2];
        // SAFETY: `ends` has room for the two descriptors pipe2 writes.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: pipe2 succeeded, so both descriptors are open and nobody else owns them.
        let pipe = unsafe {
            Pipe { output: OwnedFd::from_raw_fd(ends[0]), input: OwnedFd::from_raw_fd(ends[1]) }
        };
        if let Some(bytes) = capacity {
            // SAFETY: F_SETPIPE_SZ takes an int and touches no memory of ours.
            check(unsafe { libc::fcntl(pipe.input.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
        }
        Ok(pipe)
    }
}

/// Moves at most `most` bytes between a socket and a pipe without copying them; returns how many, 0
/// at the end of the stream.
///
/// Never blocks: `WouldBlock` when the source is empty or the destination full.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are borrowed, hence open; the offsets are null, which sockets and pipes require.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            most,
            flags,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// A timer that epoll can wait for: `epoll_wait` itself only knows milliseconds, and a delay of 2
/// ms must not become 3.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// Opens a timer that is not set.
    pub fn open() -> io::Result<Timer> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: takes two ints and touches no memory of ours.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: timerfd_create succeeded, so the descriptor is open and ours alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Timer { fd })
    }

    /// Sets the timer to go off once, `after` from now, in place of whatever was set.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        // All zero would mean "unset" (timerfd_settime(2)), so what is due now is due in a
        // nanosecond.
        let after = after.max(Duration::from_nanos(1));
        let when = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: after.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        // SAFETY: `when` lives for the call, and a null old value is allowed.
        check(unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &when, ptr::null_mut()) })?;
        Ok(())
    }

    /// The descriptor to register. Edge-triggered, it need not be read: each expiry is an edge.
    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn splice_moves_bytes_between_pipes_and_says_when_it_would_block() {
        let (first, second) = (Pipe::open(None).unwrap(), Pipe::open(Some(1 << 20)).unwrap());
        let empty = splice(first.output.as_fd(), second.input.as_fd(), 100).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        File::from(first.input).write_all(b"seven b").unwrap();
        assert_eq!(splice(first.output.as_fd(), second.input.as_fd(), 100).unwrap(), 7);
        assert_eq!(splice(first.output.as_fd(), second.input.as_fd(), 100).unwrap(), 0);
        drop(second.input);
        let mut all = String::new();
        File::from(second.output).read_to_string(&mut all).unwrap();
        assert_eq!(all, "seven b");
    }
}
