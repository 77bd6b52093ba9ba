//! cloudbridge: a reverse-reverse proxy for HTTP.
//!
//! Ordinary proxies dial their backends. Here the backends dial the proxy, say which host names
//! they serve, and wait; clients connect too; the proxy matches each request with a waiting
//! backend.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | client | whoever sends ordinary HTTP requests: a browser, haproxy, nginx |
//! | backend | an application process (or the agent in front of one) that connects *out* to the proxy |
//! | bridge | one connection that a backend opened to the proxy |
//! | parked | a bridge that is ready and waits for a request |
//! | waiting | a client's request that has been read and waits for a bridge |
//! | route | what a set of bridges serves: host patterns and a path prefix, or an expression on the path |
//! | site | names that have a line of their own in the settings |
//! | inlet | an address at which backends of a site come in that speak swiftclient |
//! | exchange | one request and its response, between one client and one bridge |
//!
//! # The house, in reading order
//!
//! 1. [`http`] — HTTP/1.1 as pure functions: heads, body framing, rewriting, our own answers
//! 2. [`bridge`] — the BRIDGE handshake, host keys and the swiftclient preamble, pure too
//! 3. [`routing`] — who waits for whom, on this worker and on the others, pure too
//! 4. [`net`] — sockets, buffers, pipes, deadlines, mail; knows no host names
//! 5. [`exchange`] — one request and its response over two connections
//! 6. [`proxy`] — the worker: owns the tables and carries out every effect
//! 7. [`config`] — one table of settings: file, flags, defaults and help
//! 8. [`client`] and [`agent`] — the other side: a library and a program for backends
//! 9. [`process`] — the background, the pidfile, another user, systemd
//! 10. [`keytool`] — makes and checks host keys, for those who hand them out
//! 11. [`import`] — settings of the original, as settings of ours
//!
//! `clients/` beside them has modules for backends in other languages, and no Rust.
//!
//! Dependencies point one way: `proxy` and `agent` use `exchange`; `exchange` uses `net` and
//! `http`; the first four rooms use nothing of the others.

pub mod agent;
mod backoff;
pub mod bridge;
pub mod client;
pub mod config;
pub mod exchange;
pub mod http;
pub mod import;
pub mod keytool;
pub mod net;
pub mod process;
pub mod proxy;
pub mod routing;
pub mod time;
