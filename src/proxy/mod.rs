//! The proxy: the workers, and what they share.
//!
//! A [`worker::Worker`] owns every table and carries out every effect: it is the only one that
//! inserts, removes, parks, retries and logs. Its methods are split by whose life they tell:
//!
//! - [`worker`]: one turn of the loop
//! - `tables`: how connections come into the tables, change what they are, and leave
//! - `arrivals`: accept, the first head, what a connection turns out to be
//! - `bridges`: the handshake, pings, parking, moving to another worker, leaving
//! - `departures`: backends that leave
//! - `guests`: backends that speak swiftclient
//! - `requests`: routing, waiting, beginning, finishing, trying again
//! - [`dial`]: servers that are dialled from here
//! - `lifecycle`: new settings, and the end
//! - `info`: what the info host answers
//!
//! and beside it stand [`start`] (from settings to running workers), [`role`] (what a connection is), [`shared`] (what the workers have in
//! common, and their mail), [`sites`] (what the settings say of each), [`gates`] (where it is listened), [`seats`] (what bridges hold of their host keys), [`stats`] and [`access`] (what is counted and written down).

pub mod access;
mod arrivals;
mod bridges;
mod departures;
pub mod dial;
pub mod gates;
pub mod guests;
mod info;
mod lifecycle;
mod requests;
pub mod role;
pub mod seats;
pub mod shared;
pub mod sites;
pub mod start;
pub mod stats;
mod tables;
pub mod worker;
