//! One request and its response.
//!
//! Two connections, a *requester* and a *responder*, have an *exchange*. In the proxy these are a
//! client and a bridge, in the agent a bridge and an upstream connection.
//!
//! `Exchanges` is the owner's table of them, and the only way to advance one: it lends an exchange
//! its two connections and the [`Workspace`] for one call, keeps the deadline, and returns how the
//! exchange ended. It does not park, retry or log; the owner does.
//!
//! Read `phase` first (the states), then `state` (how an exchange advances), `replay` (may a
//! request be sent again), `reuse` (which connections live on) and `error` (what follows from a
//! failure). `places` is what a responder says of itself meanwhile, `file` is a file that a response names.

pub mod body_pump;
mod config;
mod cookie;
mod driver;
mod error;
mod file;
pub(crate) mod half_close;
mod lent;
mod meta;
mod named;
mod phase;
pub(crate) mod places;
mod replay;
mod request;
mod response;
mod reuse;
mod state;
mod traffic;
mod tunnel;

#[cfg(test)]
mod tests;

pub use config::{BUDGET, ExchangeConfig, Timeouts};
pub(crate) use cookie::Cookie;
pub(crate) use driver::{Ended, Exchanges, Running};
pub(crate) use error::{Action, Answer, Cause, CloseMode, ExchangeError, Progress, SeenBy, Side};
pub(crate) use file::NamedFile;
pub use meta::{DeliveryReports, RequestMeta, RetryPolicy};
pub(crate) use phase::Exchange;
pub(crate) use request::{Beginning, Opening, Start};
pub use reuse::CloseScope;
pub(crate) use reuse::Reuse;
pub(crate) use state::Stage;
pub(crate) use traffic::Traffic;

pub use crate::net::workspace::Workspace;
