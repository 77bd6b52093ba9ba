//! Sockets and time, without meaning.
//!
//! This room knows bytes, readiness, deadlines and mail between threads. It knows no host
//! names and no HTTP: the rooms above it ([`crate::exchange`], [`crate::proxy`]) give the
//! bytes their meaning.
//!
//! Read [`token`] first (how an event finds its connection), then [`conn`], then the rest in
//! any order. All `unsafe` of the program is in [`sys`].

pub mod buffer;
pub mod conn;
pub mod connect;
pub mod event_loop;
pub mod ktls;
pub mod listener;
pub mod log_limiter;
pub mod mailbox;
pub mod pipe;
pub mod proxy_protocol;
pub mod resolver;
pub mod signals;
#[allow(unsafe_code)]
pub mod sys;
pub(crate) mod threads;
pub mod timer;
pub mod tls;
pub mod token;
mod window;
pub mod workspace;
