//! cloudbridge: a reverse-reverse proxy for HTTP.
//!
//! An ordinary proxy dials its backends. Here the backends dial the proxy, register for host names
//! and wait; clients connect too; the proxy matches each request with a waiting backend.
//!
//! # Glossary
//!
//! | term | meaning |
//! | --- | --- |
//! | client | a sender of ordinary HTTP requests: a browser, haproxy, nginx |
//! | backend | an application process, or the agent in front of one, that connects *out* to the proxy |
//! | server | an application that the proxy dials itself |
//! | bridge | one connection from a backend to the proxy |
//! | parked | a bridge that is ready and waits for a request |
//! | waiter | a request that waits for a bridge |
//! | route | the host patterns and path prefix (or path expression) that a set of bridges serves |
//! | site | host names with a line of their own in the settings |
//! | swiftclient listener | an address where the proxy accepts the swiftclient backends of a site |
//! | scheduler | matches requests with bridges, one per worker |
//! | directory | all routes, shared by the workers |
//! | transfer | a bridge that moves to another worker |
//! | exchange | one request and its response, between a requester and a responder |
//! | deregistration | a backend's request to close its bridges (`Cloudbridge-Leave`) |
//! | places | how many requests a backend of several proxies takes at once |
//! | lingering close | send FIN, then discard input until the peer closes |
//! | upstream connection, slot | the agent's connection to its application, and the right to use one |
//!
//! # Modules, in reading order
//!
//! 1. [`http`]: HTTP/1.1 as pure functions: heads, body framing, rewriting, our own answers
//! 2. [`bridge`]: the BRIDGE handshake, host keys and the swiftclient preamble, as pure functions
//! 3. [`routing`]: matches requests and bridges, on one worker and between workers, without I/O
//! 4. [`net`]: sockets, buffers, pipes, timers, mailboxes and the event loop
//! 5. `tls`: certificates, keys and tickets
//! 6. [`exchange`]: one request and its response over two connections
//! 7. `upstream`: servers that are dialled: addresses, health, choice; `files`: files that are served
//! 8. [`proxy`]: the worker, which owns the tables and performs every effect
//! 9. [`config`]: one table of settings: file, flags, defaults and help
//! 10. [`client`] and [`agent`]: a library and a program for backends
//! 11. [`process`]: background, pidfile, user and group, systemd
//! 12. [`keytool`]: makes and checks host keys
//! 13. [`import`]: converts the settings of Swiftiply
//! 14. `fuzz`: what must hold whatever the bytes are (only in tests and under `--cfg fuzzing`)
//!
//! [`time`] and `backoff` are used by several of them. `src/clients/` holds modules for backends in
//! other languages, no Rust.
//!
//! Dependencies are one-way (`tests/house.rs` has the table): `proxy` and `agent` use `exchange`;
//! `exchange` uses `net`, `bridge` and `http`; none of the first four uses those after it.

/// What this was built from, in brackets: commit, date, compiler, target and features (`build.rs`).
pub const BUILD: &str = concat!("(", env!("CLOUDBRIDGE_BUILD"), ")");

/// What `--version` of a program prints, without a line end.
#[must_use]
pub fn version(program: &str) -> String {
    format!("{program} {} {BUILD}", env!("CARGO_PKG_VERSION"))
}

pub mod agent;
mod backoff;
pub mod bridge;
pub mod client;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod exchange;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod import;
pub mod keytool;
pub mod net;
pub mod process;
pub mod proxy;
pub mod routing;
pub mod time;
mod tls;
mod upstream;
