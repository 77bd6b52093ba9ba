//! The proxy: its workers, and what they share.
//!
//! A `Worker` is made of parts that keep their own rules: the event loop with its connections
//! (`net/event_loop.rs`), the exchanges (`exchange/driver.rs`), the scheduler
//! (`routing/scheduler.rs`), the acceptor (`listeners`), dialling (`dial`), the shutdown. Its
//! methods are the effects that need several of them, by subject:
//!
//! - `worker`: one turn; what to do with a connection that is ready or timed out
//! - `client`, `dispatch`, `facts`: accept, read heads, decide what to do with them
//! - `balance`: a new connection goes to the worker with fewer clients
//! - `reserve`: newcomers while there is no room
//! - `proxy_header`: proxies in front that announce their clients
//! - `exchanges`, `retries`: a request meets its bridge; finish, fail, go to another
//! - `files`: a client gets a file (`file_roots`, `file_lookup`, `sending`: from where, which, and how)
//! - `registration`, `swiftclient`, `deregistration`: backends come and go
//! - `challenges`: backends prove their host keys
//! - `revocation`: bridges lose their host keys
//! - `authorised`: a program is asked about bridges (`authoriser`, `authorise_call`: what it is asked and
//!   has answered, and how)
//! - `limiting`, `pacing`: bridges get other limits; the bytes of keys that may move only so many (`key_limits`, `pace`, `terms`: what keys may
//!   use, how it is paced, and what of it a bridge keeps)
//! - `backend_pool`: idle bridges: park, ping, match, move between workers
//! - `places`, `telling`: backends of several proxies, which take only so many requests
//! - `aside`, `silence`, `suspects`: backends that have gone silent
//! - `instance`, `sticky`, `sticky_keys`: clients that come back to the same backend
//! - `kept_bridges`: what is said of bridges that systemd keeps
//! - `dial`: servers that the proxy dials
//! - `closing`: how connections enter the tables and end
//! - `reload`, `shutdown`, `info`
//! - `tenant`, `failures`: what the holder of a host key sees; `page`: a document of the proxy's own
//! - `replaced`, `replacing`, `moved_tunnels`: connections that go to a new program, or come from an
//!   old one
//!
//! - `recording`: what is noted of a request for the access log
//! - `waiting`: what the log says of requests that wait; `waiting_page`: what a browser sees
//! - `managers`, `manager_call`: those who start backends that requests wait for
//!
//! `reason` and `error_pages` are the reasons and the bodies of answers of the proxy's own,
//! `answers` is how a client gets one.
//! `role` says what a connection can be, `state` what the workers share. [`start`] turns settings
//! into running workers. `listeners`, `sites`, `shares`, `leases`, `proofs`, `backends`, `stats`,
//! `request_ids`, `problems` and `access_log` are parts. [`upgrade`] is how one program replaces another.
//! With systemd deal `passed` (sockets that it opens), `store` and `listener_names` (sockets that it
//! keeps), `bridge_store` and `bridge_table` (bridges that it keeps), and [`supervision`] (what it is
//! told).

mod access_log;
pub mod admin;
mod admin_token;
mod answers;
mod arrivals;
mod aside;
mod authorise_call;
mod authorised;
mod authoriser;
mod backend_pool;
mod backends;
mod balance;
mod bridge_store;
mod bridge_table;
mod careless;
mod certificates;
mod certified;
mod challenges;
mod client;
mod closing;
mod deregistered;
mod deregistration;
mod dial;
mod dispatch;
mod drain;
mod error_pages;
mod exchanges;
mod facts;
mod failures;
mod file_lookup;
mod file_roots;
mod file_texts;
mod files;
mod in_use_elsewhere;
mod info;
mod instance;
mod kept_bridges;
mod key_limits;
mod leases;
mod limiting;
mod listener_names;
mod listeners;
mod losses;
mod manager_call;
mod managers;
mod moved_tunnels;
mod operator;
mod orders;
mod pace;
mod pacing;
mod page;
mod passed;
mod places;
mod problems;
mod proofs;
mod proxy_header;
mod reason;
mod recording;
mod redis;
mod redis_password;
mod registration;
mod relays;
mod reload;
mod replaced;
mod replacing;
mod request_ids;
mod reserve;
mod retries;
mod revocation;
mod role;
mod secret_files;
mod sending;
mod shares;
mod shutdown;
mod silence;
mod site_change;
mod site_changes;
mod sites;
pub mod start;
mod state;
mod stats;
mod sticky;
mod sticky_keys;
mod store;
pub mod supervision;
mod suspects;
mod swiftclient;
mod telling;
mod tenant;
mod terms;
mod through_old;
mod tls;
mod tls_files;
mod updates_file;
pub mod upgrade;
mod waiting;
mod waiting_names;
mod waiting_page;
mod worker;

pub use state::Config;
