//! What is for the main thread.

use std::path::PathBuf;

/// What the admin listener asks of the main thread, with the number to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Read the settings again.
    Reload(u64),
    /// Finish what is in flight and exit.
    Stop(u64),
    /// Start the program again, or this one in its place, and leave everything to it.
    Upgrade(u64, Option<PathBuf>),
}
