//! What a connection is to the agent.

use std::net::{IpAddr, SocketAddr};

use crate::bridge::extensions::Extensions;
use crate::client::handshake::Proving;
use crate::exchange::RequestMeta;
use crate::exchange::body_pump::BodyPump;
use crate::net::event_loop::Connection;
use crate::net::token::Token;
use crate::time::Millis;

pub(super) enum Role {
    Bridge(Bridge),
    Upstream(Upstream),
    Deregistration(Deregistration),
    /// A connection from somebody who asks how the agent is (`health.rs`).
    Asker,
}

/// A connection to a proxy.
pub(super) struct Bridge {
    pub proxy: usize,
    /// Index of the application that it is registered for.
    pub application: usize,
    /// The address of the proxy that it is connected to.
    pub address: SocketAddr,
    /// What the proxy at that address supports.
    pub extensions: Extensions,
    /// The proxy has been asked to close it, and does so once it is unused.
    pub deregistering: bool,
    /// Whose request it carries, to the application's arbiter (`places.rs`).
    pub party: usize,
    /// It holds one of the application's slots.
    pub slot: bool,
    /// Its place among the application's tunnels.
    pub tunnel: TunnelPlace,
    /// The upstream connection that is being dialled or reserved for it.
    pub upstream: Option<Token>,
    /// The rest of the body of a request that has been given back.
    pub unread: Option<Box<BodyPump>>,
    pub stage: Stage,
}

/// A bridge's place among its application's tunnels.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TunnelPlace {
    #[default]
    None,
    /// Its request asks for a tunnel.
    Reserved,
    /// It is one.
    Open,
}

/// The stage of a bridge.
///
/// ```text
///     Connecting ──> Registering ──> Parked ──> Matched ──> Acknowledged ─┐
///                                                                         v
///                              Idle <── Exchanging <── Pending <── (a request's head)
///                               └─────────────────────────────────────────^
/// ```
///
/// What is given back for lack of a place is neither acknowledged nor pending: the bridge is Idle again,
/// perhaps by way of Discarding.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// Connecting, after this many addresses that failed.
    Connecting { tried: usize },
    /// BRIDGE has been sent; there is no answer yet but, perhaps, a nonce.
    Registering { proving: Proving },
    /// Accepted at this time; pings come until there is a request.
    Parked { since: Millis },
    /// The 101 has come. The acknowledgement follows once the bridge has a slot and an upstream
    /// connection.
    Matched,
    /// The acknowledgement has been sent, and a request follows.
    Acknowledged,
    Idle {
        /// The input holds a part of the next head.
        begun: bool,
    },
    /// The input holds a whole head, which waits for a slot or an upstream connection.
    Pending(Request),
    /// Its request is being served.
    Exchanging { exchange: usize },
    /// Its request has been given back, and the rest of the body is discarded.
    Discarding,
}

/// A request that has been read.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub meta: RequestMeta,
    /// An upstream connection broke with it: the application may have seen some of it.
    pub delivered: bool,
}

/// A connection to an application.
pub(super) struct Upstream {
    pub application: usize,
    /// One of its requests had a body.
    pub carried_body: bool,
    /// Its last request had one.
    pub last_had_body: bool,
    /// The client that it has been announced for, with `--send-proxy`: it carries requests of no
    /// other.
    pub client: Option<IpAddr>,
    pub state: UpstreamState,
}

/// What an upstream connection is doing.
#[derive(Clone, Copy)]
pub(super) enum UpstreamState {
    /// Connecting to see whether the application is up, after this many addresses that failed.
    Probing {
        tried: usize,
    },
    /// Being asked whether it is well; the connection is for nothing else.
    Checking,
    /// Connecting for this bridge.
    Connecting {
        bridge: Token,
    },
    /// Connected for this bridge, while there is doubt whether the application is still there: it
    /// must stand for a moment before it is used.
    OnTrial {
        bridge: Token,
    },
    /// Reserved for this bridge, which has acknowledged and expects a request.
    Reserved {
        bridge: Token,
        reused: bool,
    },
    Idle,
    Exchanging {
        exchange: usize,
    },
}

/// A connection on which a proxy is asked to close bridges.
pub(super) struct Deregistration {
    pub proxy: usize,
    /// The address that those bridges are connected to.
    pub address: SocketAddr,
    /// The request. It holds the keys, so it is never shown.
    pub request: Vec<u8>,
    /// What is sent first, until it has been.
    pub first: Vec<u8>,
    pub proving: Proving,
}

/// The bridge on `connection`, if it is unused: closing it loses no request.
pub(super) fn unoccupied_bridge(connection: &Connection<Role>) -> Option<&Bridge> {
    let Some(Role::Bridge(bridge)) = connection.role() else { return None };
    let unoccupied = match bridge.stage {
        Stage::Connecting { .. } | Stage::Registering { .. } | Stage::Parked { .. } => true,
        // If its input holds a request, it is closed only once that has been read: a proxy that
        // cannot send the request again must be told.
        Stage::Idle { .. } => connection.conn.is_idle(),
        _ => false,
    };
    unoccupied.then_some(bridge)
}

impl Upstream {
    /// Whether it serves no bridge.
    pub fn is_unused(&self) -> bool {
        matches!(
            self.state,
            UpstreamState::Probing { .. } | UpstreamState::Checking | UpstreamState::Idle
        )
    }

    /// Whether it must stand for a moment before it is used.
    pub fn is_on_trial(&self) -> bool {
        matches!(self.state, UpstreamState::OnTrial { .. })
    }

    /// Whether it has served a request before.
    pub fn is_reused(&self) -> bool {
        !matches!(self.state, UpstreamState::Reserved { reused: false, .. })
    }
}
