//! The proxy from outside, one behaviour a file: the real binary on a free port, and literal bytes
//! on both sides of it.

// How backends come.
mod authorise;
mod certified_bridges;
mod handshake;
mod key_limits;
mod keys;
mod listeners;
mod narrowed;
mod ptth;
mod refusals;
mod revocation;
mod ruby;
mod swiftclient;

// Who gets which request, and when.
mod balance;
mod manager;
mod manager_start;
mod predicates;
mod proofs;
mod real_servers;
mod redis;
mod reuse;
mod run_time_sites;
mod servers;
mod sites;
mod specificity;
mod sticky;
mod sticky_waits;
mod tls_servers;
mod waiting;
mod waiting_page;
mod workers;

// What crosses the proxy.
mod bulk;
mod files;
mod heads;
mod hostile;
mod pieces;
mod pipelining;
mod places;
mod proxy_header;
mod receipts;
mod requests;
mod responses;
mod trust;
mod tunnels;
mod volume;
mod websocket;

// What goes wrong.
mod answers;
mod backend_faults;
mod careless;
mod deregistration;
mod dying;
mod gone;
mod hold;
mod limits;
mod retries;
mod silence;
mod slow_clients;
mod timeouts;
mod undelivered;
mod upgrade;
mod upgrade_old_programs;
mod upgrade_supervised;
mod upgrade_tls;
mod upgrade_tunnels;

// The process.
mod access_log;
mod admin;
mod agent_check;
mod ctl;
mod daemon;
mod diagnostics;
mod drain;
mod import;
mod info;
mod kept_bridges;
mod lifecycle;
mod log_formats;
mod log_load;
mod log_output;
mod open_cloudbridge;
mod page;
mod signals;
mod site_reload;
mod startup;
mod systemd;
mod tenant;
