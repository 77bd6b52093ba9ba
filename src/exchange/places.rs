//! What a responder says of its places (`doc/protocol.md`, "Places"), during an exchange and while it
//! has none.

use std::cell::Cell;

use crate::bridge::BackendToken;
use crate::bridge::places::{self, Front, Places};
use crate::http::Limits;
use crate::http::response::{self, Response};
use crate::net::conn::{Conn, Received};
use crate::net::workspace::Workspace;

/// How much is read at once, and how often, from a responder without a request: some hundred
/// messages. One that has more to say is broken.
const READ: usize = 4 * 1024;
const READS: usize = 16;

/// A responder that says how many places it has.
pub(crate) struct Speaker {
    /// What shows that a message is its own, and not its application's.
    by: BackendToken,
    /// What it has said last. A call that only looks at the responder may note it.
    said: Cell<Option<Places>>,
}

/// What a responder without a request has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Nothing but whole messages.
    Quiet,
    /// The beginning of a message too, which is in the input.
    Half,
    /// Nothing but whole messages so far, and there is more to read.
    More,
    /// Something else, which is in the input: bytes that belong to no request.
    Stray,
    /// It has ended its connection.
    Ended,
}

/// What is at the front of what a responder has sent in place of an acknowledgement.
pub(crate) enum Word {
    /// A message of this length.
    Message(usize),
    /// Its request is given back by a head of this length.
    GivenBack { len: usize, persistent: bool },
    /// What it is shows when more has come.
    Partial,
    /// Something else.
    Other,
}

impl Speaker {
    pub(crate) fn new(by: BackendToken) -> Speaker {
        Speaker { by, said: Cell::new(None) }
    }

    /// What it has said since the last call.
    pub(crate) fn take(&self) -> Option<Places> {
        self.said.take()
    }

    /// Of several messages the last one counts, by whichever connection they came.
    fn note(&self, places: Places) {
        let is_later = self.said.get().is_none_or(|said| said.at < places.at);
        if is_later {
            self.said.set(Some(places));
        }
    }

    /// Whether `head` is a message of its own.
    pub(super) fn says(&self, head: &[u8]) -> bool {
        let front = places::message(head, &self.by);
        if let Front::Message { places, .. } = front {
            self.note(places);
        }
        matches!(front, Front::Message { .. })
    }

    /// Whether it gives its request back by this response.
    pub(super) fn gives_back(&self, response: &Response<'_, '_>) -> bool {
        let places = places::given_back(response, &self.by);
        if let Some(places) = places {
            self.note(places);
        }
        places.is_some()
    }

    /// What it has sent in answer to a 101.
    pub(crate) fn word(&self, bytes: &[u8], limits: &Limits) -> Word {
        match places::message(bytes, &self.by) {
            Front::Message { places, len } => {
                self.note(places);
                return Word::Message(len);
            }
            Front::Partial => return Word::Partial,
            Front::Other if !places::may_give_back(bytes) => return Word::Other,
            Front::Other => {}
        }
        let mut storage = response::storage();
        match response::parse(bytes, &mut storage, limits, false) {
            Ok(None) => Word::Partial,
            Ok(Some(head)) if self.gives_back(&head) => {
                Word::GivenBack { len: head.len, persistent: head.persistent }
            }
            Ok(Some(_)) | Err(_) => Word::Other,
        }
    }

    /// Takes the messages of a responder that has no request.
    pub(crate) fn listen(&self, conn: &mut Conn, ws: &mut Workspace) -> Heard {
        for _ in 0..READS {
            let heard = self.listen_once(conn, ws);
            if heard != Heard::More {
                return heard;
            }
        }
        Heard::Stray
    }

    /// The same with one read, for a caller that must not take long.
    pub(crate) fn listen_once(&self, conn: &mut Conn, ws: &mut Workspace) -> Heard {
        if !self.take_messages(conn, ws) {
            return Heard::Stray;
        }
        match conn.receive(&mut ws.scratch[..READ]) {
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => {}
            Received::End | Received::Broken(_) => return Heard::Ended,
        }
        match self.take_messages(conn, ws) {
            false => Heard::Stray,
            true if conn.is_readable() => Heard::More,
            true if conn.input.is_empty() => Heard::Quiet,
            true => Heard::Half,
        }
    }

    /// Takes the whole messages out of the input. False if something else follows.
    fn take_messages(&self, conn: &mut Conn, ws: &mut Workspace) -> bool {
        loop {
            match places::message(conn.input.bytes(), &self.by) {
                Front::Message { places, len } => {
                    self.note(places);
                    conn.input.consume(len, &mut ws.pool);
                }
                Front::Partial => return true,
                Front::Other => return false,
            }
        }
    }
}
