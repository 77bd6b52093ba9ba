//! Reading files without waiting for a disk, or with it.

use std::io;
use std::os::unix::fs::FileExt;

use crate::net::sys;

use super::file::{Nearness, OpenFile};

/// How far apart the bytes are by which it is seen whether a part of a file is in memory: half of what the
/// kernel reads ahead at once, if nobody has set that lower (`read_ahead_kb`, 128).
const STRIDE: u64 = 64 * 1024;

/// How much the kernel is asked to read behind what is waited for.
const AHEAD: u64 = 1024 * 1024;

/// What a read that must not wait has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Read {
    /// All that was asked for.
    Whole,
    /// It would have to wait.
    NotNow,
    /// The file has become shorter, or cannot be read.
    Cut,
}

impl OpenFile {
    /// Fills `into` with what is at `offset`, if it is in memory.
    pub(crate) fn read_at_once(&self, into: &mut [u8], offset: u64) -> Read {
        if into.is_empty() {
            return Read::Whole;
        }
        if self.nearness == Nearness::Remote {
            return Read::NotNow;
        }
        let mut done = 0;
        if self.nearness == Nearness::Disk {
            match sys::read_in_memory(&self.file, into, offset) {
                Ok(0) => return Read::Cut,
                Ok(count) => done = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::NotNow,
                Err(_) => {}
            }
            if done == into.len() {
                return Read::Whole;
            }
            // What is missing is not there, or the file system cannot tell.
            let rest = (into.len() - done) as u64;
            if !sys::has_pages(&self.file, offset + done as u64, rest).unwrap_or(false) {
                return Read::NotNow;
            }
        }
        match self.file.read_exact_at(&mut into[done..], offset + done as u64) {
            Ok(()) => Read::Whole,
            Err(_) => Read::Cut,
        }
    }

    /// Whether a part of the file is in memory, so that sending it does not wait.
    pub(crate) fn is_in_memory(&self, offset: u64, length: u64) -> bool {
        match self.nearness {
            Nearness::Memory => return true,
            Nearness::Remote => return false,
            Nearness::Disk => {}
        }
        let end = offset + length;
        let mut at = offset;
        while at < end {
            match sys::read_in_memory(&self.file, &mut [0], at) {
                // The end of a file that has become shorter shows when it is sent.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => return sys::has_pages(&self.file, offset, length).unwrap_or(false),
            }
            at = if at == end - 1 { end } else { (at + STRIDE).min(end - 1) };
        }
        true
    }

    /// Reads a part of the file, however long that takes, and has the kernel read on behind it.
    ///
    /// # Errors
    /// As read(2); `UnexpectedEof` if the file has become shorter.
    pub(crate) fn read_waiting(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.nearness == Nearness::Disk && offset + (length as u64) < self.size {
            sys::read_ahead(&self.file, offset, length as u64 + AHEAD);
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The file, to be sent.
    pub(crate) fn source(&self) -> &std::fs::File {
        &self.file
    }
}
