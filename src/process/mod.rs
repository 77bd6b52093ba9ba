//! The process itself: in the background, under another user, with a pidfile, known to systemd.
//!
//! This room knows nothing of what the program does. The order in which a program uses it:
//!
//! 1. [`starter::Starter`]: stay in the foreground, or leave a parent behind that waits to hear how
//!    the start went
//! 2. [`pidfile::Pidfile::claim`]: one process of a kind
//! 3. (sockets are bound and files are opened, perhaps with root's rights)
//! 4. [`identity::Identity::assume`]: no root from here on
//! 5. [`pidfile::Pidfile::write`], [`notify`] and [`starter::Starter::serving`]: it serves

pub mod identity;
pub mod logfile;
pub mod notify;
pub mod pidfile;
pub mod starter;
