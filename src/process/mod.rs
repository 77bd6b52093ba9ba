//! The process: background, user and group, pidfile, systemd.
//!
//! This room does not know what the program does. A program uses it in this order:
//!
//! 0. [`activation`] and [`watchdog`]: what systemd has given the process that it started
//! 1. [`starter::Starter`]: foreground, or background with a parent that waits for the result of
//!    the start
//! 2. [`pidfile::Pidfile::claim`]: only one process
//! 3. (sockets are bound and files are opened, perhaps as root)
//! 4. `identity::Identity::assume`: drops root
//! 5. [`pidfile::Pidfile::write`], [`notify`] and [`starter::Starter::serving`]: it serves
//!
//! [`upgrade`] is how one program replaces another, [`channel`] is the channel between the two.
//!
//! [`logging`] is the program's log; like every log it is written by a [`line_writer`], to a file,
//! a standard stream or a `datagram` socket. `journal` is for those that systemd starts. `processes`
//! knows the other processes of the machine. With [`panics::end_process`] no thread outlives the panic
//! of another.

pub mod activation;
pub mod channel;
pub(crate) mod datagram;
pub(crate) mod identity;
pub(crate) mod journal;
pub mod line_writer;
pub(crate) mod logfile;
pub mod logging;
pub mod notify;
pub mod panics;
pub mod pidfile;
pub(crate) mod processes;
pub mod starter;
pub mod upgrade;
pub mod watchdog;
