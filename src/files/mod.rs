//! Files: which one a path names, whether it is there, what of it a request gets, and how it is read
//! without stopping an event loop.
//!
//! A worker tries to open and read everything itself, in ways that fail rather than wait for a disk.
//! What fails goes to the threads of its folder, which may wait. So files that are in memory cost no
//! change of threads, and a slow disk costs other requests nothing; nor do other folders wait for it,
//! since each has threads of its own.
//!
//! Read in this order: [`name`] (from a path to a name below a folder, pure), [`file`] (a file that is
//! open, with what is said of it), [`root`] (a folder, and how files below it are opened), [`reading`]
//! (reading without waiting), [`cache`] (open files, for a
//! second), [`response`] (the head of a response, and the bytes behind it).
//!
//! Nothing here knows sites, connections or workers.

pub(crate) mod cache;
pub(crate) mod file;
pub(crate) mod name;
pub(crate) mod reading;
pub(crate) mod response;
pub(crate) mod root;
#[cfg(test)]
mod tests;

pub(crate) use cache::{Cache, Known};
pub(crate) use file::OpenFile;
pub(crate) use reading::Read;
pub(crate) use response::{Asked, Body, Kept, Piece, Planned};
pub(crate) use root::{Opened, Root, Way};
