//! What is for the main thread.

use std::path::PathBuf;

use super::super::redis::Found;
use super::super::site_change::SiteChange;

/// What is asked of the main thread: by the admin listener, with the number to answer with, or by the
/// threads that ask Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Read the settings again.
    Reload(u64),
    /// Finish what is in flight and exit.
    Stop(u64),
    /// Start the program again, or this one in its place, and leave everything to it.
    Upgrade(u64, Option<PathBuf>),
    /// Make, change or remove a site.
    Site(u64, SiteChange),
    /// Put the servers that Redis names in force.
    Servers(Found),
}
