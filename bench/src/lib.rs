//! What `bench/run` needs that no ordinary tool gives: the floors, a backend and a load.
//!
//! - [`relay`]: the loop of the two floors, which move bytes between a client and a backend and
//!   know no HTTP. `bin/relay-copy.rs` and `bin/relay-splice.rs` say how one direction moves its
//!   bytes.
//! - [`backend`]: an HTTP server for every system measured; the same loop listens for the ordinary
//!   proxies and dials out as bridges to cloudbridge. [`request`], [`site`], [`output`],
//!   [`dialler`], [`service`] and [`websocket`] are its parts.
//! - [`bulk`], [`pace`] and [`echo`]: the loads, on connections ([`client`], [`fleet`]) of their
//!   own.
//! - [`random`]: times at random, for the loads and the model of policies.
//! - [`wire`]: a socket with its latches and its output, which backend and loads have in common.
//! - [`sys`]: the system calls that std and mio do not offer; the only `unsafe` here.
//!
//! All of it is single-threaded, edge-triggered and made for the loopback: peers are trusted.

pub mod address;
pub mod backend;
pub mod bulk;
pub mod client;
pub mod conn;
pub mod dialler;
pub mod echo;
pub mod encrypted;
pub mod fleet;
pub mod histogram;
pub mod options;
pub mod output;
pub mod pace;
pub mod random;
pub mod relay;
pub mod request;
pub mod service;
pub mod site;
pub mod sys;
pub mod websocket;
pub mod wire;
