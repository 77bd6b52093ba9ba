//! What a connection is to the agent at the moment.

use std::net::SocketAddr;

use crate::bridge::extensions::Extensions;
use crate::exchange::RequestMeta;
use crate::net::conn::Conn;
use crate::net::token::Token;

/// A connection and what it is: an entry of the table.
pub(super) struct Slot {
    pub conn: Conn,
    pub role: Role,
    /// Which of those who lived in this slot this is (see [`Token`]).
    pub generation: u32,
}

impl Slot {
    /// The token of the connection that lives in slot `key`.
    pub fn token(&self, key: usize) -> Token {
        Token::conn(key, self.generation)
    }
}

/// What a connection is. It is one thing at a time.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// A connection to a proxy.
    Bridge(Bridge),
    /// A connection to an application.
    Line(Line),
    /// A connection on which a proxy is asked to close bridges.
    Farewell(Farewell),
    /// A bridge on its way out: its last answer is sent, then our FIN, and then everything is read
    /// and thrown away until the proxy's FIN (RFC 9112, 9.6).
    Leaving,
    /// Closed; freed at the end of the turn.
    Closed,
}

/// A connection to a proxy.
#[derive(Clone, Copy)]
pub(super) struct Bridge {
    /// Which proxy.
    pub proxy: usize,
    /// To which of its addresses.
    pub address: SocketAddr,
    /// What the proxy there has said that it knows.
    pub known: Extensions,
    /// Whether it stays.
    pub stay: Stay,
    /// How far it has come.
    pub stage: Stage,
}

/// Whether a bridge stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// It does.
    Stays,
    /// The proxy has been asked to close it when it has nothing to do, and closes it from its side.
    Leaves,
}

/// A connection on which a proxy is asked to close bridges.
#[derive(Clone, Copy)]
pub(super) struct Farewell {
    /// Which proxy.
    pub proxy: usize,
    /// The address that the bridges are connected to.
    pub address: SocketAddr,
}

/// How far a bridge has come.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The connect is under way.
    Dialling {
        /// How many other addresses have failed before.
        tried: usize,
    },
    /// BRIDGE has been sent, and no answer has come.
    Registering,
    /// It has been accepted, at this time in milliseconds, and gets pings until a request comes.
    Parked { since: u64 },
    /// The 101 has come. The acknowledgement follows when what is needed is there.
    Matched(Need),
    /// The acknowledgement has been sent; it has a place, and a line unless that was lost since.
    Ready { line: Option<Token> },
    /// It has been through an exchange, and waits for its next request.
    Idle(Head),
    /// A request, whole head and all, stands in its input, and is sent when what is needed is
    /// there.
    Asking {
        /// What the exchange will have to know.
        request: Request,
        /// What it waits for.
        need: Need,
    },
    /// Its request is being served.
    Requesting {
        /// The exchange, in the table.
        exchange: usize,
    },
}

impl Stage {
    /// Whether it has one of the places that `-n` allows.
    pub fn has_place(&self) -> bool {
        match self {
            Stage::Matched(need) | Stage::Asking { need, .. } => matches!(need, Need::Line(_)),
            Stage::Ready { .. } | Stage::Requesting { .. } => true,
            Stage::Dialling { .. } | Stage::Registering | Stage::Parked { .. } | Stage::Idle(_) => {
                false
            }
        }
    }

    /// The line that has been dialled or kept for it, if any.
    pub fn own_line(&self) -> Option<Token> {
        match *self {
            Stage::Matched(Need::Line(line)) | Stage::Asking { need: Need::Line(line), .. } => {
                Some(line)
            }
            Stage::Ready { line } => line,
            _ => None,
        }
    }
}

/// A request that has been read.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// What the exchange has to know.
    pub meta: RequestMeta,
    /// Whether the application may have seen some of it.
    pub sight: Sight,
}

/// Whether an application may have seen some of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Not a byte has been given to it.
    Unseen,
    /// It was sent over a line that broke.
    Perhaps,
}

/// What a bridge with something to serve still lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// One of the places that `-n` allows; it stands in the application's queue.
    Place,
    /// This line, which is being dialled; it has a place.
    Line(Token),
}

/// How much of a bridge's next head is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing of it has been seen.
    Unread,
    /// The input holds its beginning, and the rest must follow in time.
    Begun,
}

/// A connection to an application.
#[derive(Clone, Copy)]
pub(super) struct Line {
    /// Which application.
    pub application: usize,
    /// What it is there for.
    pub purpose: Purpose,
}

/// What a line is there for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// The connect is under way, to see if anybody is there, after so many addresses that failed.
    Probe { tried: usize },
    /// The connect is under way, for this bridge.
    Dialled { bridge: Token },
    /// It is kept for this bridge, which has acknowledged and will have a request in a moment.
    Kept { bridge: Token, age: Age },
    /// It is in the pool.
    Idle,
    /// It serves a request.
    Responding {
        /// The exchange, in the table.
        exchange: usize,
        /// Whether it has served before, and so may be closed by the application at any moment.
        age: Age,
    },
}

/// Whether a line has served before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// It was dialled for this request.
    New,
    /// It comes from the pool: that it is closed just now is nobody's failure.
    Reused,
}

impl Line {
    /// Whether a bridge has something to do with it.
    pub fn serves(&self) -> bool {
        match self.purpose {
            Purpose::Probe { .. } | Purpose::Idle => false,
            Purpose::Dialled { .. } | Purpose::Kept { .. } | Purpose::Responding { .. } => true,
        }
    }
}
