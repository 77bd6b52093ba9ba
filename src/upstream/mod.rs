//! Upstream servers: what is dialled on behalf of requests, by the agent (its applications) and by
//! the proxy (`servers=` of a site).
//!
//! This room knows where a server is ([`Addresses`]), whether it is up ([`Health`], [`Tally`],
//! [`Doubt`]), and which of several is next ([`pick`]). It is pure except for [`connect`],
//! [`read_check`], `redis`, which asks Redis for servers, and `blocking`, by which threads dial: time is
//! an argument, and the owner dials, looks names up and sets deadlines.

mod addresses;
pub(crate) mod blocking;
mod check;
mod doubt;
mod health;
mod pick;
pub(crate) mod redis;
mod resp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;

use crate::config::Destination;
use crate::net::connect;
use crate::net::sys::SocketOptions;

pub(crate) use addresses::Addresses;
pub(crate) use check::{
    CHECK_TIMEOUT, Tally, read as read_check, request as check_request,
    timed_out as check_timed_out,
};
pub(crate) use doubt::Doubt;
pub(crate) use health::{Health, Purpose};
pub(crate) use pick::{Candidate, pick};

/// Begins to connect to `to`: to `address`, unless it is a Unix socket. Also returns the peer's
/// address; for a Unix socket, this machine's and no port.
///
/// # Errors
/// As connect(2), where it fails at once; `NotFound` if there is no address.
pub(crate) fn connect(
    to: &Destination,
    address: Option<SocketAddr>,
    options: &SocketOptions,
) -> io::Result<(TcpStream, SocketAddr)> {
    match (to, address) {
        (Destination::Unix(path), _) => {
            Ok((connect::connect_unix(path)?, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
        }
        (_, Some(address)) => Ok((connect::connect(address, options)?, address)),
        (_, None) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
    }
}
