//! What names are looked up for.

use std::io;
use std::sync::Arc;

use super::worker::Mail;
use crate::net::mailbox::Mailbox;
use crate::net::resolver;
pub(super) use crate::net::resolver::Found;

/// For whom a name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// The proxy of this index.
    Proxy(usize),
    /// The cluster of this index.
    Cluster(usize),
    /// The application of this index.
    Application(usize),
}

/// The thread that looks names up.
pub(super) type Resolver = resolver::Resolver<For>;

/// Starts the thread; its answers go to `mailbox`.
///
/// # Errors
/// When the thread cannot be had.
pub(super) fn start(mailbox: Arc<Mailbox<Mail>>) -> io::Result<Resolver> {
    Resolver::start(move |whom, found| mailbox.send(Mail::Found(whom, found)))
}
