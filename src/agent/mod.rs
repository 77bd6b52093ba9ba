//! The agent: the program that stands beside a backend and holds its bridges to the proxy.
//!
//! It is the proxy's loop seen from the other side: one thread, one poll, the same connections and
//! the same exchanges, with a bridge as the requester and a connection to the application, here
//! called a *line*, as the responder.
//!
//! In reading order:
//!
//! - [`options`], [`service`] and `file`: the command line, what one service is, and the flat file
//! - [`start`]: from there to a running loop, and the signals; `services`: reading it again
//! - `worker`: the tables and one turn; `role`: what a connection is at the moment
//! - `proxies`: where to dial, when, and how often; `resolve`: names, off the loop
//! - `bridges`: dial, register, parked, matched; deregistration
//! - `application`: the places (`-n`), the idle lines, whether the application is there; `lines`:
//!   what is done about it
//! - `requests`: begin, finish, retry, give back
//! - `leaving`: the end; `farewell`: asking a proxy to close bridges
//! - [`echo`]: the mode that is its own backend, and answers each request with the request

mod application;
mod bridges;
pub mod echo;
mod farewell;
mod file;
mod leaving;
mod lines;
pub mod options;
mod proxies;
mod requests;
mod resolve;
mod role;
pub mod service;
mod services;
pub mod start;
mod worker;
