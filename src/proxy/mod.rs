//! The proxy: its workers, and what they share.
//!
//! A `Worker` is made of parts that keep their own rules: the event loop with its connections
//! (`net/event_loop.rs`), the exchanges (`exchange/driver.rs`), the scheduler
//! (`routing/scheduler.rs`), the acceptor (`listeners`), dialling (`dial`), the shutdown. Its
//! methods are the effects that need several of them, by subject:
//!
//! - `worker`: one turn; what to do with a connection that is ready or timed out
//! - `client`, `dispatch`: accept, read heads, decide what to do with them
//! - `reserve`: newcomers while there is no room
//! - `exchanges`, `retries`: a request meets its bridge; finish, fail, go to another
//! - `registration`, `swiftclient`, `deregistration`: backends come and go
//! - `backend_pool`: idle bridges: park, ping, match, move between workers
//! - `aside`, `silence`, `suspects`: backends that have gone silent
//! - `dial`: servers that the proxy dials
//! - `closing`: how connections enter the tables and end
//! - `reload`, `shutdown`, `info`
//!
//! `reason` has the reasons for answers of the proxy's own.
//! - `recording`: what is noted of a request for the access log
//! - `waiting`: what the log says of requests that wait
//!
//! `role` says what a connection can be, `state` what the workers share. [`start`] turns settings
//! into running workers. `listeners`, `sites`, `shares`, `leases`, `backends`, `stats` and
//! `access_log` are
//! parts.

mod access_log;
pub mod admin;
mod aside;
mod backend_pool;
mod backends;
mod careless;
mod client;
mod closing;
mod deregistered;
mod deregistration;
mod dial;
mod dispatch;
mod drain;
mod exchanges;
mod info;
mod leases;
mod listeners;
mod operator;
mod orders;
mod reason;
mod recording;
mod registration;
mod reload;
mod reserve;
mod retries;
mod role;
mod shares;
mod shutdown;
mod silence;
mod sites;
pub mod start;
mod state;
mod stats;
mod suspects;
mod swiftclient;
mod waiting;
mod waiting_names;
mod worker;

pub use state::Config;
