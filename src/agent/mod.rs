//! The agent: a program beside an application that holds the application's bridges to the proxies.
//!
//! It mirrors the proxy: the same event loop and the same exchanges, with a bridge as the requester
//! and an *upstream connection*, which leads to the application, as the responder. One thread does
//! everything but look names up and wait for signals.
//!
//! In reading order; each file uses only those before it:
//!
//! - [`service`], `file`, [`options`]: what a service is, the flat file, the command line
//! - `role`: what a connection is, with its states
//! - `slots`, `application`: how many requests an application takes, and whether it is up
//! - `descriptors`: how many requests the agent itself can take
//! - `lookup`, `pace`, `proxies`: where the proxies are, and when to dial them
//! - `supervision`: what systemd is told; `healthz`, `health`: where `/healthz` is answered, and what
//! - `state`: all of these in one struct, and how a connection leaves the tables
//! - `encryption`: connections by TLS
//! - `bridges`: dial, register, park, match
//! - `places`: which proxy may use those of the application, where there are several
//! - `tunnels`: their places, beside those of requests
//! - `requests`: read, start, finish, retry, give back
//! - `checks`, `trials`, `upstreams`: upstream connections: check, try, dial, pool, probe
//! - `deregister`: asking a proxy to close bridges; `services`: reload; `shutdown`: the end, and `idle`: for
//!   want of requests
//! - `upgrade`: how one agent replaces another
//! - `worker`, [`start`]: the events, the program
//! - [`echo`]: the mode without an application, which answers each request with the request

mod application;
mod bridges;
mod checks;
mod deregister;
mod descriptors;
pub mod echo;
mod encryption;
mod exchange_config;
mod file;
mod health;
mod healthz;
mod idle;
mod lookup;
pub mod options;
mod pace;
mod places;
mod proxies;
mod requests;
mod role;
pub mod service;
mod services;
mod shutdown;
mod slots;
pub mod start;
mod state;
mod supervision;
mod trials;
mod tunnels;
mod upgrade;
mod upstreams;
mod worker;
